use proptest::prelude::*;

use super::super::message::{complaint, frame};
use super::*;
use Direction::{Down, Up};

fn tracker() -> PostgresTracker {
    PostgresTracker::new(Status::Idle, false, None)
}

fn show(tracker: &mut PostgresTracker, direction: Direction, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let (now, later) = bytes.split_at(bytes.len().min(7));
        let unseen = tracker.see(direction, now);
        let passed = unseen.min(later.len() as u64);
        if passed > 0 {
            tracker.skip(direction, passed);
        }
        bytes = &later[usize::try_from(passed).unwrap()..];
    }
}

/// `>Q` the client sends a Query, `<C` the server says CommandComplete, `<ZT` it is ready and in a
/// transaction, `<E:25006` an error, `<S:a=b` a parameter, `>S*70` the same 70 times.
fn play(script: &str) -> PostgresTracker {
    let mut tracker = tracker();
    for word in script.split_whitespace() {
        let (word, times) = word.split_once('*').unwrap_or((word, "1"));
        let direction = if word.starts_with('>') { Up } else { Down };
        let kind = word.as_bytes()[1];
        let body = match (direction, kind) {
            (Down, b'Z') => word[2..].to_owned().into_bytes(),
            (Down, b'E') => {
                let (severity, state) = word[2..].split_once(':').unwrap_or(("", "XX000"));
                let severity = if severity == "!" { "FATAL" } else { "ERROR" };
                format!("S{severity}\0V{severity}\0C{state}\0Mwhy\0\0").into_bytes()
            }
            (Down, b'S') => word[3..].replace('=', "\0").into_bytes(),
            _ => vec![b'x'; 100],
        };
        let body = match (direction, kind) {
            (Down, b'S') => [body, vec![0]].concat(),
            _ => body,
        };
        for _ in 0..times.parse().unwrap() {
            show(&mut tracker, direction, &frame(kind, &body));
        }
    }
    tracker
}

#[test]
fn conversations() {
    let table = [
        ("", "idle"),
        // Simple.
        (">Q", "in-flight"),
        (">Q <T <D <D <C", "in-flight"),
        (">Q <T <D <C <ZI", "idle"),
        (">Q <C <ZT", "in-transaction"),
        (">Q <E <ZE", "in-transaction"),
        (">Q >Q <C <ZI", "in-flight"),
        (">Q >Q <C <ZI <E <ZI", "idle"),
        (">F <V <ZI", "idle"),
        // Extended.
        (">P >B >D >E", "in-flight"),
        (">P >B >D >E >S <1 <2 <T <D <C", "in-flight"),
        (">P >B >D >E >S <1 <2 <T <D <C <ZI", "idle"),
        (">P >H <1", "in-flight"),
        (">S <ZT", "in-transaction"),
        // Pipelined.
        (">P >B >E >S >P >B >E >S <1 <2 <C <ZI <1", "in-flight"),
        (">P >B >E >S >P >B >E >S <C <ZI <C <ZI", "idle"),
        (">P >S >Q >P >S >Q >S <ZI*4", "in-flight"),
        (">P >S >Q >P >S >Q >S <ZI*5", "idle"),
        (">S*70 <ZI*70", "idle"),
        // After an error everything is skipped up to the next Sync.
        (">P >B >E >Q >S <E <ZI", "idle"),
        (">P >E <E >Q >P", "in-flight"),
        (">P >E <E >Q >P >S <ZI", "idle"),
        (">P >B >E >S >Q <E <ZI", "in-flight"),
        (">P >B >E >S >Q <E <ZI <C <ZI", "idle"),
        // COPY in.
        (">Q <G >d >d", "in-flight"),
        (">Q <G >d >d >c <C <ZI", "idle"),
        (">Q >d >c <G <C <ZI", "idle"),
        (">Q <G >d <E <ZI >d >c", "idle"),
        (">Q <G >f <E <ZI", "idle"),
        (">Q <G >S >H >d >c <C <ZI", "idle"),
        // libpq sends a Sync with the command, which is ignored, and one with the end.
        (">P >B >E >S <1 <2 <G >d >c", "in-flight"),
        (">P >B >E >S <1 <2 <G >d >c >S <C <ZI", "idle"),
        (">P >B >E >S >d >c >S <1 <2 <G <C <ZI", "idle"),
        (">P >B >E >S <G >d <E >c >S <ZI", "idle"),
        // COPY out, and what a program asks to be told.
        (">Q <H <d <d", "in-flight"),
        (">Q <H <d <d <c <C <ZI", "idle"),
        ("<N <S:a=b <A", "idle"),
        (">Q <C <ZT <N <S:a=b <A", "in-transaction"),
        // Replication, and what nobody knows.
        (">Q <W <d >d", "pinned-unknown"),
        (">Q <W <c >c <C <ZI", "idle"),
        (">Q <G >Q", "pinned-unknown"),
        (">?", "pinned-unknown"),
        ("<?", "pinned-unknown"),
        (">Q <ZX", "pinned-unknown"),
    ];
    for (script, expected) in table {
        assert_eq!(play(script).state().as_str(), expected, "{script}");
    }
    let replication = PostgresTracker::new(Status::Idle, true, None);
    assert_eq!(replication.state(), SessionState::Pinned(Opaque::Unknown));
}

#[test]
fn kinds_without_end_cannot_be_followed_and_take_no_memory() {
    let mixed = ">Q >S ".repeat(1000);
    let tracker = play(&mixed);
    assert_eq!(tracker.state().as_str(), "pinned-unknown");
    // What matters at the end is the boundary, and that is still known.
    assert!(tracker.farewell(Farewell::Switched).is_some());
}

fn farewell(script: &str, why: Farewell) -> Option<String> {
    let words = play(script).farewell(why)?;
    let said = complaint(&words[5..]);
    assert!(said.fatal && words[0] == b'E');
    Some(said.sqlstate)
}

#[test]
fn the_last_word() {
    for script in ["", ">Q", ">Q <T <D", ">Q <ZT", ">P", ">Q <H <d"] {
        let said = farewell(script, Farewell::Switched);
        assert_eq!(said.as_deref(), Some("57P01"), "{script}");
    }
    assert_eq!(farewell("", Farewell::Idle).as_deref(), Some("57P05"));
    assert_eq!(farewell("", Farewell::ServerLost).as_deref(), Some("57P01"));
    let open = farewell(">Q <ZT", Farewell::ServerLost);
    assert_eq!(open.as_deref(), Some("57P01"), "nothing is owed");
    let asked = farewell(">Q", Farewell::ServerLost);
    assert_eq!(asked.as_deref(), Some("08006"), "it may have been done");
    // The server said it.
    assert_eq!(farewell("<E!:57P01", Farewell::ServerLost), None);
    let mut cut = play(">Q <T");
    cut.see(Down, b"D\0\0");
    assert!(cut.farewell(Farewell::Switched).is_none(), "in a head");
    let unseen = cut.see(Down, b"\0\x64ab");
    assert!(cut.farewell(Farewell::Switched).is_none(), "in a body");
    cut.skip(Down, unseen);
    assert!(cut.farewell(Farewell::Switched).is_none(), "before its end");
    cut.see(Down, b"z");
    assert!(cut.farewell(Farewell::Switched).is_some());
}

#[test]
fn hints() {
    let table = [
        (">Q <E:25006 <ZI", true),
        ("<E!:57P01", true),
        ("<E!:57P02", true),
        (">Q <E:42601 <ZI", false),
        ("<S:in_hot_standby=off", true),
        ("<S:in_hot_standby=on", false),
        ("<S:application_name=in_hot_standby", false),
    ];
    for (script, expected) in table {
        let mut tracker = play(script);
        assert_eq!(tracker.take_hint(), expected, "{script}");
        assert!(!tracker.take_hint(), "once: {script}");
    }
}

#[test]
fn large_bodies_pass_unseen() {
    let mut tracker = tracker();
    let mut value = frame(b'd', &vec![b'x'; 100 << 20]).slice(..10).to_vec();
    let unseen = tracker.see(Up, &value);
    assert_eq!(unseen, (100 << 20) - 5 - 1);
    tracker.skip(Up, unseen);
    assert_eq!(tracker.state(), SessionState::InFlight, "half a message");
    value.truncate(1);
    tracker.see(Up, b"x");
    assert_eq!(tracker.state(), SessionState::Idle);
    assert_eq!(tracker.see(Up, b"Q\xff\xff\xff\xff"), u64::MAX);
    assert_eq!(tracker.state().as_str(), "pinned-unknown");
    assert_eq!(tracker.farewell(Farewell::Switched), None);
}

fn message() -> impl Strategy<Value = (Direction, Vec<u8>)> {
    let up = prop::sample::select(b"QFPBEDCSHdcfXp".to_vec());
    let down = prop::sample::select(b"ZZZEEGWSNACDTHdc123".to_vec());
    let status = prop::sample::select(b"ITE".to_vec());
    let body = prop_oneof![
        Just(b"SERROR\0VERROR\0C25006\0\0".to_vec()),
        Just(b"in_hot_standby\0off\0".to_vec()),
        prop::collection::vec(any::<u8>(), 0..150),
        Just(vec![7; 5000]),
    ];
    (any::<bool>(), up, down, status, body).prop_map(|(is_up, up, down, status, body)| {
        let (direction, kind) = if is_up { (Up, up) } else { (Down, down) };
        let body = if kind == b'Z' { vec![status] } else { body };
        (direction, frame(kind, &body).to_vec())
    })
}

proptest! {
    #[test]
    fn any_split_gives_the_same_states(
        messages in prop::collection::vec(message(), 0..40),
        cuts in prop::collection::vec(1..200_usize, 1..50),
    ) {
        let (mut whole, mut pieces) = (tracker(), tracker());
        let mut cuts = cuts.iter().cycle();
        for (direction, bytes) in messages {
            whole.see(direction, &bytes);
            let mut rest = &bytes[..];
            let mut unseen = 0;
            while !rest.is_empty() {
                let (piece, later) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                let hidden = usize::try_from(unseen).unwrap_or(usize::MAX).min(piece.len());
                if hidden > 0 {
                    pieces.skip(direction, hidden as u64);
                    unseen -= hidden as u64;
                }
                if hidden < piece.len() {
                    unseen = pieces.see(direction, &piece[hidden..]);
                }
                rest = later;
            }
            prop_assert_eq!(whole.state(), pieces.state());
            prop_assert_eq!(whole.take_hint(), pieces.take_hint());
            let last = (whole.farewell(Farewell::Switched), pieces.farewell(Farewell::Switched));
            prop_assert_eq!(&last.0, &last.1);
        }
    }

    #[test]
    fn no_bytes_are_too_strange(
        pieces in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)), 0..40),
    ) {
        let mut tracker = tracker();
        for (up, bytes) in pieces {
            let direction = if up { Up } else { Down };
            let unseen = tracker.see(direction, &bytes);
            tracker.skip(direction, unseen / 2);
            let _ = (tracker.state(), tracker.farewell(Farewell::ServerLost), tracker.take_hint());
        }
    }
}
