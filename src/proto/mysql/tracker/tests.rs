use proptest::prelude::*;

use super::*;
use crate::proto::mysql::packet::{cap, frame};
use crate::proto::spec::InFlight as OnCut;
use Direction::{Down, Up};
use SessionState::{Idle, InFlight, InTransaction, Pinned};

const OLD: u64 = cap::PROTOCOL_41;
const NEW: u64 = cap::PROTOCOL_41 | cap::DEPRECATE_EOF;
const UNKNOWN: SessionState = Pinned(Opaque::Unknown);

fn tracker(caps: u64) -> MysqlTracker {
    MysqlTracker::new(Start::Readable { caps, status: 2 }, OnCut::Error)
}

fn ok(seq: u8, status: u16) -> Vec<u8> {
    let [low, high] = status.to_le_bytes();
    frame(seq, &[0, 0, 0, low, high, 0, 0]).to_vec()
}

/// What ends rows when nothing ends columns.
fn end(seq: u8, status: u16) -> Vec<u8> {
    let [low, high] = status.to_le_bytes();
    frame(seq, &[0xfe, 0, 0, low, high, 0, 0]).to_vec()
}

fn eof(seq: u8, status: u16) -> Vec<u8> {
    let [low, high] = status.to_le_bytes();
    frame(seq, &[0xfe, 0, 0, low, high]).to_vec()
}

fn err(seq: u8, code: u16) -> Vec<u8> {
    let words = Words {
        code,
        state: Some("HY000"),
        text: "no",
    };
    words.packet(seq).to_vec()
}

fn packet(seq: u8, payload: &[u8]) -> Vec<u8> {
    frame(seq, payload).to_vec()
}

fn command(code: u8, rest: &[u8]) -> Vec<u8> {
    packet(0, &[&[code], rest].concat())
}

fn query() -> Vec<u8> {
    command(3, b"SELECT 1")
}

fn column(seq: u8) -> Vec<u8> {
    packet(seq, b"\x03def\x00\x00\x00\x011\x00\x0c\x3f\x00")
}

/// A script: what passes, and where the session stands then.
type Script = Vec<(Direction, Vec<u8>, SessionState)>;

fn play(caps: u64, script: &Script) -> MysqlTracker {
    let mut tracker = tracker(caps);
    for (step, (direction, bytes, expected)) in script.iter().enumerate() {
        show(&mut tracker, *direction, bytes);
        assert_eq!(tracker.state(), *expected, "step {step}: {bytes:?}");
    }
    tracker
}

/// As the relay does it: what need not be seen is only counted.
fn show(tracker: &mut MysqlTracker, direction: Direction, bytes: &[u8]) {
    let unseen = tracker.see(direction, bytes);
    assert!(unseen == 0 || unseen == u64::MAX, "{unseen} of {bytes:?}");
}

#[test]
fn requests_with_one_packet_for_an_answer() {
    for code in [0x02, 0x05, 0x0d, 0x0e, 0x1a, 0x1b, 0x1f, 0x03, 0x17, 0xfa] {
        for answer in [ok(1, 2), err(1, 1064)] {
            let script = vec![(Up, command(code, b"xyz"), InFlight), (Down, answer, Idle)];
            play(OLD, &script);
            play(NEW, &script);
        }
    }
    play(
        OLD,
        &vec![
            (Up, command(0x1b, b"\0\0"), InFlight),
            (Down, eof(1, 2), Idle),
        ],
    );
    play(
        NEW,
        &vec![
            (Up, command(0x1b, b"\0\0"), InFlight),
            (Down, end(1, 2), Idle),
        ],
    );
    let text = packet(1, b"Uptime: 5  Threads: 1");
    play(
        OLD,
        &vec![(Up, command(9, b""), InFlight), (Down, text, Idle)],
    );
}

#[test]
fn results_with_and_without_an_end_of_columns() {
    play(
        OLD,
        &vec![
            (Up, query(), InFlight),
            (Down, packet(1, b"\x01"), InFlight),
            (Down, column(2), InFlight),
            (Down, eof(3, 2), InFlight),
            (Down, packet(4, b"\x011"), InFlight),
            (Down, packet(5, b"\xfb"), InFlight),
            (Down, eof(6, 2), Idle),
        ],
    );
    play(
        NEW,
        &vec![
            (Up, query(), InFlight),
            (Down, packet(1, b"\x01"), InFlight),
            (Down, column(2), InFlight),
            (Down, packet(3, b"\x011"), InFlight),
            (Down, end(4, 3), InTransaction),
            (Up, query(), InFlight),
            (Down, ok(1, 2), Idle),
        ],
    );
    // An error in the middle of rows.
    play(
        NEW,
        &vec![
            (Up, query(), InFlight),
            (Down, packet(1, b"\x01"), InFlight),
            (Down, column(2), InFlight),
            (Down, packet(3, b"\x011"), InFlight),
            (Down, err(4, 1317), Idle),
        ],
    );
}

#[test]
fn several_results() {
    let more = 2 | status::MORE_RESULTS;
    play(
        NEW,
        &vec![
            (Up, query(), InFlight),
            (Down, ok(1, more), InFlight),
            (Down, packet(2, b"\x01"), InFlight),
            (Down, column(3), InFlight),
            (Down, end(4, more), InFlight),
            (Down, ok(5, 2), Idle),
        ],
    );
    play(
        OLD,
        &vec![
            (Up, query(), InFlight),
            (Down, ok(1, more), InFlight),
            (Down, err(2, 1064), Idle),
        ],
    );
}

#[test]
fn metadata_that_does_not_follow() {
    for optional in [cap::OPTIONAL_METADATA, cap::MARIADB_CACHE_METADATA] {
        let rows = vec![
            (Up, query(), InFlight),
            (Down, packet(1, b"\x02\x00"), InFlight),
            (Down, packet(2, b"\x011\x011"), InFlight),
            (Down, end(3, 2), Idle),
            (Up, query(), InFlight),
            (Down, packet(1, b"\x01\x01"), InFlight),
            (Down, column(2), InFlight),
            (Down, end(3, 2), Idle),
        ];
        play(NEW | optional, &rows);
        let unclear = vec![
            (Up, query(), InFlight),
            (Down, packet(1, b"\x02\x00"), UNKNOWN),
        ];
        play(OLD | optional, &unclear);
        let odd = vec![
            (Up, query(), InFlight),
            (Down, packet(1, b"\x02\x07"), UNKNOWN),
        ];
        play(NEW | optional, &odd);
    }
}

fn prepared(columns: u8, params: u8, rest: &[u8]) -> Vec<u8> {
    let head = [0, 1, 0, 0, 0, columns, 0, params, 0, 0, 0, 0];
    packet(1, &[&head, rest].concat())
}

#[test]
fn prepared_statements() {
    let prepare = || (Up, command(0x16, b"SELECT ?"), InFlight);
    play(NEW, &vec![prepare(), (Down, prepared(0, 0, b""), Idle)]);
    play(NEW, &vec![prepare(), (Down, err(1, 1064), Idle)]);
    play(
        NEW,
        &vec![
            prepare(),
            (Down, prepared(1, 1, b""), InFlight),
            (Down, column(2), InFlight),
            (Down, column(3), Idle),
            (Up, command(0x18, b"\x01\0\0\0\0\0blob"), InTransaction),
            (Up, command(0x17, b"\x01\0\0\0\0\x01\0\0\0"), InFlight),
            (Down, packet(1, b"\x01"), InFlight),
            (Down, column(2), InFlight),
            (Down, packet(3, b"\0\0\x05hello"), InFlight),
            (Down, end(4, 2), Idle),
            (Up, command(0x19, b"\x01\0\0\0"), Idle),
        ],
    );
    play(
        OLD,
        &vec![
            prepare(),
            (Down, prepared(1, 2, b""), InFlight),
            (Down, column(2), InFlight),
            (Down, column(3), InFlight),
            (Down, eof(4, 2), InFlight),
            (Down, column(5), InFlight),
            (Down, eof(6, 2), Idle),
        ],
    );
    let mysql = NEW | cap::OPTIONAL_METADATA;
    play(mysql, &vec![prepare(), (Down, prepared(1, 1, b"\0"), Idle)]);
    play(
        mysql,
        &vec![
            prepare(),
            (Down, prepared(1, 0, b"\x01"), InFlight),
            (Down, column(2), Idle),
        ],
    );
}

#[test]
fn cursors() {
    let (open, last) = (
        2 | status::CURSOR_EXISTS,
        2 | status::CURSOR_EXISTS | status::LAST_ROW_SENT,
    );
    let execute = || (Up, command(0x17, b"\x01\0\0\0\x01\x01\0\0\0"), InFlight);
    let fetch = || (Up, command(0x1c, b"\x01\0\0\0\x02\0\0\0"), InFlight);
    let head = |caps: u64| {
        let mut script = vec![
            execute(),
            (Down, packet(1, b"\x01"), InFlight),
            (Down, column(2), InFlight),
        ];
        // There are no rows yet.
        script.push(match caps {
            OLD => (Down, eof(3, open), InTransaction),
            _ => (Down, end(3, open), InTransaction),
        });
        script
    };
    for (caps, ends) in [(OLD, eof as fn(u8, u16) -> Vec<u8>), (NEW, end)] {
        let mut script = head(caps);
        script.extend([
            fetch(),
            (Down, packet(1, b"\0\0\x05hello"), InFlight),
            (Down, ends(2, open), InTransaction),
            fetch(),
            (Down, ends(1, last), Idle),
        ]);
        play(caps, &script);
        let mut closed = head(caps);
        closed.push((Up, command(0x19, b"\x01\0\0\0"), Idle));
        play(caps, &closed);
    }
}

#[test]
fn files_of_the_client() {
    let mut script = vec![
        (Up, query(), InFlight),
        (Down, packet(1, b"\xfb/tmp/x"), InFlight),
    ];
    for n in 0..=255_u8 {
        script.push((Up, packet(n.wrapping_add(2), b"1,2\n"), InFlight));
    }
    script.push((Up, packet(2, b""), InFlight));
    script.push((Down, ok(3, 2), Idle));
    play(OLD, &script);
    // An answer before the file is there.
    let early = vec![
        (Up, query(), InFlight),
        (Down, packet(1, b"\xfb/tmp/x"), InFlight),
        (Down, ok(2, 2), UNKNOWN),
    ];
    play(OLD, &early);
}

#[test]
fn logins_within_a_session() {
    play(
        NEW,
        &vec![
            (Up, command(0x11, b"other\0"), InFlight),
            (
                Down,
                packet(1, b"\xfecaching_sha2_password\0nonce"),
                InFlight,
            ),
            (Up, packet(2, &[7; 32]), InFlight),
            (Down, packet(3, b"\x01\x03"), InFlight),
            (Down, ok(4, 2), Idle),
            (Up, command(0x1f, b""), InFlight),
            (Down, ok(1, 2), Idle),
        ],
    );
}

#[test]
fn requests_that_do_not_wait() {
    play(
        NEW | cap::MARIADB_PROGRESS,
        &vec![
            (
                Up,
                [command(0x16, b"SELECT 1"), command(0x17, &[255; 9])].concat(),
                InFlight,
            ),
            (Up, query(), InFlight),
            (Down, [prepared(1, 0, b""), column(2)].concat(), InFlight),
            (Down, err(1, errno::PROGRESS), InFlight),
            (Down, ok(1, 2), InFlight),
            (Down, err(1, 1064), Idle),
        ],
    );
    // The server went away with one of them.
    let mut many = tracker(NEW);
    for _ in 0..=MOST_UNDER_WAY {
        many.see(Up, &query());
    }
    assert_eq!(many.state(), UNKNOWN);
}

#[test]
fn what_is_not_understood() {
    for script in [
        vec![(Up, command(0x12, b"binlog"), UNKNOWN)],
        vec![(Up, command(0x15, b""), UNKNOWN), (Down, ok(1, 2), UNKNOWN)],
        vec![(Up, command(0xfe, b""), UNKNOWN)],
        vec![(Up, packet(3, b"\x03"), UNKNOWN)],
        vec![(Up, packet(0, b""), UNKNOWN)],
        vec![(Down, ok(0, 2), UNKNOWN)],
        vec![(Down, err(0, 1927), UNKNOWN)],
        vec![(Up, query(), InFlight), (Down, packet(1, b""), UNKNOWN)],
        vec![(Up, query(), InFlight), (Down, packet(1, b"\0"), UNKNOWN)],
        vec![(Up, query(), InFlight), (Down, eof(1, 2), UNKNOWN)],
        vec![(Up, query(), InFlight), (Down, packet(1, b"HTTP"), UNKNOWN)],
    ] {
        let mut tracker = play(OLD, &script);
        assert_eq!(tracker.see(Up, b"x"), u64::MAX);
        assert_eq!(tracker.farewell(Farewell::Switched), None);
    }
    for why in [Opaque::Compressed, Opaque::Encrypted] {
        let mut tracker = MysqlTracker::new(Start::Opaque(why), OnCut::Error);
        assert_eq!(tracker.see(Down, &[1; 100]), u64::MAX);
        tracker.skip(Up, 7);
        assert_eq!(tracker.state(), Pinned(why));
    }
}

#[test]
fn parts_of_packets_are_in_flight() {
    let (mut tracker, request) = (tracker(NEW), query());
    for at in 1..request.len() {
        tracker.see(Up, &request[at - 1..at]);
        let left = request.len() - at;
        assert_eq!(tracker.state(), InFlight);
        assert_eq!(tracker.farewell(Farewell::Drained), None, "{left} to come");
    }
}

#[test]
fn large_packets_are_not_seen() {
    const FULL: u64 = 0xff_ffff;
    let mut tracker = tracker(NEW);
    // A statement of 16 MB and 3 bytes.
    assert_eq!(tracker.see(Up, b"\xff\xff\xff\x00\x03INS"), FULL - 4);
    tracker.skip(Up, FULL - 5);
    assert_eq!(tracker.farewell(Farewell::Switched), None);
    tracker.skip(Up, 1);
    assert_eq!(tracker.see(Up, b"\x04\0\0\x01"), 4);
    tracker.skip(Up, 3);
    assert_eq!(tracker.farewell(Farewell::Switched), None);
    tracker.skip(Up, 1);
    let words = tracker.farewell(Farewell::Switched).unwrap();
    assert_eq!(words[3], 2);
    tracker.see(Down, &[packet(2, b"\x01"), column(3)].concat());
    // A row of 32 MB, and one that begins like an error and goes on.
    for seq in 4..6 {
        assert_eq!(tracker.see(Down, &[255, 255, 255, seq, 0xfd]), FULL - 1);
        tracker.skip(Down, FULL - 1);
        assert_eq!(tracker.farewell(Farewell::Switched), None);
    }
    assert_eq!(tracker.see(Down, b"\0\0\0\x06"), 0);
    assert_eq!(tracker.farewell(Farewell::Switched).unwrap()[3], 7);
    tracker.see(Down, &end(7, 2));
    assert_eq!(tracker.state(), Idle);
    assert_eq!(tracker.see(Up, b"\x10\0\0\0\x03SEL"), 12);
    tracker.skip(Up, 13);
    assert_eq!(tracker.state(), UNKNOWN, "more than was allowed");
}

#[test]
fn a_farewell_is_an_answer() {
    let ends = |tracker: &MysqlTracker| {
        let words = tracker.farewell(Farewell::ServerLost)?;
        let error = crate::proto::mysql::packet::ServerError::read(&words[4..]).unwrap();
        assert_eq!((error.code, &words[7..13]), (1053, &b"#08S01"[..]));
        Some(words[3])
    };
    let mut it = tracker(NEW);
    assert_eq!(ends(&it), None, "nobody asked anything");
    it.see(Up, &query());
    assert_eq!(ends(&it), Some(1));
    assert_eq!(it.farewell(Farewell::Idle), None);
    it.see(Down, &packet(1, b"\x01"));
    assert_eq!(ends(&it), Some(2));
    it.see(Down, &column(2));
    it.see(Down, &packet(3, b"\x011"));
    assert_eq!(ends(&it), Some(4));
    it.see(Down, b"\x05\0\0\x04");
    assert_eq!(ends(&it), None, "in the middle of a row");
    it.see(Down, b"\x04text");
    assert_eq!(ends(&it), Some(5));
    it.see(Up, &query());
    assert_eq!(ends(&it), None, "for which of the two?");
    it.see(Down, &[end(5, 2), ok(1, 2)].concat());
    assert_eq!((ends(&it), it.state()), (None, Idle));
    it.see(Up, &query());
    it.see(Down, &packet(1, b"\xfb/tmp/x"));
    assert_eq!(ends(&it), None, "the client sends and does not read");
    it.see(Up, &[packet(2, b"1\n"), packet(3, b"")].concat());
    assert_eq!(ends(&it), Some(4));

    let mut quiet = MysqlTracker::new(
        Start::Readable {
            caps: NEW,
            status: 2,
        },
        OnCut::Close,
    );
    quiet.see(Up, &query());
    assert_eq!(quiet.farewell(Farewell::Switched), None);
}

#[test]
fn errors_of_servers_that_are_no_primary() {
    for (code, expected) in [
        (1290, true),
        (1836, true),
        (1047, true),
        (1053, true),
        (1792, false),
        (1064, false),
    ] {
        let mut it = tracker(NEW);
        it.see(Up, &query());
        it.see(Down, &err(1, code));
        assert_eq!(
            (it.take_hint(), it.take_hint()),
            (expected, false),
            "{code}"
        );
    }
    let mut unasked = tracker(NEW);
    unasked.see(Down, &err(0, 1053));
    assert!(unasked.take_hint() && unasked.state() == UNKNOWN);
}

/// Some of everything, well formed or not.
fn streams() -> impl Strategy<Value = Vec<(Direction, Vec<u8>)>> {
    let up = prop_oneof![
        Just(query()),
        Just(command(0x16, b"SELECT ?")),
        Just(command(0x17, &[0; 10])),
        Just(command(0x0e, b"")),
        Just(command(0x18, &[1; 300])),
        Just(packet(2, b"")),
        proptest::collection::vec(any::<u8>(), 0..40),
    ];
    let down = prop_oneof![
        Just(ok(1, 2)),
        Just(ok(1, 3)),
        Just(ok(1, 2 | status::MORE_RESULTS)),
        Just(err(1, 1290)),
        Just(eof(3, 2)),
        Just(end(3, 2)),
        Just(packet(1, b"\x01")),
        Just(packet(1, b"\xfbfile")),
        Just(column(2)),
        Just(prepared(1, 1, b"")),
        Just(packet(9, &[0x31; 1000])),
        proptest::collection::vec(any::<u8>(), 0..40),
    ];
    let one = prop_oneof![up.prop_map(|b| (Up, b)), down.prop_map(|b| (Down, b))];
    proptest::collection::vec(one, 0..30)
}

/// As the relay does it, in pieces of so many bytes. All that can be known, after each stretch.
fn states(
    caps: u64,
    stream: &[(Direction, Vec<u8>)],
    pieces: &[usize],
) -> Vec<(SessionState, Option<Bytes>, bool)> {
    let mut it = tracker(caps);
    let mut blind = [0_u64; 2];
    let mut pieces = pieces.iter().cycle();
    let mut states = Vec::new();
    for (direction, bytes) in stream {
        let blind = &mut blind[usize::from(*direction == Down)];
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (mut piece, after) = rest.split_at((*pieces.next().unwrap()).min(rest.len()));
            rest = after;
            let unseen = usize::try_from(*blind).map_or(piece.len(), |b| b.min(piece.len()));
            if unseen > 0 {
                it.skip(*direction, unseen as u64);
                *blind -= unseen as u64;
                piece = &piece[unseen..];
            }
            if !piece.is_empty() {
                *blind = it.see(*direction, piece);
            }
        }
        states.push((it.state(), it.farewell(Farewell::Switched), it.take_hint()));
    }
    states
}

proptest! {
    #[test]
    fn any_split_gives_the_same_states(
        stream in streams(),
        caps in prop_oneof![Just(OLD), Just(NEW), Just(NEW | cap::MARIADB_CACHE_METADATA)],
        pieces in proptest::collection::vec(1_usize..50, 1..5),
    ) {
        let whole = states(caps, &stream, &[usize::MAX]);
        prop_assert_eq!(&whole, &states(caps, &stream, &[1]));
        prop_assert_eq!(&whole, &states(caps, &stream, &pieces));
    }
}
