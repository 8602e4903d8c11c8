//! The certificate that is shown to another Accounts server.

use std::path::PathBuf;

use super::{ConfigError, Settings, bad};

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificateFiles {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// The files of `accounts_cert` and `accounts_key`: both or neither, and only where
/// there is TLS to show them in.
pub(super) fn client_certificate(
    settings: &Settings,
    has_tls: bool,
) -> Result<Option<ClientCertificateFiles>, ConfigError> {
    let files = match (&settings.accounts_cert, &settings.accounts_key) {
        (None, None) => return Ok(None),
        (Some(_), None) => return Err(bad("accounts_key", "accounts_cert needs it")),
        (None, Some(_)) => return Err(bad("accounts_cert", "accounts_key needs it")),
        (Some(cert), Some(key)) => ClientCertificateFiles {
            cert: cert.clone(),
            key: key.clone(),
        },
    };
    if has_tls {
        Ok(Some(files))
    } else {
        let reason = "is shown only to an https:// Accounts server";
        Err(bad("accounts_cert", reason))
    }
}
