//! Waiting for a condition of another process that can only be asked, not awaited.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two questions.
pub const PAUSE: Duration = Duration::from_millis(5);

/// Asks until the answer is `Ok(Some(_))`. The error after `timeout` says `what` was waited for and the last answer.
pub fn until<T>(
    what: &str,
    timeout: Duration,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        let last = match ask() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if Instant::now() >= deadline {
            match last {
                Some(error) => return Err(error.context(format!("waited {timeout:?} for {what}"))),
                None => bail!("waited {timeout:?} for {what}, in vain"),
            }
        }
        std::thread::sleep(PAUSE);
    }
}

/// [`until`] for a plain yes.
pub fn until_true(
    what: &str,
    timeout: Duration,
    mut ask: impl FnMut() -> Result<bool>,
) -> Result<()> {
    until(what, timeout, || Ok(ask()?.then_some(())))
}
