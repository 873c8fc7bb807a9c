//! EdgeGrid, `EG1-HMAC-SHA256`: how requests to Akamai are signed.

use std::sync::Arc;

use data_encoding::BASE64;
use jiff::Timestamp;
use ring::{digest, hmac};
use serde_json::Value;

use crate::dns::error::DnsError;
use crate::dns::http::{Dialect, Http, Outgoing, Settings};
use crate::dns::spec::{EdgeGridSpec, ProviderKind};
use crate::dns::{DnsSpec, Env};
use crate::secret::Secret;

/// The first so many bytes of a body are signed.
const MAX_BODY: usize = 131_072;

/// The API of the account that `settings` are for.
///
/// # Errors
/// As [`Http::new`].
pub fn http(
    kind: ProviderKind,
    settings: &EdgeGridSpec,
    spec: &DnsSpec,
    env: &Env,
) -> Result<Http, DnsError> {
    Http::new(
        Settings {
            kind,
            endpoint: &settings.endpoint,
            default_url: &format!("https://{}", settings.host),
            patience: spec.patience,
            dialect: Arc::new(EdgeGrid(settings.clone())),
            secrets: vec![
                settings.client_secret.clone(),
                settings.access_token.clone(),
            ],
        },
        env,
    )
}

struct EdgeGrid(EdgeGridSpec);

impl EdgeGrid {
    fn authorization(&self, request: &Outgoing<'_>, nonce: &str) -> String {
        let EdgeGridSpec {
            host,
            client_token,
            client_secret,
            access_token,
            ..
        } = &self.0;
        let time = timestamp(request.now);
        let access_token = access_token.expose();
        let unsigned = format!(
            "EG1-HMAC-SHA256 client_token={client_token};access_token={access_token};\
             timestamp={time};nonce={nonce};"
        );
        let hash = match request.method {
            "POST" => {
                let body = &request.body[..request.body.len().min(MAX_BODY)];
                match body {
                    [] => String::new(),
                    body => BASE64.encode(digest::digest(&digest::SHA256, body).as_ref()),
                }
            }
            _ => String::new(),
        };
        let (method, path) = (request.method, request.path);
        let data = format!("{method}\thttps\t{host}\t{path}\t\t{hash}\t{unsigned}");
        let signature = mac(&signing_key(client_secret, &time), &data);
        format!("{unsigned}signature={signature}")
    }
}

fn signing_key(client_secret: &Secret, time: &str) -> String {
    mac(client_secret.expose(), time)
}

fn mac(key: &str, text: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    BASE64.encode(hmac::sign(&key, text.as_bytes()).as_ref())
}

fn timestamp(now: Timestamp) -> String {
    now.strftime("%Y%m%dT%H:%M:%S+0000").to_string()
}

/// 122 random bits in the shape of a version 4 UUID.
fn nonce() -> String {
    let bits = (fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let (a, b, c, d, e) = (
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    );
    format!("{a}-{b}-{c}-{d}-{e}")
}

impl Dialect for EdgeGrid {
    fn sign(&self, request: &Outgoing<'_>) -> Result<Vec<(&'static str, Secret)>, DnsError> {
        let value = self.authorization(request, &nonce());
        Ok(vec![("authorization", Secret::new(value))])
    }

    fn explain(&self, body: &[u8]) -> Option<String> {
        // RFC 9457.
        let body: Value = serde_json::from_slice(body).ok()?;
        let text = |name: &str| Some(body.get(name)?.as_str()?.to_owned());
        match (text("title"), text("detail")) {
            (Some(title), Some(detail)) => Some(format!("{title}: {detail}")),
            (title, detail) => title.or(detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::spec::Endpoint;

    /// `akamai/AkamaiOPEN-edgegrid-python`, its `testdata.json`.
    #[test]
    fn the_known_answers_are_given() {
        let edgegrid = EdgeGrid(EdgeGridSpec {
            endpoint: Endpoint::default(),
            host: "akaa-baseurl-xxxxxxxxxxx-xxxxxxxxxxxxx.luna.akamaiapis.net".to_owned(),
            client_token: "akab-client-token-xxx-xxxxxxxxxxxxxxxx".to_owned(),
            client_secret: Secret::new("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx=".to_owned()),
            access_token: Secret::new("akab-access-token-xxx-xxxxxxxxxxxxxxxx".to_owned()),
        });
        let now: Timestamp = "2014-03-21T19:34:21Z".parse().unwrap();
        assert_eq!(timestamp(now), "20140321T19:34:21+0000");
        let key = signing_key(&edgegrid.0.client_secret, &timestamp(now));
        assert_eq!(key, "znsRMDBRqTXGJ7Ojip3/h2FGPu3LuoMYWgv9PKEnE/o=");
        let request = Outgoing {
            method: "GET",
            url: "",
            path: "/",
            body: b"",
            now,
        };
        let signed = edgegrid.authorization(&request, "nonce-xx-xxxx-xxxx-xxxx-xxxxxxxxxxxx");
        assert!(
            signed.ends_with("signature=tL+y4hxyHxgWVD30X3pWnGKHcPzmrIF+LThiAOhMxYU="),
            "{signed}"
        );
    }

    #[test]
    fn a_nonce_is_a_uuid_and_never_twice_the_same() {
        let (one, two) = (nonce(), nonce());
        assert_ne!(one, two);
        assert_eq!(one.len(), 36);
        assert_eq!(one.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&one.as_bytes()[19]));
    }
}
