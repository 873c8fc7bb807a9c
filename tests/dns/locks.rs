//! The lock in the zone, on real name servers and on the stand-ins that compare and set; and the play
//! that every kind of lock has to pass.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use pilotfish::cutover::lock::{Claim, Held, Lock, LockError, LockSpec, lock};
use pilotfish::dns::{CompareAndSet, DnsSpec, RrSet};
use pilotfish_harness::dns::NOTE;
use pilotfish_harness::dns::faults::{Fault, On};
use pilotfish_harness::dns::http::Response;

use crate::stage::{self, Stage, env, make};

const LONG: Duration = Duration::from_secs(60);

pub fn claim(owner: &str, lease: Duration) -> Claim {
    Claim {
        owner: owner.to_owned(),
        purpose: "cutover to rbx".to_owned(),
        plan: "0123456789abcdef".to_owned(),
        lease,
    }
}

/// Twenty at once, twice; what the winner sees, and what the losers hear.
pub async fn one_holds(make: impl Fn() -> Box<dyn Lock>) {
    let mut last = 0;
    for _ in 0..2 {
        let locks: Vec<_> = (0..20).map(|_| make()).collect();
        let claims: Vec<_> = (0..20)
            .map(|n| claim(&format!("app-{n:02}"), LONG))
            .collect();
        let tries = locks
            .iter()
            .zip(&claims)
            .map(|(lock, claim)| lock.acquire(claim));
        let mut winners = Vec::new();
        for (at, outcome) in join_all(tries).await.into_iter().enumerate() {
            match outcome {
                Ok(held) => winners.push((at, held)),
                Err(LockError::Busy { holder, until }) => {
                    assert!(holder.starts_with("app-"), "{holder}");
                    assert!(until.is_some());
                }
                Err(error) => panic!("{at}: {error}"),
            }
        }
        assert_eq!(winners.len(), 1);
        let (at, mut held) = winners.remove(0);
        assert!(held.epoch > last, "{} after {last}", held.epoch);
        last = held.epoch;
        let holder = make().holder().await.unwrap().expect("it is held");
        assert_eq!((holder.owner, holder.epoch), (format!("app-{at:02}"), last));
        assert_eq!(holder.purpose, "cutover to rbx");
        locks[at].renew(&mut held).await.unwrap();
        locks[at].release(held).await.unwrap();
        assert_eq!(make().holder().await.unwrap(), None);
    }
}

/// Tries until the lock is free.
async fn patiently(lock: &dyn Lock, claim: &Claim) -> Held {
    let begun = Instant::now();
    loop {
        match lock.acquire(claim).await {
            Ok(held) => return held,
            Err(LockError::Busy { .. }) if begun.elapsed() < LONG => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Whoever does not renew is succeeded by one of many, and hears of it.
pub async fn a_lease_ends(make: impl Fn() -> Box<dyn Lock>) {
    let old = make();
    let short = Duration::from_secs(1);
    let mut lost = old.acquire(&claim("old", short)).await.unwrap();
    let early = make().acquire(&claim("early", short)).await.unwrap_err();
    assert!(matches!(early, LockError::Busy { .. }), "{early}");
    let heirs: Vec<_> = (0..5).map(|_| make()).collect();
    let claims: Vec<_> = (0..5).map(|n| claim(&format!("heir-{n}"), LONG)).collect();
    let first = patiently(&*heirs[0], &claims[0]).await;
    assert!(first.epoch > lost.epoch);
    for at in 1..5 {
        let late = heirs[at].acquire(&claims[at]).await.unwrap_err();
        assert!(
            matches!(&late, LockError::Busy { holder, .. } if holder == "heir-0"),
            "{late}"
        );
    }
    assert_eq!(old.renew(&mut lost).await, Err(LockError::Lost));
    assert_eq!(old.release(lost).await, Err(LockError::Lost));
    heirs[0].release(first).await.unwrap();
}

fn in_zone(dns: &DnsSpec) -> Result<Box<dyn Lock>, LockError> {
    let spec = LockSpec::Dns {
        dns: dns.clone(),
        name: NOTE.parse().unwrap(),
        margin: Duration::from_millis(300),
    };
    lock(&spec, &env())
}

fn run(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future);
}

/// On whatever compares and sets.
fn play(stage: Stage) {
    run(async {
        one_holds(|| in_zone(&stage.spec).unwrap()).await;
        a_lease_ends(|| in_zone(&stage.spec).unwrap()).await;
    });
}

#[test]
fn bind() {
    play(stage::bind());
}

#[test]
fn knot() {
    play(stage::knot());
}

#[test]
fn powerdns_by_update() {
    play(stage::powerdns_by_update());
}

#[test]
fn route53() {
    play(stage::route53());
}

#[test]
fn akamai() {
    play(stage::akamai());
}

#[test]
fn who_cannot_compare_and_set_is_refused() {
    let all = [
        stage::bind(),
        stage::powerdns(),
        stage::route53(),
        stage::cloudflare(),
        stage::linode(),
        stage::ovh(),
        stage::digitalocean(),
        stage::akamai(),
        stage::akamai_gtm(),
    ];
    for stage in all {
        let able = stage.provider.capabilities().compare_and_set == CompareAndSet::Server;
        assert_eq!(stage.provider.kind().compares_and_sets(), able);
        if able {
            continue;
        }
        let Err(refused) = in_zone(&stage.spec) else {
            panic!("{} has a lock", stage.provider.kind().as_str());
        };
        assert!(matches!(refused, LockError::Refused(_)));
        let text = refused.to_string();
        assert!(
            text.contains("compare and set") && text.contains("etcd"),
            "{text}"
        );
    }
}

#[test]
fn a_wrong_key_and_a_foreign_text_are_told() {
    let stage = stage::bind();
    run(async {
        let mut wrong = stage.spec.clone();
        if let pilotfish::dns::ProviderSpec::Rfc2136(spec) = &mut wrong.provider {
            spec.key = pilotfish::secret::Secret::new(stage.strange.to_owned());
        }
        let claim = claim("app-01", LONG);
        let refused = in_zone(&wrong).unwrap().acquire(&claim).await.unwrap_err();
        assert!(matches!(refused, LockError::Refused(_)), "{refused}");
        assert!(!refused.to_string().contains(stage.strange));
        let lock = in_zone(&stage.spec).unwrap();
        let held = lock.acquire(&claim).await.unwrap();
        // Somebody writes over it, by half.
        let key = format!("{NOTE} TXT").parse().unwrap();
        let editor = make(&stage.spec);
        let seen = editor.read(std::slice::from_ref(&key)).await.unwrap();
        let half = RrSet::parse(&key, 0, ["v=1;epoch=1;unt"]).unwrap();
        let half = pilotfish::dns::record::records([half]);
        let change = pilotfish::dns::Change::new(&seen.records, &half, "").unwrap();
        editor.change(&change).await.unwrap();
        assert!(matches!(lock.release(held).await, Err(LockError::Lost)));
        let refused = lock.acquire(&claim).await.unwrap_err();
        assert!(
            refused.to_string().contains("not what a lock writes"),
            "{refused}"
        );
        assert!(matches!(lock.holder().await, Err(LockError::Refused(_))));
    });
}

#[test]
fn a_lost_answer_leaves_no_doubt_about_who_holds() {
    let stage = stage::bind();
    run(async {
        let lock = in_zone(&stage.spec).unwrap();
        // The update is carried out, and nobody hears of it.
        stage.faults.add(On::Write, Fault::After(Response::Silence));
        let mut held = lock.acquire(&claim("app-01", LONG)).await.unwrap();
        stage.faults.add(On::Write, Fault::After(Response::Silence));
        lock.renew(&mut held).await.unwrap();
        // It is not even seen: the lease is what it was, and the lock still ours.
        stage
            .faults
            .add(On::Write, Fault::Before(Response::Silence));
        let unsure = lock.renew(&mut held).await.unwrap_err();
        assert!(matches!(unsure, LockError::Unavailable(_)), "{unsure}");
        lock.renew(&mut held).await.unwrap();
        assert_eq!(stage.faults.clear(), 0, "all were met");
        lock.release(held).await.unwrap();
    });
}
