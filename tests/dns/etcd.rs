//! The lock in etcd, with real members.

use std::time::{Duration, Instant};

use pilotfish::cutover::lock::etcd::EtcdSpec;
use pilotfish::cutover::lock::{Lock, LockError, LockSpec, lock};
use pilotfish::net::tls::TlsSettings;
use pilotfish::secret::Secret;
use pilotfish_harness::etcd::Etcd;
use pilotfish_harness::ports;

use crate::locks::{a_lease_ends, claim, one_holds};
use crate::stage::env;

const LONG: Duration = Duration::from_secs(60);
const PASSWORD: &str = "password-that-nobody-may-see";

fn at(endpoints: Vec<String>) -> EtcdSpec {
    EtcdSpec {
        endpoints,
        key: "/pilotfish/lock/shop.example.com".to_owned(),
        user: None,
        tls: TlsSettings::default(),
        timeout: Duration::from_secs(2),
    }
}

fn make(spec: &EtcdSpec) -> Box<dyn Lock> {
    lock(&LockSpec::Etcd(spec.clone()), &env()).unwrap()
}

fn run(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future);
}

#[test]
fn one_of_twenty_and_a_lease_that_ends() {
    let etcd = Etcd::start(1).unwrap();
    // Somebody who is not there is asked first.
    let mut endpoints = vec![format!("http://{}", ports::free().unwrap())];
    endpoints.extend(etcd.urls());
    let spec = at(endpoints);
    run(async {
        one_holds(|| make(&spec)).await;
        a_lease_ends(|| make(&spec)).await;
        // A key that somebody removes is no lock any more, whatever becomes of its lease.
        let lock = make(&spec);
        let mut held = lock.acquire(&claim("app-01", LONG)).await.unwrap();
        let key = data_encoding_of(&spec.key);
        etcd.call("/v3/kv/deleterange", &format!(r#"{{"key":"{key}"}}"#))
            .unwrap();
        assert_eq!(lock.renew(&mut held).await, Err(LockError::Lost));
    });
}

/// Base64 as etcd's gateway wants it.
fn data_encoding_of(text: &str) -> String {
    const TABLE: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let mut three = [0; 3];
        three[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for at in 0..4 {
            let index = (bits >> (18 - 6 * at)) & 63;
            out.push(if at <= chunk.len() {
                char::from(TABLE[index as usize])
            } else {
                '='
            });
        }
    }
    out
}

#[test]
fn members_that_freeze_and_die() {
    let etcd = Etcd::start(3).unwrap();
    let spec = at(etcd.urls());
    run(async {
        let lock = make(&spec);
        let mut held = lock.acquire(&claim("app-01", LONG)).await.unwrap();
        // One of three: whatever it was, the others go on.
        etcd.members[0].server.freeze().unwrap();
        let begun = Instant::now();
        while let Err(error) = lock.renew(&mut held).await {
            // Until there is a leader again.
            assert!(matches!(error, LockError::Unavailable(_)), "{error}");
            assert!(begun.elapsed() < LONG);
        }
        let busy = make(&spec)
            .acquire(&claim("app-02", LONG))
            .await
            .unwrap_err();
        assert!(matches!(busy, LockError::Busy { .. }), "{busy}");
        lock.release(held).await.unwrap();
        // Two of three: nobody can say anything, so the lease ends for its holder.
        let short = Duration::from_secs(5);
        let mut held = make(&spec).acquire(&claim("app-03", short)).await.unwrap();
        etcd.members[1].server.kill().unwrap();
        let mut unsure = 0;
        loop {
            match lock.renew(&mut held).await {
                Err(LockError::Unavailable(_)) => unsure += 1,
                Err(LockError::Lost) => break,
                other => panic!("{other:?} without a majority"),
            }
        }
        assert!(unsure <= 10);
        let none = make(&spec)
            .acquire(&claim("app-04", short))
            .await
            .unwrap_err();
        assert!(matches!(none, LockError::Unavailable(_)), "{none}");
        etcd.members[0].server.thaw().unwrap();
    });
}

#[test]
fn who_may_not() {
    let etcd = Etcd::start(1).unwrap();
    etcd.protect(PASSWORD).unwrap();
    let with = |password: &str| EtcdSpec {
        user: Some(("root".to_owned(), Secret::new(password.to_owned()))),
        // Every password takes etcd a while, and twenty come at once.
        timeout: LONG,
        ..at(etcd.urls())
    };
    run(async {
        let claim = claim("app-01", LONG);
        for spec in [at(etcd.urls()), with("wrong-password-of-somebody")] {
            let refused = make(&spec).acquire(&claim).await.unwrap_err();
            assert!(matches!(refused, LockError::Refused(_)), "{refused}");
            assert!(!refused.to_string().contains("wrong-password"), "{refused}");
        }
        one_holds(|| make(&with(PASSWORD))).await;
    });
}
