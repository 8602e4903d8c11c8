//! The servers of a benchmark: each is started and filled when it is first
//! wanted, and lives to the end.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::machine::Cores;
use super::measure::Measurer;
use super::programs::Programs;
use super::scenarios::{FEW_KEYS, Host, KEYS, LARGE_GIB};

/// How often a server that starts is asked whether it listens.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// So often, which is some ten seconds.
const POLLS: usize = 500;

/// What is shown to peers, which do not look at it: as long as larder's tokens.
const PEER_TOKEN: &str = "lrd_no-server-but-larder-looks-at-this-token-here";

/// The account that larder serves the load as. Its limits are checked with every
/// call, and far above any load.
const ACCOUNT: [&str; 8] = [
    "account",
    "create",
    "load",
    "--max-keys",
    "1000000000",
    "--max-rps",
    "1000000000",
    "--json",
];

/// How calls say who makes them.
#[derive(Debug, Clone)]
pub(super) enum Credential {
    Token(String),
    /// A file of many.
    Tokens(PathBuf),
}

/// A server that runs; it is ended when this is dropped.
pub(super) struct Server {
    child: Child,
    port: u16,
    pub(super) credential: Credential,
    is_tls: bool,
}

impl Server {
    /// The process, to look at.
    pub(super) fn process(&self) -> u32 {
        self.child.id()
    }

    /// `HOST:PORT`.
    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(super) fn url(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address())
    }

    /// Waits until it listens.
    fn wait(&mut self, name: &str) -> anyhow::Result<()> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        self.wait_for(name, || TcpStream::connect(address).is_ok())
    }

    fn wait_for(&mut self, name: &str, is_ready: impl Fn() -> bool) -> anyhow::Result<()> {
        for _ in 0..POLLS {
            if is_ready() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{name} ended at once: {status}");
            }
            std::thread::park_timeout(POLL_INTERVAL);
        }
        bail!("{name} is not ready");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All of them.
pub(super) struct Servers<'a> {
    programs: &'a Programs,
    cores: &'a Cores,
    measurer: &'a Measurer<'a>,
    /// Data, certificates and tokens, which are gone after the run.
    folder: PathBuf,
    running: BTreeMap<Host, Option<Server>>,
    certificate: Option<[PathBuf; 2]>,
}

impl<'a> Servers<'a> {
    pub(super) fn new(
        programs: &'a Programs,
        cores: &'a Cores,
        measurer: &'a Measurer<'a>,
    ) -> anyhow::Result<Self> {
        let name = format!("larder-bench-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(Self {
            programs,
            cores,
            measurer,
            folder,
            running: BTreeMap::new(),
            certificate: None,
        })
    }

    /// The server, if its program is there.
    pub(super) fn get(&mut self, host: Host) -> anyhow::Result<Option<&Server>> {
        if host == Host::LarderFresh {
            self.running.remove(&host);
        }
        if !self.running.contains_key(&host) {
            let server = self.start(host).with_context(|| format!("{host:?}"))?;
            self.running.insert(host, server);
        }
        Ok(self.running.get(&host).and_then(Option::as_ref))
    }

    fn start(&mut self, host: Host) -> anyhow::Result<Option<Server>> {
        let port = free_port()?;
        let address = format!("127.0.0.1:{port}");
        let threads = self.cores.server_threads.to_string();
        let mut command = match host {
            Host::Larder
            | Host::LarderTls
            | Host::LarderKeys(_)
            | Host::LarderAccounts(_)
            | Host::LarderFresh => return self.start_larder(host, port),
            Host::Echo => match &self.programs.echo {
                None => return Ok(None),
                Some(echo) => with(self.cores.server(echo), &[&address, &threads]),
            },
            Host::Tonic => {
                let tonic = self.cores.server(&self.programs.tonic);
                with(tonic, &[&address, "--threads", &threads])
            }
            Host::TonicTuned => {
                let tonic = self.cores.server(&self.programs.tonic_tuned);
                let options = [&address, "--threads", &threads, "--runtime-per-thread"];
                with(tonic, &options)
            }
            Host::TonicTls => {
                let Some([chain, key]) = self.certificate()? else {
                    return Ok(None);
                };
                let tonic = self.cores.server(&self.programs.tonic);
                let mut tonic = with(tonic, &[&address, "--threads", &threads, "--tls"]);
                tonic.arg(chain).arg(key);
                tonic
            }
            Host::GrpcGo => match &self.programs.go {
                None => return Ok(None),
                Some(go) => {
                    let mut server = with(self.cores.server(&go.server), &[&address]);
                    server.env("GOMAXPROCS", &threads);
                    server
                }
            },
            Host::Redis => match &self.programs.redis {
                None => return Ok(None),
                Some(redis) => {
                    let port = port.to_string();
                    let options = ["--port", &port, "--bind", "127.0.0.1", "--save", ""];
                    let mut redis = with(self.cores.server(redis), &options);
                    redis.args(["--appendonly", "no", "--daemonize", "no"]);
                    redis.current_dir(&self.folder);
                    redis
                }
            },
        };
        let mut server = Server {
            child: spawn(&mut command)?,
            port,
            credential: Credential::Token(PEER_TOKEN.into()),
            is_tls: host == Host::TonicTls,
        };
        server.wait(&format!("{host:?}"))?;
        let api = if host == Host::Redis { "redis" } else { "rpc" };
        self.measurer.fill(&server, api, KEYS)?;
        Ok(Some(server))
    }

    /// Larder with its production path on: an account with limits, a token, the
    /// access log as it comes.
    fn start_larder(&mut self, host: Host, port: u16) -> anyhow::Result<Option<Server>> {
        let data = self.folder.join(format!("data-{port}"));
        let mut command = self.cores.server(&self.programs.larder);
        command.args(["serve", "--listen", &format!("127.0.0.1:{port}")]);
        command.args(["--threads", &self.cores.server_threads.to_string()]);
        command.arg("--data-dir").arg(&data);
        if host == Host::LarderTls {
            let Some([chain, key]) = self.certificate()? else {
                return Ok(None);
            };
            command.arg("--tls-cert").arg(chain);
            command.arg("--tls-key").arg(key);
        }
        if matches!(host, Host::LarderKeys(keys) if keys > 1_000_000) {
            command.args(["--max-memory", &format!("{LARGE_GIB}GiB")]);
        }
        let mut server = Server {
            child: spawn(&mut command)?,
            port,
            credential: Credential::Token(String::new()),
            is_tls: host == Host::LarderTls,
        };
        // It listens a little before it has made its administrator's token.
        let path = data.join("admin-token");
        let read = || std::fs::read_to_string(&path).unwrap_or_default();
        server.wait_for("larder", || !read().is_empty())?;
        server.wait("larder")?;
        let token = read();
        let administrator = Credential::Token(token.trim().to_owned());
        server.credential = match host {
            Host::LarderAccounts(accounts) => {
                let path = self.folder.join(format!("tokens-{port}"));
                let arguments = ["bench", "accounts", &accounts.to_string()];
                let tokens = self.measurer.larder(&server, &administrator, &arguments)?;
                std::fs::write(&path, tokens)?;
                Credential::Tokens(path)
            }
            _ => {
                self.measurer.larder(&server, &administrator, &ACCOUNT)?;
                let create = ["token", "create", "load", "--json"];
                let created = self.measurer.larder(&server, &administrator, &create)?;
                let created: serde_json::Value = serde_json::from_str(&created)?;
                let secret = created["secret"].as_str().context("a token has a secret")?;
                Credential::Token(secret.into())
            }
        };
        match host {
            Host::LarderKeys(keys) => self.measurer.fill(&server, "v1", keys)?,
            Host::LarderAccounts(_) => self.measurer.fill(&server, "v1", KEYS)?,
            Host::LarderFresh => self.measurer.fill(&server, "rpc", FEW_KEYS)?,
            Host::LarderTls => self.measurer.fill(&server, "rpc", KEYS)?,
            _ => {
                // Each contract has a key space of its own.
                self.measurer.fill(&server, "rpc", KEYS)?;
                self.measurer.fill(&server, "v1", KEYS)?;
            }
        }
        Ok(Some(server))
    }

    /// A certificate for 127.0.0.1 and its key, if there is openssl.
    fn certificate(&mut self) -> anyhow::Result<Option<[PathBuf; 2]>> {
        if self.certificate.is_none()
            && let Some(openssl) = &self.programs.openssl
        {
            let files = ["chain.pem", "key.pem"].map(|name| self.folder.join(name));
            make_certificate(openssl, &files)?;
            self.certificate = Some(files);
        }
        Ok(self.certificate.clone())
    }
}

impl Drop for Servers<'_> {
    fn drop(&mut self) {
        self.running.clear();
        // What is left behind lies in a folder of temporary things.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Of the kind that is most used now: ECDSA on P-256.
fn make_certificate(openssl: &Path, [chain, key]: &[PathBuf; 2]) -> anyhow::Result<()> {
    let mut command = Command::new(openssl);
    command.args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "30"]);
    command.args([
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-subj",
        "/CN=localhost",
    ]);
    command.args(["-addext", "subjectAltName=IP:127.0.0.1"]);
    command.arg("-keyout").arg(key).arg("-out").arg(chain);
    let output = command.output().context("cannot start openssl")?;
    anyhow::ensure!(
        output.status.success(),
        "openssl: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn with(mut command: Command, arguments: &[&str]) -> Command {
    command.args(arguments);
    command
}

/// The output goes nowhere; larder's access log is written all the same.
fn spawn(command: &mut Command) -> anyhow::Result<Child> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start a server")
}

/// A port where nobody listens.
fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}
