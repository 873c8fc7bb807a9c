//! What is special about single providers.

use pilotfish::dns::spec::{Endpoint, TokenSpec};
use pilotfish::dns::{Change, Kind, Outcome, Provider, ProviderSpec, Published, Retry};
use pilotfish::secret::Secret;
use pilotfish_harness::dns::fake;
use pilotfish_harness::dns::faults::{Fault, On};
use pilotfish_harness::dns::http::{HttpServer, Response};

use crate::stage::{self, make, ovh_spec, region, spec};

fn at(server: &HttpServer) -> Endpoint {
    Endpoint {
        url: Some(server.url()),
        ..Endpoint::default()
    }
}

/// Whether region `n` is what OVH says is edited, and that nothing edited is unpublished.
async fn served(provider: &dyn Provider, n: u8) -> bool {
    let seen = provider
        .published(&pilotfish::dns::Receipt::default())
        .await
        .unwrap();
    let records = provider
        .read(&region(n, 60).into_keys().collect::<Vec<_>>())
        .await
        .unwrap();
    seen == Published::Done
        && records
            .records
            .values()
            .all(|set| set.texts()[0].ends_with(&n.to_string()))
}

#[tokio::test]
async fn ovh_publishes_what_a_lost_refresh_left_behind() {
    let stage = stage::ovh();
    let change = Change::new(&region(10, 300), &region(20, 60), "").unwrap();
    // Both records are edited; the refresh never arrives.
    stage.faults.add(On::Write, Fault::Nothing);
    stage.faults.add(On::Write, Fault::Nothing);
    stage
        .faults
        .add(On::Write, Fault::Before(Response::empty(503)));
    let error = stage.provider.change(&change).await.unwrap_err();
    assert_eq!(error.retry(), Retry::ReadFirst, "{error}");
    assert!(!served(&*stage.provider, 20).await);
    let again = stage.provider.change(&change).await.unwrap();
    assert_eq!(again.outcome, Outcome::AlreadyDone);
    while stage.provider.published(&again.receipt).await.unwrap() != Published::Done {}
    assert!(served(&*stage.provider, 20).await);
}

#[tokio::test]
async fn ovh_takes_back_what_it_cannot_finish_and_publishes_nothing() {
    let stage = stage::ovh();
    let change = Change::new(&region(10, 300), &region(20, 60), "").unwrap();
    let refused = serde_json::json!({ "message": "This call has not been granted" });
    stage.faults.add(On::Write, Fault::Nothing);
    stage
        .faults
        .add(On::Write, Fault::Before(Response::json(403, &refused)));
    let error = stage.provider.change(&change).await.unwrap_err();
    assert_eq!(error.kind, Kind::Denied, "{error}");
    assert_eq!(
        stage.editor.read(&change.keys()).await.unwrap().records,
        region(10, 300)
    );
    assert!(served(&*stage.provider, 10).await);
}

#[tokio::test]
async fn ovh_says_beforehand_that_a_key_may_not_refresh() {
    let server = fake::ovh::start("consumer", fake::ovh::Rights::NoRefresh).unwrap();
    let provider = make(&spec(ovh_spec(
        at(&server),
        Secret::new("consumer".to_owned()),
    )));
    let keys: Vec<_> = region(10, 300).into_keys().collect();
    let error = provider.check(&keys).await.unwrap_err();
    assert_eq!(error.kind, Kind::Denied);
    assert!(error.detail.contains("never be served"), "{error}");
}

#[tokio::test]
async fn one_after_the_other_says_how_far_it_came() {
    for stage in [stage::linode(), stage::digitalocean()] {
        let ttl = u64::from(stage.provider.capabilities().ttl.effective(60));
        let change = Change::new(&region(10, 300), &region(20, ttl), "").unwrap();
        let refused = serde_json::json!({ "message": "no", "errors": [{ "reason": "no" }] });
        stage.faults.add(On::Write, Fault::Nothing);
        stage
            .faults
            .add(On::Write, Fault::Before(Response::json(400, &refused)));
        let error = stage.provider.change(&change).await.unwrap_err();
        let a = change.sets()[0].key.clone();
        assert_eq!(error.kind, Kind::Partial { done: vec![a] }, "{error}");
        assert_eq!(error.retry(), Retry::ReadFirst);
        // Forwards or back: both are what is left of a change.
        let back = change.inverse("").unwrap();
        assert_eq!(
            stage.provider.change(&back).await.unwrap().outcome,
            Outcome::Applied
        );
        assert_eq!(
            stage.provider.change(&change).await.unwrap().outcome,
            Outcome::Applied
        );
        assert_eq!(
            stage.editor.read(&change.keys()).await.unwrap().records,
            region(20, ttl)
        );
    }
}

#[tokio::test]
async fn a_record_behind_cloudflares_proxy_is_known_as_such() {
    let server = fake::cloudflare::start("token", true).unwrap();
    let token = Secret::new("token".to_owned());
    let endpoint = at(&server);
    let provider = make(&spec(ProviderSpec::Cloudflare(TokenSpec {
        endpoint,
        token,
    })));
    let keys: Vec<_> = region(10, 300).into_keys().collect();
    let seen = provider.read(&keys).await.unwrap();
    assert_eq!(
        seen.proxied.iter().collect::<Vec<_>>(),
        keys.iter().collect::<Vec<_>>()
    );
    // Its TTL reads as "automatic" and counts for nothing.
    let change = Change::new(&region(10, 60), &region(20, 60), "").unwrap();
    let done = provider.change(&change).await.unwrap();
    assert_eq!(done.observed.proxied.len(), 2);
    assert_eq!(
        provider.change(&change).await.unwrap().outcome,
        Outcome::AlreadyDone
    );
}

#[tokio::test]
async fn an_abandoned_change_list_of_ours_stands_in_nobodys_way() {
    let stage = stage::akamai();
    let change = Change::new(&region(10, 300), &region(20, 60), "").unwrap();
    // The list is opened and filled; then we are gone, and with us the request to discard it.
    stage.faults.add(On::Write, Fault::Nothing);
    stage.faults.add(On::Write, Fault::Nothing);
    stage.faults.add(On::Write, Fault::Nothing);
    stage
        .faults
        .add(On::Write, Fault::Before(Response::Silence));
    let error = stage.provider.change(&change).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unknown, "{error}");
    assert_eq!(
        stage.editor.read(&change.keys()).await.unwrap().records,
        region(10, 300)
    );
    // Who wants something else must not lose somebody's draft,
    let other = Change::new(&region(10, 300), &region(30, 60), "").unwrap();
    let error = stage.editor.change(&other).await.unwrap_err();
    assert_eq!(error.retry(), Retry::Later, "{error}");
    // and who wants the same goes on.
    assert_eq!(
        stage.provider.change(&change).await.unwrap().outcome,
        Outcome::Applied
    );
}

#[tokio::test]
async fn a_host_that_is_not_there_is_not_a_change_that_may_have_happened() {
    let nobody = pilotfish_harness::ports::free().unwrap();
    let endpoint = Endpoint {
        url: Some(format!("http://{nobody}")),
        ..Endpoint::default()
    };
    let token = Secret::new("token".to_owned());
    let provider = make(&spec(ProviderSpec::Linode(TokenSpec { endpoint, token })));
    let change = Change::new(&region(10, 300), &region(20, 120), "").unwrap();
    let error = provider.change(&change).await.unwrap_err();
    assert_eq!(
        (error.kind.clone(), error.retry()),
        (Kind::Unavailable, Retry::Later),
        "{error}"
    );
}
