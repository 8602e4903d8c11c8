//! TLS of the listeners, and of a client of the Accounts server, by rustls.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | files into what a handshake needs, with errors that name the file |
//! | `reload.rs` | the same again when the files change |
//! | `names.rs` | whom a client certificate names |
//! | `caller.rs` | the account that it stands for |
//! | `client.rs` | the certificate that is shown to the Accounts server |

pub(crate) mod caller;
pub(crate) mod client;
pub(crate) mod names;
pub(crate) mod reload;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::config::{ClientCertificates, TlsFiles};

/// Why TLS cannot be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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

/// The bytes of the files, read at one time, and which files they are.
pub(crate) struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
    client_crl: Option<Vec<u8>>,
}

/// Two contents are the same if their digests are.
pub(crate) type ContentsDigest = [u8; 32];

impl Contents {
    /// Reads the files, whatever symbolic links lead to them now.
    pub(crate) fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let read = |setting, path: &Path| {
            std::fs::read(path).map_err(|error| failed(setting, path, error))
        };
        let read_if = |setting, path: &Option<PathBuf>| {
            path.as_deref().map(|path| read(setting, path)).transpose()
        };
        Ok(Self {
            cert: read("tls_cert", &files.cert)?,
            key: read("tls_key", &files.key)?,
            client_ca: read_if("client_ca", &files.client_ca)?,
            client_crl: read_if("client_crl", &files.client_crl)?,
        })
    }

    pub(crate) fn digest(&self) -> ContentsDigest {
        let mut hash = Sha256::new();
        let none = Vec::new();
        for content in [
            &self.cert,
            &self.key,
            self.client_ca.as_ref().unwrap_or(&none),
            self.client_crl.as_ref().unwrap_or(&none),
        ] {
            hash.update((content.len() as u64).to_be_bytes());
            hash.update(content);
        }
        hash.finalize().into()
    }
}

/// What the files came to.
#[derive(Debug)]
pub(crate) struct Material {
    /// For the handshakes. Each has a memory of sessions of its own: nobody
    /// resumes what began under other files, and so gets round a new list of
    /// revoked certificates.
    pub(crate) config: Arc<rustls::ServerConfig>,
    /// Checks the certificates of clients; `None` if none is asked for.
    pub(crate) verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// When the first certificate of the chain ends, since 1970.
    pub(crate) not_after: Duration,
}

impl Material {
    /// Checks the files, and that they belong together and are good at `now`, the
    /// time since 1970.
    pub(crate) fn parse(
        files: &TlsFiles,
        contents: &Contents,
        now: Duration,
    ) -> Result<Self, TlsError> {
        let certs = certificates("tls_cert", &files.cert, &contents.cert)?;
        let not_after = check_validity(&files.cert, &certs, now)?;
        let key = PrivateKeyDer::from_pem_slice(&contents.key)
            .map_err(|error| failed("tls_key", &files.key, error))?;
        let verifier = client_verifier(files, contents)?;
        let builder = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| failed("tls_cert", &files.cert, error))?;
        let builder = match &verifier {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
        };
        let config = builder
            .with_single_cert(certs, key)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    let cert = files.cert.display();
                    failed(
                        "tls_key",
                        &files.key,
                        format!("is not the key of the certificate in {cert}"),
                    )
                }
                error => failed("tls_key", &files.key, error),
            })?;
        Ok(Self {
            config: Arc::new(config),
            verifier,
            not_after,
        })
    }
}

fn client_verifier(
    files: &TlsFiles,
    contents: &Contents,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let (Some(path), Some(pem)) = (&files.client_ca, &contents.client_ca) else {
        return Ok(None);
    };
    let mut roots = RootCertStore::empty();
    for cert in certificates("client_ca", path, pem)? {
        roots
            .add(cert)
            .map_err(|error| failed("client_ca", path, error))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    if let (Some(path), Some(pem)) = (&files.client_crl, &contents.client_crl) {
        let lists = CertificateRevocationListDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| failed("client_crl", path, error))?;
        if lists.is_empty() {
            return Err(failed("client_crl", path, "holds no revocation list"));
        }
        builder = builder.with_crls(lists);
    }
    if files.client_certificates == ClientCertificates::Optional {
        builder = builder.allow_unauthenticated();
    }
    // What it objects to is a list of revoked certificates, if there is one.
    let (setting, path) = match &files.client_crl {
        Some(crl) => ("client_crl", crl),
        None => ("client_ca", path),
    };
    let verifier = builder
        .build()
        .map_err(|error| failed(setting, path, error))?;
    Ok(Some(verifier))
}

fn certificates(
    setting: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certs = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed(setting, path, error))?;
    if certs.is_empty() {
        return Err(failed(setting, path, "holds no certificate"));
    }
    Ok(certs)
}

/// When the server's own certificate ends. One that no client would accept is
/// refused: better here than at every handshake.
fn check_validity(
    path: &Path,
    certs: &[CertificateDer<'_>],
    now: Duration,
) -> Result<Duration, TlsError> {
    let failed = |reason: String| failed("tls_cert", path, reason);
    let leaf = certs.first().map_or(&[][..], |cert| cert);
    let (_, cert) = X509Certificate::from_der(leaf)
        .map_err(|error| failed(format!("is no certificate: {error}")))?;
    let validity = cert.validity();
    let seconds = |time: i64| Duration::from_secs(u64::try_from(time).unwrap_or(0));
    let not_after = seconds(validity.not_after.timestamp());
    if now > not_after {
        return Err(failed(format!("expired at {}", validity.not_after)));
    }
    if now < seconds(validity.not_before.timestamp()) {
        return Err(failed(format!(
            "is not good before {}",
            validity.not_before
        )));
    }
    Ok(not_after)
}

#[cfg(test)]
mod tests;
