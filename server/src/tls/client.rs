//! The certificate that this server shows where it is a client: to the Accounts
//! server.
//!
//! The files are read at start, and again for every handshake: there are few of
//! these, since all questions share one connection. So what is shown is what is
//! there, however it was put there, and nothing has to watch the files. What cannot
//! be used is refused with a warning, and what was shown before is shown again.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::{TlsError, failed, provider};
use crate::config::ClientCertificateFiles;

/// Shows it.
#[derive(Debug)]
pub(crate) struct ClientCertificate {
    files: ClientCertificateFiles,
    /// Names of the settings, for errors.
    settings: [&'static str; 2],
    last: Mutex<Arc<CertifiedKey>>,
}

impl ClientCertificate {
    /// Reads the files, which `settings` name: certificate and key.
    ///
    /// # Errors
    /// They cannot be used.
    pub(crate) fn open(
        files: ClientCertificateFiles,
        settings: [&'static str; 2],
    ) -> Result<Self, TlsError> {
        let last = Mutex::new(read(&files, settings)?);
        Ok(Self {
            files,
            settings,
            last,
        })
    }
}

impl ResolvesClientCert for ClientCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let mut last = self.last.lock();
        match read(&self.files, self.settings) {
            Ok(found) => *last = found,
            Err(error) => {
                tracing::warn!(%error, "the certificate is refused; the one before is shown");
            }
        }
        Some(Arc::clone(&last))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn read(
    files: &ClientCertificateFiles,
    [cert_setting, key_setting]: [&'static str; 2],
) -> Result<Arc<CertifiedKey>, TlsError> {
    let pem = |setting: &'static str, path: &Path| {
        std::fs::read(path).map_err(|error| failed(setting, path, error))
    };
    let chain = CertificateDer::pem_slice_iter(&pem(cert_setting, &files.cert)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed(cert_setting, &files.cert, error))?;
    if chain.is_empty() {
        return Err(failed(cert_setting, &files.cert, "holds no certificate"));
    }
    let key = PrivateKeyDer::from_pem_slice(&pem(key_setting, &files.key)?)
        .map_err(|error| failed(key_setting, &files.key, error))?;
    let certified = CertifiedKey::from_der(chain, key, &provider());
    let certified = certified.map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => failed(
            key_setting,
            &files.key,
            format!("is not the key of {}", files.cert.display()),
        ),
        error => failed(cert_setting, &files.cert, error),
    })?;
    Ok(Arc::new(certified))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: [&str; 2] = ["accounts_cert", "accounts_key"];

    fn issue(files: &ClientCertificateFiles) -> Vec<u8> {
        let made = rcgen::generate_simple_self_signed(["cache".to_owned()]).expect("made");
        std::fs::write(&files.cert, made.cert.pem()).expect("written");
        std::fs::write(&files.key, made.signing_key.serialize_pem()).expect("written");
        made.cert.der().to_vec()
    }

    #[test]
    fn what_is_shown_is_what_is_there_and_else_what_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = ClientCertificateFiles {
            cert: folder.path().join("cert.pem"),
            key: folder.path().join("key.pem"),
        };
        let first = issue(&files);
        let shows = ClientCertificate::open(files.clone(), SETTINGS).expect("they are good");
        let check = |expected: &[u8]| {
            let shown = shows.resolve(&[], &[]).expect("a certificate");
            assert_eq!(shown.cert[0].as_ref(), expected);
        };
        check(&first);
        let second = issue(&files);
        check(&second);
        std::fs::write(&files.cert, "half of it").expect("written");
        check(&second);
        let third = issue(&files);
        std::fs::remove_file(&files.key).expect("removed");
        check(&second);
        drop(third);
        let fourth = issue(&files);
        check(&fourth);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = |name: &str| ClientCertificateFiles {
            cert: folder.path().join(format!("{name}.cert")),
            key: folder.path().join(format!("{name}.key")),
        };
        let (one, other) = (files("one"), files("other"));
        issue(&one);
        issue(&other);
        let check = |cert: &Path, key: &Path, setting: &str, says: &str| {
            let files = ClientCertificateFiles {
                cert: cert.into(),
                key: key.into(),
            };
            let error = ClientCertificate::open(files, SETTINGS).err();
            let error = error.expect("it cannot be used").to_string();
            assert!(error.contains(setting) && error.contains(says), "{error}");
        };
        let none = folder.path().join("none");
        check(&none, &one.key, "accounts_cert", "No such file");
        check(&one.cert, &none, "accounts_key", "No such file");
        check(&one.key, &one.key, "accounts_cert", "no certificate");
        check(&one.cert, &other.key, "accounts_key", "is not the key of");
    }
}
