//! Many short sessions: clients that connect, ask once and leave, on TCP and on a Unix socket alternately.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pilotfish_harness::wait;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Whatever happens, no more than that: each TCP client costs a port for a minute.
const MOST: usize = 60_000;
/// At a time; a machine that is too slow for the pace gets fewer clients, not ever more at once.
const AT_ONCE: usize = 1_000;
/// A client that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_millis(5);

/// What became of all clients.
#[derive(Debug, Default)]
pub struct Report {
    pub made: usize,
    pub answered: usize,
    pub refused: usize,
    pub reset: usize,
    /// Everything else that is not an answer, with examples.
    pub failed: usize,
    pub examples: Vec<String>,
    /// From the connect to the answer.
    pub longest: Duration,
    pub took: Duration,
}

impl Report {
    /// Every client got its answer.
    pub fn assert_clean(&self) {
        println!(
            "{} clients in {:.1?} ({:.0}/s): {} answered, {} refused, {} reset, {} failed; longest {:.0?}",
            self.made,
            self.took,
            self.made as f64 / self.took.as_secs_f64(),
            self.answered,
            self.refused,
            self.reset,
            self.failed,
            self.longest,
        );
        assert_eq!(self.answered, self.made, "{self:?}");
        assert!(self.made > 500, "hardly a load: {self:?}");
    }

    fn note(&mut self, (outcome, took): (io::Result<()>, Duration)) {
        self.longest = self.longest.max(took);
        let error = match outcome {
            Ok(()) => return self.answered += 1,
            Err(error) => error,
        };
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => self.refused += 1,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => self.reset += 1,
            _ => self.failed += 1,
        }
        if self.examples.len() < 5 {
            self.examples.push(format!("after {took:?}: {error}"));
        }
    }
}

/// A load that goes on until it is stopped.
pub struct Load {
    told: Arc<Told>,
    thread: Option<JoinHandle<Report>>,
}

#[derive(Default)]
struct Told {
    stop: AtomicBool,
    ended: AtomicUsize,
}

impl Load {
    /// `pace` clients a second.
    pub fn start(tcp: SocketAddr, unix: &Path, pace: usize) -> Self {
        let told = Arc::new(Told::default());
        let (shared, unix) = (told.clone(), unix.to_owned());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().unwrap();
            runtime.block_on(run(tcp, &unix, pace, &shared))
        });
        Self {
            told,
            thread: Some(thread),
        }
    }

    /// Returns when so many more clients have come and gone.
    pub fn wait_more(&self, clients: usize) {
        let ended = || self.told.ended.load(Ordering::Relaxed);
        let goal = ended() + clients;
        let enough = || Ok(ended() >= goal || self.thread.as_ref().unwrap().is_finished());
        wait::until_true("clients to come and go", 3 * PATIENCE, enough).unwrap();
    }

    pub fn stop(mut self) -> Report {
        self.told.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.told.stop.store(true, Ordering::Relaxed);
    }
}

async fn run(tcp: SocketAddr, unix: &Path, pace: usize, told: &Told) -> Report {
    let (mut report, mut clients) = (Report::default(), JoinSet::new());
    let began = Instant::now();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !told.stop.load(Ordering::Relaxed) && report.made < MOST {
        ticks.tick().await;
        for _ in 0..pace / 200 {
            if clients.len() < AT_ONCE {
                let unix = (report.made % 2 == 1).then(|| unix.to_owned());
                clients.spawn(client(tcp, unix));
                report.made += 1;
            }
        }
        while let Some(ended) = clients.try_join_next() {
            report.note(ended.unwrap());
            told.ended.fetch_add(1, Ordering::Relaxed);
        }
    }
    report.took = began.elapsed();
    while let Some(ended) = clients.join_next().await {
        report.note(ended.unwrap());
    }
    report
}

async fn client(tcp: SocketAddr, unix: Option<PathBuf>) -> (io::Result<()>, Duration) {
    let began = Instant::now();
    let asked = timeout(PATIENCE, async {
        match unix {
            Some(path) => ask(UnixStream::connect(path).await?).await,
            None => ask(TcpStream::connect(tcp).await?).await,
        }
    });
    let outcome = asked.await.unwrap_or(Err(io::ErrorKind::TimedOut.into()));
    (outcome, began.elapsed())
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    stream.write_all(b"PING\r\n").await?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).await?;
    match &answer {
        b"+PONG\r\n" => Ok(()),
        other => Err(io::Error::other(
            String::from_utf8_lossy(other).into_owned(),
        )),
    }
}
