//! What a sentinel may say: answers and events of any shape.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use pilotfish::proto::redis::resp;
use pilotfish::proto::redis::sentinel::{answer, event};

fuzz_target!(|input: (Vec<u8>, &str, &str)| {
    let (bytes, channel, payload) = input;
    let mut buf = BytesMut::from(&bytes[..]);
    let mut replies = Vec::new();
    while let Ok(Some(frame)) = resp::take_frame(&mut buf) {
        let _ = event::push(&frame);
        replies.push(frame);
    }
    let _ = answer::parse(&replies);
    for chunk in replies.chunks(5) {
        let _ = answer::parse(chunk);
    }
    let _ = event::read(channel, payload, "mymaster");
});
