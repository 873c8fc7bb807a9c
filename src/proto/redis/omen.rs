//! Passive evidence in what a Redis server says. Pure.
//!
//! The bytes of a Redis session are not parsed. Of each read from the server the first few are looked
//! at, which is where an error stands that is answered to a client that waits for it: one request, one
//! reply. An error in the middle of a pipeline's replies, or behind a large value, is not seen, and the
//! middle of a value may look like one. Both are fine for a hint: it makes the monitor ask, and decides
//! nothing.

use crate::topology::Role;

/// The errors that only a server gives that is not the master (redis.io/docs: replication): it is a
/// replica, or it is one that lost its master and does not answer from old data. LOADING is none: a master
/// says it too.
const READONLY: &[u8] = b"-READONLY ";
const MASTERDOWN: &[u8] = b"-MASTERDOWN ";

/// What to look for at the beginning of a read from a server in this role. A replica that refuses to be
/// written to is as it should be.
pub fn for_role(role: Role) -> fn(&[u8]) -> bool {
    match role {
        Role::Primary => of_primary,
        Role::Replica => of_replica,
    }
}

fn of_primary(read: &[u8]) -> bool {
    read.first() == Some(&b'-') && (read.starts_with(READONLY) || read.starts_with(MASTERDOWN))
}

fn of_replica(read: &[u8]) -> bool {
    read.first() == Some(&b'-') && read.starts_with(MASTERDOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_an_omen() {
        for (read, primary, replica) in [
            (&b"-READONLY You can't write against a read only replica.\r\n"[..], true, false),
            (b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n", true, true),
            (b"-LOADING Redis is loading the dataset in memory\r\n", false, false),
            (b"-READONLYX\r\n", false, false),
            (b"-READ", false, false),
            (b"-ERR unknown command\r\n", false, false),
            (b"$9\r\n-READONLY\r\n", false, false),
            (b"+OK\r\n-READONLY You can't\r\n", false, false),
            (b"-", false, false),
            (b"", false, false),
        ] {
            let seen = (for_role(Role::Primary)(read), for_role(Role::Replica)(read));
            assert_eq!(seen, (primary, replica), "{}", read.escape_ascii());
        }
    }
}
