//! Route 53 as moto plays it: are our signatures Amazon's, and our documents in the right shape?

use std::net::SocketAddr;

use pilotfish::dns::spec::{Endpoint, Route53Spec};
use pilotfish::dns::{Change, Kind, Outcome, Proof, Provider, ProviderSpec, Published};
use pilotfish::secret::Secret;
use pilotfish_harness::dns::faults::{self, Fault, Faults, On};
use pilotfish_harness::dns::moto::{Moto, demand_signatures};

use crate::stage::{make, region, spec};

fn route53(at: SocketAddr, id: &str, secret: &str) -> Box<dyn Provider> {
    make(&spec(ProviderSpec::Route53(Route53Spec {
        endpoint: Endpoint {
            url: Some(format!("http://{at}")),
            ..Endpoint::default()
        },
        zone_id: None,
        access_key_id: id.to_owned(),
        secret_access_key: Secret::new(secret.to_owned()),
        session_token: None,
    })))
}

#[tokio::test]
async fn moto_takes_our_signatures_and_documents() {
    let moto = Moto::start().unwrap();
    let faults = Faults::default();
    let relay = faults::before_http(moto.addr, faults.clone()).unwrap();
    let at = moto.addr;
    // Only around the next change: moto knows no signed GET.
    let sign_next_change = || {
        let demand = move |yes| Box::new(move || demand_signatures(at, yes).unwrap());
        faults.add(On::Write, Fault::Meanwhile(demand(true)));
        faults.add(On::Read, Fault::Nothing);
        faults.add(On::Read, Fault::Nothing);
        faults.add(On::Read, Fault::Meanwhile(demand(false)));
    };
    let provider = route53(relay.addr, &moto.access_key_id, &moto.secret_access_key);
    let (from, to) = (region(10, 300), region(20, 60));
    let keys: Vec<_> = from.keys().cloned().collect();
    assert_eq!(provider.read(&keys).await.unwrap().records, from);
    assert_eq!(provider.check(&keys).await.unwrap().write, Proof::Proven);
    assert_eq!(provider.read(&keys).await.unwrap().records, from);

    let change = Change::new(&from, &to, "to & fro").unwrap();
    let wrong_secret = route53(
        relay.addr,
        &moto.access_key_id,
        "another-secret-of-the-account",
    );
    let wrong_id = route53(relay.addr, "AKIDOTHER", &moto.secret_access_key);
    for stranger in [wrong_secret, wrong_id] {
        stranger.read(&keys).await.unwrap();
        sign_next_change();
        let error = stranger.change(&change).await.unwrap_err();
        assert_eq!(error.kind, Kind::BadCredentials, "{error}");
        faults.clear();
        demand_signatures(at, false).unwrap();
    }

    sign_next_change();
    let done = provider.change(&change).await.unwrap();
    assert_eq!(faults.clear(), 0);
    assert_eq!(
        (done.outcome, done.observed.records),
        (Outcome::Applied, to)
    );
    assert_eq!(
        provider.published(&done.receipt).await.unwrap(),
        Published::Done
    );
    assert_eq!(
        provider.change(&change).await.unwrap().outcome,
        Outcome::AlreadyDone
    );
}
