//! What the state machine asks for, except planning. Each ends with the event that says what came of it.

use crate::cutover::gate::judge::fenced;
use crate::cutover::gate::{Name, Verdict, gather, overrule};
use crate::cutover::journal::Run;
use crate::cutover::machine::{Action, Event, State};
use crate::cutover::plan::Plan;
use crate::cutover::spec::{HookSpec, When};
use crate::cutover::tools::{Tools, shortened};
use crate::dns::Observed;

/// One thing to do, and all there is to know for it.
pub struct Job<'a> {
    pub tools: &'a Tools,
    pub run: &'a str,
    pub state: &'a State,
    pub history: &'a [Run],
    pub lock: &'a Result<Option<String>, String>,
    /// As it was planned with.
    pub observed: &'a Observed,
}

impl Job<'_> {
    /// Cancel safe where the records are only looked at; see [`Provider`](crate::dns::Provider) for
    /// sending.
    pub async fn act(&self, action: &Action) -> Event {
        let Some(plan) = &self.state.plan else {
            // A rollback of what was never planned: only its hooks and its fence are left.
            return match action {
                Action::Hook(when, index) => self.hook(*when, *index).await,
                Action::Release => self.release().await,
                _ => super::failed("there is no plan"),
            };
        };
        match action {
            Action::Judge => self.judge(plan).await,
            Action::Hook(when, index) => self.hook(*when, *index).await,
            Action::AnnounceFence => Event::Fencing,
            Action::Fence => self.fence(plan).await,
            Action::Prove => self.prove(plan).await,
            Action::AnnouncePromotion(index) => self.announce_promotion(plan, *index),
            Action::Promote(index) => self.promote(plan, *index).await,
            Action::Open => self.open(plan).await,
            Action::AnnounceSending(attempt) => self.before_sending(plan, *attempt).await,
            Action::Send => self.send(plan).await,
            Action::Settle => self.settle(plan).await,
            Action::AwaitDeployed => self.deployed().await,
            Action::AwaitServed => self.served(plan).await,
            Action::AwaitConverged => self.converged(plan).await,
            Action::Release => self.release().await,
            Action::Plan | Action::Rest => super::failed("there is nothing to do"),
        }
    }

    async fn judge(&self, plan: &Plan) -> Event {
        let asked = gather::Asked {
            run: self.run,
            order: &self.state.order,
            plan,
            observed: self.observed,
            lock: self.lock.clone(),
            history: self.history,
        };
        let mut verdicts = gather::verdicts(self.tools, &asked).await;
        overrule(&mut verdicts, &self.state.order.overrides);
        Event::Judged { verdicts }
    }

    async fn hook(&self, when: When, index: usize) -> Event {
        let clock = self.tools.env.clock;
        let begun = clock.now();
        let mine = |hook: &&HookSpec| hook.when == when;
        let (ok, why) = match self.tools.spec.hooks.iter().filter(mine).nth(index) {
            Some(hook) => {
                let mut env = self.tools.env_for(self.run, self.state);
                env.insert("PILOTFISH_HOOK".to_owned(), when.as_str().to_owned());
                self.tools.run(&hook.command, &env).await
            }
            // The config has changed since the plan.
            None => (false, "there is no such hook any more".to_owned()),
        };
        let took = clock.now().since(begun).as_millis();
        Event::HookRan {
            when,
            index,
            ok,
            why,
            took_ms: u64::try_from(took).unwrap_or(u64::MAX),
        }
    }

    async fn fence(&self, plan: &Plan) -> Event {
        let mut said = Vec::new();
        let mut ok = true;
        if let Some(command) = &self.tools.spec.fence.command {
            let env = self.tools.env_for(self.run, self.state);
            let (ran, why) = self.tools.run(command, &env).await;
            ok &= ran;
            said.push(why);
        }
        let (paused, why) = self.pause(plan.from.as_deref(), true).await;
        ok &= paused == why.len();
        said.extend(why);
        Event::Fenced {
            ok,
            why: shortened(&said.join("; ")),
        }
    }

    /// All sidecars of a region, one after the other: how many did it, and what each said.
    async fn pause(&self, region: Option<&str>, pause: bool) -> (usize, Vec<String>) {
        let region = region.and_then(|name| self.tools.spec.region(name));
        let mut done = 0;
        let mut said = Vec::new();
        for admin in region.map(|it| it.admin.as_slice()).unwrap_or_default() {
            match self.tools.world.pause(admin, pause).await {
                Ok(word) => {
                    done += 1;
                    said.push(word);
                }
                Err(why) => said.push(format!("{}: {why}", admin.display())),
            }
        }
        (done, said)
    }

    /// Where the records lead next nobody may wait any more. A sidecar that cannot be reached serves nobody
    /// and stops nothing; but if not one of them can be told, they may all hold their clients.
    async fn open(&self, plan: &Plan) -> Event {
        let (done, said) = self.pause(Some(&plan.to), false).await;
        Event::Opened {
            ok: done > 0,
            why: shortened(&said.join("; ")),
        }
    }

    async fn prove(&self, plan: &Plan) -> Event {
        let facts = gather::fence(self.tools, self.run, plan, false).await;
        let (says, why) = fenced(&facts);
        let mut verdict = [Verdict::of(Name::OldRegionFenced, says, why)];
        overrule(&mut verdict, &self.state.order.overrides);
        let [verdict] = verdict;
        Event::Proved { verdict }
    }

    async fn release(&self) -> Event {
        let mut said = Vec::new();
        let mut ok = true;
        if let Some(command) = &self.tools.spec.fence.release {
            let env = self.tools.env_for(self.run, self.state);
            let (ran, why) = self.tools.run(command, &env).await;
            ok &= ran;
            said.push(why);
        }
        if let Some(plan) = &self.state.plan {
            let (resumed, why) = self.pause(plan.from.as_deref(), false).await;
            ok &= resumed == why.len();
            said.extend(why);
        }
        Event::Released {
            ok,
            why: shortened(&said.join("; ")),
        }
    }

    fn announce_promotion(&self, plan: &Plan, index: usize) -> Event {
        match plan.course.promote.get(index) {
            Some(service) => Event::Promoting {
                service: service.clone(),
            },
            None => super::failed("there is no such service"),
        }
    }

    async fn promote(&self, plan: &Plan, index: usize) -> Event {
        let service = plan.course.promote.get(index).cloned().unwrap_or_default();
        let spec = self
            .tools
            .spec
            .promote
            .iter()
            .find(|one| one.service == service);
        let done = match spec {
            Some(spec) => {
                let to = spec.to.get(&plan.to);
                self.tools.world.promote(&service, to, spec.timeout).await
            }
            None => Err("it is not in [[cutover.promote]] any more".to_owned()),
        };
        let (ok, why) = match done {
            Ok(why) => (true, why),
            Err(why) => (false, why),
        };
        Event::Promoted {
            service,
            ok,
            why: shortened(&why),
        }
    }
}
