//! The stack in `docker/`, as far as it can be held without a container engine: every file of it is read by the program it
//! is for, and what they say of each other fits.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{BINARY, printed};

const REGIONS: [&str; 2] = ["gra", "rbx"];

fn docker(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("docker").join(name)
}

fn text(name: &str) -> String {
    let read = std::fs::read_to_string(docker(name));
    read.unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The stack's folder, with the paths that its files have in a container leading to it.
fn stack() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let here = dir.path().display().to_string();
    for entry in std::fs::read_dir(docker("stack"))
        .expect("the stack")
        .flatten()
    {
        if entry.path().is_file() {
            let text = std::fs::read_to_string(entry.path()).expect("a text");
            let text = text
                .replace("/etc/pilotfish", &here)
                .replace("/stack/", &format!("{here}/"))
                .replace("/var/cache/bind", &here);
            std::fs::write(dir.path().join(entry.file_name()), text).expect("writing");
        }
    }
    dir
}

#[test]
fn both_sidecars_understand_their_configuration() {
    let dir = stack();
    for region in REGIONS {
        let file = dir.path().join(format!("{region}.toml"));
        let file = file.to_str().expect("a path");
        let said = printed(Command::new(BINARY).args(["check", "-c", file]));
        // That health can be asked from the other region is a warning, and the only one.
        assert!(said.contains("ok, 1 service, 1 warning"), "{said}");
    }
    let [gra, rbx] = REGIONS.map(|region| text(&format!("stack/{region}.toml")));
    let differ = gra.lines().zip(rbx.lines()).filter(|(a, b)| a != b);
    assert_eq!(
        differ.count(),
        3,
        "the name of the region, and nothing else"
    );
}

#[test]
fn the_name_servers_understand_theirs() {
    let dir = stack();
    let path = |name: &str| dir.path().join(name).display().to_string();
    for kind in ["parent", "primary", "secondary"] {
        printed(Command::new("named-checkconf").args([&path(&format!("named-{kind}.conf"))]));
    }
    for zone in ["test", "example.test"] {
        printed(Command::new("named-checkzone").args([zone, &path(&format!("{zone}.db"))]));
    }
    printed(Command::new("unbound-checkconf").args([&path("unbound.conf")]));
    // BIND and Pilotfish have the same key.
    let key = text("stack/tsig.key");
    assert!(text("stack/cutover.key").contains(&format!("\"{}\"", key.trim())));
}

#[test]
fn its_programs_can_be_run() {
    for script in ["stack/start", "stack/fence"] {
        printed(Command::new("bash").arg("-n").arg(docker(script)));
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(docker(script))
            .expect("a file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o111, 0o111, "{script}");
    }
    printed(
        Command::new("php")
            .arg("-l")
            .arg(docker("stack/shop/index.php")),
    );
}

/// The addresses that configuration, zones and scripts speak of are those that `compose.yaml` gives.
#[test]
fn everybody_is_where_the_others_look_for_them() {
    let compose = text("compose.yaml");
    let given: BTreeSet<&str> = compose
        .split("ipv4_address: ")
        .skip(1)
        .filter_map(|rest| rest.split('}').next())
        .collect();
    assert_eq!(given.len(), 9, "{given:?}");
    let files = [
        "gra.toml",
        "rbx.toml",
        "example.test.db",
        "test.db",
        "start",
        "fence",
    ];
    for file in files.map(|name| format!("stack/{name}")) {
        let text = text(&file);
        let words = text.split(|c: char| !c.is_ascii_digit() && c != '.');
        let hosts = words.filter(|word| word.starts_with("172.30.") && !word.ends_with(".0"));
        for host in hosts {
            assert!(given.contains(host), "{file}: nobody is at {host}");
        }
    }
    // What is mounted is there.
    let mounted = compose
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- ./"));
    let mounted: Vec<&str> = mounted.filter_map(|rest| rest.split(':').next()).collect();
    assert_eq!(mounted.len(), 6);
    for file in mounted {
        assert!(docker(file).is_file(), "{file}");
    }
}
