//! HAProxy's agent-check: one line to whoever connects (HAProxy documentation, `agent-check`).

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::health::{Health, Status};
use super::serve::accept_loop;
use super::surface::Surface;
use crate::data::admit::Limit;
use crate::net::listen::Listener;

/// Connections at a time: one per HAProxy is usual.
const MOST: usize = 64;
/// For a line to be taken.
const PATIENCE: Duration = Duration::from_secs(2);

/// Answers on `listener` until `stop`.
pub async fn serve(listener: Listener, surface: Arc<Surface>, stop: CancellationToken) {
    let places = Limit::new(MOST);
    accept_loop(&listener, &stop, |mut stream| {
        let place = places.take()?;
        let line = line(&surface.health());
        Some(async move {
            // Whoever does not take it will ask again.
            let _ = timeout(PATIENCE, async {
                stream.write_all(line.as_bytes()).await?;
                stream.shutdown().await
            })
            .await;
            drop(place);
        })
    })
    .await;
}

/// `up ready` ends an earlier `drain` too; the text after `#` is shown by HAProxy.
fn line(health: &Health) -> String {
    match health.status {
        Status::Ok | Status::Degraded => "up ready\n".to_owned(),
        Status::Draining => "drain\n".to_owned(),
        Status::Failing => {
            let failing = health.services.iter();
            let failing = failing.filter(|(_, service)| service.status == Status::Failing);
            let names: Vec<&str> = failing.map(|(name, _)| name.as_str()).collect();
            format!("down #no primary for {}\n", names.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::Phase;
    use crate::telemetry::sample::Sample;

    #[test]
    fn the_words_of_the_agent() {
        let said = |sample: &Sample| line(&sample.surface.health());
        assert_eq!(said(&Sample::unproven()), "down #no primary for cache\n");
        let sample = Sample::proven();
        assert_eq!(said(&sample), "up ready\n");
        sample.drain.set(Phase::Draining);
        assert_eq!(said(&sample), "drain\n");
    }
}
