//! Two regions, the servers that answer for them, and a sidecar that may move the site.

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use pilotfish::clock::Clock;
use pilotfish::dns::record::records;
use pilotfish::dns::spec::{Rfc2136Spec, TsigAlgorithm};
use pilotfish::dns::{
    self, Change, DnsSpec, Env, Key, Patience, Provider, ProviderSpec, Records, RrSet,
};
use pilotfish::net::resolve::Resolver;
use pilotfish::secret::Secret;
use pilotfish_harness::dns::bind::Bind;
use pilotfish_harness::dns::http::{HttpServer, Response};
use pilotfish_harness::dns::{KEY, KEY_NAME, NAME, NOTE, ZONE, site};
use pilotfish_harness::etcd::Etcd;
use pilotfish_harness::sidecar::{Config, Service, Sidecar, Until};

pub const LONG: Duration = Duration::from_secs(60);

const BINARY: &str = env!("CARGO_BIN_EXE_pilotfish");

pub use site::{GRA as OLD, Primary, RBX as NEW};

/// The servers, and the region that may take over.
pub struct Site<P = Bind> {
    servers: site::Site<P>,
    /// What the target answers to its check.
    pub target: HttpServer,
    status: Arc<AtomicU16>,
}

impl<P> Deref for Site<P> {
    type Target = site::Site<P>;

    fn deref(&self) -> &site::Site<P> {
        &self.servers
    }
}

impl Site {
    pub fn start() -> Self {
        Self::with(&["shop 2 A 192.0.2.10", "shop 2 AAAA 2001:db8::10"], false)
    }

    /// A lazy secondary hears of no change.
    pub fn with(lines: &[&str], lazy: bool) -> Self {
        Self::of(site::Site::start(lines, lazy).unwrap())
    }
}

impl<P: Primary> Site<P> {
    /// `primary` and a secondary at `second`. The resolver keeps every answer for `min_ttl` seconds.
    pub fn around(primary: P, second: SocketAddr, lazy: bool, min_ttl: u32) -> Self {
        Self::of(site::Site::around(primary, second, lazy, min_ttl).unwrap())
    }

    fn of(servers: site::Site<P>) -> Self {
        let status = Arc::new(AtomicU16::new(200));
        let says = status.clone();
        let target = HttpServer::start(move |_| Response::empty(says.load(Ordering::SeqCst)));
        Self {
            servers,
            target: target.unwrap(),
            status,
        }
    }

    pub fn target_says(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// `[cutover]`, with everything in it that makes every gate pass.
    pub fn section(&self) -> String {
        let check = format!("{}/healthz", self.target.url());
        self.servers.section([None, Some(&check)])
    }

    /// The same with another provider: what `[cutover.dns]` says besides the zone.
    pub fn section_for(&self, dns: &str) -> String {
        let check = format!("{}/healthz", self.target.url());
        self.servers.section_for([None, Some(&check)], dns)
    }

    /// A hook that lets a run wait, with its gates passed and its lock held, until [`Site::go`].
    pub fn barrier(&self) -> String {
        let go = self.dir.join("go");
        format!(
            "[[cutover.hook]]\nwhen = \"before-apply\"\ncommand = [\"sh\", \"-c\", \"while ! test -e {}; do sleep 0.05; done\"]\n",
            go.display()
        )
    }

    pub fn go(&self) {
        std::fs::write(self.dir.join("go"), "").unwrap();
    }

    /// `[cutover.lock]` of this kind: in the zone, in this etcd, or in a file that all share.
    pub fn lock(&self, etcd: Option<&Etcd>, kind: &str) -> String {
        let rest = match (kind, etcd) {
            ("etcd", Some(etcd)) => format!("endpoints = {:?}", etcd.urls()),
            ("dns", _) => format!("name = \"{NOTE}\""),
            _ => format!("path = \"{}\"", self.dir.join("lock").display()),
        };
        format!("[cutover.lock]\nkind = \"{kind}\"\n{rest}\n")
    }

    /// A sidecar of the target, whose one service is proven.
    pub fn sidecar(&self, section: &str) -> Sidecar {
        self.sidecar_until(section, Until::Healthy)
    }

    pub fn sidecar_until(&self, section: &str, until: Until) -> Sidecar {
        started(Path::new(BINARY), self.service(), section, until)
    }

    /// Another program, that becomes one.
    pub fn sidecar_by(&self, binary: &Path, section: &str) -> Sidecar {
        started(binary, self.service(), section, Until::Healthy)
    }

    fn service(&self) -> Service {
        let service = Service::new("db", "tcp").unwrap();
        let service = service.discover("kind", "static");
        service.discover_all("nodes", &[self.target.addr])
    }

    /// As the primary and, where it does not lag, the secondary serve them.
    pub fn served(&self, server: SocketAddr) -> [Vec<String>; 2] {
        self.servers.served(server).unwrap()
    }

    pub fn serial(&self) -> u32 {
        self.servers.serial().unwrap()
    }

    /// Somebody else, who goes past the relay.
    pub fn editor(&self) -> Editor {
        Editor::new(ProviderSpec::Rfc2136(Rfc2136Spec {
            server: self.primary.addr().to_string().parse().unwrap(),
            key_name: KEY_NAME.to_owned(),
            algorithm: TsigAlgorithm::HmacSha256,
            key: Secret::new(KEY.to_owned()),
        }))
    }
}

/// A sidecar of the target with this service.
pub fn sidecar_of(service: Service, section: &str) -> Sidecar {
    started(Path::new(BINARY), service, section, Until::Healthy)
}

fn started(binary: &Path, service: Service, section: &str, until: Until) -> Sidecar {
    let mut config = Config::new()
        .unwrap()
        .line("region = \"rbx\"")
        .line("workers = 1")
        .service(service);
    config.sections.push(section.to_owned());
    Sidecar::start(binary, config, until).unwrap()
}

/// Changes the same records.
#[derive(Clone)]
pub struct Editor {
    spec: DnsSpec,
}

pub fn both(values: [&str; 2], ttl: u64) -> Records {
    let set = |rtype: &str, value: &str| {
        let key = format!("{NAME} {rtype}").parse().unwrap();
        RrSet::parse(&key, ttl, [value]).unwrap()
    };
    records([set("A", values[0]), set("AAAA", values[1])])
}

impl Editor {
    pub fn new(provider: ProviderSpec) -> Self {
        let spec = DnsSpec {
            zone: ZONE.parse().unwrap(),
            provider,
            patience: Patience::default(),
        };
        Self { spec }
    }

    /// What is there.
    pub fn get(&self) -> Records {
        runtime().block_on(seen(&*self.provider(), &addresses()))
    }

    /// Whatever was there before.
    pub fn set(&self, to: &Records) {
        self.put(&addresses(), to);
    }

    /// A TXT record.
    pub fn text(&self, name: &str, text: &str) {
        let key: Key = format!("{name} TXT").parse().unwrap();
        let to = records([RrSet::parse(&key, 0, [text]).unwrap()]);
        self.put(&[key], &to);
    }

    fn put(&self, keys: &[Key], to: &Records) {
        runtime().block_on(async {
            let provider = self.provider();
            let change = Change::new(&seen(&*provider, keys).await, to, "").unwrap();
            provider.change(&change).await.unwrap();
        });
    }

    fn provider(&self) -> Box<dyn Provider> {
        let env = Env {
            clock: Clock::start(),
            resolver: Resolver::from_system(),
        };
        dns::provider(&self.spec, &env).unwrap()
    }
}

fn addresses() -> Vec<Key> {
    both(OLD, 2).into_keys().collect()
}

async fn seen(provider: &dyn Provider, keys: &[Key]) -> Records {
    provider.read(keys).await.unwrap().records
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    pub fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The one JSON value that was printed.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// `pilotfish region ...` against this sidecar.
pub fn command(sidecar: &Sidecar, args: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command
        .arg("region")
        .args(args)
        .arg("--socket")
        .arg(sidecar.admin_socket())
        .stdin(std::process::Stdio::null());
    command
}

pub fn region(sidecar: &Sidecar, args: &[&str]) -> Said {
    Said::of(&command(sidecar, args).output().unwrap())
}

/// This `[cutover]`, with a sidecar of that region that can be told to hold its clients.
pub fn with_admin(section: &str, region: &str, sidecar: &Sidecar) -> String {
    let name = format!("name = \"{region}\"");
    let socket = sidecar.admin_socket();
    let admin = format!("{name}\nadmin = [\"{}\"]", socket.display());
    section.replace(&name, &admin)
}

/// A gate's verdict in what `plan --json` says.
pub fn verdict(preview: &serde_json::Value, gate: &str) -> (String, String) {
    let verdicts = preview["verdicts"].as_array().unwrap();
    let found = verdicts.iter().find(|one| one["gate"] == gate);
    let found = found.unwrap_or_else(|| panic!("no {gate} in {preview}"));
    let text = |key: &str| found[key].as_str().unwrap().to_owned();
    (text("says"), text("why"))
}
