//! Any bytes either way in any pieces: the same states, farewells and hints, never a panic. And any first
//! packet, any error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pilotfish::proto::postgres::tracker::{PostgresTracker, Status};
use pilotfish::proto::postgres::{message, opening};
use pilotfish::proto::track::{Direction, Farewell, SessionState, Tracker};

/// What can be known of a session: its state, what it would be told, and a hint.
type Known = (SessionState, Option<Vec<u8>>, bool);

/// As the relay shows them. What a tracker need not see is only counted.
fn follow(stream: &[(bool, Vec<u8>)], piece: usize) -> Vec<Known> {
    let mut tracker = PostgresTracker::new(Status::Idle, false, None);
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

fuzz_target!(|input: (u8, Vec<(bool, Vec<u8>)>)| {
    let (piece, stream) = input;
    for (_, bytes) in &stream {
        if let Some(head) = bytes.first_chunk::<8>()
            && let Ok((length, _)) = opening::head(*head)
        {
            assert!((8..=message::LONGEST_STARTUP).contains(&length));
        }
        let _ = (opening::is_replication(bytes), message::complaint(bytes));
    }
    let whole = follow(&stream, usize::MAX);
    assert_eq!(whole, follow(&stream, usize::from(piece) + 1));
});
