//! Any bytes either way in any pieces: the same states, farewells and hints, never a panic. And any
//! greeting or response.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pilotfish::proto::mysql::login::hello::{Greeting, Response};
use pilotfish::proto::mysql::packet::{ServerError, cap};
use pilotfish::proto::mysql::tracker::{MysqlTracker, Start};
use pilotfish::proto::spec::InFlight;
use pilotfish::proto::track::{Direction, Farewell, SessionState, Tracker};

const CAPS: [u64; 4] = [
    cap::PROTOCOL_41,
    cap::PROTOCOL_41 | cap::DEPRECATE_EOF,
    cap::PROTOCOL_41 | cap::DEPRECATE_EOF | cap::OPTIONAL_METADATA,
    cap::PROTOCOL_41 | cap::DEPRECATE_EOF | cap::MARIADB_CACHE_METADATA | cap::MARIADB_PROGRESS,
];

/// What can be known of a session: its state, what it would be told, and a hint.
type Known = (SessionState, Option<Vec<u8>>, bool);

/// As the relay shows them. What a tracker need not see is only counted.
fn follow(caps: u64, stream: &[(bool, Vec<u8>)], piece: usize) -> Vec<Known> {
    let start = Start::Readable { caps, status: 2 };
    let mut tracker = MysqlTracker::new(start, InFlight::Error);
    let mut blind = [0_u64; 2];
    let mut known = Vec::new();
    for (up, bytes) in stream {
        let (direction, blind) = match up {
            true => (Direction::Up, &mut blind[0]),
            false => (Direction::Down, &mut blind[1]),
        };
        for piece in bytes.chunks(piece) {
            let unseen = usize::try_from(*blind).map_or(piece.len(), |b| b.min(piece.len()));
            if unseen > 0 {
                tracker.skip(direction, unseen as u64);
                *blind -= unseen as u64;
            }
            if unseen < piece.len() {
                *blind = tracker.see(direction, &piece[unseen..]);
            }
        }
        let words = tracker
            .farewell(Farewell::Switched)
            .map(|words| words.to_vec());
        known.push((tracker.state(), words, tracker.take_hint()));
    }
    known
}

fuzz_target!(|input: (u8, u8, Vec<(bool, Vec<u8>)>)| {
    let (caps, piece, stream) = input;
    for (_, bytes) in &stream {
        if let Ok(greeting) = Greeting::read(bytes) {
            let mut hidden = bytes.clone();
            greeting.hide_tls(&mut hidden);
            let again = Greeting::read(&hidden).expect("it still is one");
            assert_eq!(again.caps & cap::SSL, 0);
        }
        let _ = (Response::read(bytes), ServerError::read(bytes));
    }
    let caps = CAPS[usize::from(caps) % CAPS.len()];
    let whole = follow(caps, &stream, usize::MAX);
    assert_eq!(whole, follow(caps, &stream, usize::from(piece) + 1));
});
