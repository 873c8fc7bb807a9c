//! A site moves, and comes back; others are noticed, and nothing is told that must not be.

use pilotfish_harness::dns::faults::{Fault, On};
use pilotfish_harness::dns::http::Response;
use pilotfish_harness::dns::{KEY, KEY_NAME};

use crate::stage::{NEW, OLD, Site, both, command, region, verdict};

#[test]
fn both_families_move_together_and_come_back() {
    let site = Site::start();
    let sidecar = site.sidecar(&site.section());
    let serial = site.serial();

    // A plan changes nothing. The server was asked whether it would, with the records that it has.
    let plan = region(&sidecar, &["plan", "--to", "rbx", "--json"]);
    assert_eq!(plan.code, 0, "{plan:?}");
    let preview = plan.json();
    assert_eq!(preview["stopped_by"], serde_json::json!([]), "{preview:#}");
    assert_eq!(preview["plan"]["from"], "gra");
    assert_eq!(preview["plan"]["sets"][0]["new"]["values"][0], NEW[0]);
    assert_eq!(site.serial(), serial);
    let log = site.primary.server.log().unwrap();
    let asked = |value: &str| {
        log.lines()
            .any(|line| line.contains("updating") && line.contains(value))
    };
    assert!(!NEW.iter().any(|value| asked(value)), "{log}");
    assert!(!site.journal().exists());

    // Nobody says yes.
    let unasked = region(&sidecar, &["cutover", "--to", "rbx"]);
    assert_eq!(unasked.code, 3, "{unasked:?}");
    assert_eq!(site.serial(), serial);

    let moved = region(
        &sidecar,
        &["cutover", "--to", "rbx", "--yes", "--reason", "a drill"],
    );
    assert_eq!(moved.code, 0, "{moved:?}");
    for server in [site.primary.addr, site.secondary.addr] {
        let served = site.served(server);
        assert_eq!(served, NEW.map(|value| vec![value.to_owned()]));
    }
    assert_eq!(site.serial(), serial + 1, "one change, not two");

    let history = region(&sidecar, &["history", "--json"]).json();
    let run = &history[0];
    assert_eq!(run["outcome"], "done", "{run:#}");
    assert_eq!(
        (&run["reason"], &run["from"]),
        (&"a drill".into(), &"gra".into())
    );
    let line = |name: &str| run["finish"][name].as_str().unwrap_or_default().to_owned();
    assert!(
        !line("accepted").is_empty() && line("accepted") <= line("served"),
        "{run:#}"
    );
    assert!(line("served") < line("converged"), "{run:#}");
    // A primary never says that its secondaries have a change.
    assert_eq!(run["finish"]["deployed"], serde_json::Value::Null);
    let status = region(&sidecar, &["status", "--json"]).json();
    assert_eq!(status["active"], "rbx", "{status:#}");

    and_back(&site, &sidecar);
}

fn and_back(site: &Site, sidecar: &pilotfish_harness::sidecar::Sidecar) {
    // The same again is no mistake, and does nothing.
    let again = region(sidecar, &["cutover", "--to", "rbx", "--yes"]);
    assert_eq!(again.code, 0, "{again:?}");
    assert!(again.out.contains("already"), "{again:?}");

    // Home needs no name; this sidecar knows nothing about it, which is said.
    let back = region(sidecar, &["failback", "--yes"]);
    assert_eq!(back.code, 3, "{back:?}");
    assert!(back.err.contains("target-data"), "{back:?}");
    let back = region(
        sidecar,
        &[
            "failback",
            "--yes",
            "--override",
            "target-data",
            "--reason",
            "a drill",
        ],
    );
    assert_eq!(back.code, 0, "{back:?}");
    assert_eq!(
        site.served(site.primary.addr),
        OLD.map(|value| vec![value.to_owned()])
    );
    let history = region(sidecar, &["history", "--json"]).json();
    assert_eq!(history[1]["way"], "failback");
    assert_eq!(history[1]["overrides"], serde_json::json!(["target-data"]));
    let epochs = [&history[0]["epoch"], &history[1]["epoch"]].map(|e| e.as_u64().unwrap());
    assert!(epochs[0] < epochs[1], "{epochs:?}");
    nothing_secret(site, sidecar);
}

fn nothing_secret(site: &Site, sidecar: &pilotfish_harness::sidecar::Sidecar) {
    use std::os::unix::fs::PermissionsExt;
    let journal = std::fs::read_to_string(site.journal()).unwrap();
    assert!(journal.lines().count() > 10, "{journal}");
    let mode = std::fs::metadata(site.journal())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let texts = [
        journal,
        sidecar.server().log().unwrap(),
        sidecar.http_get("/metrics").unwrap().body,
        sidecar.http_get("/healthz").unwrap().body,
        sidecar.admin("GET", "/v1/events", "").unwrap().body,
        sidecar.admin("GET", "/v1/region/status", "").unwrap().body,
        sidecar.admin("GET", "/v1/region/history", "").unwrap().body,
        sidecar.admin("GET", "/v1/config", "").unwrap().body,
    ];
    for text in texts {
        assert!(!text.contains(KEY) && !text.contains(&KEY[4..20]), "{text}");
    }
}

#[test]
fn somebody_who_edits_at_the_same_moment_is_not_overwritten() {
    let site = Site::start();
    let sidecar = site.sidecar(&site.section());
    let editor = site.editor();
    let theirs = both(["192.0.2.99", "2001:db8::99"], 2);
    let edit = theirs.clone();
    // `check` asks by an update that changes nothing: twice, for the shown plan and for the run.
    for _ in 0..2 {
        site.faults.add(On::Write, Fault::Nothing);
    }
    site.faults.add(
        On::Write,
        Fault::Meanwhile(Box::new(move || editor.set(&edit))),
    );
    let said = region(&sidecar, &["cutover", "--to", "rbx", "--yes"]);
    assert_eq!(said.code, 3, "{said:?}");
    assert_eq!(site.served(site.primary.addr)[0], ["192.0.2.99"]);
    assert_eq!(site.served(site.primary.addr)[1], ["2001:db8::99"]);

    // What leads nowhere that is known cannot be moved, whatever anybody overrides.
    let preview = region(&sidecar, &["plan", "--to", "rbx", "--json"]).json();
    let (says, why) = verdict(&preview, "records-expected");
    assert_eq!(says, "fail", "{why}");
    for gate in ["records-expected", "one-region-on"] {
        let args = [
            "cutover",
            "--to",
            "rbx",
            "--yes",
            "--override",
            gate,
            "--reason",
            "x",
        ];
        let said = region(&sidecar, &args);
        assert_eq!(said.code, 3, "{said:?}");
        assert!(said.err.contains("cannot be overridden"), "{said:?}");
    }
}

#[test]
fn an_answer_that_is_lost_is_read_and_not_sent_again() {
    let site = Site::start();
    let sidecar = site.sidecar(&site.section());
    let serial = site.serial();
    for _ in 0..2 {
        site.faults.add(On::Write, Fault::Nothing);
    }
    // The server does it, and nobody hears of it.
    site.faults.add(On::Write, Fault::After(Response::Silence));
    let said = region(&sidecar, &["cutover", "--to", "rbx", "--yes", "--json"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(site.serial(), serial + 1);
    assert_eq!(site.faults.writes(), 3, "sent once");
    let journal = std::fs::read_to_string(site.journal()).unwrap();
    assert!(
        journal.contains("\"unsettled\"") && journal.contains("\"settled\""),
        "{journal}"
    );
}

#[test]
fn hooks_are_told_and_a_failing_one_ends_it() {
    let site = Site::start();
    let told = site.dir.join("told");
    let script = format!("env | grep PILOTFISH_ | sort >> {}", told.display());
    let hook = |when: &str, script: &str| {
        format!("[[cutover.hook]]\nwhen = \"{when}\"\ncommand = [\"sh\", \"-c\", \"{script}\"]\n")
    };
    let section = site.section() + &hook("before-apply", &script) + &hook("after-done", &script);
    let sidecar = site.sidecar(&section);
    let said = region(&sidecar, &["cutover", "--to", "rbx", "--yes"]);
    assert_eq!(said.code, 0, "{said:?}");
    let told = std::fs::read_to_string(told).unwrap();
    for line in [
        "PILOTFISH_FROM=gra",
        "PILOTFISH_TO=rbx",
        "PILOTFISH_WAY=cutover",
        "PILOTFISH_HOOK=before-apply",
        "PILOTFISH_HOOK=after-done",
    ] {
        assert!(told.contains(line), "{told}");
    }
    assert!(!told.contains(KEY), "{told}");
    drop(sidecar);

    let site = Site::start();
    let section = site.section() + &hook("before-apply", "echo not today; exit 7");
    let sidecar = site.sidecar(&section);
    let serial = site.serial();
    let said = region(&sidecar, &["cutover", "--to", "rbx", "--yes"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.contains("not today"), "{said:?}");
    assert_eq!(site.serial(), serial);
}

#[test]
fn two_cannot_run_at_once() {
    let site = Site::start();
    let hook = "[[cutover.hook]]\nwhen = \"before-apply\"\ncommand = [\"sh\", \"-c\", \"while ! test -e GO; do sleep 0.05; done\"]\n";
    let go = site.dir.join("go");
    let section = site.section() + &hook.replace("GO", &go.display().to_string());
    let sidecar = site.sidecar(&section);
    let mut first = command(&sidecar, &["cutover", "--to", "rbx", "--yes"]);
    let mut first = first.stdout(std::process::Stdio::null()).spawn().unwrap();
    sidecar.wait_log("gates: ", crate::stage::LONG).unwrap();
    let second = region(&sidecar, &["cutover", "--to", "rbx", "--yes"]);
    assert_eq!(second.code, 3, "{second:?}");
    std::fs::write(&go, "").unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(0));
    assert_eq!(KEY_NAME, "cutover");
}
