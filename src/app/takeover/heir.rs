//! The process that takes over.

use std::io;
use std::time::Duration;

use tokio::time::timeout;

use super::{
    Estate, FromElder, FromHeir, MOST_OFFER, MOST_WORD, Offer, PROTOCOL, VARIABLE, hear, say,
};
use crate::net::inherit::{Inherited, MOST};
use crate::net::pass::Line;

/// For the elder's offer, and for its last word.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why this process does not take over, and ends. The elder goes on.
#[derive(Debug, thiserror::Error)]
pub enum HeirError {
    #[error("{VARIABLE} is set, and standard input does not lead to the process before: {0}")]
    Line(#[from] io::Error),
    #[error("the process before was not heard from within {PATIENCE:?}")]
    Late,
    #[error(
        "the process before speaks version {theirs} of the takeover protocol, this one {PROTOCOL}"
    )]
    Protocol { theirs: u32 },
    #[error("the process before offers {0} sockets, which is too many")]
    TooMany(usize),
}

/// What was received.
#[derive(Debug)]
pub struct Legacy {
    pub heir: Heir,
    pub inherited: Inherited,
    pub estate: Estate,
}

/// The line to the elder.
#[derive(Debug)]
pub struct Heir {
    line: Line,
    pub pid: u32,
    pub version: String,
    /// Services that are to be proven before this process is ready.
    pub with_primary: Vec<String>,
}

/// What the process before hands over; `None` when this one was not started by one.
///
/// # Errors
/// When it was, and does not get it.
pub async fn receive() -> Result<Option<Legacy>, HeirError> {
    if std::env::var_os(VARIABLE).is_none() {
        return Ok(None);
    }
    let line = Line::from_stdin()?;
    let received = timeout(PATIENCE, inherit(&line)).await;
    let received = received.unwrap_or(Err(HeirError::Late));
    match received {
        Ok((offer, inherited)) => Ok(Some(Legacy {
            inherited,
            estate: offer.estate,
            heir: Heir {
                line,
                pid: offer.pid,
                version: offer.version,
                with_primary: offer.with_primary,
            },
        })),
        Err(error) => {
            let why = error.to_string();
            // It goes on without us in any case.
            let _ = say(&line, &FromHeir::Sorry { why }).await;
            Err(error)
        }
    }
}

async fn inherit(line: &Line) -> Result<(Offer, Inherited), HeirError> {
    let offer: Offer = hear(line, MOST_OFFER).await?;
    if offer.protocol != PROTOCOL {
        let theirs = offer.protocol;
        return Err(HeirError::Protocol { theirs });
    }
    let mut inherited = Inherited::default();
    let counts = offer.sockets.iter().map(|offered| offered.count);
    let total = counts.fold(0_usize, usize::saturating_add);
    if total > MOST {
        return Err(HeirError::TooMany(total));
    }
    let mut sockets = line.receive_descriptors(total).await?.into_iter();
    for offered in &offer.sockets {
        for socket in sockets.by_ref().take(offered.count) {
            inherited.add(offered.addr.clone(), socket.into(), offered.owns_file);
        }
    }
    Ok((offer, inherited))
}

impl Heir {
    /// Says that this process could serve, and returns when it shall.
    ///
    /// # Errors
    /// When the elder is gone, or has changed its mind.
    pub async fn ready(&self) -> Result<(), HeirError> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        say(&self.line, &FromHeir::Ready { version }).await?;
        match hear(&self.line, MOST_WORD).await? {
            FromElder::Begin => Ok(()),
            word => Err(io::Error::other(format!("{word:?} is not what comes now")).into()),
        }
    }

    /// Says that this process serves, and returns when the elder does no more.
    pub async fn serving(&self) {
        if say(&self.line, &FromHeir::Serving).await.is_ok() {
            // If it died just now it does not serve either.
            let over = hear::<FromElder>(&self.line, MOST_WORD);
            let _ = timeout(PATIENCE, over).await;
        }
    }

    /// Says why this process does not take over.
    pub async fn sorry(&self, why: String) {
        // It goes on without us in any case.
        let _ = say(&self.line, &FromHeir::Sorry { why }).await;
    }

    /// Completes when the elder is gone. Cancel safe as long as nothing is expected from it.
    pub async fn orphaned(&self) {
        self.line.closed().await;
    }
}
