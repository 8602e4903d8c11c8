//! Start-up and shutdown: [`App`] is built and bound, [`Running`] serves.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use connectrpc_health::StaticChecker;
use larder_accounts::{Accounts, AdminToken, OpenError, UnixMillis};
use larder_api::errors::Code;
use larder_api::wire::{
    MAX_CALLS_IN_FLIGHT, MAX_RECEIVING_BYTES, MAX_REPLYING_BYTES, MAX_STRANGERS_IN_FLIGHT,
};
use larder_engine::{Engine, EngineConfig, Keyspace};
use larder_transport::serve;
use rand::TryRngCore as _;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::addresses::{ADDRESS_FILE, AddressFile};
use crate::admin::Admin;
use crate::audit::{self, Audit};
use crate::authority::grpc::{AskerError, GrpcAsker};
use crate::authority::remote::Remote;
use crate::authority::{Anonymous, Authority};
use crate::callers::Callers;
use crate::clock::{self, Clock};
use crate::config::{Config, Listen};
use crate::core::Core;
use crate::edge::{Protocols, decode_options};
use crate::gauge::Gauge;
use crate::layers::origin::OriginPolicy;
use crate::listen::{Listening, Socket, SocketFile, start};
use crate::live::Live;
use crate::rate::RateLimiter;
use crate::refusals::{self, Refusals};
use crate::rpc;
use crate::snapshot::{Saver, Snapshots, Stats};
use crate::telemetry::Telemetry;
use crate::telemetry::interceptor::Interceptor;
use crate::telemetry::otlp::Exporter;
use crate::telemetry::page::{Memory, Metrics};
use crate::tenants::Tenants;
use crate::tls::TlsError;
use crate::tls::caller::{CertificateAccount, CertificateAccounts};
use crate::tls::reload::{CertificateStatus, Certificates, Reload};

mod load;
mod reload;

pub use reload::ReloadError;

/// How long closing answers may take to leave once the grace is over.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often entries that expired are swept out, beside what each call drains.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// What the audit log calls it when certificates are read again.
const CERTIFICATES: &str = "reload_certificates";

/// Why a server cannot start. Each message names the setting or the file.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket cannot be bound.
    #[error("listen: {address}: {reason}")]
    Bind {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The audit log cannot be opened.
    #[error("audit.file: {}: {reason}", path.display())]
    Audit {
        /// Which file.
        path: std::path::PathBuf,
        /// Why.
        reason: String,
    },
    /// The data directory cannot be opened.
    #[error("data_dir")]
    DataDir(#[from] OpenError),
    /// The folder of the snapshots cannot be used.
    #[error("snapshot: {0}")]
    Snapshot(String),
    /// The client of another Accounts server cannot be made.
    #[error("{0}")]
    Accounts(String),
    /// The machine has no randomness.
    #[error("no randomness: {0}")]
    Entropy(String),
    /// The machine gives no threads.
    #[error("threads: {0}")]
    Threads(String),
    /// The compiled contract is damaged.
    #[error("the compiled contract cannot be read: {0}")]
    Contract(String),
}

impl From<AskerError> for StartError {
    fn from(error: AskerError) -> Self {
        Self::Accounts(error.to_string())
    }
}

/// A server that is built and bound, and not yet serving.
pub struct App {
    /// It goes before the data directory is another server's.
    addresses: Option<AddressFile>,
    core: Arc<Core<Engine>>,
    listening: Listening<Engine>,
    transport: serve::Config,
    certificates: Option<Arc<Certificates>>,
    sockets: Vec<(Socket, String)>,
    admin: Arc<Admin>,
    admin_socket: Option<(Socket, String)>,
    admin_address: Option<String>,
    snapshots: Option<Snapshots>,
    snapshot_stats: Arc<Stats>,
    health: Arc<StaticChecker>,
    admin_token: Option<AdminToken>,
    exporter: Option<Exporter>,
    config: Config,
}

impl App {
    /// Opens what the configuration names: certificates, the sockets, the data
    /// directory, in this order, so that a server that cannot start leaves
    /// nothing behind. Nobody is served before [`run`](Self::run).
    ///
    /// # Errors
    /// [`StartError`]. Nothing then listens.
    pub async fn build(config: Config) -> Result<Self, StartError> {
        Self::build_with(config, Vec::new()).await
    }

    /// The same, with interceptors, which are told of every call in this order.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub async fn build_with(
        config: Config,
        interceptors: Vec<Arc<dyn Interceptor>>,
    ) -> Result<Self, StartError> {
        let certificates = config.tls.clone().map(Certificates::open).transpose()?;
        let certificates = certificates.map(Arc::new);
        let (sockets, admin_socket) = bind_all(&config).await?;
        let (telemetry, exporter) = Telemetry::build(&config.telemetry, interceptors, random()?)?;
        let (authority, accounts) = authority(&config, &telemetry)?;
        let admin_token = accounts
            .as_ref()
            .map(|accounts| accounts.admin_token().clone());
        let addresses = admin_token
            .as_ref()
            .and_then(|_| tell_addresses(&config, &sockets));
        let transport = serve::Config {
            seed: u64::from_le_bytes(random()?),
            ..config.transport.clone()
        };
        let snapshots = load::snapshots(&config)?;
        let store = Arc::new(engine(&config, snapshots.as_ref())?);
        let snapshot_stats = Arc::<Stats>::default();
        let stats = snapshots.is_some().then(|| Arc::clone(&snapshot_stats));
        let admin = Admin::new(stats, accounts.clone());
        let accounts_by_certificate =
            certificate_accounts(config.certificate_accounts.clone(), certificates.as_ref());
        let who = Who {
            authority,
            accounts,
            accounts_by_certificate,
        };
        let core = Arc::new(core(&config, store, who, telemetry)?);
        let (router, health) = rpc::router(&core, config.role)
            .map_err(|error| StartError::Contract(error.to_string()))?;
        let listening = Listening {
            core: Arc::clone(&core),
            protocols: Protocols::new(router, &core),
            decode: decode_options(),
            role: config.role,
        };
        Ok(Self {
            addresses,
            core,
            listening,
            transport,
            certificates,
            sockets,
            admin,
            admin_socket,
            admin_address: None,
            snapshots,
            snapshot_stats,
            health,
            admin_token,
            exporter,
            config,
        })
    }

    /// What became of the administrator's token; `None` where accounts are kept
    /// elsewhere.
    pub fn admin_token(&self) -> Option<&AdminToken> {
        self.admin_token.as_ref()
    }

    /// Answers on the admin listener, if that does not yet.
    fn serve_admin(&mut self) -> Result<(), StartError> {
        let Some((Socket::Tcp(socket), address)) = self.admin_socket.take() else {
            return Ok(());
        };
        let listener = tokio::net::TcpListener::from_std(socket);
        let listener = listener.map_err(|error| StartError::Bind {
            address: address.clone(),
            reason: error.to_string(),
        })?;
        self.admin_address = Some(address);
        tokio::spawn(Arc::clone(&self.admin).serve(listener));
        Ok(())
    }

    /// Begins to serve, on threads of its own. The runtime that this is called
    /// on sweeps, and waits for the end.
    ///
    /// # Errors
    /// The machine gives no threads.
    pub fn run(mut self) -> Result<Running, StartError> {
        self.serve_admin()?;
        let threads = |error: io::Error| StartError::Threads(error.to_string());
        let (store, clock) = (&self.core.store, &self.core.clock);
        let saver = self.snapshots.map(|snapshots| {
            let stats = Arc::clone(&self.snapshot_stats);
            Saver::start(snapshots, Arc::clone(store), Arc::clone(clock), stats)
        });
        let saver = saver.transpose().map_err(threads)?;
        let (sockets, addresses) = self.sockets.into_iter().unzip();
        let tls = self.certificates.as_deref().map(Certificates::tls);
        let started = start(sockets, tls, self.listening, self.transport);
        let (transport, socket_files) = started.map_err(threads)?;
        let core = Arc::clone(&self.core);
        let most_accounts = self.config.telemetry.metrics_accounts;
        let certificates = self.certificates.clone();
        let metrics = Metrics::new(
            core,
            transport.shared(),
            most_accounts,
            memory,
            certificates,
        );
        let channelz = rpc::channelz_v1::router(&self.core, transport.shared());
        self.admin.serving(move || metrics.page(), channelz);
        let exporting = self.exporter.and_then(|exporter| {
            let counts = Arc::clone(self.core.telemetry.tracer.as_ref()?.counts());
            let stop = CancellationToken::new();
            let task = tokio::spawn(exporter.run(counts, stop.clone()));
            Some((task, stop))
        });
        let drain = CancellationToken::new();
        tokio::spawn(sweep(Arc::clone(&self.core), drain.clone()));
        tokio::spawn(tell_suppressed(Arc::clone(&self.core), drain.clone()));
        if let Some(certificates) = &self.certificates {
            let watched = watch_certificates(
                Arc::clone(&self.core),
                Arc::clone(certificates),
                drain.clone(),
            );
            tokio::spawn(watched);
        }
        Ok(Running {
            _address_file: self.addresses,
            addresses,
            admin_address: self.admin_address,
            admin: self.admin,
            saver,
            transport,
            exporting,
            drain,
            core: self.core,
            certificates: self.certificates,
            health: self.health,
            config: self.config,
            _socket_files: socket_files,
        })
    }
}

/// A server that serves. Dropped without [`drain`](Self::drain), it goes on
/// until its process ends.
pub struct Running {
    /// It goes before the data directory is another server's.
    _address_file: Option<AddressFile>,
    addresses: Vec<String>,
    admin_address: Option<String>,
    admin: Arc<Admin>,
    saver: Option<Saver>,
    transport: serve::Running,
    /// What sends traces, and what tells it to end.
    exporting: Option<(JoinHandle<()>, CancellationToken)>,
    drain: CancellationToken,
    core: Arc<Core<Engine>>,
    certificates: Option<Arc<Certificates>>,
    health: Arc<StaticChecker>,
    config: Config,
    _socket_files: Vec<SocketFile>,
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Ended {
    /// What became of the calls.
    pub calls: Drained,
    /// False if the last snapshot was to be written and could not be.
    pub is_saved: bool,
}

/// How a drain went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Drained {
    /// Every call ended by itself.
    Clean,
    /// The grace was over first: the calls left were ended with `DRAINING`.
    Cut,
}

impl Running {
    /// Where it listens, one for each listener, as `--server` takes them.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Where health and metrics are told.
    pub fn admin_address(&self) -> Option<&str> {
        self.admin_address.as_deref()
    }

    /// Calls that were refused, or given up before their end, since the start: the name of
    /// the reason, and how many.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.core.refusals.all()
    }

    /// Reads certificates, client authorities and revocation lists again, and puts
    /// them in force if they have changed, without losing a call; opens the audit
    /// log again. For a signal: the files are looked at from time to time as
    /// well. `None` where clear text is served.
    pub async fn reload_certificates(&self) -> Option<Reload> {
        let outcome = match &self.certificates {
            Some(certificates) => Some(reload(&self.core, certificates).await),
            None => None,
        };
        self.core.audit.reopen();
        if let Some(outcome) = &outcome {
            let refused = matches!(outcome, Reload::Refused(_));
            self.audit_taken(CERTIFICATES, !refused);
        }
        outcome
    }

    /// Records that an operator had the configuration read again, and whether it was
    /// taken on.
    pub fn audit_reload(&self, is_taken: bool) {
        self.audit_taken("reload", is_taken);
    }

    fn audit_taken(&self, action: &'static str, is_taken: bool) {
        let code = if is_taken {
            Code::Ok
        } else {
            Code::InvalidArgument
        };
        self.core.audit.operator(action, code.name());
    }

    /// Whether a [`drain`](Self::drain) ends with a snapshot.
    pub const fn saves(&self) -> bool {
        self.saver.is_some()
    }

    /// How often certificates were exchanged, and when the one in force ends;
    /// `None` where clear text is served.
    pub fn certificate_status(&self) -> Option<CertificateStatus> {
        self.certificates
            .as_ref()
            .map(|certificates| certificates.status())
    }

    /// Ends the server: reports itself as not serving, takes no more
    /// connections, tells those there are to go away, lets calls in flight end
    /// within the grace, and then ends them. After the last call, the store is
    /// saved: everything that was acknowledged is in that snapshot.
    pub async fn drain(mut self) -> Ended {
        self.core.audit.operator("drain", Code::Ok.name());
        let calls = self.drain_calls().await;
        if let Some((task, stop)) = self.exporting.take() {
            stop.cancel();
            // It has a limit of its own.
            let _ = task.await;
        }
        let is_saved = match self.saver.take() {
            Some(saver) => saver.last().await.is_some(),
            None => true,
        };
        Ended { calls, is_saved }
    }

    async fn drain_calls(&self) -> Drained {
        self.health.shutdown();
        self.admin.drain();
        self.drain.cancel();
        self.transport.drain();
        let ended = || self.transport.ended();
        if tokio::time::timeout(self.config.drain_grace, ended())
            .await
            .is_ok()
        {
            return Drained::Clean;
        }
        self.core.stop.cancel();
        if tokio::time::timeout(LAST_WORDS, ended()).await.is_err() {
            // Whoever does not read what is left of an answer is cut off.
            self.transport.abort();
            let _ = tokio::time::timeout(LAST_WORDS, ended()).await;
        }
        Drained::Cut
    }
}

/// Who is asked who calls.
struct Who {
    authority: Authority,
    accounts: Option<Arc<Accounts>>,
    accounts_by_certificate: Option<CertificateAccounts>,
}

fn core(
    config: &Config,
    store: Arc<Engine>,
    who: Who,
    telemetry: Telemetry,
) -> Result<Core<Engine>, StartError> {
    let local = config.listen.iter().all(Listen::is_local);
    let audit = Audit::open(&config.audit).map_err(|error| StartError::Audit {
        path: config.audit.file.clone().unwrap_or_default(),
        reason: error.to_string(),
    })?;
    Ok(Core {
        callers: Callers::new(),
        tenants: Tenants::new(Arc::clone(&store)),
        store,
        authority: who.authority,
        accounts: who.accounts,
        anonymous: config.anonymous.clone().map(Anonymous::new),
        certificate_accounts: who.accounts_by_certificate,
        features: features(config),
        audit,
        origins: OriginPolicy {
            allowed: Live::new(config.cors_origins.clone()),
            guard_host: config.anonymous.is_some() && local,
        },
        limits: Live::new(config.limits),
        admission: config.admission,
        deadlines: config.deadlines,
        compression: config.compression,
        refusals: Refusals::default(),
        transport: Live::new(config.transport.clone()),
        calls: Arc::new(Semaphore::new(MAX_CALLS_IN_FLIGHT)),
        strangers: Arc::new(Semaphore::new(MAX_STRANGERS_IN_FLIGHT)),
        receiving: Gauge::new(MAX_RECEIVING_BYTES),
        replying: Gauge::new(MAX_REPLYING_BYTES),
        telemetry,
        clock: Arc::new(Clock::start()),
        stop: CancellationToken::new(),
        access_log: Some(RateLimiter::at_most(config.log_calls_per_second)),
    })
}

type Bound = (Socket, String);

/// The sockets of the calls, and that of the admin listener.
async fn bind_all(config: &Config) -> Result<(Vec<Bound>, Option<Bound>), StartError> {
    let mut sockets = Vec::with_capacity(config.listen.len());
    for listen in &config.listen {
        sockets.push(bind(listen).await?);
    }
    let admin = match config.admin {
        Some(address) => Some(bind(&Listen::Tcp(address)).await?),
        None => None,
    };
    Ok((sockets, admin))
}

/// Writes beside the administrator's token where its server listens. Without that, the
/// token has to be named to be sent, which is no reason not to serve.
fn tell_addresses(config: &Config, sockets: &[Bound]) -> Option<AddressFile> {
    let addresses = sockets.iter().map(|(_, address)| address.as_str());
    AddressFile::write(&config.data_dir, addresses)
        .inspect_err(|error| {
            tracing::warn!(
                "data_dir: {}/{ADDRESS_FILE}: {error}; `larder` commands will not send the \
                 administrator's token by themselves",
                config.data_dir.display(),
            );
        })
        .ok()
}

/// Who is asked about tokens, and the accounts of this process, if it keeps any.
fn authority(
    config: &Config,
    telemetry: &Telemetry,
) -> Result<(Authority, Option<Arc<Accounts>>), StartError> {
    if let Some(remote) = &config.accounts {
        let asking = telemetry.asking(random()?, remote.uri.clone());
        let remote = Remote::new(GrpcAsker::new(remote, asking)?);
        return Ok((Authority::Remote(remote), None));
    }
    let now = UnixMillis::new(clock::unix_millis());
    let accounts = Accounts::open(&config.data_dir, now, Box::new(fill_random))?;
    let accounts = Arc::new(accounts);
    Ok((Authority::Local(Arc::clone(&accounts)), Some(accounts)))
}

async fn bind(listen: &Listen) -> Result<(Socket, String), StartError> {
    let failed = |error: io::Error| StartError::Bind {
        address: match listen {
            Listen::Tcp(address) => address.to_string(),
            Listen::Unix(path) => format!("unix:{}", path.display()),
        },
        reason: match error.kind() {
            io::ErrorKind::AddrInUse => "is in use by another program".into(),
            _ => error.to_string(),
        },
    };
    let socket = Socket::bind(listen).await.map_err(failed)?;
    let address = socket.address().map_err(failed)?;
    Ok((socket, address))
}

fn certificate_accounts(
    rules: Vec<CertificateAccount>,
    certificates: Option<&Arc<Certificates>>,
) -> Option<CertificateAccounts> {
    let certificates = Arc::clone(certificates?);
    (!rules.is_empty()).then_some(CertificateAccounts {
        rules,
        certificates,
    })
}

async fn reload(core: &Core<Engine>, certificates: &Arc<Certificates>) -> Reload {
    let certificates = Arc::clone(certificates);
    // It reads files, which may be far away.
    let looked = tokio::task::spawn_blocking(move || certificates.reload()).await;
    let reload = looked.unwrap_or(Reload::Unchanged);
    if reload == Reload::Replaced {
        // Callers known by a certificate may be revoked now.
        core.tenants.doubt();
    }
    reload
}

/// Looks at the certificates' files from time to time.
async fn watch_certificates(
    core: Arc<Core<Engine>>,
    certificates: Arc<Certificates>,
    drain: CancellationToken,
) {
    let interval = certificates.interval();
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = drain.cancelled() => return,
        }
        if reload(&core, &certificates).await == Reload::Replaced {
            core.audit.operator(CERTIFICATES, Code::Ok.name());
        }
    }
}

/// Tells of lines that the logs left out, also when nothing else happens.
async fn tell_suppressed(core: Arc<Core<Engine>>, drain: CancellationToken) {
    let mut audits = tokio::time::interval(audit::TELL_INTERVAL);
    let mut refusals = tokio::time::interval(refusals::TELL_INTERVAL);
    loop {
        tokio::select! {
            _ = audits.tick() => core.audit.tell_suppressed(),
            _ = refusals.tick() => core.refusals.tell_left_out(),
            () = drain.cancelled() => break,
        }
    }
    core.audit.tell_suppressed();
    core.refusals.tell_left_out();
}

/// Sweeps expired entries out, also of accounts that nobody calls.
async fn sweep(core: Arc<Core<Engine>>, drain: CancellationToken) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = drain.cancelled() => return,
        }
        core.store.sweep(core.clock.now(), SWEEP_ENTRIES);
    }
}

/// Entries that one sweep takes out at the most.
const SWEEP_ENTRIES: usize = 10_000;

fn engine(config: &Config, snapshots: Option<&Snapshots>) -> Result<Engine, StartError> {
    let end_version = snapshots.map_or(0, Snapshots::end_version);
    let engine = EngineConfig {
        max_memory_bytes: config.max_memory_bytes,
        hash_seed: random()?,
        first_version: first_version().max(end_version),
        keyspace: if config.shared_keyspace {
            Keyspace::Shared
        } else {
            Keyspace::PerAccount
        },
    };
    let engine = if snapshots.is_some() {
        Engine::restoring(engine)
    } else {
        Engine::new(engine)
    };
    Ok(engine.remembering(config.replay))
}

fn memory(engine: &Engine) -> Memory {
    let memory = engine.memory_use();
    Memory {
        used_bytes: memory.used_bytes,
        limit_bytes: memory.limit_bytes,
    }
}

fn features(config: &Config) -> Vec<&'static str> {
    [
        ("anonymous", config.anonymous.is_some()),
        ("shared-keyspace", config.shared_keyspace),
        ("tls", config.tls.is_some()),
        ("remote-accounts", config.accounts.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, on)| on.then_some(name))
    .collect()
}

/// Randomness fit for secrets. The operating system's generator does not fail
/// once it has worked, which [`random`] has made sure of at start-up; if it
/// did, a predictable token would be worse than no server.
fn fill_random(buffer: &mut [u8]) {
    rand::rngs::OsRng
        .try_fill_bytes(buffer)
        .expect("the operating system's randomness, which worked at start-up, fails");
}

fn random<const BYTES: usize>() -> Result<[u8; BYTES], StartError> {
    let mut bytes = [0; BYTES];
    rand::rngs::OsRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| StartError::Entropy(error.to_string()))?;
    Ok(bytes)
}

/// Versions of this run begin above those of every run before, as long as fewer
/// than 2^12 writes a millisecond were made to one account: the boot time is
/// the upper part. An entry of a snapshot keeps its version for half a year so.
fn first_version() -> u64 {
    clock::unix_millis() << 12
}
