//! The operator's own command.

use std::path::PathBuf;

use pilotfish_harness::redis::RedisServer;
use pilotfish_harness::sidecar::{Service, Sidecar};

use super::{assert_goes_on, failover, step};
use crate::kit::{self, LONG};

/// A script of a shop: whatever `text` says, without a shell of ours.
fn script(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("switchover.sh");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn with(service: Service, path: &std::path::Path, more: &str) -> Service {
    let path = path.display();
    service.section(&format!(
        "[service.failover]\ncommand = [\"sh\", \"{path}\"]\n{more}"
    ))
}

fn scene(text: &str, more: &str) -> (RedisServer, RedisServer, Sidecar, tempfile::TempDir) {
    let master = kit::redis();
    let replica = kit::replica_of(&master);
    let (dir, path) = script(text);
    let service = kit::patient(kit::cache(&[master.addr, replica.addr]));
    let sidecar = kit::start(with(service, &path, more));
    (master, replica, sidecar, dir)
}

const MOVE: &str = "set -e
echo \"moving $PILOTFISH_SERVICE to $PILOTFISH_TO\"
redis-cli -u \"redis://$PILOTFISH_PRIMARY\" REPLICAOF ${PILOTFISH_TO%:*} ${PILOTFISH_TO#*:}
redis-cli -u \"redis://$PILOTFISH_TO\" REPLICAOF NO ONE
";

#[test]
fn a_command_that_moves_the_master_is_followed() {
    let (_master, replica, sidecar, _dir) = scene(MOVE, "");
    let to = replica.addr.to_string();
    let (code, account) = failover(&sidecar, &["--to", &to]);
    assert_eq!((code, &account["outcome"]), (0, &"done".into()));
    let said = step(&account, "command")["what"].to_string();
    assert!(said.contains("moving cache to"), "{said}");
    assert_goes_on(&sidecar, &replica);
}

#[test]
fn a_command_that_fails_or_hangs_or_lies_holds_nobody_up() {
    for (text, more, reason, said) in [
        (
            "echo no such luck >&2; exit 7",
            "",
            "step-failed",
            "exit status 7, and said: no such luck",
        ),
        (
            "sleep 600",
            "timeout = \"1s\"",
            "step-failed",
            "ended after 1 s",
        ),
        // It says that all is well, and nothing is.
        ("exit 0", "", "timeout", "it ended well"),
    ] {
        let (master, _replica, sidecar, _dir) = scene(text, more);
        let (code, account) = failover(&sidecar, &["--timeout", "3s"]);
        assert_eq!((code, &account["reason"]), (1, &reason.into()), "{text}");
        let what = step(&account, "command")["what"].to_string();
        assert!(what.contains(said), "{what}");
        assert_eq!(step(&account, "hold")["put_back"]["outcome"], "done");
        assert_eq!(step(&account, "command")["put_back"]["outcome"], "left");
        assert_goes_on(&sidecar, &master);
    }
}

#[test]
fn a_dry_run_starts_it_only_when_it_knows_what_that_is() {
    let text = "test \"$PILOTFISH_DRY_RUN\" = 1 && echo dry; touch \"$0.ran\"; exit 0";
    for (more, runs) in [("", false), ("dry_run = true", true)] {
        let (master, _replica, sidecar, dir) = scene(text, more);
        let (code, account) = failover(&sidecar, &["--dry-run"]);
        assert_eq!((code, &account["outcome"]), (0, &"planned".into()));
        assert_eq!(dir.path().join("switchover.sh.ran").exists(), runs);
        assert_goes_on(&sidecar, &master);
    }
    let (_master, _replica, sidecar, _dir) = scene("exit 1", "dry_run = true");
    let (code, account) = failover(&sidecar, &["--dry-run"]);
    assert_eq!((code, &account["reason"]), (3, &"unable".into()));
}

/// Of a static list nothing is known but who accepts connections; a command can still move it.
#[test]
fn a_static_service_has_no_other_way() {
    let (first, second) = (kit::redis(), kit::redis());
    let nodes = [first.addr, second.addr];
    let plain = kit::start(kit::patient(kit::bytes(&nodes)));
    let (code, account) = failover(&plain, &[]);
    assert_eq!((code, &account["reason"]), (3, &"no-way".into()));
    let text = "redis-cli -u \"redis://$PILOTFISH_PRIMARY\" SHUTDOWN NOSAVE; exit 0";
    let (_dir, path) = script(text);
    let sidecar = kit::start(with(kit::patient(kit::bytes(&nodes)), &path, ""));
    sidecar.wait_primary("cache", first.addr, LONG).unwrap();
    let (code, account) = failover(&sidecar, &[]);
    assert_eq!((code, &account["outcome"]), (0, &"done".into()));
    sidecar.wait_primary("cache", second.addr, LONG).unwrap();
}
