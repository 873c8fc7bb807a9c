//! From the first attempt on: the change, and what is waited for after it.

use super::{Event, Misfit, Phase, State};

impl State {
    /// The change itself.
    pub(super) fn change(&mut self, event: &Event, time: &str) -> Result<(), Misfit> {
        let now = || Some(time.to_owned());
        match (self.phase, event) {
            (Phase::Applying, Event::Sending { attempt }) => {
                self.attempt = *attempt;
                self.touched = true;
                self.phase = Phase::Sending;
            }
            (
                Phase::Sending,
                Event::Accepted {
                    receipt,
                    stored,
                    proxied,
                    notes,
                },
            ) => {
                self.receipt.clone_from(receipt);
                self.stored.clone_from(stored);
                self.proxied.clone_from(proxied);
                self.notes.extend(notes.iter().cloned());
                self.finish.accepted = now();
                self.phase = Phase::Deploying;
            }
            (Phase::Sending, Event::Unsettled { why }) => {
                self.doubt = true;
                self.notes.push(why.clone());
                self.phase = Phase::Settling;
            }
            (
                Phase::Sending,
                Event::NotSent {
                    why,
                    conflict,
                    again,
                },
            ) => {
                self.not_sent(why, *conflict, *again);
            }
            (Phase::Settling, Event::Settled { left, why }) => self.settled(*left, why),
            _ => return self.after_change(event, time),
        }
        Ok(())
    }

    /// From the provider's word to the end.
    fn after_change(&mut self, event: &Event, time: &str) -> Result<(), Misfit> {
        let now = || Some(time.to_owned());
        match (self.phase, event) {
            (Phase::Deploying, Event::Deployed { signal }) => {
                self.finish.deployed = now().filter(|_| *signal);
                self.phase = Phase::Serving;
            }
            (Phase::Deploying, Event::NotDeployed { why }) => {
                // The servers themselves are the truth.
                self.notes.push(why.clone());
                self.phase = Phase::Serving;
            }
            (Phase::Serving, Event::Served { .. }) => {
                self.finish.served = now();
                self.go(if self.back {
                    Phase::Releasing
                } else {
                    Phase::Converging
                });
            }
            (Phase::Serving, Event::NotServed { waiting_for }) => {
                let why = format!("not every name server has it: {}", waiting_for.join("; "));
                self.park(Phase::Serving, why);
            }
            (Phase::Releasing, Event::Released { ok, why }) => {
                if !ok {
                    self.notes
                        .push(format!("the fence was not released: {why}"));
                }
                self.fenced = false;
                self.released();
            }
            (Phase::Converging, Event::Converged { notes }) => {
                self.notes.extend(notes.iter().cloned());
                self.finish.converged = now();
                self.go(Phase::HooksAfter);
            }
            (Phase::HooksAfter, Event::HookRan { ok, why, .. }) => {
                if !ok {
                    self.notes.push(format!("a hook failed: {why}"));
                }
                self.index += 1;
                self.skip_empty();
            }
            _ => return Err(self.misfit(event)),
        }
        Ok(())
    }
}
