//! A relay that does nothing but relay: what is left to gain when everything else is given up.
//!
//! One runtime per thread, a listener of its own for each, `copy_bidirectional`, no limits, no health, no
//! switching. Measured beside the others it says what a target is worth on the machine at hand.

use std::net::SocketAddr;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};
use tokio::task::LocalSet;

/// As many as the other proxies have.
const THREADS: usize = 2;
const BACKLOG: u32 = 4096;

#[derive(Debug, Args)]
pub struct RelayArgs {
    /// Where TCP clients come
    #[arg(long)]
    pub tcp: SocketAddr,
    /// Where Unix clients come
    #[arg(long)]
    pub unix: PathBuf,
    /// The server
    #[arg(long)]
    pub to: SocketAddr,
}

/// Relays until it is killed.
///
/// # Errors
/// When an address is taken or a thread cannot be started.
pub fn run(args: &RelayArgs) -> Result<()> {
    let unix = StdUnixListener::bind(&args.unix)
        .with_context(|| format!("listening on {}", args.unix.display()))?;
    unix.set_nonblocking(true)?;
    let mut threads = Vec::new();
    for number in 0..THREADS {
        let (unix, tcp, to) = (unix.try_clone()?, args.tcp, args.to);
        let thread = std::thread::Builder::new().name(format!("relay-{number}"));
        threads.push(thread.spawn(move || one_thread(tcp, unix, to))?);
    }
    for thread in threads {
        let ended = thread.join();
        ended.map_err(|_| anyhow::anyhow!("a thread panicked"))??;
    }
    Ok(())
}

fn one_thread(tcp: SocketAddr, unix: StdUnixListener, to: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    LocalSet::new().block_on(&runtime, async move {
        let tcp = listen(tcp)?;
        let unix = UnixListener::from_std(unix)?;
        tokio::try_join!(serve_tcp(tcp, to), serve_unix(unix, to)).map(drop)
    })
}

fn listen(addr: SocketAddr) -> Result<TcpListener> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseport(true)?;
    let bound = socket.bind(addr).and_then(|()| socket.listen(BACKLOG));
    bound.with_context(|| format!("listening on {addr}"))
}

async fn serve_tcp(listener: TcpListener, to: SocketAddr) -> Result<()> {
    loop {
        let (client, _) = listener.accept().await?;
        client.set_nodelay(true)?;
        tokio::task::spawn_local(relay(client, to));
    }
}

async fn serve_unix(listener: UnixListener, to: SocketAddr) -> Result<()> {
    loop {
        let (client, _) = listener.accept().await?;
        tokio::task::spawn_local(relay(client, to));
    }
}

/// Who cannot be served is hung up on.
async fn relay(mut client: impl AsyncRead + AsyncWrite + Unpin, to: SocketAddr) {
    let Ok(mut server) = TcpStream::connect(to).await else {
        return;
    };
    if server.set_nodelay(true).is_ok() {
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pilotfish_harness::redis::{RedisConf, RedisServer};
    use pilotfish_harness::resp::{Conn, Target};
    use pilotfish_harness::{ports, scratch, wait};

    use super::*;
    use crate::contestants::ping;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn relays_over_both_sockets() {
        let redis = RedisServer::start(&RedisConf::default()).unwrap();
        let dir = scratch::Dir::new().unwrap();
        let args = RelayArgs {
            tcp: ports::free().unwrap(),
            unix: dir.join("relay.sock"),
            to: redis.addr,
        };
        let targets = [Target::from(args.tcp), Target::from(args.unix.as_path())];
        // It ends with the process.
        std::thread::spawn(move || run(&args));
        for target in targets {
            wait::until_true("the relay to answer", LONG, || {
                ping(&mut Conn::connect(&target, LONG)?).map(|()| true)
            })
            .unwrap();
        }
    }
}
