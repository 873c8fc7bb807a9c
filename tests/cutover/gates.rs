//! Every gate fails once, says why, and stops the cutover with exit code 3 unless it is overridden.

use pilotfish_harness::resp::Target;
use pilotfish_harness::sidecar::{Response, Sidecar, request};

use crate::stage::{LONG, Site, both, region, verdict};

/// What `plan` says about `gate`, and that nothing happens because of it.
fn fails(site: &Site, sidecar: &Sidecar, gate: &str, part: &str) {
    let preview = region(sidecar, &["plan", "--to", "rbx", "--json"]);
    let preview = preview.json();
    let (says, why) = verdict(&preview, gate);
    assert_eq!(says, "fail", "{gate}: {why}");
    assert!(why.contains(part), "{gate}: {why}");
    let stopped = preview["stopped_by"].as_array().unwrap();
    assert_eq!(stopped, &[serde_json::json!(gate)], "{preview:#}");
    let serial = site.serial();
    let said = region(sidecar, &["cutover", "--to", "rbx", "--yes"]);
    assert_eq!(said.code, 3, "{gate}: {said:?}");
    assert!(said.err.contains(gate), "{gate}: {said:?}");
    // The daemon refuses as well, whoever asks it.
    let answer = ask(sidecar, "/v1/region/cutover", r#"{"to": "rbx"}"#);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(
        answer.body.contains("\"refused\"") && answer.body.contains("\"exit\":3"),
        "{answer:?}"
    );
    assert_eq!(site.serial(), serial, "{gate}");
}

/// A dead server takes longer to be noticed than other answers take.
fn ask(sidecar: &Sidecar, path: &str, body: &str) -> Response {
    let socket = sidecar.admin_socket();
    request(&Target::from(socket.as_path()), "POST", path, body, LONG).unwrap()
}

fn check(change: impl Fn(&Site, String) -> String, gate: &str, part: &str) {
    let site = Site::start();
    let section = change(&site, site.section());
    let sidecar = site.sidecar(&section);
    fails(&site, &sidecar, gate, part);
}

#[test]
fn target_check() {
    let site = Site::start();
    let sidecar = site.sidecar(&site.section());
    site.target_says(503);
    fails(&site, &sidecar, "target-check", "503");
    let metric = sidecar
        .metric("cutover_gate", &[("gate", "target-check")])
        .unwrap();
    assert!((metric - 2.0).abs() < 0.1, "{metric}");

    // Recorded with its reason, which it needs.
    let over = [
        "cutover",
        "--to",
        "rbx",
        "--yes",
        "--override",
        "target-check",
    ];
    let said = region(&sidecar, &over);
    assert_eq!(said.code, 2, "{said:?}");
    let said = region(
        &sidecar,
        &[&over[..], &["--reason", "its balancer lies"]].concat(),
    );
    assert_eq!(said.code, 0, "{said:?}");
    let history = region(&sidecar, &["history", "--json"]).json();
    let run = history.as_array().unwrap().last().unwrap();
    assert_eq!(run["reason"], "its balancer lies");
    assert_eq!(run["overrides"], serde_json::json!(["target-check"]));
    let verdicts = run["verdicts"].as_array().unwrap();
    assert!(
        verdicts
            .iter()
            .any(|v| v["gate"] == "target-check" && v["overridden"] == true)
    );
}

#[test]
fn target_data() {
    let elsewhere = |_: &Site, section: String| section;
    let site = Site::start();
    let sidecar = site.sidecar(&elsewhere(&site, site.section()));
    drop(sidecar);
    // A sidecar that is somewhere else, and a check that is no sidecar's health.
    let section = site.section().replace("name = \"rbx\"", "name = \"sbg\"");
    let sidecar = site.sidecar(&section);
    let preview = region(&sidecar, &["plan", "--to", "sbg", "--json"]).json();
    let (says, why) = verdict(&preview, "target-data");
    assert_eq!(says, "fail");
    assert!(why.contains("nobody here knows"), "{why}");
    let said = region(&sidecar, &["cutover", "--to", "sbg", "--yes"]);
    assert_eq!(said.code, 3, "{said:?}");
}

#[test]
fn old_region_fenced() {
    check(
        |_, section| {
            section.replace(
                "proof = [\"true\"]",
                "proof = [\"sh\", \"-c\", \"echo it lives; false\"]",
            )
        },
        "old-region-fenced",
        "it lives",
    );
    check(
        |_, section| section.replace("proof = [\"true\"]", ""),
        "old-region-fenced",
        "nothing is configured",
    );
}

#[test]
fn records_expected() {
    let site = Site::start();
    let sidecar = site.sidecar(&site.section());
    site.editor().set(&both(["192.0.2.10", "2001:db8::20"], 2));
    fails(
        &site,
        &sidecar,
        "records-expected",
        "shop.example.com AAAA is 2001:db8::20 (rbx)",
    );
}

#[test]
fn ttl_ceiling() {
    check(
        |_, section| section.replace("ttl = 2\n", "ttl = 2\nttl_ceiling = 1\n"),
        "ttl-ceiling",
        "expect stragglers for 2 s",
    );
}

#[test]
fn negative_ttl() {
    let site = Site::with(&["shop 2 A 192.0.2.10"], false);
    let section = site.section().replace("AAAA = [\"2001:db8::10\"]\n", "");
    let section = section.replace("ttl = 2\n", "ttl = 2\nttl_ceiling = 3\n");
    let sidecar = site.sidecar(&section);
    fails(
        &site,
        &sidecar,
        "negative-ttl",
        "shop.example.com AAAA appears",
    );
}

#[test]
fn name_servers() {
    check(
        |_, section| {
            section.replace(
                "name = \"gra\"",
                "name = \"gra\"\nnetworks = [\"127.0.0.0/8\"]",
            )
        },
        "name-servers",
        "all of them are inside the old region",
    );
    let site = Site::start();
    let sidecar = site.sidecar(&site.section());
    site.secondary.server.kill().unwrap();
    fails(&site, &sidecar, "name-servers", "ns2.example.com");
}

#[test]
fn credentials() {
    check(
        |_, section| section.replace("key_name = \"cutover\"", "key_name = \"viewer\""),
        "credentials",
        "rfc2136",
    );
    // A key that nobody knows cannot even read.
    let site = Site::start();
    let section = site
        .section()
        .replace("key_name = \"cutover\"", "key_name = \"nobody\"");
    let sidecar = site.sidecar(&section);
    let said = region(&sidecar, &["cutover", "--to", "rbx", "--yes"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("bad credentials"), "{said:?}");
}

#[test]
fn cooldown() {
    let site = Site::start();
    let section = site
        .section()
        .replace("cooldown = \"0s\"", "cooldown = \"1h\"");
    let section = section.replace("soak = \"0s\"", "soak = \"2h\"");
    let sidecar = site.sidecar(&section);
    let said = region(&sidecar, &["cutover", "--to", "rbx", "--yes"]);
    assert_eq!(said.code, 0, "{said:?}");
    site.editor().set(&both(crate::stage::OLD, 2));
    fails(&site, &sidecar, "cooldown", "the cooldown is 3600 s");
    let preview = region(&sidecar, &["plan", "--failback", "--to", "rbx", "--json"]).json();
    assert!(
        verdict(&preview, "cooldown")
            .1
            .contains("the soak is 7200 s"),
        "{preview:#}"
    );
}

#[test]
fn an_operators_own() {
    check(
        |_, section| {
            section
                + "[[cutover.gate]]\nname = \"backup-fresh\"\ncommand = [\"sh\", \"-c\", \"echo $PILOTFISH_TO is old; exit 1\"]\n"
        },
        "backup-fresh",
        "rbx is old",
    );
}
