//! How a server is left in the middle of a handshake: by a probe that only wanted to know whether it
//! accepts, or because the client left.
//!
//! Who hangs up in the middle of a handshake is counted: after `max_connect_errors` (100) of these in a row
//! MySQL blocks the host, and nobody on it gets in (error 1129). Who is refused as a user is not counted.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::login::hello::Greeting;
use super::login::lane::{Lane, Missing, Payload};
use super::packet::cap;
use crate::net::Stream;
use crate::proto::fixed::Leaving;

/// How long a server may take over it. It did accept, which is all that was asked.
const PATIENCE: Duration = Duration::from_secs(1);
/// A user that need not exist, and has no password.
const NOBODY: &[u8] = b"pilotfish-knocks";
/// More than it takes to be refused.
const ROUNDS: usize = 5;

/// Takes part in the login until the server has refused. Cancel safe: dropping it hangs up.
pub fn leave(mut stream: Stream) -> Leaving {
    Box::pin(async move {
        let greeted = async {
            let mut lane = Lane::new();
            let greeting = lane.read(&mut stream).await.ok()?;
            Greeting::read(&greeting).ok().map(|_| lane)
        };
        if let Ok(Some(mut lane)) = tokio::time::timeout(PATIENCE, greeted).await {
            be_refused(&mut lane, &mut stream).await;
        }
    })
}

/// Goes on after the greeting, as nobody. Cancel safe: dropping it leaves the handshake where it is.
pub async fn be_refused(lane: &mut Lane, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    // However it ends: there is nothing to be done about it.
    let _ = tokio::time::timeout(PATIENCE, refused(lane, stream)).await;
}

async fn refused(
    lane: &mut Lane,
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Result<(), Missing> {
    let gone = |error| Missing::Gone(Some(error));
    lane.write(stream, &response()).await.map_err(gone)?;
    for _ in 0..ROUNDS {
        let payload: Payload = lane.read(stream).await?;
        match payload.first() {
            Some(0xff) | None => return Ok(()),
            // Let in after all.
            Some(0) => return Lane::new().write(stream, &[1]).await.map_err(gone),
            _ => lane.write(stream, &[]).await.map_err(gone)?,
        }
    }
    Ok(())
}

fn response() -> Vec<u8> {
    let caps = cap::LONG_PASSWORD | cap::PROTOCOL_41 | cap::SECURE_CONNECTION | cap::PLUGIN_AUTH;
    let mut out = caps.to_le_bytes()[..4].to_vec();
    out.extend([0, 0, 0, 1, 45]);
    out.extend([0; 23]);
    out.extend(NOBODY);
    out.extend(b"\0\0mysql_native_password\0");
    out
}
