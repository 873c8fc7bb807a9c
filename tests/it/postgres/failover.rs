//! Who is primary, and what becomes of sessions when that changes.

use std::time::Instant;

use anyhow::Result;

use super::{LONG, assert_sound, cluster, connect, row, settle_accounts, shop, start, writers};

#[test]
fn a_standby_is_promoted_after_the_primary_was_killed() -> Result<()> {
    let cluster = cluster(1)?;
    let sidecar = start(shop(&cluster.addrs())?)?;
    let writers = writers(&sidecar)?;
    cluster.node(1).wait_caught_up(cluster.node(0))?;
    cluster.node(0).kill()?;
    cluster.node(1).promote()?;
    let promoted = Instant::now();
    sidecar.wait_primary("shop", cluster.addr(1), LONG)?;
    for writer in &writers {
        let first = writer.wait_ack_after(promoted, LONG)?;
        println!("first row {:?} after the promotion", first - promoted);
    }
    settle_accounts(writers, promoted, cluster.node(1), None)?;
    let mut pg = connect(&sidecar)?;
    pg.query(&row("last", 1))?;
    assert_sound(&sidecar)
}
