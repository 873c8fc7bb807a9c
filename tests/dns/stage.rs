//! A provider on its stage: the server it talks to, the relay in between that plays faults, and
//! somebody else who may change the same records.

use std::sync::Arc;
use std::time::Duration;

use pilotfish::clock::Clock;
use pilotfish::dns::record::records;
use pilotfish::dns::spec::{
    EdgeGridSpec, Endpoint, OvhRegion, OvhSpec, PowerDnsSpec, Rfc2136Spec, Route53Spec, TokenSpec,
    TsigAlgorithm,
};
use pilotfish::dns::{self, DnsSpec, Env, Patience, Provider, ProviderSpec, Records, RrSet};
use pilotfish::net::resolve::Resolver;
use pilotfish::secret::Secret;
use pilotfish_harness::dns::bind::{self, Bind};
use pilotfish_harness::dns::fake;
use pilotfish_harness::dns::faults::{self, DnsRelay, Faults};
use pilotfish_harness::dns::knot::Knot;
use pilotfish_harness::dns::powerdns::PowerDns;
use pilotfish_harness::dns::{KEY, KEY_NAME, NAME, ZONE};

pub struct Stage {
    pub provider: Box<dyn Provider>,
    pub spec: DnsSpec,
    pub faults: Faults,
    /// Goes past the relay.
    pub editor: Arc<dyn Provider>,
    /// The same provider with credentials that are wrong.
    pub stranger: Box<dyn Provider>,
    /// What must not be seen in any message: the provider's own secrets,
    pub secrets: Vec<String>,
    /// and the stranger's.
    pub strange: &'static str,
    /// The address types that a change can have; all of them but at GTM.
    pub both: bool,
    /// Whether HTTP faults can be played.
    pub http: bool,
    _servers: Vec<Box<dyn std::any::Any + Send + Sync>>,
}

/// Shorter than anybody's, so that faults do not take long.
pub const PATIENCE: Patience = Patience {
    request: Duration::from_millis(1500),
    waiting: Duration::from_secs(3),
};

pub fn env() -> Env {
    Env {
        clock: Clock::start(),
        resolver: Resolver::from_system(),
    }
}

pub fn make(spec: &DnsSpec) -> Box<dyn Provider> {
    dns::provider(spec, &env()).unwrap()
}

pub fn spec(provider: ProviderSpec) -> DnsSpec {
    DnsSpec {
        zone: ZONE.parse().unwrap(),
        provider,
        patience: PATIENCE,
    }
}

/// A set of [`NAME`].
pub fn set(rtype: &str, ttl: u64, values: &[&str]) -> RrSet {
    let key = format!("{NAME} {rtype}").parse().unwrap();
    RrSet::parse(&key, ttl, values.iter().copied()).unwrap()
}

/// Region `n`, with both families.
pub fn region(n: u8, ttl: u64) -> Records {
    let (v4, v6) = (format!("192.0.2.{n}"), format!("2001:db8::{n}"));
    records([
        set("A", ttl, &[v4.as_str()]),
        set("AAAA", ttl, &[v6.as_str()]),
    ])
}

/// The zone file's lines for region 10, where every stage begins.
pub const BEGINNING: [&str; 2] = ["shop 300 A 192.0.2.10", "shop 300 AAAA 2001:db8::10"];

pub fn rfc2136(server: std::net::SocketAddr, key_name: &str, key: &str) -> DnsSpec {
    spec(ProviderSpec::Rfc2136(Rfc2136Spec {
        server: server.to_string().parse().unwrap(),
        key_name: key_name.to_owned(),
        algorithm: TsigAlgorithm::HmacSha256,
        key: Secret::new(key.to_owned()),
    }))
}

const OTHER_KEY: &str = "YW5vdGhlciBzZWNyZXQgb2YgdGhlIHNhbWUgbGVuZ3RoISE=";

fn primary(server: std::net::SocketAddr, keep: Box<dyn std::any::Any + Send + Sync>) -> Stage {
    let faults = Faults::default();
    let relay = DnsRelay::start(server, faults.clone()).unwrap();
    let spec = rfc2136(relay.addr, KEY_NAME, KEY);
    Stage {
        provider: make(&spec),
        spec,
        faults,
        editor: make(&rfc2136(server, KEY_NAME, KEY)).into(),
        stranger: make(&rfc2136(server, KEY_NAME, OTHER_KEY)),
        secrets: vec![KEY.to_owned()],
        strange: OTHER_KEY,
        both: true,
        http: false,
        _servers: vec![keep, Box::new(relay)],
    }
}

pub fn bind() -> Stage {
    let options = bind::Options {
        records: BEGINNING.map(str::to_owned).to_vec(),
        ..bind::Options::default()
    };
    let bind = Bind::primary(&options).unwrap();
    primary(bind.addr, Box::new(bind))
}

pub fn knot() -> Stage {
    let knot = Knot::primary(&BEGINNING, None).unwrap();
    primary(knot.addr, Box::new(knot))
}

const API_KEY: &str = "api-key-that-nobody-may-see";
const TOKEN: &str = "token-that-nobody-may-see";
const OTHER_TOKEN: &str = "another-token-of-somebody-else";

/// An API at `server`. `provider` makes the settings from URL and token.
fn api(
    server: std::net::SocketAddr,
    keep: Box<dyn std::any::Any + Send + Sync>,
    token: &str,
    provider: impl Fn(Endpoint, Secret) -> ProviderSpec,
) -> Stage {
    let faults = Faults::default();
    let relay = faults::before_http(server, faults.clone()).unwrap();
    let at = |addr: std::net::SocketAddr, token: &str| {
        let endpoint = Endpoint {
            url: Some(format!("http://{addr}")),
            ..Endpoint::default()
        };
        spec(provider(endpoint, Secret::new(token.to_owned())))
    };
    let spec = at(relay.addr, token);
    Stage {
        provider: make(&spec),
        spec,
        faults,
        editor: make(&at(server, token)).into(),
        stranger: make(&at(server, OTHER_TOKEN)),
        secrets: vec![token.to_owned()],
        strange: OTHER_TOKEN,
        both: true,
        http: true,
        _servers: vec![keep, Box::new(relay)],
    }
}

pub fn powerdns() -> Stage {
    let powerdns = PowerDns::start(API_KEY, &BEGINNING).unwrap();
    api(
        powerdns.api,
        Box::new(powerdns),
        API_KEY,
        |endpoint, api_key| {
            ProviderSpec::PowerDns(PowerDnsSpec {
                endpoint,
                server_id: "localhost".to_owned(),
                api_key,
            })
        },
    )
}

pub fn powerdns_by_update() -> Stage {
    let powerdns = PowerDns::start(API_KEY, &BEGINNING).unwrap();
    primary(powerdns.addr, Box::new(powerdns))
}

pub fn route53() -> Stage {
    let server = fake::route53::start().unwrap();
    api(server.addr, Box::new(server), TOKEN, |endpoint, secret| {
        // Who it is not for is known by the name of the key there, and by the signature at moto.
        let known = secret.expose() == TOKEN;
        ProviderSpec::Route53(Route53Spec {
            endpoint,
            zone_id: None,
            access_key_id: if known {
                fake::route53::ACCESS_KEY_ID
            } else {
                "AKIDOTHER"
            }
            .to_owned(),
            secret_access_key: secret,
            session_token: None,
        })
    })
}

pub fn cloudflare() -> Stage {
    let server = fake::cloudflare::start(TOKEN, false).unwrap();
    api(server.addr, Box::new(server), TOKEN, |endpoint, token| {
        ProviderSpec::Cloudflare(TokenSpec { endpoint, token })
    })
}

pub fn linode() -> Stage {
    let server = fake::linode::start(TOKEN).unwrap();
    api(server.addr, Box::new(server), TOKEN, |endpoint, token| {
        ProviderSpec::Linode(TokenSpec { endpoint, token })
    })
}

pub fn digitalocean() -> Stage {
    let server = fake::digitalocean::start(TOKEN).unwrap();
    api(server.addr, Box::new(server), TOKEN, |endpoint, token| {
        ProviderSpec::DigitalOcean(TokenSpec { endpoint, token })
    })
}

const APPLICATION_SECRET: &str = "application-secret-to-be-hidden";

pub fn ovh_spec(endpoint: Endpoint, consumer_key: Secret) -> ProviderSpec {
    ProviderSpec::Ovh(OvhSpec {
        endpoint,
        region: OvhRegion::Eu,
        application_key: "application".to_owned(),
        application_secret: Secret::new(APPLICATION_SECRET.to_owned()),
        consumer_key,
    })
}

pub fn ovh() -> Stage {
    let server = fake::ovh::start(TOKEN, fake::ovh::Rights::Full).unwrap();
    let mut stage = api(server.addr, Box::new(server), TOKEN, ovh_spec);
    stage.secrets.push(APPLICATION_SECRET.to_owned());
    stage
}

const CLIENT_SECRET: &str = "client-secret-to-be-hidden";

fn edgegrid(endpoint: Endpoint, access_token: Secret) -> EdgeGridSpec {
    EdgeGridSpec {
        endpoint,
        host: "akab-test.luna.akamaiapis.net".to_owned(),
        client_token: "akab-client".to_owned(),
        client_secret: Secret::new(CLIENT_SECRET.to_owned()),
        access_token,
    }
}

pub fn akamai() -> Stage {
    let server = fake::akamai::start(TOKEN).unwrap();
    let mut stage = api(server.addr, Box::new(server), TOKEN, |endpoint, token| {
        ProviderSpec::Akamai(edgegrid(endpoint, token))
    });
    stage.secrets.push(CLIENT_SECRET.to_owned());
    stage
}

pub fn akamai_gtm() -> Stage {
    let server = fake::akamai::start(TOKEN).unwrap();
    let mut stage = api(server.addr, Box::new(server), TOKEN, |endpoint, token| {
        ProviderSpec::AkamaiGtm(edgegrid(endpoint, token))
    });
    stage.secrets.push(CLIENT_SECRET.to_owned());
    stage.both = false;
    stage
}
