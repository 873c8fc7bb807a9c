//! Free loopback ports for servers that must be told their port.
//!
//! Binding port 0 and letting go of it is a race: the kernel may hand the same number to somebody's outgoing
//! connection a moment later. So ports come from below the range the kernel uses for outgoing connections, in blocks.
//! A process owns a block by keeping its first port bound: test processes running in parallel never share one, and
//! the kernel gives it back however a process ends.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};

const FIRST: u16 = 10_000;
/// Linux uses 32768 and up for outgoing connections.
const LAST: u16 = 32_700;
const BLOCK: u16 = 50;

struct Block {
    /// Kept only to stay bound.
    _guard: TcpListener,
    next: u16,
    end: u16,
}

static OWNED: Mutex<Option<Block>> = Mutex::new(None);
/// Guards of blocks that are used up: their servers may still run.
static SPENT: Mutex<Vec<Block>> = Mutex::new(Vec::new());

/// A loopback address nobody listens on, never handed out twice by this process.
pub fn free() -> Result<SocketAddr> {
    let mut owned = OWNED.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(block) = owned.as_mut() {
            while block.next < block.end {
                let addr = loopback(block.next);
                block.next += 1;
                if TcpListener::bind(addr).is_ok() {
                    return Ok(addr);
                }
            }
        }
        let fresh = claim()?;
        if let Some(spent) = owned.replace(fresh) {
            SPENT
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(spent);
        }
    }
}

fn claim() -> Result<Block> {
    let blocks = u32::from((LAST - FIRST) / BLOCK);
    let start = std::process::id().wrapping_mul(7);
    for n in 0..blocks {
        let index = (start.wrapping_add(n) % blocks) as u16;
        let base = FIRST + index * BLOCK;
        if let Ok(guard) = TcpListener::bind(loopback(base)) {
            return Ok(Block {
                _guard: guard,
                next: base + 1,
                end: base + BLOCK,
            });
        }
    }
    bail!(
        "no free block of loopback ports between {FIRST} and {LAST}: are other test runs still alive?"
    )
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn never_the_same_port_twice() {
        let handed: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(|| (0..40).map(|_| super::free().unwrap()).collect::<Vec<_>>())
            })
            .flat_map(|thread| thread.join().unwrap())
            .collect();
        let distinct: BTreeSet<_> = handed.iter().collect();
        assert_eq!(distinct.len(), handed.len());
    }
}
