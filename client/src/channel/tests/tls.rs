//! Servers whose certificate is right, unknown, or another's.

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::CaCertificates;

/// A server for `localhost`, and its certificate in PEM.
async fn secure() -> (Server, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let server = Server::secure(TlsAcceptor::from(Arc::new(config))).await;
    (server, certificate.pem())
}

#[tokio::test]
async fn a_server_is_called_only_if_its_certificate_is_right() {
    let (server, pem) = secure().await;
    let (_, other) = secure().await;
    let port = server.address.port();
    for (target, trusted, wanted) in [
        (format!("https://localhost:{port}"), &pem, ""),
        (
            format!("https://127.0.0.1:{port}"),
            &pem,
            "not valid for name",
        ),
        (
            format!("https://localhost:{port}"),
            &other,
            "invalid peer certificate",
        ),
    ] {
        let config = ClientConfig::new(&target).unwrap();
        let config = config.with_authorities(CaCertificates::from_pem(trusted.as_bytes()));
        let caller = Caller::new(config);
        match caller.answer().await {
            Ok(_) => assert_eq!(wanted, "", "{target}"),
            Err(error) => assert!(
                !wanted.is_empty() && error.contains(wanted) && error.contains("TLS"),
                "{target}: {error}"
            ),
        }
    }
    let calls = server.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].authority, format!("localhost:{port}"));
}
