//! etcd: one member, or a cluster of them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{Launch, Server, find_program};
use crate::{ports, scratch, wait};

const START: Duration = Duration::from_secs(60);

/// One member. Directory last: dropped in this order.
pub struct Member {
    pub client: SocketAddr,
    pub server: Server,
    _dir: scratch::Dir,
}

/// Started together, with a leader when this is there.
pub struct Etcd {
    pub members: Vec<Member>,
}

impl Etcd {
    pub fn start(size: usize) -> Result<Self> {
        let mut places = Vec::new();
        for _ in 0..size {
            places.push((ports::free()?, ports::free()?));
        }
        let peers: Vec<String> = places
            .iter()
            .enumerate()
            .map(|(n, (_, peer))| format!("m{n}=http://{peer}"))
            .collect();
        let peers = peers.join(",");
        let mut members = Vec::new();
        for (n, (client, peer)) in places.into_iter().enumerate() {
            let dir = scratch::Dir::new()?;
            let program = find_program("etcd")?;
            let mut launch = Launch::new(format!("etcd m{n}"), &program, &dir.join("log"))?;
            let (client_url, peer_url) = (format!("http://{client}"), format!("http://{peer}"));
            launch.command().args([
                "--name",
                &format!("m{n}"),
                "--data-dir",
                &dir.join("data").display().to_string(),
                "--listen-client-urls",
                &client_url,
                "--advertise-client-urls",
                &client_url,
                "--listen-peer-urls",
                &peer_url,
                "--initial-advertise-peer-urls",
                &peer_url,
                "--initial-cluster",
                &peers,
                "--heartbeat-interval",
                "100",
                "--election-timeout",
                "1000",
            ]);
            members.push(Member {
                client,
                server: launch.start()?,
                _dir: dir,
            });
        }
        let cluster = Self { members };
        for member in &cluster.members {
            wait::until_true("etcd to be healthy", START, || {
                member.server.check_running()?;
                // A read that goes through the leader.
                Ok(post(member.client, "/v3/kv/range", r#"{"key":"AA=="}"#).is_ok())
            })?;
        }
        Ok(cluster)
    }

    pub fn urls(&self) -> Vec<String> {
        let url = |member: &Member| format!("http://{}", member.client);
        self.members.iter().map(url).collect()
    }

    /// One call of the JSON gateway at the first member.
    pub fn call(&self, path: &str, body: &str) -> Result<String> {
        post(self.members[0].client, path, body)
    }

    /// From now on every call needs a user: `root` with this password.
    pub fn protect(&self, password: &str) -> Result<()> {
        let user = format!(r#"{{"name":"root","password":"{password}"}}"#);
        self.call("/v3/auth/user/add", &user)?;
        self.call("/v3/auth/role/add", r#"{"name":"root"}"#)?;
        self.call("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#)?;
        self.call("/v3/auth/enable", "{}").map(drop)
    }
}

fn post(addr: SocketAddr, path: &str, body: &str) -> Result<String> {
    let limit = Some(Duration::from_secs(5));
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(limit)?;
    stream.set_write_timeout(limit)?;
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.0\r\nHost: {addr}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    if head.split(' ').nth(1) != Some("200") {
        bail!("{path}: {answer}");
    }
    Ok(body.to_owned())
}
