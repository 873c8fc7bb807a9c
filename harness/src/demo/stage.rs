//! The servers, the sidecar, the writers and the witnesses of one act.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Options;
use crate::haproxy::{HaProxy, Recipe};
use crate::redis::{self, Announcements, RedisCluster};
use crate::resp::Target;
use crate::sidecar::{Config, HealthWatch, LogFollow, Service, Sidecar, Until};
use crate::writer::{self, Mode, Writer};

pub(super) const SERVICE: &str = "cache";
/// A client that is held must not give up before the failover is over.
const HOLD: &str = "10s";
const PATIENCE: Duration = Duration::from_secs(12);

/// One writer and the proxy it goes through.
pub(super) struct Lane {
    pub proxy: &'static str,
    pub style: &'static str,
    pub writer: Writer,
}

/// Everything of one act; dropped from top to bottom.
pub(super) struct Stage {
    pub lanes: Vec<Lane>,
    pub log: LogFollow,
    pub health: HealthWatch,
    pub announcements: Announcements,
    _haproxy: Option<HaProxy>,
    _sidecar: Sidecar,
    pub cluster: RedisCluster,
}

impl Stage {
    /// Returns when all lanes write.
    pub fn set_up(binary: &Path, options: Options) -> Result<Self> {
        let cluster = RedisCluster::start(redis::Options::default())?;
        let service = Service::sentinel(SERVICE, &cluster)?.set("hold_timeout", HOLD);
        let config = Config::new()?.level("info").service(service);
        let sidecar = Sidecar::start(binary, config, Until::Healthy)?;
        let haproxy = match options.haproxy {
            true => {
                let recipe = Recipe::RoleMaster {
                    nodes: cluster.node_addrs(),
                    password: None,
                };
                Some(HaProxy::start(&recipe)?)
            }
            false => None,
        };
        let announcements = cluster.announcements()?;
        let (health, log) = (sidecar.watch(SERVICE)?, sidecar.follow_log()?);
        let mut lanes = lanes(
            "pilotfish",
            sidecar.tcp(SERVICE)?.into(),
            sidecar.unix(SERVICE)?.as_path().into(),
        )?;
        if let Some(haproxy) = &haproxy {
            lanes.extend(self::lanes(
                "haproxy",
                haproxy.tcp.into(),
                haproxy.unix.as_path().into(),
            )?);
        }
        let stage = Self {
            lanes,
            log,
            health,
            announcements,
            _haproxy: haproxy,
            _sidecar: sidecar,
            cluster,
        };
        stage.settle(Instant::now() + Duration::from_millis(500), true)?;
        Ok(stage)
    }

    /// Waits until Pilotfish's lanes (`all`: every lane) have an acknowledged write that began after `t`.
    pub fn settle(&self, t: Instant, all: bool) -> Result<()> {
        let watched = self
            .lanes
            .iter()
            .filter(|lane| all || lane.proxy == "pilotfish");
        for lane in watched {
            lane.writer.wait_ack_after(t, PATIENCE)?;
        }
        Ok(())
    }
}

fn lanes(proxy: &'static str, tcp: Target, unix: Target) -> Result<Vec<Lane>> {
    let lane = |style: &'static str, target: Target, mode: Mode| -> Result<Lane> {
        let mut options = writer::Options::new(format!("{proxy}-{style}"), target, mode);
        options.timeout = PATIENCE;
        Ok(Lane {
            proxy,
            style,
            writer: Writer::start(options)?,
        })
    };
    Ok(vec![
        lane("php", unix, Mode::PerRequest)?,
        lane("kept", tcp, Mode::Kept { connections: 4 })?,
    ])
}
