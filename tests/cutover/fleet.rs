//! Every sidecar of a fleet is told to move the site at once: one does.

use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use pilotfish_harness::etcd::Etcd;
use pilotfish_harness::sidecar::{Sidecar, Until};
use pilotfish_harness::wait;

use crate::stage::{LONG, NEW, OLD, Said, Site, both, command, region};

const SIZE: usize = 20;

#[test]
fn one_of_twenty_with_a_lock_in_the_zone() {
    one_of_twenty("dns");
}

#[test]
fn one_of_twenty_with_a_lock_in_etcd() {
    one_of_twenty("etcd");
}

#[test]
fn one_of_twenty_with_a_lock_in_a_file() {
    one_of_twenty("file");
}

/// Each on a host of its own, for all that it knows.
fn fleet(site: &Site, lock: &str) -> Vec<Sidecar> {
    // So many at once on a small host are slow to answer.
    let section = site
        .section()
        .replace("timeout = \"5s\"", "timeout = \"20s\"");
    let section = section + lock + &site.barrier();
    let state = site.state_dir().display().to_string();
    let start = |n: usize| {
        let section = section.replace(&state, &format!("{state}-{n}"));
        site.sidecar_until(&section, Until::Started)
    };
    let fleet: Vec<Sidecar> = (0..SIZE).map(start).collect();
    for sidecar in &fleet {
        sidecar.wait_status("/healthz", 200, LONG).unwrap();
    }
    fleet
}

/// What all of them say; `held` is called when all but one have.
fn all_at_once(fleet: &[Sidecar], held: impl FnOnce()) -> Vec<Said> {
    let begin = |sidecar: &Sidecar| {
        let mut command = command(sidecar, &["cutover", "--to", "rbx", "--yes"]);
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        piped.spawn().unwrap()
    };
    let children: Vec<_> = fleet.iter().map(begin).collect();
    thread::scope(|scope| {
        let wait = |child: std::process::Child| Said::of(&child.wait_with_output().unwrap());
        let waits: Vec<_> = children
            .into_iter()
            .map(|child| scope.spawn(move || wait(child)))
            .collect();
        let rest = wait::until_true("all but one to be answered", 3 * LONG, || {
            Ok(waits.iter().filter(|wait| wait.is_finished()).count() + 1 >= SIZE)
        });
        // Whatever came of it: nobody may wait for ever.
        held();
        rest.unwrap();
        waits.into_iter().map(|wait| wait.join().unwrap()).collect()
    })
}

/// Runs of all of them that changed the records.
fn done(fleet: &[Sidecar]) -> usize {
    let runs = fleet.iter().map(|sidecar| {
        let history = region(sidecar, &["history", "--json"]).json();
        let runs = history.as_array().unwrap().clone();
        let ends = |end: &str| runs.iter().filter(|run| run["outcome"] == end).count();
        let harmless = ends("refused") + ends("already-there");
        assert_eq!(ends("done") + harmless, runs.len(), "{history:#}");
        ends("done")
    });
    runs.sum()
}

/// How often the name server was told to write the new address.
fn writes(site: &Site) -> usize {
    let log = site.primary.server.log().unwrap();
    let adds = |line: &&str| line.contains("adding an RR") && line.contains(NEW[0]);
    log.lines().filter(adds).count()
}

/// One fleet at a time is load enough.
static ALONE: Mutex<()> = Mutex::new(());

fn one_of_twenty(kind: &str) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let etcd = (kind == "etcd").then(|| Etcd::start(1).unwrap());
    let site = Site::start();
    let fleet = fleet(&site, &site.lock(etcd.as_ref(), kind));
    let serial = site.serial();

    // The one that has the lock keeps it until all others have been answered.
    let said = all_at_once(&fleet, || {
        assert_eq!(writes(&site), 0, "nobody has changed anything");
        site.go();
    });
    let (moved, refused): (Vec<&Said>, Vec<&Said>) = said.iter().partition(|said| said.code == 0);
    assert_eq!(moved.len(), 1, "{said:#?}");
    assert!(moved[0].out.contains("done"), "{moved:?}");
    for said in refused {
        assert_eq!(said.code, 3, "{said:?}");
        let all = format!("{}{}", said.out, said.err);
        assert!(all.contains("gates failed: lock"), "{said:?}");
    }
    assert_eq!(done(&fleet), 1);
    moved_once(&site, serial, kind, 1);

    // Again, with nobody who waits for anybody: who comes late finds nothing to do.
    site.editor().set(&both(OLD, 2));
    let serial = site.serial();
    let said = all_at_once(&fleet, || {});
    for said in &said {
        let all = format!("{}{}", said.out, said.err);
        let refused = said.code == 3 && (all.contains("lock") || all.contains("have changed"));
        assert!(refused || said.code == 0, "{said:?}");
    }
    assert!(said.iter().any(|said| said.code == 0), "{said:#?}");
    assert_eq!(done(&fleet), 2);
    moved_once(&site, serial, kind, 2);
    for sidecar in &fleet {
        let limit = Duration::from_secs(10);
        sidecar
            .wait_health("health", limit, |h| h["status"] == "ok")
            .unwrap();
    }
}

fn moved_once(site: &Site, serial: u32, kind: &str, times: usize) {
    let served = site.served(site.primary.addr);
    assert_eq!(served, NEW.map(|value| vec![value.to_owned()]));
    // Who looks on after the change asks the server with the new address, and changes nothing.
    if times == 1 {
        assert_eq!(writes(site), 1);
    }
    // A lock in the zone changes it as well.
    if kind != "dns" {
        assert_eq!(site.serial(), serial + 1, "one change");
    }
}
