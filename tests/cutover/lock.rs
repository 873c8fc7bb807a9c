//! The lock that is somebody else's, or is lost, and what must not be cut short.

use std::process::{Child, Stdio};

use data_encoding::BASE64;
use pilotfish_harness::dns::bind::Bind;
use pilotfish_harness::dns::{NAME, NOTE};
use pilotfish_harness::etcd::Etcd;
use pilotfish_harness::process::Signal;
use pilotfish_harness::sidecar::Sidecar;

use crate::stage::{LONG, NEW, OLD, Said, Site, command, region, verdict};

const MOVE: [&str; 4] = ["cutover", "--to", "rbx", "--yes"];

fn begin(sidecar: &Sidecar) -> Child {
    let mut command = command(sidecar, &MOVE);
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    piped.spawn().unwrap()
}

fn end(child: Child) -> Said {
    Said::of(&child.wait_with_output().unwrap())
}

fn remove_key(etcd: &Etcd) {
    let key = BASE64.encode(format!("/pilotfish/lock/{NAME}").as_bytes());
    let said = etcd.call("/v3/kv/deleterange", &format!(r#"{{"key":"{key}"}}"#));
    let said = said.unwrap();
    assert!(said.contains("\"deleted\":\"1\""), "{said}");
}

#[test]
fn the_gate_names_who_has_it() {
    for kind in ["dns", "file"] {
        let site = Site::start();
        let section = site.section() + &site.lock(None, kind) + &site.barrier();
        let first = site.sidecar(&section);
        let second = site.sidecar(&section.replace("/state\"", "/other\""));
        let moving = begin(&first);
        first.wait_log("gates: ", LONG).unwrap();
        let preview = region(&second, &["plan", "--to", "rbx", "--json"]).json();
        let (says, why) = verdict(&preview, "lock");
        let pid = format!("pid {}", first.server().pid());
        assert_eq!(says, "fail", "{kind}: {why}");
        assert!(
            why.contains(&pid) && why.contains("has it"),
            "{kind}: {why}"
        );
        let said = region(&second, &MOVE);
        assert_eq!(said.code, 3, "{kind}: {said:?}");
        assert!(said.err.contains("gates failed: lock"), "{kind}: {said:?}");
        // Past the shown plan as well.
        let answer = second.admin("POST", "/v1/region/cutover", r#"{"to": "rbx"}"#);
        let body = answer.unwrap().body;
        assert!(body.contains("gates failed: lock"), "{kind}: {body}");
        assert!(body.contains("\"exit\":3"), "{kind}: {body}");
        site.go();
        assert_eq!(end(moving).code, 0, "{kind}");
    }
}

#[test]
fn what_nobody_may_override() {
    let site = Site::start();
    let sidecar = site.sidecar(&site.section());
    let serial = site.serial();
    for gate in ["records-expected", "one-region-on"] {
        let over = ["--override", gate, "--reason", "it burns"];
        let said = region(&sidecar, &[&MOVE[..], &over].concat());
        assert_eq!(said.code, 3, "{gate}: {said:?}");
        assert!(said.err.contains("cannot be overridden"), "{said:?}");
        let body = format!(r#"{{"to": "rbx", "reason": "x", "override": ["{gate}"]}}"#);
        let answer = sidecar.admin("POST", "/v1/region/cutover", &body).unwrap();
        assert_eq!(answer.status, 409, "{gate}: {answer:?}");
    }
    assert_eq!(site.serial(), serial);
    assert!(!site.journal().exists(), "no run was begun");
}

#[test]
fn lost_before_anything_is_sent_it_ends() {
    let etcd = Etcd::start(1).unwrap();
    let site = Site::start();
    let section = site.section() + &site.lock(Some(&etcd), "etcd") + &site.barrier();
    let sidecar = site.sidecar(&section);
    let serial = site.serial();
    let moving = begin(&sidecar);
    sidecar.wait_log("gates: ", LONG).unwrap();
    remove_key(&etcd);
    // Long before it would be renewed.
    site.go();
    let said = end(moving);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.contains("the lock is lost"), "{said:?}");
    assert_eq!(site.serial(), serial);
    assert_eq!(site.served(site.primary.addr)[0], [OLD[0]]);
    let history = region(&sidecar, &["history", "--json"]).json();
    assert_eq!(history[0]["outcome"], "failed", "{history:#}");
    // It is free, so the next one gets it.
    assert_eq!(region(&sidecar, &MOVE).code, 0);
}

#[test]
fn taken_over_in_the_zone_before_anything_is_sent_it_ends() {
    let site = Site::start();
    let section = site.section() + &site.lock(None, "dns") + &site.barrier();
    let sidecar = site.sidecar(&section);
    let moving = begin(&sidecar);
    sidecar.wait_log("gates: ", LONG).unwrap();
    let theirs = "v=1;epoch=99;until=4000000000;nonce=00;plan=;owner=app-99;purpose=theirs";
    site.editor().text(NOTE, theirs);
    site.go();
    let said = end(moving);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.contains("the lock is lost"), "{said:?}");
    assert_eq!(site.served(site.primary.addr)[0], [OLD[0]]);
    // What is theirs was not released either.
    let preview = region(&sidecar, &["plan", "--to", "rbx", "--json"]).json();
    let (says, why) = verdict(&preview, "lock");
    assert!(says == "fail" && why.contains("app-99"), "{why}");
}

#[test]
fn lost_after_the_change_it_goes_on_and_says_so() {
    let etcd = Etcd::start(1).unwrap();
    let site = Site::with(&["shop 2 A 192.0.2.10", "shop 2 AAAA 2001:db8::10"], true);
    let section = site.section() + &site.lock(Some(&etcd), "etcd");
    let section = section.replace("served_within = \"20s\"", "served_within = \"120s\"");
    let sidecar = site.sidecar(&section);
    let moving = begin(&sidecar);
    sidecar
        .wait_log("never says when a change is deployed", LONG)
        .unwrap();
    remove_key(&etcd);
    sidecar.wait_log("the lock was lost", LONG).unwrap();
    // The secondary gets it at last.
    let addr = site.secondary.addr;
    site.secondary.server.kill().unwrap();
    let _back = Bind::secondary(site.primary.addr, Some(addr), false).unwrap();
    let said = end(moving);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("the lock was lost"), "{said:?}");
    assert_eq!(site.served(addr), NEW.map(|value| vec![value.to_owned()]));
    let history = region(&sidecar, &["history", "--json"]).json();
    assert_eq!(history[0]["outcome"], "done", "{history:#}");
    let notes = history[0]["notes"].to_string();
    assert!(notes.contains("the lock was lost"), "{history:#}");
}

#[test]
fn no_process_takes_over_while_a_site_moves() {
    let site = Site::start();
    let sidecar = site.sidecar(&(site.section() + &site.barrier()));
    let moving = begin(&sidecar);
    sidecar.wait_log("gates: ", LONG).unwrap();
    sidecar.server().signal(Signal::USR2).unwrap();
    let why = sidecar.wait_log("event=\"takeover-failed\"", LONG).unwrap();
    assert!(why.contains("under way"), "{why}");
    site.go();
    let said = end(moving);
    assert_eq!(said.code, 0, "{said:?}");
}
