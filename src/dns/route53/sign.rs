//! AWS Signature Version 4, by Amazon's own crate.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;

use super::xml;
use crate::dns::error::{DnsError, Kind};
use crate::dns::http::{Dialect, Outgoing};
use crate::dns::spec::{ProviderKind, Route53Spec};
use crate::secret::Secret;

/// Route 53 is one service for the whole world, and this is where its scope says it is.
const REGION: &str = "us-east-1";
const SERVICE: &str = "route53";

pub struct SigV4 {
    access_key_id: String,
    secret_access_key: Secret,
    session_token: Option<Secret>,
}

impl SigV4 {
    pub fn new(spec: &Route53Spec) -> Self {
        Self {
            access_key_id: spec.access_key_id.clone(),
            secret_access_key: spec.secret_access_key.clone(),
            session_token: spec.session_token.clone(),
        }
    }

    fn headers(&self, request: &Outgoing<'_>, scope: (&str, &str)) -> Result<Signed, String> {
        let identity = Credentials::new(
            &self.access_key_id,
            self.secret_access_key.expose(),
            self.session_token.as_ref().map(|t| t.expose().to_owned()),
            None,
            "config",
        )
        .into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(scope.0)
            .name(scope.1)
            .time(SystemTime::from(request.now))
            .settings(SigningSettings::default())
            .build()
            .map_err(|e| e.to_string())?;
        let body = SignableBody::Bytes(request.body);
        let none = std::iter::empty();
        let signable = SignableRequest::new(request.method, request.url, none, body);
        let signable = signable.map_err(|e| e.to_string())?;
        let (instructions, _) = sign(signable, &params.into())
            .map_err(|e| e.to_string())?
            .into_parts();
        let (headers, _) = instructions.into_parts();
        let headers = headers.into_iter();
        Ok(headers
            .map(|h| (h.name(), Secret::new(h.value().to_owned())))
            .collect())
    }
}

type Signed = Vec<(&'static str, Secret)>;

impl Dialect for SigV4 {
    fn sign(&self, request: &Outgoing<'_>) -> Result<Signed, DnsError> {
        let signed = self.headers(request, (REGION, SERVICE));
        signed.map_err(|why| DnsError::new(ProviderKind::Route53.as_str(), Kind::Invalid, why))
    }

    fn throttled(&self, status: u16, body: &[u8]) -> bool {
        let busy = [
            "Throttling",
            "ThrottlingException",
            "PriorRequestNotComplete",
        ];
        let code = || xml::error(body).map(|(code, _)| code);
        status == 429 || (status == 400 && code().is_some_and(|c| busy.contains(&c.as_str())))
    }

    fn explain(&self, body: &[u8]) -> Option<String> {
        let (code, message) = xml::error(body)?;
        Some(format!("{code}: {message}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::spec::Endpoint;

    /// `get-vanilla` of Amazon's published test suite for Signature Version 4.
    #[test]
    fn the_known_answer_is_given() {
        let signer = SigV4::new(&Route53Spec {
            endpoint: Endpoint::default(),
            zone_id: None,
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned()),
            session_token: None,
        });
        let request = Outgoing {
            method: "GET",
            url: "https://example.amazonaws.com/",
            path: "/",
            body: b"",
            now: "2015-08-30T12:36:00Z".parse().unwrap(),
        };
        let signed = signer.headers(&request, ("us-east-1", "service")).unwrap();
        let authorization = signed
            .iter()
            .find(|(name, _)| *name == "authorization")
            .unwrap();
        assert!(
            authorization.1.expose().ends_with(
                "SignedHeaders=host;x-amz-date, \
                 Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
            ),
            "{}",
            authorization.1.expose()
        );
    }

    #[test]
    fn too_many_is_a_400_here() {
        let signer = SigV4 {
            access_key_id: String::new(),
            secret_access_key: Secret::new(String::new()),
            session_token: None,
        };
        let error =
            |code| format!("<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>");
        assert!(signer.throttled(400, error("Throttling").as_bytes()));
        assert!(signer.throttled(400, error("PriorRequestNotComplete").as_bytes()));
        assert!(!signer.throttled(400, error("InvalidChangeBatch").as_bytes()));
        assert!(signer.throttled(429, b""));
    }
}
