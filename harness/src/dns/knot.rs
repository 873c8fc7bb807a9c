//! Knot DNS: a primary that takes updates for one name.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{KEY, KEY_NAME, NAME, NOTE, ZONE, query, zone_file};
use crate::process::{Launch, Server, find_program};
use crate::{ports, scratch, wait};

const START: Duration = Duration::from_secs(20);

/// One `knotd`. Directory last: dropped in this order.
pub struct Knot {
    pub addr: SocketAddr,
    pub server: Server,
    _dir: scratch::Dir,
}

impl Knot {
    /// A primary of [`ZONE`] whose key may change the addresses and the CNAME of [`NAME`], and nothing
    /// else; `viewer` may only ask; `example.org` takes no updates. `secondary` is told about changes.
    pub fn primary(records: &[&str], secondary: Option<SocketAddr>) -> Result<Self> {
        let dir = scratch::Dir::new()?;
        let addr = ports::free()?;
        fs::write(dir.join("zone.db"), zone_file(records))?;
        let other = zone_file(&["shop A 192.0.2.1"]).replace(ZONE, "example.org");
        fs::write(dir.join("other.db"), other)?;
        let (port, path) = (addr.port(), dir.path().display());
        let (remote, notify) = match secondary {
            Some(addr) => (
                format!(
                    "remote:\n  - id: secondary\n    address: {}@{}\n",
                    addr.ip(),
                    addr.port()
                ),
                "    notify: secondary\n",
            ),
            None => (String::new(), ""),
        };
        let conf = format!(
            "server:\n    rundir: {path}\n    listen: 127.0.0.1@{port}\n    udp-workers: 1\n    \
             tcp-workers: 1\n    background-workers: 1\n\
             log:\n  - target: stderr\n    any: info\n\
             database:\n    storage: {path}\n    journal-db-max-size: 32M\n\
             key:\n  - id: {KEY_NAME}\n    algorithm: hmac-sha256\n    secret: {KEY}\n  - id: viewer\n    \
             algorithm: hmac-sha256\n    secret: {KEY}\n\
             acl:\n  - id: change\n    key: {KEY_NAME}\n    action: update\n    update-owner: name\n    \
             update-owner-match: equal\n    update-owner-name: [{NAME}., {NOTE}.]\n    \
             update-type: [A, AAAA, CNAME, TXT]\n  - id: look\n    key: viewer\n    \
             action: query\n  - id: copy\n    address: 127.0.0.1\n    \
             action: transfer\n{remote}\
             zone:\n  - domain: {ZONE}\n    file: {path}/zone.db\n    acl: [change, look, copy]\n{notify}  \
             - domain: example.org\n    file: {path}/other.db\n"
        );
        let file = dir.join("knot.conf");
        fs::write(&file, conf).context("writing knot.conf")?;
        let mut launch = Launch::new("knotd", &find_program("knotd")?, &dir.join("knot.log"))?;
        launch.command().arg("-c").arg(&file);
        let knot = Self {
            addr,
            server: launch.start()?,
            _dir: dir,
        };
        wait::until_true("knotd to serve its zone", START, || {
            knot.server.check_running()?;
            Ok(query::serial(knot.addr, ZONE)?.is_some())
        })
        .map_err(|error| error.context(knot.server.log_tail()))?;
        Ok(knot)
    }
}
