//! Where the records are kept, as the config says it: valid values, checked once.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::record::Name;
use crate::addr::Addr;
use crate::net::tls::TlsSettings;
use crate::secret::Secret;

/// The kinds of providers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    Rfc2136,
    PowerDns,
    Route53,
    Cloudflare,
    Linode,
    Ovh,
    DigitalOcean,
    /// Edge DNS: zones.
    Akamai,
    /// Global Traffic Management: properties, which answer for a name.
    AkamaiGtm,
}

impl ProviderKind {
    pub const ALL: [Self; 9] = [
        Self::Rfc2136,
        Self::PowerDns,
        Self::Route53,
        Self::Cloudflare,
        Self::Linode,
        Self::Ovh,
        Self::DigitalOcean,
        Self::Akamai,
        Self::AkamaiGtm,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rfc2136 => "rfc2136",
            Self::PowerDns => "powerdns",
            Self::Route53 => "route53",
            Self::Cloudflare => "cloudflare",
            Self::Linode => "linode",
            Self::Ovh => "ovh",
            Self::DigitalOcean => "digitalocean",
            Self::Akamai => "akamai",
            Self::AkamaiGtm => "akamai-gtm",
        }
    }
}

impl ProviderKind {
    /// Whether its server compares and sets in one step; the same as its capabilities say.
    pub const fn compares_and_sets(self) -> bool {
        matches!(self, Self::Rfc2136 | Self::Route53 | Self::Akamai)
    }
}

/// How long a provider is waited for. A call makes a handful of requests, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// One request, from connecting to the last byte of its answer.
    pub request: Duration,
    /// All pauses before the repetitions of one request, also those that a rate limit asks for.
    pub waiting: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(10),
            waiting: Duration::from_secs(30),
        }
    }
}

/// `[cutover.dns]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsSpec {
    pub zone: Name,
    pub provider: ProviderSpec,
    pub patience: Patience,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderSpec {
    Rfc2136(Rfc2136Spec),
    PowerDns(PowerDnsSpec),
    Route53(Route53Spec),
    Cloudflare(TokenSpec),
    Linode(TokenSpec),
    Ovh(OvhSpec),
    DigitalOcean(TokenSpec),
    Akamai(EdgeGridSpec),
    /// The zone is the GTM domain, such as `example.akadns.net`, and a name in it is a property.
    AkamaiGtm(EdgeGridSpec),
}

impl ProviderSpec {
    pub fn kind(&self) -> ProviderKind {
        match self {
            Self::Rfc2136(_) => ProviderKind::Rfc2136,
            Self::PowerDns(_) => ProviderKind::PowerDns,
            Self::Route53(_) => ProviderKind::Route53,
            Self::Cloudflare(_) => ProviderKind::Cloudflare,
            Self::Linode(_) => ProviderKind::Linode,
            Self::Ovh(_) => ProviderKind::Ovh,
            Self::DigitalOcean(_) => ProviderKind::DigitalOcean,
            Self::Akamai(_) => ProviderKind::Akamai,
            Self::AkamaiGtm(_) => ProviderKind::AkamaiGtm,
        }
    }
}

/// The algorithms that RFC 8945 recommends and every server in use has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TsigAlgorithm {
    #[default]
    HmacSha256,
    HmacSha384,
    HmacSha512,
}

impl TsigAlgorithm {
    pub const ALL: [Self; 3] = [Self::HmacSha256, Self::HmacSha384, Self::HmacSha512];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HmacSha256 => "hmac-sha256",
            Self::HmacSha384 => "hmac-sha384",
            Self::HmacSha512 => "hmac-sha512",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rfc2136Spec {
    /// The zone's primary, the only server that gets updates.
    pub server: Addr,
    pub key_name: String,
    pub algorithm: TsigAlgorithm,
    /// Base64, as `tsig-keygen` writes it.
    pub key: Secret,
}

/// An HTTP API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Scheme, host and port, without the path of the API; `None`: the provider's own.
    pub url: Option<String>,
    /// Roots and client certificate for `https`; its mode counts for nothing: names are always verified.
    pub tls: TlsSettings,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PowerDnsSpec {
    /// Its `url` has no default.
    pub endpoint: Endpoint,
    /// `localhost` nearly everywhere.
    pub server_id: String,
    pub api_key: Secret,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route53Spec {
    pub endpoint: Endpoint,
    /// `None`: looked for by the zone's name.
    pub zone_id: Option<String>,
    pub access_key_id: String,
    pub secret_access_key: Secret,
    pub session_token: Option<Secret>,
}

/// Providers that know one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSpec {
    pub endpoint: Endpoint,
    pub token: Secret,
}

/// Where an OVH account is kept; accounts of one region do not exist in another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OvhRegion {
    #[default]
    Eu,
    Ca,
    Us,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OvhSpec {
    pub endpoint: Endpoint,
    pub region: OvhRegion,
    pub application_key: String,
    pub application_secret: Secret,
    pub consumer_key: Secret,
}

/// Akamai's EdgeGrid credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeGridSpec {
    /// Its `url` is `https://akab-….luna.akamaiapis.net`, or stands in for it in a test.
    pub endpoint: Endpoint,
    /// The host that the credentials are for, and that is signed.
    pub host: String,
    pub client_token: String,
    pub client_secret: Secret,
    pub access_token: Secret,
}

/// How it is proven that the records are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifySpec {
    pub zone: Name,
    /// Asked with recursion: they find the name servers, and stand for the clients' resolvers.
    pub resolvers: Vec<SocketAddr>,
    /// Asked for the delegation; `None`: the servers of the parent zone, as the resolvers find them.
    pub parent: Option<SocketAddr>,
    /// Where the server with this address is reached, if it is not there on port 53: behind a translated
    /// address, or in a test.
    pub address_map: BTreeMap<IpAddr, SocketAddr>,
    /// So many answers of a server in a row must be right. Some servers have caches in front of them.
    pub matches: u32,
    /// Between two rounds of questions.
    pub pause: Duration,
    /// One question, with its repetitions.
    pub question: Duration,
    /// DNSKEY records in the form of a zone file; `None`: the root zone's.
    pub trust_anchors: Option<String>,
}

impl VerifySpec {
    /// With everything else as it usually is.
    pub fn new(zone: Name, resolvers: Vec<SocketAddr>) -> Self {
        Self {
            zone,
            resolvers,
            parent: None,
            address_map: BTreeMap::new(),
            matches: 3,
            pause: Duration::from_secs(1),
            question: Duration::from_secs(3),
            trust_anchors: None,
        }
    }
}
