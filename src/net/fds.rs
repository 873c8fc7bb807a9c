//! File descriptors: how many there may be, and which errors mean that something has run out.

use std::io;

use rustix::process::{Resource, getrlimit, setrlimit};

/// Kept free for logs, probes, health, admin, and clients that are being told off.
const RESERVED: u64 = 256;

/// Clients that are told why they cannot have a session, at a time; beyond that they are just closed.
const MAX_REFUSING: usize = 64;

/// Pipes that one data thread may have at a time, for large values. Each takes two descriptors.
pub const PIPES_PER_THREAD: usize = 16;

/// Raises the soft limit of descriptors to the hard one and returns it.
pub fn raise_limit() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum || limit.current.is_some() && limit.maximum.is_none() {
        let raised = rustix::process::Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            limit = getrlimit(Resource::Nofile);
        }
    }
    limit.current.unwrap_or(u64::MAX)
}

/// How many sessions fit below `limit` descriptors, with two sockets each and enough left for the
/// control side of a process with so many data threads to stay reachable (guarantee G6).
pub fn session_budget(limit: u64, threads: usize) -> usize {
    usize::try_from((limit - reserve(limit, threads)) / 2).unwrap_or(usize::MAX)
}

/// How many clients may be told off at a time: a part of what is reserved.
pub fn refusal_budget(limit: u64, threads: usize) -> usize {
    usize::try_from(reserve(limit, threads) / 4).map_or(MAX_REFUSING, |n| n.min(MAX_REFUSING))
}

fn reserve(limit: u64, threads: usize) -> u64 {
    let pipes = threads as u64 * PIPES_PER_THREAD as u64 * 2;
    (RESERVED + pipes).min(limit / 2)
}

/// Whether `error` says that this host ran out of descriptors or memory: wait, then go on.
pub fn is_resource_error(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|errno| code == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_side_keeps_its_share() {
        for (limit, threads, sessions) in [
            (1024, 2, 352),
            (256, 2, 64),
            (20_000, 2, 9_840),
            (20_000, 64, 8_848),
            (0, 1, 0),
        ] {
            assert_eq!(session_budget(limit, threads), sessions);
        }
        assert_eq!(
            [refusal_budget(128, 2), refusal_budget(20_000, 2)],
            [16, 64]
        );
    }

    #[test]
    fn running_out_is_told_from_a_lost_connection() {
        for (code, out) in [
            (24, true),
            (23, true),
            (105, true),
            (12, true),
            (103, false),
            (11, false),
        ] {
            assert_eq!(
                is_resource_error(&io::Error::from_raw_os_error(code)),
                out,
                "{code}"
            );
        }
    }
}
