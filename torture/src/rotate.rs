//! Certificates that are exchanged under load: no call may fail.
//!
//! Some clients keep their connection, one makes a new one for each call and
//! resumes its session, one makes a new one with a whole handshake. Meanwhile the
//! files of the server's certificate are exchanged as Kubernetes does it, by the
//! swap of a symbolic link, and each must be seen by a new handshake.

#![allow(
    clippy::print_stdout,
    reason = "a command line: standard output is its product"
)]

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SerialNumber};
use rustls::HandshakeKind;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::calls;
use crate::client;
use crate::server::{Program, Server};

/// Clients that keep their connection.
const LASTING: usize = 4;
/// From the exchange of the files to the first handshake that shows it; the
/// server looks each second.
const PATIENCE: Duration = Duration::from_secs(20);
/// A call that takes longer has failed.
const CALL_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at which certificate is shown.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What the clients counted.
#[derive(Default)]
struct Counts {
    calls: AtomicU64,
    failed: AtomicU64,
    full: AtomicU64,
    resumed: AtomicU64,
}

impl Counts {
    fn note(&self, called: &anyhow::Result<()>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = called {
            self.failed.fetch_add(1, Ordering::Relaxed);
            println!("a call failed: {error:#}");
        }
    }
}

/// Signs the certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate,
        })
    }

    /// Writes a new certificate with its key, and has the links lead to it; what
    /// it is.
    fn exchange(&self, folder: &Path, number: u64) -> anyhow::Result<CertificateDer<'static>> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
        params.serial_number = Some(SerialNumber::from(number));
        let issued = params.signed_by(&key, &self.issuer)?;
        let version = folder.join(format!("..{number}"));
        std::fs::create_dir(&version)?;
        std::fs::write(version.join("cert"), issued.pem())?;
        std::fs::write(version.join("key"), key.serialize_pem())?;
        symlink(format!("..{number}"), folder.join("..next"))?;
        std::fs::rename(folder.join("..next"), folder.join("..data"))?;
        if let Some(before) = number.checked_sub(2) {
            // As the mount does, once nobody can still look there.
            let _ = std::fs::remove_dir_all(folder.join(format!("..{before}")));
        }
        Ok(issued.der().clone())
    }
}

/// One who calls.
#[derive(Clone)]
struct Caller {
    address: SocketAddr,
    connector: TlsConnector,
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
}

impl Caller {
    fn new(
        address: SocketAddr,
        authority: &Authority,
        resumption: Resumption,
        counts: &Arc<Counts>,
        stop: &Arc<AtomicBool>,
    ) -> anyhow::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.certificate.clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = resumption;
        Ok(Self {
            address,
            connector: TlsConnector::from(Arc::new(config)),
            counts: Arc::clone(counts),
            stop: Arc::clone(stop),
        })
    }

    async fn shake_hands(&self) -> anyhow::Result<TlsStream<TcpStream>> {
        let io = TcpStream::connect(self.address).await?;
        io.set_nodelay(true)?;
        let stream = self
            .connector
            .connect(ServerName::try_from("localhost")?, io)
            .await?;
        let count = match stream.get_ref().1.handshake_kind() {
            Some(HandshakeKind::Resumed) => &self.counts.resumed,
            _ => &self.counts.full,
        };
        count.fetch_add(1, Ordering::Relaxed);
        Ok(stream)
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Calls on one connection for as long as it is told.
    async fn last(self) {
        let called = async {
            let client = client::connect(self.shake_hands().await?).await?;
            while self.goes_on() {
                let called = get(client.clone()).await;
                let is_over = called.is_err();
                self.counts.note(&called);
                if is_over {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            anyhow::Ok(())
        };
        if let Err(error) = called.await {
            self.counts.note(&Err(error));
        }
    }

    /// Makes a connection for each call.
    async fn come_and_go(self) {
        while self.goes_on() {
            let called = async {
                let client = client::connect(self.shake_hands().await?).await?;
                get(client).await
            };
            self.counts.note(&called.await);
        }
    }

    /// Waits for a handshake that shows a certificate.
    async fn see(&self, expected: &CertificateDer<'static>) -> anyhow::Result<()> {
        let seen = async {
            loop {
                let stream = self.shake_hands().await?;
                let shown = stream.get_ref().1.peer_certificates();
                if shown.and_then(<[_]>::first) == Some(expected) {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        tokio::time::timeout(PATIENCE, seen)
            .await
            .context("the new certificate was never shown")?
    }
}

async fn get(client: h2::client::SendRequest<bytes::Bytes>) -> anyhow::Result<()> {
    // There is no such entry, which is a sound answer.
    let call = client::call(client, calls::GET, &[], calls::get(calls::SMALL));
    let reply = tokio::time::timeout(CALL_PATIENCE, call).await??;
    ensure!(reply.status == "5", "grpc-status {}", reply.status);
    Ok(())
}

/// Exchanges certificates; false if a call failed.
///
/// # Errors
/// The server cannot be used, or does not take a certificate.
pub(crate) fn run(larder: &Path, rotations: u64) -> anyhow::Result<bool> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::new()?;
    authority.exchange(folder.path(), 0)?;
    for name in ["cert", "key"] {
        symlink(Path::new("..data").join(name), folder.path().join(name))?;
    }
    let config = folder.path().join("config");
    std::fs::write(
        &config,
        "anonymous = \"default\"\n[tls]\nreload_seconds = 1\n[admission]\nlate_ms = 0\n",
    )?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let arguments = [
        "--tls-cert".to_owned(),
        path("cert"),
        "--tls-key".to_owned(),
        path("key"),
        "--config".to_owned(),
        path("config"),
    ];
    let arguments = arguments.each_ref().map(String::as_str);
    let mut server = Server::start_with(&Program::Larder(larder.into()), 4096, &arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let good = runtime.block_on(torture(
        server.address,
        folder.path(),
        &authority,
        rotations,
    ))?;
    ensure!(server.is_alive(), "the server ended");
    Ok(good)
}

async fn torture(
    address: SocketAddr,
    folder: &Path,
    authority: &Authority,
    rotations: u64,
) -> anyhow::Result<bool> {
    let (counts, stop) = (
        Arc::new(Counts::default()),
        Arc::new(AtomicBool::new(false)),
    );
    let caller = |resumption| Caller::new(address, authority, resumption, &counts, &stop);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..LASTING {
        callers.spawn(caller(Resumption::disabled())?.last());
    }
    callers.spawn(caller(Resumption::disabled())?.come_and_go());
    callers.spawn(caller(Resumption::in_memory_sessions(8))?.come_and_go());
    let observer = caller(Resumption::disabled())?;
    for number in 1..=rotations {
        let shown = authority.exchange(folder, number)?;
        observer.see(&shown).await?;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = callers.join_next().await {
        ended?;
    }
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (calls, failed) = (of(&counts.calls), of(&counts.failed));
    let (full, resumed) = (of(&counts.full), of(&counts.resumed));
    println!(
        "{rotations} exchanges under load: {calls} calls, {failed} failed; {full} whole handshakes, {resumed} resumed"
    );
    ensure!(
        full > rotations && resumed > 0,
        "there were not both kinds of handshake"
    );
    Ok(failed == 0)
}
