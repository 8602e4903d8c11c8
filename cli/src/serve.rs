//! `larder serve` and `larder accounts serve`.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use larder_server::{
    AdminToken, AdminTokenState, App, ByteSize, Config, Drained, Ended, Layers, Listen, LogFormat,
    Role, Running, Settings, SnapshotSettings,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::data_dir::default_data_dir;
use crate::supervisor::{self, State};
use crate::units::parse_duration;

/// Options of `larder serve`. A configuration file has the same names, with
/// underscores, and every setting is a variable too, as LARDER_MAX_MEMORY; the command
/// line wins over the variables, and those over the file.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    common: CommonArgs,

    /// Memory of the store, as 512MiB or 4GiB [default: 1GiB]
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<ByteSize>,

    /// Save the store at this interval, as 30s or 5m, for the next start; off: only at shutdown
    /// [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = interval_seconds)]
    snapshot_interval: Option<u64>,

    /// Ask another Accounts server about tokens, at http://HOST:PORT or https://HOST:PORT
    #[arg(long, value_name = "URL")]
    accounts: Option<String>,

    /// File with the credential to show to that server
    #[arg(long, value_name = "FILE")]
    accounts_token_file: Option<PathBuf>,

    /// Authority of that server's certificate, PEM
    #[arg(long, value_name = "FILE")]
    accounts_ca: Option<PathBuf>,

    /// Certificate to show to that server, PEM
    #[arg(long, value_name = "FILE", requires = "accounts_key")]
    accounts_cert: Option<PathBuf>,

    /// Private key of that certificate, PEM
    #[arg(long, value_name = "FILE", requires = "accounts_cert")]
    accounts_key: Option<PathBuf>,

    /// Use an answer of that server this long, seconds, where it does not say [default: 10]
    #[arg(long, value_name = "SECONDS")]
    accounts_max_age_seconds: Option<u64>,

    /// Serve callers without a credential as this account
    #[arg(long, value_name = "ACCOUNT")]
    anonymous: Option<String>,

    /// One key space for all accounts, counted by account: the talk's arrangement
    #[arg(long)]
    shared_keyspace: bool,

    /// Let pages of this origin call, as `https://app.example.com`; repeatable
    #[arg(long, value_name = "ORIGIN")]
    cors_origin: Vec<String>,

    /// Longest key, bytes [default: 1024]
    #[arg(long, value_name = "BYTES")]
    max_key_bytes: Option<usize>,

    /// Largest value [default: 3MiB]
    #[arg(long, value_name = "SIZE")]
    max_value_bytes: Option<ByteSize>,

    /// Most keys in a batch [default: 1000]
    #[arg(long, value_name = "N")]
    max_batch_keys: Option<usize>,

    /// Largest page of a list of keys [default: 1000]
    #[arg(long, value_name = "N")]
    max_list_page: Option<usize>,
}

/// Options of every server.
#[derive(Debug, Args)]
struct CommonArgs {
    /// Where to listen: IP:PORT or unix:PATH; repeatable. Port 0 picks a free one
    #[arg(
        long,
        value_name = "ADDRESS",
        value_delimiter = ',',
        value_parser = address
    )]
    listen: Vec<String>,

    /// Where accounts are kept [default: the platform's data directory, `larder` in it]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Configuration file, TOML
    #[arg(long, value_name = "FILE", env = "LARDER_CONFIG")]
    config: Option<PathBuf>,

    /// Worker threads [default: one for each core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    /// Certificate chain, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// Private key of the certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Take only clients with a certificate of this authority, PEM
    #[arg(long, value_name = "FILE")]
    client_ca: Option<PathBuf>,

    /// Refuse client certificates that this list of revoked ones names, PEM; read again when it changes
    #[arg(long, value_name = "FILE", requires = "client_ca")]
    client_crl: Option<PathBuf>,

    /// Serve clear text beyond loopback, and ask an Accounts server there in clear text: anybody
    /// on the way can read values and tokens
    #[arg(long)]
    allow_clear_text: bool,

    /// Most connections [default: 10000]
    #[arg(long, value_name = "N")]
    max_connections: Option<usize>,

    /// How the access log is written: text, json or off [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,

    /// Most lines a second of the access log for calls that went well; errors have 10 of each reason
    /// [default: 100]
    #[arg(long, value_name = "N")]
    log_calls_per_second: Option<u64>,

    /// Tell health and metrics here, IP:PORT, in clear text and to anybody: /healthz, /readyz, /metrics
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,

    /// Print the configuration in force as TOML, each setting with where it comes from, and end
    #[arg(long)]
    print_config: bool,

    /// How long calls in flight may take to end at shutdown, seconds [default: 10]
    #[arg(long, value_name = "SECONDS", visible_alias = "drain-grace")]
    drain_grace_seconds: Option<u64>,
}

/// `larder accounts …`
#[derive(Debug, Subcommand)]
pub(crate) enum AccountsCommand {
    /// Serve accounts and tokens alone, for cache servers elsewhere to ask
    Serve(AccountsServeArgs),
}

/// Options of `larder accounts serve`.
#[derive(Debug, Args)]
pub(crate) struct AccountsServeArgs {
    #[command(flatten)]
    common: CommonArgs,
}

impl CommonArgs {
    fn into_settings(self) -> (Told, Settings) {
        let settings = Settings {
            listen: some(self.listen),
            data_dir: self.data_dir,
            threads: self.threads,
            tls_cert: self.tls_cert,
            tls_key: self.tls_key,
            client_ca: self.client_ca,
            client_crl: self.client_crl,
            allow_clear_text: self.allow_clear_text.then_some(true),
            max_connections: self.max_connections,
            log_format: self.log_format,
            log_calls_per_second: self.log_calls_per_second,
            drain_grace_seconds: self.drain_grace_seconds,
            admin: self.admin,
            ..Settings::default()
        };
        let told = Told {
            file: self.config,
            print: self.print_config,
        };
        (told, settings)
    }
}

impl ServeArgs {
    fn into_settings(self) -> (Told, Settings) {
        let (told, common) = self.common.into_settings();
        let settings = Settings {
            max_memory: self.max_memory,
            snapshot: self.snapshot_interval.map(|seconds| SnapshotSettings {
                interval_seconds: Some(seconds),
                ..SnapshotSettings::default()
            }),
            accounts: self.accounts,
            accounts_token_file: self.accounts_token_file,
            accounts_ca: self.accounts_ca,
            accounts_cert: self.accounts_cert,
            accounts_key: self.accounts_key,
            accounts_max_age_seconds: self.accounts_max_age_seconds,
            anonymous: self.anonymous,
            shared_keyspace: self.shared_keyspace.then_some(true),
            cors_origin: some(self.cors_origin),
            max_key_bytes: self.max_key_bytes,
            max_value_bytes: self.max_value_bytes,
            max_batch_keys: self.max_batch_keys,
            max_list_page: self.max_list_page,
            ..common
        };
        (told, settings)
    }
}

/// Checks an address while it is still known which argument it came from.
fn address(text: &str) -> Result<String, String> {
    text.parse::<Listen>().map(|_| text.to_owned())
}

/// Whole seconds; 0 for `off`.
fn interval_seconds(text: &str) -> Result<u64, String> {
    if text == "off" {
        return Ok(0);
    }
    match parse_duration(text)?.as_secs() {
        0 => Err(format!("`{text}` is too short; at least 1s, or off")),
        seconds => Ok(seconds),
    }
}

/// A list that was given.
fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// Runs `larder serve` until it is told to end.
pub(crate) fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let (told, settings) = args.into_settings();
    serve(Role::Cache, told, settings)
}

/// Runs `larder accounts …`.
pub(crate) fn run_accounts(command: AccountsCommand) -> anyhow::Result<ExitCode> {
    let AccountsCommand::Serve(args) = command;
    let (told, settings) = args.common.into_settings();
    serve(Role::Accounts, told, settings)
}

/// What the command line says beside settings.
struct Told {
    file: Option<PathBuf>,
    print: bool,
}

/// Where the configuration comes from: read at the start, and again at SIGHUP.
struct Origin {
    role: Role,
    file: Option<PathBuf>,
    command_line: Settings,
}

impl Origin {
    fn read(&self) -> anyhow::Result<(Config, Layers)> {
        let variable = |name: &str| std::env::var(name).ok();
        let layers = Layers::read(self.file.as_deref(), variable, &self.command_line)?;
        let settings = layers.settings.clone();
        let fallback = default_data_dir()
            .or_else(|| settings.data_dir.clone())
            .context("data_dir: this user has no home directory; say where with --data-dir")?;
        Ok((Config::parse(self.role, settings, &fallback)?, layers))
    }
}

fn serve(role: Role, told: Told, command_line: Settings) -> anyhow::Result<ExitCode> {
    let origin = Origin {
        role,
        file: told.file,
        command_line,
    };
    let (config, layers) = origin.read()?;
    if told.print {
        for unknown in unknown_variables() {
            // If nobody reads it, there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "larder: {unknown}");
        }
        std::io::stdout().write_all(config.print(&layers).as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let (log, filter) = log_to_stderr(&config)?;
    for unknown in unknown_variables() {
        tracing::warn!("{unknown}");
    }
    // Calls have threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime could not be started")?;
    let ended = runtime.block_on(serve_until_told(config, &origin, &filter));
    // Writes what is queued, but waits for no reader.
    drop(log);
    ended
}

async fn serve_until_told(
    config: Config,
    origin: &Origin,
    filter: &LogFilter,
) -> anyhow::Result<ExitCode> {
    let mut ends = Ends::listen()?;
    // It does not end the server: the configuration is to be read again.
    let mut hang_up = signal(SignalKind::hangup())?;
    let notice = anonymous_notice(&config);
    let mut app = App::build(config).await?;
    if let Some(token) = app.admin_token() {
        tracing::info!("{}", admin_token_notice(token));
    }
    if let Some(notice) = notice {
        tracing::info!("{notice}");
    }
    tokio::select! {
        loaded = app.load() => loaded?,
        () = ends.wait() => {
            tracing::info!("shutting down while loading: the snapshots stay as they are");
            return Ok(ExitCode::SUCCESS);
        }
    }
    let mut running = app.run()?;
    tell_addresses(&running)?;
    supervisor::notify(State::Ready);
    loop {
        tokio::select! {
            () = ends.wait() => break,
            _ = hang_up.recv() => {
                supervisor::notify(State::Reloading);
                let is_taken = reload(origin, &mut running, filter);
                // Says itself what became of it.
                running.reload_certificates().await;
                running.audit_reload(is_taken);
                supervisor::notify(State::Ready);
            }
        }
    }
    supervisor::notify(State::Stopping);
    tracing::info!("shutting down: calls in flight may end");
    let saves = running.saves();
    tokio::select! {
        Ended { calls, is_saved } = running.drain() => {
            if calls == Drained::Cut {
                tracing::warn!("calls were cut off when the grace was over");
            }
            if !is_saved {
                return Ok(ExitCode::FAILURE);
            }
        }
        () = ends.wait() => {
            tracing::warn!("told twice: ending at once");
            if saves {
                tracing::warn!("the last snapshot is not written");
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn tell_addresses(running: &Running) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for address in running.addresses() {
        writeln!(out, "listening on {address}")?;
    }
    if let Some(address) = running.admin_address() {
        writeln!(out, "admin on {address}")?;
    }
    out.flush()
}

/// Reads the configuration again, and takes it on if all of it can be; says whether.
fn reload(origin: &Origin, running: &mut Running, filter: &LogFilter) -> bool {
    match reread(origin, running, filter) {
        Err(error) => {
            tracing::error!(
                "the configuration was read again and REFUSED; nothing has changed: {error:#}"
            );
            false
        }
        Ok(()) => true,
    }
}

fn reread(origin: &Origin, running: &mut Running, filter: &LogFilter) -> anyhow::Result<()> {
    let (config, _) = origin.read()?;
    let log_filter = filter_of(&config)?;
    let changes = running.reload(config)?;
    if changes.0.is_empty() {
        tracing::info!("the configuration was read again: nothing differs");
        return Ok(());
    }
    let names: Vec<_> = changes.0.into_iter().collect();
    tracing::info!(
        "the configuration was read again: {} changed",
        names.join(", ")
    );
    if let Err(error) = filter.reload(log_filter) {
        tracing::error!("the log's filter could not be changed: {error}");
    }
    Ok(())
}

fn admin_token_notice(token: &AdminToken) -> String {
    let path = token.path.display();
    match token.state {
        AdminTokenState::Created => format!("made an administrator's token: {path}"),
        AdminTokenState::Kept => format!("the administrator's token is in {path}"),
        AdminTokenState::Replaced => {
            format!("the administrator's token was lost: it is revoked, and a new one is in {path}")
        }
        AdminTokenState::Retired => {
            format!("the token in {path} was revoked; use another administrator's")
        }
    }
}

fn anonymous_notice(config: &Config) -> Option<String> {
    let account = config.anonymous.as_ref()?;
    let why = if config.anonymous_by_default {
        " (all listeners are local)"
    } else {
        ""
    };
    Some(format!(
        "calls without a token are served as account {account}{why}"
    ))
}

/// The signals that end a server.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Lines of the log that wait for a slow reader of stderr; more are dropped.
const LOG_QUEUE_LINES: usize = 65_536;

/// Changes what the log filters.
type LogFilter = tracing_subscriber::reload::Handle<EnvFilter, tracing_subscriber::Registry>;

/// What the log shows, or what is wrong with `log_filter`.
pub(crate) fn parse_filter(config: &Config) -> Result<EnvFilter, String> {
    EnvFilter::try_new(&config.log_filter)
        .map_err(|error| format!("`{}`: {error}", config.log_filter))
}

/// The same, naming the setting.
fn filter_of(config: &Config) -> anyhow::Result<EnvFilter> {
    parse_filter(config).map_err(|reason| anyhow::anyhow!("log_filter: {reason}"))
}

/// Variables that say nothing, although they look as if they did.
fn unknown_variables() -> Vec<String> {
    let text = |part: std::ffi::OsString| part.to_string_lossy().into_owned();
    let variables = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
    larder_server::unknown_variables(variables)
}

/// The log goes to stderr, by a thread of its own: a reader that is slow or gone
/// costs lines, never calls. stdout is for the addresses.
fn log_to_stderr(config: &Config) -> anyhow::Result<(WorkerGuard, LogFilter)> {
    let (filter, handle) = tracing_subscriber::reload::Layer::new(filter_of(config)?);
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LOG_QUEUE_LINES)
        .thread_name("log")
        .finish(std::io::stderr());
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        // It would report a broken log to the log.
        .log_internal_errors(false)
        .with_ansi(colour);
    let log = tracing_subscriber::registry().with(filter);
    let installed = match config.log_format {
        LogFormat::Json => log.with(lines.json().flatten_event(true)).try_init(),
        LogFormat::Text | LogFormat::Off => log.with(lines).try_init(),
    };
    installed.map_err(|error| anyhow::anyhow!("the log could not be started: {error}"))?;
    Ok((guard, handle))
}
