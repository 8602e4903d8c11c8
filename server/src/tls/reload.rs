//! Certificates that are exchanged while the server serves.
//!
//! The files are read again every `tls.reload_seconds`, and compared by what is in
//! them: so it does not matter how they were replaced — written over, renamed,
//! or by the swap of a symbolic link as Kubernetes makes it for its secrets — nor
//! how coarse the clock of their file system is. What cannot be used is refused,
//! and what was in force stays so: a certificate whose key has not been written
//! yet is met at the next look.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder_transport::serve::Tls;
use parking_lot::{Mutex, RwLock};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;

use super::{Contents, ContentsDigest, Material, TlsError};
use crate::clock;
use crate::config::TlsFiles;

/// The certificates in force.
pub(crate) struct Certificates {
    files: TlsFiles,
    tls: Tls,
    verifier: RwLock<Option<Arc<dyn ClientCertVerifier>>>,
    seen: Mutex<Seen>,
    reloads: AtomicU64,
    failures: AtomicU64,
    not_after_s: AtomicU64,
}

struct Seen {
    in_force: ContentsDigest,
    /// What was looked at last, if it was refused, and why; without a digest it
    /// could not even be read.
    refused: Option<(Option<ContentsDigest>, TlsError)>,
}

/// What a look at the files came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reload {
    /// They hold what is in force.
    Unchanged,
    /// Handshakes have used what they hold from now on.
    Replaced,
    /// They cannot be used; what was in force stays so.
    Refused(TlsError),
}

/// The server's certificate, for who watches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateStatus {
    /// Times that new files were put in force.
    pub reloads: u64,
    /// Times that changed files were refused.
    pub failures: u64,
    /// When the certificate in force ends, seconds since 1970.
    pub not_after_unix_seconds: u64,
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// They cannot be used.
    pub(crate) fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let contents = Contents::read(&files)?;
        let material = Material::parse(&files, &contents, now())?;
        Ok(Self {
            files,
            tls: Tls::new(material.config),
            verifier: RwLock::new(material.verifier),
            seen: Mutex::new(Seen {
                in_force: contents.digest(),
                refused: None,
            }),
            reloads: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            not_after_s: AtomicU64::new(material.not_after.as_secs()),
        })
    }

    /// What the listeners use.
    pub(crate) fn tls(&self) -> &Tls {
        &self.tls
    }

    /// How often to look.
    pub(crate) fn interval(&self) -> Duration {
        self.files.reload_interval
    }

    pub(crate) fn status(&self) -> CertificateStatus {
        CertificateStatus {
            reloads: self.reloads.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            not_after_unix_seconds: self.not_after_s.load(Ordering::Relaxed),
        }
    }

    /// Looks at the files, and puts them in force if they have changed. Files that
    /// were refused before are counted and told once, until they change again.
    /// Reads from the disk.
    pub(crate) fn reload(&self) -> Reload {
        let mut seen = self.seen.lock();
        let contents = match Contents::read(&self.files) {
            Ok(contents) => contents,
            Err(error) => return self.refuse(&mut seen, None, error),
        };
        let digest = contents.digest();
        if digest == seen.in_force {
            seen.refused = None;
            return Reload::Unchanged;
        }
        match Material::parse(&self.files, &contents, now()) {
            Ok(material) => self.replace(&mut seen, digest, material),
            Err(error) => self.refuse(&mut seen, Some(digest), error),
        }
    }

    fn replace(&self, seen: &mut Seen, digest: ContentsDigest, material: Material) -> Reload {
        *self.verifier.write() = material.verifier;
        self.tls.replace(material.config);
        self.not_after_s
            .store(material.not_after.as_secs(), Ordering::Relaxed);
        self.reloads.fetch_add(1, Ordering::Relaxed);
        *seen = Seen {
            in_force: digest,
            refused: None,
        };
        tracing::info!(
            certificate = %self.files.cert.display(),
            not_after_unix_seconds = material.not_after.as_secs(),
            "certificates replaced",
        );
        Reload::Replaced
    }

    fn refuse(&self, seen: &mut Seen, digest: Option<ContentsDigest>, error: TlsError) -> Reload {
        let refused = Some((digest, error.clone()));
        if seen.refused != refused {
            self.failures.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%error, "new certificates are refused; the old ones stay in force");
            seen.refused = refused;
        }
        Reload::Refused(error)
    }

    /// Checks a client's chain against what is in force now; its handshake may
    /// have been long ago.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check_client(
        &self,
        chain: &[CertificateDer<'_>],
        now: Duration,
    ) -> Result<(), rustls::Error> {
        let (leaf, above) = chain
            .split_first()
            .ok_or(rustls::Error::NoCertificatesPresented)?;
        let verifier = self.verifier.read().clone();
        let verifier = verifier.ok_or(rustls::Error::NoCertificatesPresented)?;
        verifier
            .verify_client_cert(leaf, above, UnixTime::since_unix_epoch(now))
            .map(|_| ())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates")
            .field("files", &self.files)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

fn now() -> Duration {
    Duration::from_millis(clock::unix_millis())
}
