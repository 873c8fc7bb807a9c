//! Word to others: a JSON object for each webhook. It is bounded in time, and nothing waits for its
//! success.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use tracing::warn;

use crate::dns::http::{Caller, client, root};
use crate::net::resolve::Resolver;
use crate::net::tls::TlsSettings;
use crate::secret::Secret;

const TRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// `[cutover.notify]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifySpec {
    /// URLs, `http` or `https`. Many carry a token, so they are secrets as a whole.
    pub webhooks: Vec<Secret>,
    /// For all tries of a webhook together.
    pub timeout: Duration,
}

/// What is said. `text` alone is understood by Slack, Mattermost and their like; the rest is for
/// programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Message {
    /// One line for people.
    pub text: String,
    /// A word for programs, such as `cutover-started`.
    pub event: String,
    /// The sidecar that says it.
    pub name: String,
    pub from: Option<String>,
    pub to: Option<String>,
    pub reason: Option<String>,
    /// The digest of the plan.
    pub plan: Option<String>,
    pub epoch: Option<u64>,
    /// RFC 3339.
    pub time: String,
}

/// Sends `message` to all webhooks at once, a few times where that may help. Returns when all have it
/// or the time is over; what went wrong is logged. Redirects are not followed. Dropped, some may have
/// it.
pub async fn notify(spec: &NotifySpec, message: &Message) {
    let body = match serde_json::to_vec(message) {
        Ok(body) => Bytes::from(body),
        Err(error) => return warn!(event = "notify-failed", %error, "a message is not JSON"),
    };
    let each = spec.webhooks.iter().enumerate().map(|(at, url)| {
        let body = body.clone();
        async move {
            if let Err(why) = bounded(spec.timeout, send(url, spec.timeout, body)).await {
                warn!(event = "notify-failed", webhook = at + 1, "{why}");
            }
        }
    });
    let mut all: FuturesUnordered<_> = each.collect();
    while all.next().await.is_some() {}
}

async fn bounded(
    limit: Duration,
    work: impl Future<Output = Result<(), String>>,
) -> Result<(), String> {
    let late = |_| Err("no answer in time".to_owned());
    tokio::time::timeout(limit, work).await.unwrap_or_else(late)
}

/// The error does not name the URL.
async fn send(url: &Secret, limit: Duration, body: Bytes) -> Result<(), String> {
    let url = reqwest::Url::parse(url.expose()).map_err(|_| "it is not a URL".to_owned())?;
    let client = client(&Caller {
        tls: &TlsSettings::default(),
        https: url.scheme() == "https",
        // So that a server that hangs once leaves time for another try.
        limit: limit.mul_f64(0.4),
        resolver: Resolver::from_system(),
    })?;
    let mut pause = FIRST_PAUSE;
    let mut tries = 1;
    loop {
        let mut request = reqwest::Request::new(reqwest::Method::POST, url.clone());
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(CONTENT_TYPE, json);
        *request.body_mut() = Some(body.clone().into());
        let why = match client.execute(request).await {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            Ok(answer) => {
                let status = answer.status().as_u16();
                if status < 500 && status != 429 {
                    return Err(format!("it answered {status}"));
                }
                format!("it answered {status}")
            }
            Err(error) => root(error),
        };
        if tries == TRIES {
            return Err(format!("{why}, {TRIES} times"));
        }
        tries += 1;
        tokio::time::sleep(pause).await;
        pause *= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    const TOKEN: &str = "token-in-the-path";

    fn spec(addrs: &[SocketAddr], timeout: Duration) -> NotifySpec {
        let url = |addr: &SocketAddr| Secret::new(format!("http://{addr}/hooks/{TOKEN}"));
        NotifySpec {
            webhooks: addrs.iter().map(url).collect(),
            timeout,
        }
    }

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        (listener, addr)
    }

    /// The next request, whole: head and body.
    async fn request(listener: &TcpListener) -> (TcpStream, String) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut text = String::new();
        while !text.ends_with('}') {
            let mut buffer = [0; 4096];
            let count = stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "{text}");
            text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
        (stream, text)
    }

    async fn answer(listener: &TcpListener, head: &str) -> String {
        let (mut stream, text) = request(listener).await;
        let answer = format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        text
    }

    fn message() -> Message {
        Message {
            text: "moving shop.example.com to rbx".to_owned(),
            event: "cutover-started".to_owned(),
            epoch: Some(7),
            ..Message::default()
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn it_is_said_again_until_it_is_heard() {
        let (hook, addr) = listener().await;
        let (one, two, message) = (spec(&[addr], LONG), spec(&[addr], LONG), message());
        let hear = async {
            let first = answer(&hook, "500 Oh").await;
            assert!(
                first.starts_with(&format!("POST /hooks/{TOKEN} ")),
                "{first}"
            );
            assert!(first.contains("\"event\":\"cutover-started\""), "{first}");
            assert!(first.contains("\"epoch\":7"), "{first}");
            drop(request(&hook).await);
            answer(&hook, "204 Fine").await
        };
        tokio::join!(notify(&one, &message), hear);
        // Not where it was not meant to go, and not again where it is not wanted.
        let (other, elsewhere) = listener().await;
        for head in [
            format!("307 There\r\nLocation: http://{elsewhere}/"),
            "404 No".to_owned(),
        ] {
            tokio::join!(notify(&two, &message), answer(&hook, &head));
        }
        let nobody = std::pin::pin!(other.accept());
        let nobody = futures_util::FutureExt::now_or_never(nobody);
        assert!(nobody.is_none());
    }

    #[tokio::test]
    async fn one_that_hangs_keeps_nobody_from_hearing_it_and_does_not_hold_us() {
        let (hanging, first) = listener().await;
        let (fine, second) = listener().await;
        let spec = spec(&[first, second], Duration::from_millis(600));
        let message = message();
        let hang = async {
            let _kept = hanging.accept().await.unwrap();
            std::future::pending::<()>().await;
        };
        let both = async { tokio::join!(notify(&spec, &message), answer(&fine, "200 OK")) };
        tokio::select! {
            _ = both => {}
            () = hang => {}
            () = tokio::time::sleep(LONG) => panic!("it waits for who hangs"),
        }
        // Nonsense is no reason to fail either.
        let none = NotifySpec {
            webhooks: vec![Secret::new("not a URL".to_owned())],
            timeout: LONG,
        };
        notify(&none, &message).await;
    }

    #[tokio::test]
    async fn the_url_is_a_secret() {
        let (hook, addr) = listener().await;
        drop(hook);
        let spec = spec(&[addr], LONG);
        assert!(!format!("{spec:?}").contains(TOKEN));
        let why = send(&spec.webhooks[0], LONG, Bytes::new())
            .await
            .unwrap_err();
        assert!(!why.contains(TOKEN) && why.contains("3 times"), "{why}");
    }
}
