//! Tokens go only to whom the certificate says they go.

use std::net::SocketAddr;
use std::sync::Arc;

use pilotfish::dns::spec::{Endpoint, TokenSpec};
use pilotfish::dns::{DnsError, Kind, ProviderSpec};
use pilotfish::net::tls::TlsSettings;
use pilotfish::secret::Secret;
use pilotfish_harness::certs::Certs;
use pilotfish_harness::dns::fake;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};

use crate::stage::{make, region, spec};

/// TLS before the plain `server`, for as long as the runtime lives.
async fn before(server: SocketAddr, certs: &Certs) -> SocketAddr {
    let chain = CertificateDer::pem_file_iter(&certs.cert).unwrap();
    let chain = chain.map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&certs.key).unwrap();
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            // A client that does not trust us is gone here.
            let Ok(mut client) = acceptor.accept(client).await else {
                continue;
            };
            let mut server = TcpStream::connect(server).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        }
    });
    addr
}

async fn read(url: String, tls: TlsSettings) -> Result<usize, DnsError> {
    let endpoint = Endpoint {
        url: Some(url),
        tls,
    };
    let token = Secret::new("token".to_owned());
    let provider = make(&spec(ProviderSpec::Linode(TokenSpec { endpoint, token })));
    let keys: Vec<_> = region(10, 300).into_keys().collect();
    Ok(provider.read(&keys).await?.records.len())
}

#[tokio::test]
async fn an_api_must_prove_who_it_is() {
    let fake = fake::linode::start("token").unwrap();
    let certs = Certs::make(&["localhost"]).unwrap();
    let tls = before(fake.addr, &certs).await;
    let trusting = |ca| TlsSettings {
        ca_file: Some(ca),
        ..TlsSettings::default()
    };
    let (right, wrong) = (
        format!("https://localhost:{}", tls.port()),
        format!("https://{tls}"),
    );
    let records = read(right.clone(), trusting(certs.ca.clone())).await;
    assert_eq!(records.unwrap(), 2);
    let others = Certs::make(&["localhost"]).unwrap();
    for (url, ca) in [(wrong, certs.ca.clone()), (right, others.ca.clone())] {
        let error = read(url, trusting(ca)).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable, "{error}");
        assert!(error.detail.contains("certificate"), "{error}");
    }
}
