//! The proof that records are served: a parent, two name servers and a resolver, all real.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use pilotfish::dns::verify::judge::{Expected, State, Verdict};
use pilotfish::dns::verify::{Signed, Verifier, VerifyError};
use pilotfish::dns::{Change, Key, Observed, Outcome, VerifySpec};
use pilotfish_harness::dns::bind::{Bind, Options};
use pilotfish_harness::dns::knot::Knot;
use pilotfish_harness::dns::unbound::Unbound;
use pilotfish_harness::dns::{KEY, KEY_NAME, ZONE};
use pilotfish_harness::{ports, wait};

use crate::stage::{BEGINNING, env, make, region, rfc2136};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const NS1: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const NS2: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

/// What the primary is; the secondary is BIND.
#[derive(Clone, Copy)]
enum By {
    Bind,
    Knot,
}

/// One secondary hears of changes at once, the lazy one never.
struct Site {
    primary: SocketAddr,
    _primary: Box<dyn std::any::Any>,
    secondary: Bind,
    unbound: Unbound,
    parent: Bind,
}

impl Site {
    fn start(by: By, lazy: bool, min_ttl: u32) -> Self {
        let parent = Bind::parent([NS1, NS2], false, false).unwrap();
        let second = ports::free().unwrap();
        let mut records: Vec<String> = BEGINNING.map(str::to_owned).to_vec();
        records.push("www 120 CNAME shop".to_owned());
        records.push("round 60 CNAME around".to_owned());
        records.push("around 60 CNAME round".to_owned());
        let notify = (!lazy).then_some(second);
        let (primary, keep): (_, Box<dyn std::any::Any>) = match by {
            By::Bind => {
                let options = Options {
                    records,
                    notify: notify.into_iter().collect(),
                    ..Options::default()
                };
                let bind = Bind::primary(&options).unwrap();
                (bind.addr, Box::new(bind))
            }
            By::Knot => {
                let lines: Vec<&str> = records.iter().map(String::as_str).collect();
                let knot = Knot::primary(&lines, notify).unwrap();
                (knot.addr, Box::new(knot))
            }
        };
        let secondary = Bind::secondary(primary, Some(second), lazy).unwrap();
        let unbound = Unbound::start(parent.addr, &[primary, second], min_ttl).unwrap();
        Self {
            primary,
            _primary: keep,
            secondary,
            unbound,
            parent,
        }
    }

    fn verifier(&self) -> Verifier {
        Verifier::new(self.spec(), env()).unwrap()
    }

    fn spec(&self) -> VerifySpec {
        let mut spec = VerifySpec::new(ZONE.parse().unwrap(), vec![self.unbound.addr]);
        let servers = [
            (HERE, self.parent.addr),
            (NS1, self.primary),
            (NS2, self.secondary.addr),
        ];
        spec.address_map = servers.into();
        spec.pause = Duration::from_millis(50);
        spec.question = Duration::from_millis(800);
        spec
    }

    async fn change(&self, from: u8, to: u8) -> Change {
        let change = Change::new(&region(from, 300), &region(to, 60), "").unwrap();
        let provider = make(&rfc2136(self.primary, KEY_NAME, KEY));
        assert_eq!(
            provider.change(&change).await.unwrap().outcome,
            Outcome::Applied
        );
        change
    }
}

/// Waits for at most so long.
async fn served(verifier: &Verifier, change: &Change, seconds: u64) -> (Verdict, usize) {
    let servers = verifier.delegation().await.unwrap();
    let clock = verifier.clock();
    let deadline = clock.now() + Duration::from_secs(seconds);
    let mut rounds = 0;
    let observed = Observed {
        records: change.to(),
        ..Observed::default()
    };
    let expected = Expected::new(change, &observed);
    let verdict = verifier
        .served(&expected, &servers, deadline, |_| rounds += 1)
        .await;
    (verdict, rounds)
}

#[tokio::test]
async fn every_server_that_the_parent_names_must_answer_several_times() {
    let site = Site::start(By::Bind, false, 0);
    let verifier = site.verifier();
    let servers = verifier.delegation().await.unwrap();
    let found: BTreeSet<SocketAddr> = servers.iter().map(|server| server.addr).collect();
    assert_eq!(found, BTreeSet::from([site.primary, site.secondary.addr]));
    assert!(
        servers
            .iter()
            .any(|server| server.name.as_str() == "ns2.example.com")
    );

    // Whoever knows better where to ask.
    let mut told = site.spec();
    told.parent = Some(site.parent.addr);
    let told = Verifier::new(told, env()).unwrap();
    assert_eq!(told.delegation().await.unwrap(), servers);

    let change = site.change(10, 20).await;
    let (verdict, rounds) = served(&verifier, &change, 20).await;
    assert!(verdict.served(), "{:?}", verdict.waiting_for());
    assert!(rounds >= 3);
    let serials: BTreeSet<_> = verdict
        .servers
        .values()
        .map(|s| s.serial.unwrap())
        .collect();
    assert_eq!(serials.len(), 1);
    assert_eq!(verifier.soa(site.primary).await.unwrap().negative_ttl, 5);
}

#[tokio::test]
async fn a_secondary_that_lags_is_named_with_its_serial() {
    lags(Site::start(By::Bind, true, 0)).await;
    lags(Site::start(By::Knot, true, 0)).await;
}

async fn lags(site: Site) {
    let verifier = site.verifier();
    let change = site.change(10, 20).await;
    let (verdict, _) = served(&verifier, &change, 1).await;
    assert!(!verdict.served());
    let waiting = verdict.waiting_for();
    assert_eq!(waiting.len(), 1, "{waiting:?}");
    assert!(
        waiting[0].contains("ns2.example.com (127.0.0.1) still has"),
        "{waiting:?}"
    );
    assert!(waiting[0].contains("behind the others"), "{waiting:?}");
}

#[tokio::test]
async fn a_secondary_that_is_dead_or_hangs_is_named() {
    dies(Site::start(By::Bind, false, 0)).await;
    dies(Site::start(By::Knot, false, 0)).await;
}

async fn dies(site: Site) {
    let verifier = site.verifier();
    let change = site.change(10, 20).await;
    assert!(served(&verifier, &change, 20).await.0.served());
    site.secondary.server.freeze().unwrap();
    let (verdict, _) = served(&verifier, &change, 2).await;
    assert!(matches!(second(&verdict), State::Silent(_)), "{verdict:?}");
    site.secondary.server.thaw().unwrap();
    assert!(served(&verifier, &change, 20).await.0.served());
    site.secondary.server.kill().unwrap();
    let (verdict, _) = served(&verifier, &change, 1).await;
    assert!(matches!(second(&verdict), State::Silent(_)), "{verdict:?}");
    let named = |line: &String| line.starts_with("ns2.example.com") && line.contains("not answer");
    assert!(verdict.waiting_for().iter().any(named), "{verdict:?}");
}

fn second(verdict: &Verdict) -> State {
    let found = verdict
        .servers
        .iter()
        .find(|(s, _)| s.name.as_str() == "ns2.example.com");
    found.unwrap().1.state.clone()
}

#[tokio::test]
async fn a_resolver_that_keeps_answers_longer_than_it_may_is_seen() {
    let site = Site::start(By::Bind, false, 300);
    let verifier = site.verifier();
    let keys: Vec<_> = region(10, 300).into_keys().collect();
    let before = verifier.sample(&keys).await;
    assert_eq!(before.len(), 2);
    for sample in &before {
        let set = sample.heard.clone().unwrap().unwrap();
        assert_eq!(
            Some(set.values()),
            region(10, 300).get(&sample.key).map(|set| set.values())
        );
    }
    let change = site.change(10, 20).await;
    assert!(served(&verifier, &change, 20).await.0.served());
    for sample in verifier.sample(&keys).await {
        let set = sample.heard.unwrap().unwrap();
        assert!(set.texts()[0].ends_with("10"), "{set}");
        assert!(set.ttl() > 60);
    }
}

#[tokio::test]
async fn chains_are_walked_and_their_shortest_ttl_counts() {
    let site = Site::start(By::Bind, false, 0);
    let verifier = site.verifier();
    let chain = verifier
        .chain(&"www.example.com A".parse().unwrap())
        .await
        .unwrap();
    assert_eq!(chain.links.len(), 1);
    assert_eq!(chain.links[0].as_str(), "shop.example.com");
    assert!((1..=120).contains(&chain.ttl), "{chain:?}");
    assert_eq!(chain.end.unwrap().texts(), ["192.0.2.10"]);
    let straight = verifier
        .chain(&"shop.example.com AAAA".parse().unwrap())
        .await
        .unwrap();
    assert!(straight.links.is_empty());
    let round = verifier
        .chain(&"round.example.com A".parse().unwrap())
        .await;
    let around = matches!(
        round,
        Err(VerifyError::Chain(_) | VerifyError::Unanswered(..))
    );
    assert!(around, "{round:?}");
}

fn validator(server: &Bind, anchors: &str) -> Verifier {
    let mut spec = VerifySpec::new(ZONE.parse().unwrap(), vec![server.addr]);
    spec.trust_anchors = Some(anchors.to_owned());
    Verifier::new(spec, env()).unwrap()
}

/// Nobody says when a zone is ready: it is asked until it is as `wanted`.
async fn wait_signed(verifier: &Verifier, key: &Key, wanted: &Signed) {
    let deadline = verifier.clock().now() + Duration::from_secs(20);
    loop {
        let said = verifier.validate(key).await;
        if said == *wanted {
            return;
        }
        assert!(verifier.clock().now() < deadline, "{said:?}");
        tokio::time::sleep(wait::PAUSE).await;
    }
}

#[tokio::test]
async fn signatures_are_followed_to_the_trust_anchor() {
    let options = Options {
        records: BEGINNING.map(str::to_owned).to_vec(),
        dnssec: true,
        ..Options::default()
    };
    let bind = Bind::primary(&options).unwrap();
    let keys = bind.keys().unwrap();
    let key = "shop.example.com A".parse().unwrap();
    let verifier = validator(&bind, &keys);
    // BIND signs in the background.
    wait_signed(&verifier, &key, &Signed::Secure).await;
    let change = Change::new(&region(10, 300), &region(20, 60), "").unwrap();
    let provider = make(&rfc2136(bind.addr, KEY_NAME, KEY));
    provider.change(&change).await.unwrap();
    assert_eq!(verifier.validate(&key).await, Signed::Secure);
    // Somebody else's key: what was signed with ours is worth nothing.
    let other = Bind::primary(&options).unwrap();
    let verifier = validator(&bind, &other.keys().unwrap());
    let said = verifier.validate(&key).await;
    assert!(
        matches!(said, Signed::Bogus(_) | Signed::Unknown(_)),
        "{said:?}"
    );
}

#[tokio::test]
async fn a_zone_that_nobody_signs_is_known_to_be_unsigned() {
    let family = Bind::parent([NS1, NS2], true, true).unwrap();
    let verifier = validator(&family, &family.keys().unwrap());
    let key = "shop.example.com A".parse().unwrap();
    wait_signed(&verifier, &key, &Signed::Unsigned).await;
}

/// Nothing is said against a zone by somebody who cannot see the root.
#[tokio::test]
async fn without_the_root_nothing_is_known_of_signatures() {
    let site = Site::start(By::Bind, false, 0);
    let said = site
        .verifier()
        .validate(&"shop.example.com A".parse().unwrap())
        .await;
    assert!(matches!(said, Signed::Unknown(_)), "{said:?}");
}
