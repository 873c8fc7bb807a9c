//! Any text: a config or errors that point into it, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pilotfish::config;

fuzz_target!(|text: &str| {
    if let Err(errors) = config::parse(text) {
        assert!(!errors.is_empty());
        for error in errors {
            assert!(error.span.end <= text.len() && error.span.start <= error.span.end);
        }
    }
});
