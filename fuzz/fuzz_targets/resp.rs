//! Any bytes in any pieces: the same replies, bounded, never a panic.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use pilotfish::proto::redis::{resp, role};

fuzz_target!(|input: (Vec<u8>, u8)| {
    let (bytes, cut) = input;
    let mut whole = BytesMut::from(&bytes[..]);
    let mut first = Vec::new();
    while let Ok(Some(frame)) = resp::take_frame(&mut whole) {
        let _ = role::parse(&frame);
        first.push(frame);
    }
    let (mut pieces, mut second) = (BytesMut::new(), Vec::new());
    for piece in bytes.chunks(usize::from(cut) + 1) {
        pieces.extend_from_slice(piece);
        while let Ok(Some(frame)) = resp::take_frame(&mut pieces) {
            second.push(frame);
        }
    }
    assert!(second.len() >= first.len() && second[..first.len()] == first[..]);
});
