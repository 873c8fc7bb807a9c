//! Route 53 as moto plays it: are our signatures Amazon's, and our documents in the right shape?

use pilotfish::dns::spec::{Endpoint, Route53Spec};
use pilotfish::dns::{Change, Kind, Outcome, Proof, ProviderSpec, Published};
use pilotfish::secret::Secret;
use pilotfish_harness::dns::moto::Moto;

use crate::stage::{make, region, spec};

fn route53(moto: &Moto, id: &str, secret: &str) -> Box<dyn pilotfish::dns::Provider> {
    make(&spec(ProviderSpec::Route53(Route53Spec {
        endpoint: Endpoint {
            url: Some(format!("http://{}", moto.addr)),
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
    let provider = route53(&moto, &moto.access_key_id, &moto.secret_access_key);
    let (from, to) = (region(10, 300), region(20, 60));
    let keys: Vec<_> = from.keys().cloned().collect();
    assert_eq!(provider.read(&keys).await.unwrap().records, from);
    assert_eq!(provider.check(&keys).await.unwrap().write, Proof::Proven);
    assert_eq!(provider.read(&keys).await.unwrap().records, from);

    let change = Change::new(&from, &to, "to & fro").unwrap();
    let done = provider.change(&change).await.unwrap();
    assert_eq!((done.outcome, done.observed.records), (Outcome::Applied, to));
    assert_eq!(provider.published(&done.receipt).await.unwrap(), Published::Done);
    assert_eq!(provider.change(&change).await.unwrap().outcome, Outcome::AlreadyDone);

    let wrong_secret = route53(&moto, &moto.access_key_id, "another-secret-of-the-same-account");
    let wrong_id = route53(&moto, "AKIDOTHER", &moto.secret_access_key);
    for stranger in [wrong_secret, wrong_id] {
        let error = stranger.read(&keys).await.unwrap_err();
        assert_eq!(error.kind, Kind::BadCredentials, "{error}");
    }
}
