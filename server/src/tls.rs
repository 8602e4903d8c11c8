//! TLS of the listeners, by rustls.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use larder_transport::serve::Tls;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

use crate::config::TlsFiles;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {}: {reason}", path.display())]
pub struct TlsError {
    /// The setting that names the file.
    pub setting: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

fn failed(setting: &'static str, path: &Path, reason: impl Display) -> TlsError {
    TlsError {
        setting,
        path: path.into(),
        reason: reason.to_string(),
    }
}

/// The cryptography used everywhere in the server.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Reads the files and checks that they belong together. The transport
/// offers `h2` and `http/1.1` by ALPN.
pub(crate) fn listener_tls(files: &TlsFiles) -> Result<Tls, TlsError> {
    let certs = certificates("tls_cert", &files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| failed("tls_key", &files.key, error))?;
    let builder = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| failed("tls_cert", &files.cert, error))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = rustls::RootCertStore::empty();
            for cert in certificates("client_ca", path)? {
                roots
                    .add(cert)
                    .map_err(|error| failed("client_ca", path, error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
                .build()
                .map_err(|error| failed("client_ca", path, error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder
        .with_single_cert(certs, key)
        .map_err(|error| failed("tls_key", &files.key, error))?;
    Ok(Tls::new(Arc::new(config)))
}

fn certificates(
    setting: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certs = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| failed(setting, path, error))?;
    if certs.is_empty() {
        return Err(failed(setting, path, "holds no certificate"));
    }
    Ok(certs)
}
