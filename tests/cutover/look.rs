//! `check --probe`: everything that `[cutover]` names is asked, and nothing is changed.

use std::process::Command;

use pilotfish_harness::dns::KEY_NAME;
use pilotfish_harness::sidecar::Sidecar;

use crate::stage::{Said, Site, with_admin};

fn probe(sidecar: &Sidecar) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pilotfish"));
    command.args(["check", "--probe", "-c"]);
    Said::of(&command.arg(sidecar.config_file()).output().unwrap())
}

/// Whether what is called `what` is as it should be, and what it says.
fn row<'a>(said: &'a Said, what: &str) -> (bool, &'a str) {
    let line = said.out.lines().find(|line| line.contains(what));
    let line = line.unwrap_or_else(|| panic!("nothing of {what} in {}", said.out));
    (!line.contains(" NO "), line)
}

/// The lock is in the zone, and a sidecar of the old region can be reached.
fn section(site: &Site, old: &Sidecar) -> String {
    let section = with_admin(&site.section(), "gra", old);
    format!("{section}{}", site.lock(None, "dns"))
}

#[test]
fn what_answers_is_shown_with_what_it_says() {
    let site = Site::start();
    let old = site.sidecar(&site.section());
    let sidecar = site.sidecar(&section(&site, &old));
    let serial = site.serial();
    let said = probe(&sidecar);
    assert_eq!(said.code, 0, "{said:?}");
    for (what, says) in [
        ("rfc2136, example.com", "lead to gra"),
        ("rfc2136, credentials", "may write"),
        ("ns1.example.com", "serial"),
        ("ns2.example.com", "serial"),
        ("resolver", "192.0.2.10"),
        ("lock", "free"),
        ("region rbx", "status 200"),
        ("admin.sock", ""),
        ("db ", ""),
    ] {
        let (ok, line) = row(&said, what);
        assert!(ok && line.contains(says), "{line}");
    }
    assert_eq!(site.serial(), serial);
}

#[test]
fn what_does_not_is_shown_and_fails() {
    let site = Site::start();
    let old = site.sidecar(&site.section());
    // This key may do nothing.
    let section = section(&site, &old).replace(&format!("\"{KEY_NAME}\""), "\"viewer\"");
    let sidecar = site.sidecar(&section);
    drop(old);
    site.target_says(503);
    site.secondary.server.kill().unwrap();
    let serial = site.serial();
    let said = probe(&sidecar);
    assert_eq!(said.code, 1, "{said:?}");
    for (what, says) in [
        ("rfc2136, credentials", "not allowed"),
        ("ns2.example.com", ""),
        ("region rbx", "status 503"),
        ("admin.sock", ""),
    ] {
        let (ok, line) = row(&said, what);
        assert!(!ok && line.contains(says), "{line}");
    }
    assert!(
        said.out
            .contains("[cutover] rfc2136, credentials: rfc2136: not allowed"),
        "a long one is shown whole"
    );
    for what in ["rfc2136, example.com", "ns1.example.com", "db "] {
        assert!(row(&said, what).0, "{}", said.out);
    }
    assert_eq!(site.serial(), serial);
}
