//! Over a real socket.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::addr::Addr;
use crate::cutover::BoxFuture;
use crate::net::listen::{Bound, control_listener};

const TOKEN: &str = "token-that-nobody-may-see";

/// What was asked of it, and what it says.
#[derive(Default)]
struct Site {
    started: Mutex<Vec<String>>,
    refusal: Mutex<Option<String>>,
    lost: Mutex<bool>,
}

impl Starter for Site {
    fn serving<'a>(&'a self) -> BoxFuture<'a, Result<String, String>> {
        let lost = *self.lost.lock().unwrap();
        Box::pin(async move {
            match lost {
                true => Err("the records cannot be read".to_owned()),
                false => Ok("gra".to_owned()),
            }
        })
    }

    fn start<'a>(&'a self, to: &'a str, reason: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            if let Some(why) = self.refusal.lock().unwrap().take() {
                return Err(why);
            }
            self.started.lock().unwrap().push(format!("{to}: {reason}"));
            Ok(())
        })
    }
}

struct Stage {
    addr: SocketAddr,
    site: Arc<Site>,
    events: Arc<Events>,
    registry: Registry,
    stop: CancellationToken,
    _bound: Bound,
}

fn stage() -> Stage {
    let addr = pilotfish_harness::ports::free().unwrap();
    let (bound, listener) = control_listener(&Addr::Ip(addr), 0).unwrap();
    let spec = AutoSpec {
        listen: addr,
        token: Secret::new(TOKEN.to_owned()),
        rules: Rules {
            alerts: vec!["RegionDown".to_owned()],
            region_label: "region".to_owned(),
            regions: ["gra", "rbx"].map(str::to_owned).to_vec(),
            persist: Duration::ZERO,
            repeats: 2,
            cooldown: Duration::from_secs(3600),
            per_day: 2,
            failback: false,
        },
    };
    let clock = Clock::start();
    let (site, events, registry) = (
        Arc::new(Site::default()),
        Events::new(clock),
        Registry::new(),
    );
    let means = Means {
        clock,
        events: events.clone(),
        registry: registry.clone(),
        starter: site.clone(),
    };
    let stop = CancellationToken::new();
    let receiver = Receiver::new(&spec, means).unwrap();
    tokio::task::spawn_local(receiver.serve(listener, stop.clone()));
    Stage {
        addr,
        site,
        events,
        registry,
        stop,
        _bound: bound,
    }
}

impl Stage {
    async fn raw(&self, text: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(text).await.unwrap();
        let mut answer = Vec::new();
        // It may be cut off after a refusal, with what was not read.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    async fn post(&self, auth: &str, body: &str) -> u16 {
        let length = body.len();
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{auth}Content-Length: {length}\r\n\r\n"
        );
        let answer = self.raw((head + body).as_bytes()).await;
        answer
            .split(' ')
            .nth(1)
            .unwrap_or_default()
            .parse()
            .unwrap()
    }

    async fn alert(&self, name: &str, region: &str) -> u16 {
        let body = format!(
            r#"{{"version":"4","alerts":[{{"status":"firing","labels":{{"alertname":"{name}","region":"{region}"}}}}]}}"#
        );
        let auth = format!("Authorization: Bearer {TOKEN}\r\n");
        self.post(&auth, &body).await
    }

    fn started(&self) -> Vec<String> {
        self.site.started.lock().unwrap().clone()
    }

    fn count(&self, outcome: &str) -> String {
        let line = format!("pilotfish_auto_alerts_total{{outcome=\"{outcome}\"}} ");
        let text = self.registry.render(&metrics_process::Collector::default());
        let found = text.lines().find_map(|l| l.strip_prefix(&line));
        found.unwrap_or("none").to_owned()
    }
}

async fn on_stage<F: Future<Output = ()>>(play: impl FnOnce(Stage) -> F) {
    tokio::task::LocalSet::new()
        .run_until(async { play(stage()).await })
        .await;
}

#[tokio::test]
async fn what_stands_is_carried_out_once() {
    on_stage(|stage| async move {
        assert_eq!(stage.alert("DiskFull", "gra").await, 202);
        assert_eq!(stage.alert("RegionDown", "rbx").await, 403);
        *stage.site.lost.lock().unwrap() = true;
        assert_eq!(stage.alert("RegionDown", "gra").await, 503);
        *stage.site.lost.lock().unwrap() = false;
        assert!(stage.started().is_empty());
        // rbx is complained of as well: there is no place to go to. It is over, and gra stands.
        assert_eq!(stage.alert("RegionDown", "gra").await, 202);
        assert_eq!(stage.alert("RegionDown", "gra").await, 403);
        let over = r#"{"version":"4","alerts":[{"status":"resolved","labels":{"alertname":"RegionDown","region":"rbx"}}]}"#;
        let auth = format!("authorization: bearer {TOKEN}\r\n");
        assert_eq!(stage.post(&auth, over).await, 202);
        // A gate refuses: that does not count, and the next word is tried again.
        *stage.site.refusal.lock().unwrap() = Some("a gate failed: target-check".to_owned());
        assert_eq!(stage.alert("RegionDown", "gra").await, 403);
        assert_eq!(stage.alert("RegionDown", "gra").await, 202);
        assert_eq!(stage.started(), ["rbx: Alertmanager says that gra is down"]);
        assert_eq!(stage.alert("RegionDown", "gra").await, 403);
        assert_eq!(stage.started().len(), 1);
        assert_eq!((stage.count("started"), stage.count("refused")), ("1".into(), "4".into()));
        let events = stage.events.from(0).0;
        let said: Vec<_> = events.iter().map(|e| e.event.as_str()).collect();
        assert!(said.contains(&"auto-started") && said.contains(&"auto-refused"), "{said:?}");
        assert!(events.iter().any(|e| e.message.contains("target-check")));
        stage.stop.cancel();
    })
    .await;
}

#[tokio::test]
async fn strangers_and_nonsense_start_nothing() {
    on_stage(|stage| async move {
        let body = r#"{"version":"4","alerts":[]}"#;
        let nearly = format!("Authorization: Bearer {}\r\n", &TOKEN[1..]);
        let longer = format!("Authorization: Bearer {TOKEN}x\r\n");
        let other = format!("Authorization: Basic {TOKEN}\r\n");
        let right = format!("Authorization: Bearer {TOKEN}\r\n");
        let twice = format!("{nearly}{right}");
        for auth in [
            "",
            "Authorization: Bearer \r\n",
            "Authorization: é\r\n",
            &nearly,
            &longer,
            &other,
            &twice,
        ] {
            assert_eq!(stage.post(auth, body).await, 401, "{auth}");
        }
        assert_eq!(stage.count("unauthorized"), "7");
        assert_eq!(stage.post(&right, body).await, 202);
        for bad in [
            "",
            "{}",
            "[1]",
            r#"{"version":"3","alerts":[]}"#,
            &"[".repeat(100_000),
        ] {
            assert_eq!(stage.post(&right, bad).await, 422);
        }
        assert_eq!(stage.post(&right, &" ".repeat(MAX_BODY + 1)).await, 413);
        let get = format!("GET {PATH} HTTP/1.0\r\n{right}\r\n");
        assert!(stage.raw(get.as_bytes()).await.starts_with("HTTP/1.0 405 "));
        assert!(
            stage
                .raw(b"POST / HTTP/1.0\r\n\r\n")
                .await
                .starts_with("HTTP/1.0 404 ")
        );
        assert!(stage.started().is_empty());
        let events = stage.events.from(0).0;
        assert!(events.iter().any(|e| e.event == "auto-unauthorized"));
        assert!(events.iter().all(|e| !e.message.contains(TOKEN)));
        stage.stop.cancel();
    })
    .await;
}
