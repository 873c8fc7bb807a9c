//! Killed at every line of the journal: what was begun can be finished or taken back, and nothing is
//! half moved without being said.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pilotfish_harness::sidecar::Sidecar;
use pilotfish_harness::wait;

use crate::stage::{LONG, NEW, OLD, Site, both, command, region};

/// Walks over the lines that are still missing, before the test gives up.
const TRIES: usize = 4;

fn lines(journal: &Path) -> usize {
    let bytes = std::fs::read(journal).unwrap_or_default();
    bytes.iter().filter(|&&byte| byte == b'\n').count()
}

/// The names of the events, oldest first.
fn events(journal: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(journal).unwrap_or_default();
    let name = |line: &str| {
        let json: serde_json::Value = serde_json::from_str(line.split_once(' ')?.1).ok()?;
        Some(json["what"]["event"].as_str()?.to_owned())
    };
    text.lines().filter_map(name).collect()
}

fn hook(when: &str) -> String {
    format!("[[cutover.hook]]\nwhen = \"{when}\"\ncommand = [\"true\"]\n")
}

/// Never nothing, while `work` is done; and afterwards old or new, both families alike.
fn watched(site: &Site, work: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                for set in site.served(site.primary.addr) {
                    assert_eq!(set.len(), 1, "{set:?}");
                }
                // The servers need the processor as well.
                std::thread::sleep(wait::PAUSE);
            }
        });
        work();
        stop.store(true, Ordering::SeqCst);
        watch.join().unwrap();
    });
}

fn kill_at(sidecar: &Sidecar, journal: &Path, line: usize) {
    let mut moving = command(sidecar, &["cutover", "--to", "rbx", "--yes"]);
    let moving = moving.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut moving = moving.unwrap();
    let deadline = Instant::now() + LONG;
    // As close behind the line as can be: no pause.
    while lines(journal) < line && moving.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "{:?}", events(journal));
        std::thread::yield_now();
    }
    sidecar.server().kill().unwrap();
    moving.wait().unwrap();
}

/// A sidecar whose every `fsync` lasts while a file is there: what follows a line of the journal has not begun
/// then.
struct Slow {
    binary: PathBuf,
    switch: PathBuf,
}

impl Slow {
    fn new(dir: &Path) -> Self {
        let (source, library) = (dir.join("slow.c"), dir.join("slow.so"));
        let (binary, switch) = (dir.join("slow.sh"), dir.join("slow"));
        std::fs::write(&source, SLOW).unwrap();
        let made = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .args(["-ldl"])
            .status();
        assert!(made.unwrap().success());
        let text = format!(
            "#!/bin/sh\nLD_PRELOAD={} SLOW={} exec {} \"$@\"\n",
            library.display(),
            switch.display(),
            env!("CARGO_BIN_EXE_pilotfish")
        );
        std::fs::write(&binary, text).unwrap();
        std::fs::set_permissions(&binary, Permissions::from_mode(0o755)).unwrap();
        Self { binary, switch }
    }

    fn set(&self, slow: bool) {
        match slow {
            true => std::fs::write(&self.switch, "").unwrap(),
            false => drop(std::fs::remove_file(&self.switch)),
        }
    }
}

const SLOW: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

int fsync(int fd) {
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    int result = next(fd);
    if (access(getenv("SLOW"), F_OK) == 0)
        usleep(150 * 1000);
    return result;
}
"#;

#[test]
fn killed_at_every_line_it_goes_on() {
    killed_at_every_line("resume");
}

#[test]
fn killed_at_every_line_it_goes_back() {
    killed_at_every_line("rollback");
}

fn killed_at_every_line(verb: &str) {
    let site = Site::with(&["shop 1 A 192.0.2.10", "shop 1 AAAA 2001:db8::10"], false);
    let marker = site.dir.join("fenced");
    let fence = format!(
        "proof = [\"test\", \"-e\", \"{0}\"]\ncommand = [\"touch\", \"{0}\"]\nrelease = [\"rm\", \"-f\", \"{0}\"]",
        marker.display()
    );
    let section = site.section().replace("ttl = 2\n", "ttl = 1\n");
    let section = section.replace("proof = [\"true\"]", &fence);
    let section = section + &hook("before-apply") + &hook("after-done") + &hook("after-rollback");
    let journal = site.journal();

    // How many lines there are when nothing happens.
    let slow = Slow::new(site.dir.path());
    let mut sidecar = site.sidecar_by(&slow.binary, &section);
    let said = region(&sidecar, &["cutover", "--to", "rbx", "--yes"]);
    assert_eq!(said.code, 0, "{said:?}");
    let all = events(&journal);
    assert!(all.len() >= 12, "{all:?}");
    let mut killed_after = BTreeSet::new();

    // First as it comes: somewhere between a line and the next ones, also in the middle of what they are for.
    // Then right after each line that was not the last one yet; on a busy machine that may need several tries.
    let as_it_comes = (1..=all.len()).map(|line| (line, false));
    let exactly = (0..TRIES).flat_map(|_| (1..=all.len()).map(|line| (line, true)));
    for (line, exactly) in as_it_comes.chain(exactly) {
        if exactly && killed_after.contains(&line) {
            continue;
        }
        site.editor().set(&both(OLD, 1));
        std::fs::remove_dir_all(site.state_dir()).unwrap();
        let _ = std::fs::remove_file(&marker);
        watched(&site, || {
            slow.set(exactly);
            kill_at(&sidecar, &journal, line);
            slow.set(false);
            let before = events(&journal);
            sidecar.restart().unwrap();
            killed_after.insert(before.len());
            go_on(&site, &sidecar, verb, &before);
        });
    }
    let missing: Vec<&String> = (1..=all.len())
        .filter(|line| !killed_after.contains(line))
        .map(|line| &all[line - 1])
        .collect();
    assert!(missing.is_empty(), "never killed right after {missing:?}");
}

fn go_on(site: &Site, sidecar: &Sidecar, verb: &str, before: &[String]) {
    let over = matches!(
        before.last().map(String::as_str),
        Some("hook-ran" | "released")
    ) && before.iter().any(|event| event == "converged");
    let status = region(sidecar, &["status", "--json"]).json();
    assert_eq!(status["run"].is_null(), over, "{before:?} {status:#}");
    let mut args = vec![verb];
    if verb == "rollback" {
        args.push("--yes");
    }
    if !over {
        let blocked = sidecar.admin("POST", "/v1/region/cutover", "{\"to\": \"rbx\"}");
        assert_eq!(blocked.unwrap().status, 409, "{before:?}");
        // Also where the records lead there already.
        let other = region(sidecar, &["cutover", "--to", "rbx", "--yes"]);
        assert_eq!(other.code, 3, "{before:?} {other:?}");
    }
    let said = region(sidecar, &args);
    let wanted = if over || verb == "resume" { NEW } else { OLD };
    assert_eq!(said.code, if over { 3 } else { 0 }, "{before:?} {said:?}");
    for server in [site.primary.addr, site.secondary.addr] {
        let served = site.served(server);
        assert_eq!(
            served,
            wanted.map(|value| vec![value.to_owned()]),
            "{before:?}"
        );
    }
    let fenced = site.dir.join("fenced").exists();
    assert_eq!(fenced, wanted == NEW, "{before:?}");
    let status = region(sidecar, &["status", "--json"]).json();
    assert!(status["run"].is_null(), "{before:?} {status:#}");
}

#[test]
fn a_torn_line_is_cut_and_damage_is_refused() {
    let site = Site::start();
    let mut sidecar = site.sidecar(&site.section());
    kill_at(&sidecar, &site.journal(), 4);
    let mut bytes = std::fs::read(site.journal()).unwrap();
    bytes.extend_from_slice(b"0123456789abcdef {\"seq\":");
    std::fs::write(site.journal(), &bytes).unwrap();
    sidecar.restart().unwrap();
    let said = region(&sidecar, &["resume"]);
    assert_eq!(said.code, 0, "{said:?}");
    sidecar
        .wait_log("not written whole", Duration::from_secs(10))
        .unwrap();

    let mut bytes = std::fs::read(site.journal()).unwrap();
    bytes[40] ^= 1;
    std::fs::write(site.journal(), &bytes).unwrap();
    let said = region(&sidecar, &["cutover", "--to", "gra", "--yes"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("damaged in line 1"), "{said:?}");
    sidecar.server().kill().unwrap();
    sidecar.restart().unwrap();
    let health = sidecar.wait_health("health to say it", LONG, |h| h["status"] == "degraded");
    assert!(
        health.unwrap()["reason"]
            .as_str()
            .unwrap()
            .contains("damaged")
    );
}
