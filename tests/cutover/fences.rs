//! The old region is fenced before the records leave it, and let go when they come back.

use pilotfish_harness::sidecar::Sidecar;

use crate::stage::{NEW, OLD, Site, region, with_admin};

fn paused(sidecar: &Sidecar) -> bool {
    let body = sidecar.admin("GET", "/v1/status", "").unwrap().body;
    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
    let held = status["services"][0]["held"].as_array().unwrap();
    held.iter().any(|reason| reason == "operator")
}

fn section(site: &Site, old: &Sidecar) -> String {
    let section = site.section().replace("proof = [\"true\"]", "");
    with_admin(&section, "gra", old)
}

#[test]
fn its_sidecars_hold_their_clients_and_go_on_after_a_rollback() {
    let site = Site::with(&["shop 2 A 192.0.2.10", "shop 2 AAAA 2001:db8::10"], true);
    let old = site.sidecar("");
    let section = section(&site, &old).replace("served_within = \"20s\"", "served_within = \"1s\"");
    let sidecar = site.sidecar(&section);
    let said = region(&sidecar, &["cutover", "--to", "rbx", "--yes"]);
    assert_eq!(said.code, 1, "a secondary lags: {said:?}");
    assert!(paused(&old));
    let back = region(&sidecar, &["rollback", "--yes"]);
    assert_eq!(back.code, 0, "{back:?}");
    assert!(!paused(&old));
    assert_eq!(site.served(site.primary.addr)[0], [OLD[0]]);
}

#[test]
fn a_region_that_cannot_be_fenced_is_not_left_unless_others_say_that_it_is_dead() {
    let site = Site::start();
    let old = site.sidecar("");
    let section = section(&site, &old);
    // Nothing listens there.
    let dead = pilotfish_harness::ports::free().unwrap();
    let dead = format!("name = \"gra\"\ncheck = \"http://{dead}/healthz\"");
    let section = section.replace("name = \"gra\"", &dead);
    let witness = |says: &str| section.clone() + &format!("witnesses = [[\"{says}\"]]\n");
    old.server().kill().unwrap();
    let sidecar = site.sidecar(&witness("false"));
    let serial = site.serial();
    let said = region(&sidecar, &["cutover", "--to", "rbx", "--yes"]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.out.contains("old-region-fenced"), "{said:?}");
    assert_eq!(site.serial(), serial);
    drop(sidecar);
    let sidecar = site.sidecar(&witness("true"));
    let said = region(&sidecar, &["cutover", "--to", "rbx", "--yes"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(site.served(site.primary.addr)[0], [NEW[0]]);
}

/// Both regions are fenced by holding the clients of their sidecars.
#[test]
fn where_the_site_comes_back_to_nobody_waits_any_more() {
    let site = Site::start();
    let (gra, rbx) = (site.sidecar(""), site.sidecar(""));
    // gra has no check, and is asked by nobody.
    let sidecar = site.sidecar(&with_admin(&section(&site, &gra), "rbx", &rbx));
    let said = region(&sidecar, &["cutover", "--to", "rbx", "--yes"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(paused(&gra) && !paused(&rbx));

    let back = [
        "failback",
        "--yes",
        "--override",
        "target-data",
        "--reason",
        "its databases are fine",
    ];
    let said = region(&sidecar, &back);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("the target is open"), "{said:?}");
    assert!(!paused(&gra) && paused(&rbx));
    assert_eq!(site.served(site.primary.addr)[0], [OLD[0]]);
    // Before anybody is led there.
    let journal = std::fs::read_to_string(site.journal()).unwrap();
    let at = |word: &str| journal.rfind(word).unwrap_or_else(|| panic!("{journal}"));
    assert!(at("\"opened\"") < at("\"sending\""), "{journal}");

    // A target none of whose sidecars can be told is not led to.
    rbx.server().kill().unwrap();
    let serial = site.serial();
    let said = region(&sidecar, &["cutover", "--to", "rbx", "--yes"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.out.contains("the target holds its clients"),
        "{said:?}"
    );
    assert!(!paused(&gra));
    assert_eq!(site.serial(), serial);
}
