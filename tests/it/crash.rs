//! `kill -9` and a start: nothing that is left in the way stops it.

use std::fs;
use std::os::unix::net::UnixListener;

use crate::kit::{self, LONG, connect, control, ok, say};

#[test]
fn a_killed_process_leaves_nothing_in_the_way() {
    let redis = kit::redis();
    let mut sidecar = kit::start(kit::cache(&[redis.addr]));
    let to = redis.addr.to_string();
    for round in 0..3 {
        assert_eq!(control(&sidecar, &["pin", "cache", &to]).0, Some(0));
        let kept: Vec<_> = kit::targets(&sidecar).iter().map(connect).collect();
        sidecar.server().kill().unwrap();
        drop(kept);
        let (cache, admin) = (sidecar.unix("cache").unwrap(), sidecar.admin_socket());
        assert!(cache.exists() && admin.exists(), "it could not tidy up");
        // Nor could one that was killed between making a socket and giving it its name.
        if round == 1 {
            for path in [&cache, &admin] {
                let mut beside = path.clone().into_os_string();
                beside.push(".new");
                drop(UnixListener::bind(beside).unwrap());
            }
        }
        sidecar.restart().unwrap();
        sidecar.wait_primary("cache", redis.addr, LONG).unwrap();
        for target in kit::targets(&sidecar) {
            assert_eq!(say(&mut connect(&target), &["SET", "a", "1"]), ok());
        }
        assert_eq!(kit::status(&sidecar)["cause"], "pinned");
    }
}

#[test]
fn a_damaged_file_of_pins_is_told_and_stops_nobody() {
    let redis = kit::redis();
    let mut sidecar = kit::start(kit::cache(&[redis.addr]));
    let to = redis.addr.to_string();
    assert_eq!(control(&sidecar, &["pin", "cache", &to]).0, Some(0));
    sidecar.server().kill().unwrap();
    let state = sidecar.config_file().with_file_name("state");
    let files: Vec<_> = fs::read_dir(&state)
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let whole = fs::read(&files[0]).unwrap();
    // A half-written new one is not even looked at.
    fs::write(files[0].with_extension("new"), &whole[..whole.len() / 2]).unwrap();
    sidecar.restart().unwrap();
    sidecar.wait_primary("cache", redis.addr, LONG).unwrap();
    assert_eq!(kit::status(&sidecar)["cause"], "pinned");
    sidecar.server().kill().unwrap();

    fs::write(&files[0], &whole[..whole.len() / 2]).unwrap();
    sidecar.restart().unwrap();
    sidecar.wait_primary("cache", redis.addr, LONG).unwrap();
    assert_eq!(kit::status(&sidecar)["cause"], "proven");
    let events = control(&sidecar, &["events"]).1;
    assert!(events.contains("pins-unreadable"), "{events}");
    assert_eq!(
        fs::read(files[0].with_extension("broken")).unwrap(),
        &whole[..whole.len() / 2]
    );
}
