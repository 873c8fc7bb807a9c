//! Name servers that die or lag: never called done before each of them answers with the new records.

use pilotfish_harness::dns::bind::Bind;
use pilotfish_harness::wait;

use crate::stage::{LONG, NEW, OLD, Site, region};

const OVERRIDE: [&str; 7] = [
    "cutover",
    "--to",
    "rbx",
    "--yes",
    "--override",
    "name-servers",
    "--reason",
];

#[test]
fn a_dead_secondary_leaves_it_to_a_human_who_goes_on_when_it_is_back() {
    let site = Site::start();
    let section = site
        .section()
        .replace("served_within = \"20s\"", "served_within = \"2s\"");
    let sidecar = site.sidecar(&section);
    site.secondary.server.kill().unwrap();
    let said = region(&sidecar, &[&OVERRIDE[..], &["it burns"]].concat());
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.out.contains("needs-human") && said.out.contains("ns2.example.com"),
        "{said:?}"
    );

    // It is said everywhere, and health stays good enough for a load balancer.
    let status = region(&sidecar, &["status", "--json"]).json();
    assert_eq!(status["run"]["phase"], "needs-human", "{status:#}");
    assert_eq!(status["running"], false);
    let health = sidecar
        .wait_health("health to say it", LONG, |health| {
            health["status"] == "degraded"
        })
        .unwrap();
    assert!(
        health["reason"].as_str().unwrap().contains("needs a human"),
        "{health}"
    );
    assert_eq!(sidecar.http_get("/healthz").unwrap().status, 200);
    assert!((sidecar.metric("cutover_unfinished", &[]).unwrap() - 1.0).abs() < 0.1);

    // Nothing else begins, and going on without the server ends the same way.
    let other = region(&sidecar, &["cutover", "--to", "gra", "--yes"]);
    assert_eq!(other.code, 3, "{other:?}");
    let again = region(&sidecar, &["resume"]);
    assert_eq!(again.code, 1, "{again:?}");

    let serial = site.serial();
    let addr = site.secondary.addr;
    let _back = Bind::secondary(site.primary.addr, Some(addr), false).unwrap();
    let resumed = region(&sidecar, &["resume"]);
    assert_eq!(resumed.code, 0, "{resumed:?}");
    assert_eq!(site.serial(), serial, "nothing was sent again");
    assert_eq!(site.served(addr), NEW.map(|value| vec![value.to_owned()]));
    let health = sidecar.wait_health("health to be well", LONG, |h| h["status"] == "ok");
    health.unwrap();
    let nothing = region(&sidecar, &["resume"]);
    assert_eq!(nothing.code, 3, "{nothing:?}");
    let over = region(&sidecar, &["rollback", "--yes"]);
    assert!(over.code == 3 && over.err.contains("failback"), "{over:?}");
}

#[test]
fn a_secondary_that_lags_is_named_and_the_way_back_is_proven_too() {
    let site = Site::with(&["shop 2 A 192.0.2.10", "shop 2 AAAA 2001:db8::10"], true);
    let section = site
        .section()
        .replace("served_within = \"20s\"", "served_within = \"2s\"");
    let sidecar = site.sidecar(&section);
    let said = region(&sidecar, &["cutover", "--to", "rbx", "--yes"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.contains("behind the others"), "{said:?}");
    assert_eq!(site.served(site.secondary.addr)[0], [OLD[0]]);
    assert_eq!(site.served(site.primary.addr)[0], [NEW[0]]);
    let back = region(&sidecar, &["rollback", "--yes", "--reason", "it lags"]);
    assert_eq!(back.code, 0, "{back:?}");
    for server in [site.primary.addr, site.secondary.addr] {
        assert_eq!(site.served(server), OLD.map(|value| vec![value.to_owned()]));
    }
    let history = region(&sidecar, &["history", "--json"]).json();
    assert_eq!(history[0]["outcome"], "rolled-back", "{history:#}");
}

#[test]
fn a_human_may_take_it_over() {
    let site = Site::with(&["shop 2 A 192.0.2.10", "shop 2 AAAA 2001:db8::10"], true);
    let section = site
        .section()
        .replace("served_within = \"20s\"", "served_within = \"1s\"");
    let sidecar = site.sidecar(&section);
    assert_eq!(
        region(&sidecar, &["cutover", "--to", "rbx", "--yes"]).code,
        1
    );
    let serial = site.serial();
    let said = region(
        &sidecar,
        &["rollback", "--give-up", "--yes", "--reason", "done by hand"],
    );
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(site.serial(), serial);
    wait::until_true("health to forget it", LONG, || {
        Ok(sidecar.healthz()?["status"] == "ok")
    })
    .unwrap();
}

#[test]
fn an_operator_turns_back_while_it_waits() {
    let site = Site::with(&["shop 2 A 192.0.2.10", "shop 2 AAAA 2001:db8::10"], true);
    let sidecar = site.sidecar(&site.section());
    let mut moving = crate::stage::command(&sidecar, &["cutover", "--to", "rbx", "--yes"]);
    let moving = moving.stdout(std::process::Stdio::null()).spawn();
    sidecar
        .wait_log("never says when a change is deployed", LONG)
        .unwrap();
    let back = region(&sidecar, &["rollback", "--yes"]);
    assert_eq!(back.code, 0, "{back:?}");
    assert_eq!(moving.unwrap().wait().unwrap().code(), Some(0));
    assert_eq!(
        site.served(site.primary.addr),
        OLD.map(|value| vec![value.to_owned()])
    );
}

#[test]
fn an_operator_turns_back_before_anything_is_sent() {
    let site = Site::start();
    let go = site.dir.join("go");
    let hook = format!(
        "[[cutover.hook]]\nwhen = \"before-apply\"\ncommand = [\"sh\", \"-c\", \"while ! test -e {}; do sleep 0.05; done\"]\n",
        go.display()
    );
    let sidecar = site.sidecar(&(site.section() + &hook));
    let serial = site.serial();
    let mut moving = crate::stage::command(&sidecar, &["cutover", "--to", "rbx", "--yes"]);
    let moving = moving.stdout(std::process::Stdio::null()).spawn();
    sidecar.wait_log("gates: ", LONG).unwrap();
    let mut back = crate::stage::command(&sidecar, &["rollback", "--yes"]);
    let back = back.stdout(std::process::Stdio::piped()).spawn().unwrap();
    // The hook ends only when the wish has arrived.
    sidecar.wait_log("an operator wants it back", LONG).unwrap();
    std::fs::write(&go, "").unwrap();
    assert_eq!(back.wait_with_output().unwrap().status.code(), Some(0));
    assert_eq!(moving.unwrap().wait().unwrap().code(), Some(0));
    assert_eq!(site.serial(), serial);
}
