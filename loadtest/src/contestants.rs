//! Redis itself, HAProxy with and without splicing, a plain relay, Pilotfish: all running, all asked the same.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use pilotfish_harness::haproxy::{HaProxy, Recipe};
use pilotfish_harness::process::{Launch, Server};
use pilotfish_harness::redis::{RedisConf, RedisServer};
use pilotfish_harness::resp::{Conn, Target, Value};
use pilotfish_harness::sidecar::{Config, Service, Sidecar, Until};
use pilotfish_harness::{ports, scratch, wait};

use crate::scenario::Socket;

const SERVICE: &str = "cache";
const START: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(5);

/// Who can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Direct,
    HaProxy,
    HaProxySplice,
    /// [`crate::relay`]
    Plain,
    Pilotfish,
    /// A second build of Pilotfish.
    Other,
}

impl Who {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::HaProxy => "HAProxy",
            Self::HaProxySplice => "HAProxy, splicing",
            Self::Plain => "plain relay",
            Self::Pilotfish => "Pilotfish",
            Self::Other => "other Pilotfish",
        }
    }
}

/// Redis on a TCP port and a Unix socket.
pub struct Redis {
    pub tcp: SocketAddr,
    unix: PathBuf,
    _server: RedisServer,
    _dir: scratch::Dir,
}

impl Redis {
    pub fn start() -> Result<Self> {
        let dir = scratch::Dir::new()?;
        let unix = dir.join("redis.sock");
        let extra = vec![format!("unixsocket {}", unix.display())];
        let server = RedisServer::start(&RedisConf {
            extra,
            ..RedisConf::default()
        })?;
        Ok(Self {
            tcp: server.addr,
            unix,
            _server: server,
            _dir: dir,
        })
    }
}

/// A process of this program that relays.
pub struct Plain {
    tcp: SocketAddr,
    unix: PathBuf,
    server: Server,
    _dir: scratch::Dir,
}

impl Plain {
    fn start(to: SocketAddr) -> Result<Self> {
        let dir = scratch::Dir::new()?;
        let (tcp, unix) = (ports::free()?, dir.join("relay.sock"));
        let program = std::env::current_exe().context("finding this program")?;
        let mut launch = Launch::new("relay", &program, &dir.join("log"))?;
        launch
            .command()
            .arg("relay")
            .arg(format!("--tcp={tcp}"))
            .arg(format!("--unix={}", unix.display()))
            .arg(format!("--to={to}"));
        Ok(Self {
            tcp,
            unix,
            server: launch.start()?,
            _dir: dir,
        })
    }
}

/// A running proxy. All have two threads, one TCP and one Unix socket, and speak TCP to Redis.
pub enum Proxy {
    HaProxy(HaProxy),
    Plain(Plain),
    Pilotfish(Sidecar),
}

impl Proxy {
    pub fn haproxy(redis: &Redis, splice: bool) -> Result<Self> {
        let proxy = HaProxy::start(&Recipe::Relay {
            server: redis.tcp,
            splice,
        })?;
        Self::HaProxy(proxy).answering()
    }

    pub fn plain(redis: &Redis) -> Result<Self> {
        Self::Plain(Plain::start(redis.tcp)?).answering()
    }

    pub fn pilotfish(redis: &Redis, binary: &Path) -> Result<Self> {
        let service = Service::new(SERVICE, "redis")?
            .discover("kind", "static")
            .discover_all("nodes", &[redis.tcp]);
        let config = Config::new()?
            .level("warn")
            .line("workers = 2")
            .service(service);
        Self::Pilotfish(Sidecar::start(binary, config, Until::Started)?).answering()
    }

    pub fn server(&self) -> &Server {
        match self {
            Self::HaProxy(proxy) => proxy.server(),
            Self::Plain(proxy) => &proxy.server,
            Self::Pilotfish(sidecar) => sidecar.server(),
        }
    }

    pub fn target(&self, socket: Socket) -> Result<Target> {
        Ok(match (self, socket) {
            (Self::HaProxy(proxy), Socket::Tcp) => proxy.tcp.into(),
            (Self::HaProxy(proxy), Socket::Unix) => proxy.unix.as_path().into(),
            (Self::Plain(proxy), Socket::Tcp) => proxy.tcp.into(),
            (Self::Plain(proxy), Socket::Unix) => proxy.unix.as_path().into(),
            (Self::Pilotfish(sidecar), Socket::Tcp) => sidecar.tcp(SERVICE)?.into(),
            (Self::Pilotfish(sidecar), Socket::Unix) => sidecar.unix(SERVICE)?.as_path().into(),
        })
    }

    fn answering(self) -> Result<Self> {
        for socket in [Socket::Tcp, Socket::Unix] {
            let target = self.target(socket)?;
            let what = format!("an answer through {} on {target}", self.server().name());
            let answered = wait::until_true(&what, START, || {
                self.server().check_running()?;
                ping(&mut Conn::connect(&target, ANSWER)?).map(|()| true)
            });
            answered.with_context(|| self.server().log_tail())?;
        }
        Ok(self)
    }
}

/// One PING and its answer.
///
/// # Errors
/// When the answer is another one or none.
pub fn ping(conn: &mut Conn) -> Result<()> {
    let answer = conn.command(&["PING"])?;
    anyhow::ensure!(
        answer == Value::Simple("PONG".into()),
        "PING was answered with {answer:?}"
    );
    Ok(())
}

/// All of them.
pub struct Contestants {
    proxies: Vec<(Who, Proxy)>,
    redis: Redis,
}

impl Contestants {
    pub fn start(pilotfish: &Path, other: Option<&Path>) -> Result<Self> {
        let redis = Redis::start()?;
        let mut proxies = vec![
            (Who::HaProxy, Proxy::haproxy(&redis, false)?),
            (Who::HaProxySplice, Proxy::haproxy(&redis, true)?),
            (Who::Plain, Proxy::plain(&redis)?),
            (Who::Pilotfish, Proxy::pilotfish(&redis, pilotfish)?),
        ];
        if let Some(other) = other {
            proxies.push((Who::Other, Proxy::pilotfish(&redis, other)?));
        }
        Ok(Self { proxies, redis })
    }

    pub fn all(&self) -> Vec<Who> {
        let proxies = self.proxies.iter().map(|(who, _)| *who);
        std::iter::once(Who::Direct).chain(proxies).collect()
    }

    pub fn target(&self, who: Who, socket: Socket) -> Result<Target> {
        match (self.proxy(who), socket) {
            (Some(proxy), _) => proxy.target(socket),
            (None, Socket::Tcp) => Ok(self.redis.tcp.into()),
            (None, Socket::Unix) => Ok(self.redis.unix.as_path().into()),
        }
    }

    /// `None` for [`Who::Direct`].
    pub fn proxy(&self, who: Who) -> Option<&Proxy> {
        self.proxies
            .iter()
            .find(|(name, _)| *name == who)
            .map(|(_, proxy)| proxy)
    }
}
