//! One test, over every provider there is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pilotfish::dns::record::records;
use pilotfish::dns::{
    Capabilities, Change, CompareAndSet, DnsError, Key, Kind, Observed, Outcome, Provider,
    ProviderKind, PublishStep, Published, Records, Retry, RrSet,
};
use pilotfish_harness::dns::NOTE;
use pilotfish_harness::dns::faults::{Fault, On};
use pilotfish_harness::dns::http::Response;

use crate::stage::{self, Stage, region, set};

macro_rules! plays {
    ($($stage:ident: $kind:ident,)*) => {
        /// Every provider has a stage, and every stage the same play.
        const STAGES: &[ProviderKind] = &[$(ProviderKind::$kind),*];

        $(#[test]
        fn $stage() {
            play(stage::$stage());
        })*
    };
}

plays! {
    bind: Rfc2136,
    knot: Rfc2136,
    powerdns_by_update: Rfc2136,
    powerdns: PowerDns,
    route53: Route53,
    cloudflare: Cloudflare,
    linode: Linode,
    ovh: Ovh,
    digitalocean: DigitalOcean,
    akamai: Akamai,
    akamai_gtm: AkamaiGtm,
}

#[test]
fn every_provider_is_on_a_stage() {
    for maker in pilotfish::dns::PROVIDERS {
        let kind = maker.kind();
        assert!(STAGES.contains(&kind), "{}", kind.as_str());
    }
}

fn play(stage: Stage) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut play = Play {
            rules: stage.provider.capabilities(),
            stage,
            heard: Vec::new(),
        };
        play.reads_and_checks().await;
        play.moves_together_once().await;
        play.refuses_what_is_not_expected().await;
        play.notices_an_editor_in_between().await;
        play.has_several_values_or_one_family().await;
        play.swaps_types_only_without_a_gap().await;
        play.leaves_word_in_a_text().await;
        play.waits_a_little_when_told_to().await;
        play.never_sends_twice_what_may_have_happened().await;
        play.asks_again_when_only_the_answer_is_lost().await;
        play.says_who_is_not_welcome().await;
        play.tells_no_secret();
    });
}

struct Play {
    stage: Stage,
    rules: Capabilities,
    /// Everything anybody was told.
    heard: Vec<String>,
}

impl Play {
    fn provider(&self) -> &dyn Provider {
        &*self.stage.provider
    }

    /// Of `sets`, what this provider has.
    fn only(&self, sets: Records) -> Records {
        if self.stage.both {
            return sets;
        }
        let a = pilotfish::dns::RecordType::A;
        sets.into_iter().filter(|(key, _)| key.rtype == a).collect()
    }

    fn region(&self, n: u8) -> Records {
        let ttl = self.rules.ttl.effective(60);
        self.only(region(n, u64::from(ttl)))
    }

    async fn now(&self) -> Observed {
        let keys: Vec<_> = self.only(region(1, 60)).into_keys().collect();
        self.stage.editor.read(&keys).await.unwrap()
    }

    /// From what is there to region `n`.
    async fn to(&self, n: u8) -> Change {
        Change::new(&self.now().await.records, &self.region(n), "test").unwrap()
    }

    fn hear(&mut self, error: DnsError) -> DnsError {
        self.heard.push(format!("{error} {error:?}"));
        error
    }

    async fn refused(&mut self, change: &Change) -> DnsError {
        let result = self.provider().change(change).await;
        let error = result.expect_err("the change should have been refused");
        self.hear(error)
    }

    fn fault(&self, on: On, fault: Fault) {
        self.stage.faults.add(on, fault);
    }

    fn met_all_faults(&self) {
        assert_eq!(self.stage.faults.clear(), 0, "faults that nothing met");
    }

    async fn reads_and_checks(&mut self) {
        let beginning = self.only(region(10, 300));
        let keys: Vec<_> = beginning.keys().cloned().collect();
        let seen = self.provider().read(&keys).await.unwrap();
        assert_eq!(seen.records, beginning);
        assert!(seen.proxied.is_empty());
        self.provider().check(&keys).await.unwrap();
        assert_eq!(self.provider().read(&keys).await.unwrap(), seen);
        // What is not there is read as not there.
        let cname = [set("CNAME", 60, &["a.example.net"]).key()];
        let none = self.provider().read(&cname).await;
        if self.stage.both {
            assert!(none.unwrap().records.is_empty());
            self.provider().check(&cname).await.unwrap();
            assert_eq!(self.provider().read(&keys).await.unwrap(), seen);
        }
    }

    async fn moves_together_once(&mut self) {
        let wanted = self.only(region(20, 60));
        let change = Change::new(&self.now().await.records, &wanted, "there").unwrap();
        let done = self.provider().change(&change).await.unwrap();
        assert_eq!(done.outcome, Outcome::Applied);
        for (key, want) in &wanted {
            let got = &done.observed.records[key];
            assert_eq!(got.values(), want.values());
            // Who rounds says so; which way, the documentation does not agree with itself.
            let kept = got.ttl() == self.rules.ttl.effective(60);
            assert!(kept || self.rules.ttl.silent, "{key} {}", got.ttl());
            let clamped = done.clamped.iter().find(|c| c.key == *key);
            assert_eq!(clamped.is_some(), got.ttl() != 60, "{clamped:?}");
        }
        assert_eq!(self.now().await.records, done.observed.records);
        self.wait_published(&done.receipt).await;

        let writes = self.stage.faults.writes();
        let again = self.provider().change(&change).await.unwrap();
        assert_eq!(again.outcome, Outcome::AlreadyDone);
        let publishing = usize::from(self.rules.publish == PublishStep::Explicit);
        assert!(self.stage.faults.writes() - writes <= publishing);

        let back = change.inverse("back").unwrap();
        assert_eq!(
            self.provider().change(&back).await.unwrap().outcome,
            Outcome::Applied
        );
        assert_eq!(self.now().await.records, self.only(region(10, 300)));
    }

    async fn wait_published(&self, receipt: &pilotfish::dns::Receipt) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Published::Pending(why) = self.provider().published(receipt).await.unwrap() {
            assert!(Instant::now() < deadline, "still pending: {why}");
        }
    }

    async fn refuses_what_is_not_expected(&mut self) {
        let before = self.now().await;
        let wrong = Change::new(&self.region(77), &self.region(20), "").unwrap();
        let writes = self.stage.faults.writes();
        let error = self.refused(&wrong).await;
        assert!(matches!(&error.kind, Kind::Conflict { found } if *found == before.records));
        assert_eq!(error.retry(), Retry::Never);
        assert_eq!(self.stage.faults.writes(), writes);

        // Only one of the sets was changed by somebody: nothing moves.
        let change = self.to(20).await;
        let mut theirs = before.records.clone();
        theirs.extend(records([set("A", 300, &["192.0.2.99"])]));
        self.edit(&theirs).await;
        let error = self.refused(&change).await;
        assert!(matches!(error.kind, Kind::Conflict { .. }), "{error}");
        assert_eq!(self.now().await.records, theirs);
        self.edit(&before.records).await;
        assert_eq!(self.now().await.records, before.records);
    }

    async fn edit(&self, to: &Records) {
        let change = Change::new(&self.now().await.records, to, "editor").unwrap();
        self.stage.editor.change(&change).await.unwrap();
    }

    /// Where the server compares, an editor between our look and our write is noticed as well.
    async fn notices_an_editor_in_between(&mut self) {
        if self.rules.compare_and_set != CompareAndSet::Server {
            return;
        }
        let change = self.to(20).await;
        let before = self.now().await.records;
        let mut theirs = before.clone();
        theirs.extend(records([set("AAAA", 300, &["2001:db8::99"])]));
        let edit = Change::new(&before, &theirs, "editor").unwrap();
        let editor: Arc<dyn Provider> = self.stage.editor.clone();
        let act = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(editor.change(&edit)).unwrap();
        };
        self.fault(On::Write, Fault::Meanwhile(Box::new(act)));
        let error = self.refused(&change).await;
        assert!(matches!(error.kind, Kind::Conflict { .. }), "{error}");
        self.met_all_faults();
        assert_eq!(self.now().await.records, theirs);
        self.edit(&before).await;
    }

    async fn has_several_values_or_one_family(&mut self) {
        if !self.stage.both {
            return;
        }
        let ttl = u64::from(self.rules.ttl.effective(60));
        let before = self.now().await.records;
        let many = set("A", ttl, &["192.0.2.31", "192.0.2.32", "192.0.2.33"]);
        let fewer = set("A", ttl, &["192.0.2.32", "192.0.2.34"]);
        for sets in [records([many]), records([fewer]), self.region(30)] {
            let change = Change::new(&self.now().await.records, &sets, "").unwrap();
            let gaps = self.watch_for_gaps(&change);
            self.provider().change(&change).await.unwrap();
            self.stage.faults.clear();
            assert_eq!(gaps.load(Ordering::SeqCst), 0, "the name had no records");
            assert_eq!(self.now().await.records, sets);
        }
        self.edit(&before).await;
    }

    /// Looks before every request that may change something whether the name has any records.
    fn watch_for_gaps(&self, change: &Change) -> Arc<AtomicUsize> {
        let gaps = Arc::new(AtomicUsize::new(0));
        for _ in 0..8 {
            let (gaps, editor, keys) = (gaps.clone(), self.stage.editor.clone(), change.keys());
            let look = move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                let seen = runtime.unwrap().block_on(editor.read(&keys));
                if seen.is_ok_and(|seen| !seen.records.is_empty()) {
                    return;
                }
                gaps.fetch_add(1, Ordering::SeqCst);
            };
            self.fault(On::Write, Fault::Meanwhile(Box::new(look)));
        }
        gaps
    }

    async fn swaps_types_only_without_a_gap(&mut self) {
        if !self.stage.both {
            return;
        }
        let before = self.now().await.records;
        let ttl = u64::from(self.rules.ttl.effective(60));
        let cname = set("CNAME", ttl, &["lb.example.net"]);
        let to = records([cname.clone()]);
        let change = Change::new(&before, &to, "").unwrap();
        if !self.rules.atomic {
            let error = self.refused(&change).await;
            assert_eq!(error.kind, Kind::Unsupported);
            assert_eq!(self.now().await.records, before);
            return;
        }
        let done = self.provider().change(&change).await.unwrap();
        assert_eq!(done.observed.records, to);
        assert!(self.now().await.records.is_empty());
        let back = change.inverse("").unwrap();
        self.provider().change(&back).await.unwrap();
        assert_eq!(self.now().await.records, before);
    }

    /// What a lock in the DNS needs: who comes second is told so, where the server compares.
    async fn leaves_word_in_a_text(&mut self) {
        if !self.stage.both {
            return;
        }
        let ttl = u64::from(self.rules.ttl.effective(60));
        let key: Key = format!("{NOTE} TXT").parse().unwrap();
        let text = |text: &str| records([RrSet::parse(&key, ttl, [text]).unwrap()]);
        let (mine, theirs) = (text("epoch=1; by=app-01"), text("epoch=1; by=app-02"));
        let take = Change::new(&Records::new(), &mine, "").unwrap();
        let done = self.provider().change(&take).await.unwrap();
        assert_eq!(done.observed.records, mine);
        let second = Change::new(&Records::new(), &theirs, "").unwrap();
        let error = self.refused(&second).await;
        assert!(
            matches!(&error.kind, Kind::Conflict { found } if *found == mine),
            "{error}"
        );
        let free = text("epoch=1; free");
        let back = Change::new(&mine, &free, "").unwrap();
        self.provider().change(&back).await.unwrap();
        let seen = self.stage.editor.read(&[key]).await.unwrap();
        assert_eq!(seen.records, free);
    }

    async fn waits_a_little_when_told_to(&mut self) {
        if !self.stage.http {
            return;
        }
        let too_many = |after: &str| {
            let response = Response::empty(429).with_header("retry-after", after);
            Fault::Before(response)
        };
        let change = self.to(40).await;
        self.fault(On::Write, too_many("1"));
        let began = Instant::now();
        self.provider().change(&change).await.unwrap();
        assert!(began.elapsed() >= Duration::from_secs(1));
        self.met_all_faults();

        let before = self.now().await;
        let change = self.to(41).await;
        self.fault(On::Write, too_many("3600"));
        let error = self.refused(&change).await;
        let hour = Some(Duration::from_secs(3600));
        assert_eq!(error.kind, Kind::RateLimited { retry_after: hour });
        assert_eq!(error.retry(), Retry::Later);
        assert_eq!(self.now().await.records, before.records);
    }

    async fn never_sends_twice_what_may_have_happened(&mut self) {
        let mut n = 50;
        for after in [false, true] {
            for response in [
                Response::Silence,
                Response::empty(503),
                Response::empty(500),
            ] {
                if !self.stage.http && matches!(&response, Response::Answer { status: 500, .. }) {
                    continue;
                }
                n += 1;
                let change = self.to(n).await;
                let fault = match after {
                    false => Fault::Before(response),
                    true => Fault::After(response),
                };
                self.fault(On::Write, fault);
                let error = self.refused(&change).await;
                assert_eq!(error.kind, Kind::Unknown, "{error}");
                assert_eq!(error.retry(), Retry::ReadFirst);
                self.met_all_faults();
                // Read first: whatever happened, the same change finishes it.
                self.provider().read(&change.keys()).await.unwrap();
                self.provider().change(&change).await.unwrap();
                assert_eq!(self.now().await.records, self.region(n));
            }
        }
    }

    async fn asks_again_when_only_the_answer_is_lost(&mut self) {
        let keys = self.to(60).await.keys();
        if self.stage.http {
            self.fault(On::Read, Fault::Before(Response::empty(502)));
            self.fault(On::Read, Fault::After(Response::empty(500)));
            let seen = self.provider().read(&keys).await.unwrap();
            assert_eq!(seen.records, self.now().await.records);
            self.met_all_faults();
            // The copy that is read back lags a little.
            let change = self.to(61).await;
            self.provider().change(&change).await.unwrap();
            let change = self.to(62).await;
            let seen = self.provider().read(&keys).await.unwrap();
            assert_eq!(seen.records, self.region(61));
            self.fault(On::Read, Fault::Nothing);
            self.fault(On::Read, Fault::Stale);
            self.provider().change(&change).await.unwrap();
            assert_eq!(self.now().await.records, self.region(62));
            self.stage.faults.clear();
        } else {
            self.fault(On::Read, Fault::Before(Response::Silence));
            let error = self.provider().read(&keys).await.unwrap_err();
            assert_eq!(self.hear(error).retry(), Retry::Later);
        }
    }

    async fn says_who_is_not_welcome(&mut self) {
        let change = self.to(70).await;
        let before = self.now().await.records;
        for error in [
            self.stage.stranger.change(&change).await.map(|_| ()),
            self.stage.stranger.check(&change.keys()).await.map(|_| ()),
        ] {
            let error = error.unwrap_err();
            assert_eq!(error.kind, Kind::BadCredentials, "{error}");
            self.hear(error);
        }
        assert_eq!(self.now().await.records, before);
        if !self.stage.http {
            return;
        }
        // A server that repeats everything it was sent.
        for secret in self.stage.secrets.clone() {
            let body = serde_json::json!({"message": secret, "errors": [{"reason": secret, "message": secret}],
                "error": secret, "title": secret, "detail": secret});
            self.fault(On::Read, Fault::Before(Response::json(400, &body)));
            let read = self.provider().read(&change.keys()).await;
            self.hear(read.unwrap_err());
            self.met_all_faults();
        }
    }

    fn tells_no_secret(&mut self) {
        self.heard.push(format!("{:?}", self.stage.spec));
        assert!(self.heard.len() >= 8);
        for said in &self.heard {
            let own = self.stage.secrets.iter().map(String::as_str);
            for secret in own.chain([self.stage.strange]) {
                assert!(!said.contains(secret), "{said}");
            }
        }
    }
}
