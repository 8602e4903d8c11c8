//! TLS with the certificates that the suite hands out for a run.

use std::sync::Arc;

use anyhow::Context as _;
use larder_transport::serve::Tls;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::wire::ServerCompatRequest;

/// TLS as the suite asks for it; `None`: it asks for clear text.
///
/// # Errors
/// Certificates that cannot be used.
pub(crate) fn asked_for(request: &ServerCompatRequest) -> anyhow::Result<Option<Tls>> {
    if !request.use_tls {
        return Ok(None);
    }
    let own = request.server_creds.as_option();
    let own = own.context("TLS is asked for, and no certificate is given")?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = if request.client_tls_cert.is_empty() {
        builder.with_no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&request.client_tls_cert)? {
            roots.add(certificate)?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build()?)
    };
    let key = PrivateKeyDer::from_pem_slice(&own.key)?;
    let config = builder.with_single_cert(certificates(&own.cert)?, key)?;
    Ok(Some(Tls::new(Arc::new(config))))
}

fn certificates(pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    Ok(CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>()?)
}
