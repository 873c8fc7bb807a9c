//! `[cutover.dns]`: every kind's keys in one table. All of them are read whatever the kind is, so that one
//! of another kind is refused by its name.

use super::super::report::{Bad, Spot};
use super::super::secret::{self, Keys};
use super::super::table::{Item, Table};
use super::super::value::{HOUR, address, duration, one_of, optional_path, optional_text, text};
use super::SECOND;
use super::region::url;
use crate::addr::Addr;
use crate::dns::record::Name;
use crate::dns::spec::{
    DnsSpec, EdgeGridSpec, Endpoint, OvhRegion, OvhSpec, Patience, PowerDnsSpec, ProviderKind,
    ProviderSpec, Rfc2136Spec, Route53Spec, TokenSpec, TsigAlgorithm,
};
use crate::net::tls::{TlsMode, TlsSettings};
use crate::secret::Secret;

use ProviderKind::{
    Akamai, AkamaiGtm, Cloudflare, DigitalOcean, Linode, Ovh, PowerDns, Rfc2136, Route53,
};

const REGIONS: [(&str, OvhRegion); 3] = [
    ("eu", OvhRegion::Eu),
    ("ca", OvhRegion::Ca),
    ("us", OvhRegion::Us),
];

const fn keys(literal: &'static str, file: &'static str, env: &'static str) -> Keys {
    Keys {
        username: "",
        literal,
        file,
        env,
        password_needed: true,
    }
}

const TSIG: Keys = keys("key", "key_file", "key_env");
const API_KEY: Keys = keys("api_key", "api_key_file", "api_key_env");
const TOKEN: Keys = keys("token", "token_file", "token_env");
const AWS: Keys = keys(
    "secret_access_key",
    "secret_access_key_file",
    "secret_access_key_env",
);
const SESSION: Keys = keys("session_token", "session_token_file", "session_token_env");
const APPLICATION: Keys = keys(
    "application_secret",
    "application_secret_file",
    "application_secret_env",
);
const CONSUMER: Keys = keys("consumer_key", "consumer_key_file", "consumer_key_env");
const CLIENT: Keys = keys("client_secret", "client_secret_file", "client_secret_env");
const ACCESS: Keys = keys("access_token", "access_token_file", "access_token_env");

/// A table that is being read for one kind.
struct Reader<'t, 'a> {
    table: &'t mut Table<'a>,
    kind: Option<ProviderKind>,
}

impl<'a> Reader<'_, 'a> {
    /// Refuses `key` where it is there and means nothing.
    fn only_for(&self, key: &str, kinds: &[ProviderKind]) {
        let Some(kind) = self.kind.filter(|kind| !kinds.contains(kind)) else {
            return;
        };
        if let Some(spot) = self.table.name_spot(key) {
            let names: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
            let message = format!("`{key}` means nothing to {}", kind.as_str());
            let bad = Bad::new(
                message,
                format!("it is for {}; remove it", names.join(", ")),
            );
            self.table.report().error(&spot, bad);
        }
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        kinds: &[ProviderKind],
        parse: impl FnOnce(&Item<'a>) -> Result<T, Bad>,
    ) -> Option<T> {
        self.only_for(key, kinds);
        self.table.read(key, parse)
    }

    /// As [`Self::read`]; those kinds cannot do without.
    fn need<T>(
        &mut self,
        key: &'static str,
        kinds: &[ProviderKind],
        parse: impl FnOnce(&Item<'a>) -> Result<T, Bad>,
    ) -> Option<T> {
        if self.kind.is_some_and(|kind| kinds.contains(&kind))
            && self.table.name_spot(key).is_none()
        {
            self.table.missing(key, "this kind of provider needs it");
        }
        self.read(key, kinds, parse)
    }

    /// A secret; where it was not read, an empty one stands for it.
    fn secret(&mut self, keys: &Keys, kinds: &[ProviderKind], needed: bool) -> Option<Secret> {
        for key in [keys.literal, keys.file, keys.env] {
            self.only_for(key, kinds);
        }
        let (given, secret) = secret::lone(self.table, keys);
        if !given {
            let mine = self.kind.is_some_and(|kind| kinds.contains(&kind));
            if mine && needed {
                let help = format!("or {} or {}", keys.env, keys.literal);
                self.table.missing(keys.file, &help);
            }
            return None;
        }
        Some(secret.unwrap_or_else(|| Secret::new(String::new())))
    }
}

fn kinds() -> [(&'static str, ProviderKind); 9] {
    ProviderKind::ALL.map(|kind| (kind.as_str(), kind))
}

pub fn read(parent: &mut Table) -> Option<DnsSpec> {
    let mut table = parent.section("dns");
    let names: Vec<&str> = ProviderKind::ALL.iter().map(|kind| kind.as_str()).collect();
    let kind = table.need(
        "kind",
        &format!("one of: {}", names.join(", ")),
        one_of(&kinds()),
    );
    let zone = table.need("zone", "for example zone = \"example.com\"", zone);
    let mut reader = Reader {
        table: &mut table,
        kind,
    };
    let provider = provider(&mut reader);
    let default = Patience::default();
    let request = table.read("timeout", duration(SECOND / 10..=60 * SECOND));
    let waiting = table.read("patience", duration(SECOND / 10..=HOUR));
    table.finish();
    Some(DnsSpec {
        zone: zone?,
        provider: provider?,
        patience: Patience {
            request: request.unwrap_or(default.request),
            waiting: waiting.unwrap_or(default.waiting),
        },
    })
}

fn zone(item: &Item) -> Result<Name, Bad> {
    let text = text(item)?;
    text.parse().map_err(|error: crate::dns::RecordError| {
        Bad::new(error.to_string(), "write \"example.com\"")
    })
}

const HTTP: [ProviderKind; 8] = [
    PowerDns,
    Route53,
    Cloudflare,
    Linode,
    Ovh,
    DigitalOcean,
    Akamai,
    AkamaiGtm,
];
const TOKENS: [ProviderKind; 3] = [Cloudflare, Linode, DigitalOcean];
const EDGEGRID: [ProviderKind; 2] = [Akamai, AkamaiGtm];

/// Reads every kind's keys, so that all mistakes are found, and keeps what this kind needs.
fn provider(r: &mut Reader) -> Option<ProviderSpec> {
    let endpoint = endpoint(r);
    let rfc2136 = rfc2136(r);
    let powerdns = powerdns(r, &endpoint);
    let route53 = route53(r, &endpoint);
    let token = r.secret(&TOKEN, &TOKENS, true);
    let token = token.map(|token| TokenSpec {
        endpoint: endpoint.clone(),
        token,
    });
    let ovh = ovh(r, &endpoint);
    let edgegrid = edgegrid(r, &endpoint);
    Some(match r.kind? {
        Rfc2136 => ProviderSpec::Rfc2136(rfc2136?),
        PowerDns => ProviderSpec::PowerDns(powerdns?),
        Route53 => ProviderSpec::Route53(route53?),
        Cloudflare => ProviderSpec::Cloudflare(token?),
        Linode => ProviderSpec::Linode(token?),
        Ovh => ProviderSpec::Ovh(ovh?),
        DigitalOcean => ProviderSpec::DigitalOcean(token?),
        Akamai => ProviderSpec::Akamai(edgegrid?),
        AkamaiGtm => ProviderSpec::AkamaiGtm(edgegrid?),
    })
}

fn endpoint(r: &mut Reader) -> Endpoint {
    let url = match r.kind {
        Some(PowerDns) => r.need("endpoint", &HTTP, url),
        _ => r.read("endpoint", &HTTP, url),
    };
    let report = r.table.report();
    let ca_file = r.read("ca_file", &HTTP, |item: &Item| {
        let Some(path) = optional_path(item)? else {
            return Ok(None);
        };
        let readable = report.outside.readable(&path);
        readable.map_err(|e| Bad::new(e, "name a file that this user can read"))?;
        Ok(Some(path))
    });
    Endpoint {
        url,
        tls: TlsSettings {
            mode: TlsMode::VerifyFull,
            ca_file: ca_file.flatten(),
            ..TlsSettings::default()
        },
    }
}

fn rfc2136(r: &mut Reader) -> Option<Rfc2136Spec> {
    let mine = &[Rfc2136];
    let server = r.need("server", mine, |item: &Item| match address(item)? {
        Addr::Unix(_) => Err(Bad::new("updates go over TCP", "write \"192.0.2.53:53\"")),
        addr => Ok(addr),
    });
    let key_name = r.need("key_name", mine, text);
    let words = TsigAlgorithm::ALL.map(|algorithm| (algorithm.as_str(), algorithm));
    let algorithm = r.read("key_algorithm", mine, one_of(&words));
    let key = r.secret(&TSIG, mine, true);
    Some(Rfc2136Spec {
        server: server?,
        key_name: key_name?,
        algorithm: algorithm.unwrap_or_default(),
        key: key?,
    })
}

fn powerdns(r: &mut Reader, endpoint: &Endpoint) -> Option<PowerDnsSpec> {
    let server_id = r.read("server_id", &[PowerDns], text);
    let api_key = r.secret(&API_KEY, &[PowerDns], true);
    endpoint.url.as_ref()?;
    Some(PowerDnsSpec {
        endpoint: endpoint.clone(),
        server_id: server_id.unwrap_or_else(|| "localhost".to_owned()),
        api_key: api_key?,
    })
}

fn route53(r: &mut Reader, endpoint: &Endpoint) -> Option<Route53Spec> {
    let mine = &[Route53];
    let zone_id = r.read("zone_id", mine, optional_text).flatten();
    let access_key_id = r.need("access_key_id", mine, text);
    let secret_access_key = r.secret(&AWS, mine, true);
    let session_token = r.secret(&SESSION, mine, false);
    Some(Route53Spec {
        endpoint: endpoint.clone(),
        zone_id,
        access_key_id: access_key_id?,
        secret_access_key: secret_access_key?,
        session_token,
    })
}

fn ovh(r: &mut Reader, endpoint: &Endpoint) -> Option<OvhSpec> {
    let mine = &[Ovh];
    let region = r.read("region", mine, one_of(&REGIONS));
    let application_key = r.need("application_key", mine, text);
    let application_secret = r.secret(&APPLICATION, mine, true);
    let consumer_key = r.secret(&CONSUMER, mine, true);
    Some(OvhSpec {
        endpoint: endpoint.clone(),
        region: region.unwrap_or_default(),
        application_key: application_key?,
        application_secret: application_secret?,
        consumer_key: consumer_key?,
    })
}

fn edgegrid(r: &mut Reader, endpoint: &Endpoint) -> Option<EdgeGridSpec> {
    let mine = &EDGEGRID;
    let host: Option<(String, Spot)> = r.need("host", mine, |item: &Item| {
        Ok((text(item)?, item.spot.clone()))
    });
    let client_token = r.need("client_token", mine, text);
    let client_secret = r.secret(&CLIENT, mine, true);
    let access_token = r.secret(&ACCESS, mine, true);
    let (host, spot) = host?;
    // It becomes a part of the URL.
    let own = format!("https://{host}");
    let parsed = reqwest::Url::parse(&own).ok();
    if parsed.is_none_or(|url| url.host_str() != Some(host.as_str())) {
        let help = "write \"akab-....luna.akamaiapis.net\"";
        let bad = Bad::new("this is not the name of a host", help);
        r.table.report().error(&spot, bad);
        return None;
    }
    let url = endpoint.url.clone().unwrap_or(own);
    Some(EdgeGridSpec {
        endpoint: Endpoint {
            url: Some(url),
            ..endpoint.clone()
        },
        host,
        client_token: client_token?,
        client_secret: client_secret?,
        access_token: access_token?,
    })
}
