//! Start-up and shutdown: [`App`] is built and bound, [`Running`] serves.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use connectrpc_health::StaticChecker;
use larder_accounts::{Accounts, AdminToken, OpenError, UnixMillis};
use larder_api::wire::{
    MAX_CALLS_IN_FLIGHT, MAX_RECEIVING_BYTES, MAX_REPLYING_BYTES, MAX_STRANGERS_IN_FLIGHT,
};
use larder_engine::{Engine, EngineConfig, Keyspace};
use larder_transport::serve::{self, Tls};
use rand::TryRngCore as _;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::admin::Admin;
use crate::authority::grpc::{AskerError, GrpcAsker};
use crate::authority::remote::Remote;
use crate::authority::{Anonymous, Authority};
use crate::clock::{self, Clock};
use crate::config::{Config, Listen};
use crate::core::Core;
use crate::edge::{Protocols, decode_options};
use crate::gauge::Gauge;
use crate::layers::origin::OriginPolicy;
use crate::listen::{Listening, Socket, SocketFile, start};
use crate::rate::RateLimiter;
use crate::refusals::Refusals;
use crate::rpc;
use crate::tenants::Tenants;
use crate::tls::{self, TlsError};

/// How long closing answers may take to leave once the grace is over.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often entries that expired are swept out, beside what each call drains.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

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
    /// The data directory cannot be opened.
    #[error("data_dir")]
    DataDir(#[from] OpenError),
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
    core: Arc<Core<Engine>>,
    listening: Listening<Engine>,
    transport: serve::Config,
    tls: Option<Tls>,
    sockets: Vec<(Socket, String)>,
    admin: Option<(Socket, String)>,
    health: Arc<StaticChecker>,
    admin_token: Option<AdminToken>,
    drain_grace: Duration,
}

impl App {
    /// Opens what the configuration names: certificates, the sockets, the data
    /// directory, in this order, so that a server that cannot start leaves
    /// nothing behind. Nobody is served before [`run`](Self::run).
    ///
    /// # Errors
    /// [`StartError`]. Nothing then listens.
    pub async fn build(config: Config) -> Result<Self, StartError> {
        let tls = config.tls.as_ref().map(tls::listener_tls).transpose()?;
        let mut sockets = Vec::with_capacity(config.listen.len());
        for listen in &config.listen {
            sockets.push(bind(listen).await?);
        }
        let (authority, accounts) = match &config.accounts {
            Some(remote) => (
                Authority::Remote(Remote::new(GrpcAsker::new(remote)?)),
                None,
            ),
            None => {
                let now = UnixMillis::new(clock::unix_millis());
                let accounts = Arc::new(Accounts::open(
                    &config.data_dir,
                    now,
                    Box::new(fill_random),
                )?);
                (Authority::Local(Arc::clone(&accounts)), Some(accounts))
            }
        };
        let admin_token = accounts
            .as_ref()
            .map(|accounts| accounts.admin_token().clone());
        let local = config.listen.iter().all(Listen::is_local);
        let guard_host = config.anonymous.is_some() && local;
        let seed = u64::from_le_bytes(random()?);
        let transport = serve::Config {
            seed,
            ..config.transport.clone()
        };
        let admin = match config.admin {
            Some(address) => {
                let (socket, bound) = bind(&Listen::Tcp(address)).await?;
                Some((socket, bound))
            }
            None => None,
        };
        let store = Arc::new(engine(&config)?);
        let core = Arc::new(Core {
            tenants: Tenants::new(Arc::clone(&store)),
            store,
            authority,
            features: features(&config),
            anonymous: config.anonymous.map(Anonymous::new),
            origins: OriginPolicy {
                allowed: config.cors_origins,
                guard_host,
            },
            limits: config.limits,
            admission: config.admission,
            deadlines: config.deadlines,
            refusals: Refusals::default(),
            transport: transport.clone(),
            calls: Arc::new(Semaphore::new(MAX_CALLS_IN_FLIGHT)),
            strangers: Arc::new(Semaphore::new(MAX_STRANGERS_IN_FLIGHT)),
            receiving: Gauge::new(MAX_RECEIVING_BYTES),
            replying: Gauge::new(MAX_REPLYING_BYTES),
            clock: Arc::new(Clock::start()),
            stop: CancellationToken::new(),
            access_log: RateLimiter::at_most(config.log_calls_per_second),
            accounts,
        });
        let (router, health) = rpc::router(&core, config.role)
            .map_err(|error| StartError::Contract(error.to_string()))?;
        let listening = Listening {
            core: Arc::clone(&core),
            protocols: Protocols::new(router),
            decode: decode_options(),
            role: config.role,
        };
        Ok(Self {
            core,
            listening,
            transport,
            tls,
            sockets,
            admin,
            health,
            admin_token,
            drain_grace: config.drain_grace,
        })
    }

    /// What became of the administrator's token; `None` where accounts are kept
    /// elsewhere.
    pub fn admin_token(&self) -> Option<&AdminToken> {
        self.admin_token.as_ref()
    }

    /// Begins to serve, on threads of its own. The runtime that this is called
    /// on sweeps, and waits for the end.
    ///
    /// # Errors
    /// The machine gives no threads.
    pub fn run(self) -> Result<Running, StartError> {
        let (sockets, addresses) = self.sockets.into_iter().unzip();
        let started = start(sockets, self.tls.as_ref(), self.listening, self.transport);
        let (transport, socket_files) =
            started.map_err(|error| StartError::Threads(error.to_string()))?;
        let admin = Admin::new(transport.shared());
        let admin_address = match self.admin {
            Some((Socket::Tcp(socket), address)) => {
                let failed = |error: io::Error| StartError::Bind {
                    address: address.clone(),
                    reason: error.to_string(),
                };
                let listener = tokio::net::TcpListener::from_std(socket).map_err(failed)?;
                tokio::spawn(Arc::clone(&admin).serve(listener));
                Some(address)
            }
            _ => None,
        };
        let drain = CancellationToken::new();
        tokio::spawn(sweep(Arc::clone(&self.core), drain.clone()));
        Ok(Running {
            addresses,
            admin_address,
            admin,
            transport,
            drain,
            core: self.core,
            health: self.health,
            drain_grace: self.drain_grace,
            _socket_files: socket_files,
        })
    }
}

/// A server that serves. Dropped without [`drain`](Self::drain), it goes on
/// until its process ends.
pub struct Running {
    addresses: Vec<String>,
    admin_address: Option<String>,
    admin: Arc<Admin>,
    transport: serve::Running,
    drain: CancellationToken,
    core: Arc<Core<Engine>>,
    health: Arc<StaticChecker>,
    drain_grace: Duration,
    _socket_files: Vec<SocketFile>,
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

    /// Ends the server: reports itself as not serving, takes no more
    /// connections, tells those there are to go away, lets calls in flight end
    /// within the grace, and then ends them.
    pub async fn drain(self) -> Drained {
        self.health.shutdown();
        self.admin.drain();
        self.drain.cancel();
        self.transport.drain();
        let ended = || self.transport.ended();
        if tokio::time::timeout(self.drain_grace, ended())
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

fn engine(config: &Config) -> Result<Engine, StartError> {
    Ok(Engine::new(EngineConfig {
        max_memory_bytes: config.max_memory_bytes,
        hash_seed: random()?,
        first_version: first_version(),
        keyspace: if config.shared_keyspace {
            Keyspace::Shared
        } else {
            Keyspace::PerAccount
        },
    }))
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
/// than 2^20 writes a millisecond were made: the boot time is the upper part.
fn first_version() -> u64 {
    clock::unix_millis() << 20
}
