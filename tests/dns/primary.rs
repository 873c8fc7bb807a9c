//! Updates by DNS itself: what BIND and Knot refuse, and that asking changes nothing.

use std::net::SocketAddr;

use pilotfish::dns::record::records;
use pilotfish::dns::{Change, DnsSpec, Kind, Outcome, Proof, Retry, RrSet};
use pilotfish_harness::dns::bind::{Bind, Options};
use pilotfish_harness::dns::knot::Knot;
use pilotfish_harness::dns::query::{self, Type};
use pilotfish_harness::dns::{KEY, KEY_NAME, NAME, ZONE};
use pilotfish_harness::process::Server;

use crate::stage::{BEGINNING, make, region, rfc2136, set};

struct Running<'a> {
    addr: SocketAddr,
    server: &'a Server,
}

/// Runs `test` on BIND and on Knot.
async fn on_both(test: impl AsyncFn(Running<'_>)) {
    let options = Options {
        records: BEGINNING
            .iter()
            .chain(&["www 300 A 192.0.2.1"])
            .map(|l| (*l).to_owned())
            .collect(),
        ..Options::default()
    };
    let bind = Bind::primary(&options).unwrap();
    test(Running {
        addr: bind.addr,
        server: &bind.server,
    })
    .await;
    let lines: Vec<&str> = options.records.iter().map(String::as_str).collect();
    let knot = Knot::primary(&lines, None).unwrap();
    test(Running {
        addr: knot.addr,
        server: &knot.server,
    })
    .await;
}

fn other_name(value: &str) -> RrSet {
    RrSet::parse(&format!("www.{ZONE} A").parse().unwrap(), 300, [value]).unwrap()
}

#[tokio::test]
async fn a_key_may_do_what_it_may_and_nothing_else() {
    on_both(async |running| {
        let keys: Vec<_> = region(10, 300).into_keys().collect();
        let change = Change::new(&region(10, 300), &region(20, 60), "").unwrap();
        let viewer = make(&rfc2136(running.addr, "viewer", KEY));
        // Knot answers only keys that it has a rule for.
        match viewer.read(&keys).await {
            Ok(seen) => assert_eq!(seen.records, region(10, 300)),
            Err(error) => assert_eq!(error.kind, Kind::BadCredentials, "{error}"),
        }
        let strangers = make(&rfc2136(running.addr, "nobody", KEY));
        let elsewhere = DnsSpec {
            zone: "example.net".parse().unwrap(),
            ..rfc2136(running.addr, KEY_NAME, KEY)
        };
        let owner = make(&rfc2136(running.addr, KEY_NAME, KEY));
        let www = Change::new(
            &records([other_name("192.0.2.1")]),
            &records([other_name("192.0.2.2")]),
            "",
        );
        for (provider, change, kinds) in [
            (&viewer, &change, [Kind::Denied, Kind::BadCredentials]),
            (
                &strangers,
                &change,
                [Kind::BadCredentials, Kind::BadCredentials],
            ),
            (&owner, &www.unwrap(), [Kind::Denied, Kind::BadCredentials]),
        ] {
            let serial = query::serial(running.addr, ZONE).unwrap();
            let error = provider.check(&change.keys()).await.unwrap_err();
            assert!(kinds.contains(&error.kind), "check: {error}");
            let error = provider.change(change).await.unwrap_err();
            assert!(kinds.contains(&error.kind), "change: {error}");
            assert_eq!(error.retry(), Retry::Never);
            assert_eq!(query::serial(running.addr, ZONE).unwrap(), serial);
        }
        let error = make(&elsewhere).read(&keys).await.unwrap_err();
        assert!(matches!(error.kind, Kind::NoZone | Kind::Denied), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_zone_that_takes_no_updates_is_refused() {
    on_both(async |running| {
        let spec = DnsSpec {
            zone: "example.org".parse().unwrap(),
            ..rfc2136(running.addr, KEY_NAME, KEY)
        };
        let provider = make(&spec);
        let key = "shop.example.org A".parse().unwrap();
        let set = |value| records([RrSet::parse(&key, 300, [value]).unwrap()]);
        let change = Change::new(&set("192.0.2.1"), &set("192.0.2.2"), "").unwrap();
        let error = provider.change(&change).await.unwrap_err();
        assert!(
            matches!(error.kind, Kind::Denied | Kind::BadCredentials),
            "{error}"
        );
        assert!(provider.check(&[key]).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn asking_what_a_key_may_changes_nothing() {
    on_both(async |running| {
        let provider = make(&rfc2136(running.addr, KEY_NAME, KEY));
        let mut keys: Vec<_> = region(10, 300).into_keys().collect();
        keys.push(format!("{NAME} CNAME").parse().unwrap());
        let serial = query::serial(running.addr, ZONE).unwrap();
        let access = provider.check(&keys).await.unwrap();
        assert_eq!(
            (access.write, access.publish),
            (Proof::Proven, Proof::Proven)
        );
        assert_eq!(query::serial(running.addr, ZONE).unwrap(), serial);
    })
    .await;
}

#[tokio::test]
async fn a_ttl_alone_can_be_lowered() {
    on_both(async |running| {
        let provider = make(&rfc2136(running.addr, KEY_NAME, KEY));
        let change = Change::new(&region(10, 300), &region(10, 30), "").unwrap();
        assert!(!change.sets()[0].moves());
        assert_eq!(
            provider.change(&change).await.unwrap().outcome,
            Outcome::Applied
        );
        let served = query::ask(running.addr, NAME, Type::A, false).unwrap();
        assert_eq!(served.records, [(30, "192.0.2.10".to_owned())]);
        assert!(served.authoritative);
    })
    .await;
}

#[tokio::test]
async fn a_primary_that_hangs_or_is_gone_leaves_no_doubt() {
    on_both(async |running| {
        let provider = make(&rfc2136(running.addr, KEY_NAME, KEY));
        let change = Change::new(&region(10, 300), &region(20, 60), "").unwrap();
        running.server.freeze().unwrap();
        let error = provider.change(&change).await.unwrap_err();
        assert_eq!(
            (error.kind.clone(), error.retry()),
            (Kind::Unavailable, Retry::Later),
            "{error}"
        );
        running.server.thaw().unwrap();
        assert_eq!(
            provider.change(&change).await.unwrap().outcome,
            Outcome::Applied
        );
        let served = query::ask(running.addr, NAME, Type::Aaaa, false).unwrap();
        assert_eq!(served.records, [(60, "2001:db8::20".to_owned())]);
        running.server.kill().unwrap();
        let back = change.inverse("").unwrap();
        let error = provider.change(&back).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable, "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_key_that_is_none_is_not_repeated() {
    let spec = rfc2136(
        "127.0.0.1:1".parse().unwrap(),
        KEY_NAME,
        "not base64, but still secret",
    );
    let made = pilotfish::dns::provider(&spec, &crate::stage::env());
    let error = made.err().unwrap();
    assert_eq!(error.kind, Kind::Invalid);
    assert!(!error.to_string().contains("secret"), "{error}");
    assert!(!format!("{spec:?}").contains("still secret"));
    assert_eq!(set("A", 1, &["192.0.2.1"]).name().as_str(), NAME);
}
