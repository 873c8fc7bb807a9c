use super::*;
use crate::cutover::machine::Order;
use crate::cutover::plan::Way;

fn begun() -> Event {
    Event::Begun {
        order: Order {
            way: Way::Cutover,
            to: "rbx".into(),
            reason: None,
            overrides: Vec::new(),
            digest: None,
            by: None,
        },
        sidecar: "app-01".into(),
    }
}

const TIME: &str = "2026-01-01T00:00:00Z";

fn fill(dir: &Path, runs: usize) {
    let (mut writer, _, _) = Writer::open(dir).unwrap();
    for n in 0..runs {
        writer.append(&format!("run-{n}"), TIME, &begun()).unwrap();
        writer
            .append(&format!("run-{n}"), TIME, &Event::Idle)
            .unwrap();
    }
}

#[test]
fn what_was_written_is_read_and_nobody_else_may_look() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let below = dir.path().join("state");
    assert!(runs(&below).unwrap().is_empty());
    fill(&below, 3);
    let found = runs(&below).unwrap();
    let ids: Vec<&str> = found.iter().map(|run| run.id.as_str()).collect();
    assert_eq!(ids, ["run-0", "run-1", "run-2"]);
    assert!(found.iter().all(|run| run.state.is_over()));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&below), mode(&below.join(NAME))), (0o700, 0o600));
    let (_held, _, torn) = Writer::open(&below).unwrap();
    assert!(!torn);
    assert!(matches!(Writer::open(&below), Err(JournalError::Busy(_))));
}

#[test]
fn every_cut_leaves_a_prefix_and_any_other_damage_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 2);
    let path = dir.path().join(NAME);
    let whole = fs::read(&path).unwrap();
    let lines = |bytes: &[u8]| bytes.iter().filter(|&&b| b == b'\n').count();
    for cut in 0..=whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let (mut writer, _, torn) = Writer::open(dir.path()).unwrap();
        assert_eq!(torn, cut > 0 && whole[cut - 1] != b'\n');
        assert_eq!(writer.seq as usize, lines(&whole[..cut]));
        writer.append("more", TIME, &begun()).unwrap();
        drop(writer);
        assert_eq!(runs(dir.path()).unwrap().last().unwrap().id, "more");
    }
    // Every bit counts, in whole lines.
    for at in (0..whole.len() - 1).step_by(7) {
        let mut bad = whole.clone();
        bad[at] ^= 1;
        fs::write(&path, &bad).unwrap();
        let error = Writer::open(dir.path()).unwrap_err();
        assert!(
            matches!(error, JournalError::Damaged { .. }),
            "{at}: {error}"
        );
    }
    let second = whole.iter().position(|&b| b == b'\n').unwrap() + 1;
    fs::write(&path, &whole[second..]).unwrap();
    let error = runs(dir.path()).unwrap_err().to_string();
    assert!(error.contains("damaged in line 1"), "{error}");
}

#[test]
fn long_files_are_put_aside_and_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _, _) = Writer::open(dir.path()).unwrap();
    let long = Event::Refused {
        why: "x".repeat(300_000),
        rule: false,
    };
    for n in 0..40 {
        writer = writer.rotate().unwrap();
        let run = format!("run-{n}");
        writer.append(&run, TIME, &begun()).unwrap();
        writer.append(&run, TIME, &long).unwrap();
    }
    let files = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(files, KEPT as usize + 1);
    let found = runs(dir.path()).unwrap();
    assert!(found.len() > 16 && found.len() < 40, "{}", found.len());
    assert_eq!(found.last().unwrap().id, "run-39");
}
