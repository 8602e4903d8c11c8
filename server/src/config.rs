//! What a server is told: [`Settings`] as a file or a command line gives them,
//! [`Config`] once they are checked.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use larder_model::{AccountName, Limits};
use larder_transport::serve;
use serde::{Deserialize, Serialize};

use crate::tls::caller::CertificateAccount;

mod accounts;
mod admission;
mod audit;
mod check;
mod compression;
mod deadlines;
mod layers;
mod names;
mod print;
mod reload;
mod request_ids;
mod size;
mod snapshot;
mod telemetry;
mod tls;
mod transport;
mod variables;
mod words;

pub use accounts::ClientCertificateFiles;
pub use admission::{Admission, AdmissionSettings};
pub use audit::{AuditConfig, AuditSettings};
pub use compression::{Compression, CompressionSettings};
pub use deadlines::{DeadlineSettings, Deadlines};
pub use layers::{Layers, Source};
pub use reload::{Changes, NeedsRestart};
pub use request_ids::RequestIdSettings;
pub use size::ByteSize;
pub use snapshot::{SnapshotConfig, SnapshotSettings};
pub use telemetry::{TelemetryConfig, TelemetrySettings, TraceConfig};
pub use tls::{
    CertificateAccountSettings, CertificateUse, ClientCertificates, TlsFiles, TlsSettings,
};
pub use transport::{AbuseSettings, BudgetSettings, TransportSettings};
pub use variables::unknown_variables;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address; port 0 picks a free port.
    Tcp(SocketAddr),
    /// A Unix socket, as `unix:PATH`.
    Unix(PathBuf),
}

impl Listen {
    /// True when only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err("unix: needs a path".into())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let text = text.replacen("localhost:", "127.0.0.1:", 1);
        text.parse()
            .map(Self::Tcp)
            .map_err(|_| format!("`{text}` is neither IP:PORT (as 127.0.0.1:5051) nor unix:PATH"))
    }
}

/// How the access log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
    /// None.
    Off,
}

impl LogFormat {
    /// What is shown where no `log_filter` is given.
    fn filter(self) -> String {
        let access = if self == Self::Off { "off" } else { "info" };
        format!("info,access={access}")
    }
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "off" => Ok(Self::Off),
            _ => Err(format!("`{text}` is none of text, json, off")),
        }
    }
}

/// Settings as they were written, all optional. A configuration file has these
/// names; the command line has them with dashes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where to listen; default `127.0.0.1:5051`.
    pub listen: Option<Vec<String>>,
    /// Where accounts are kept; the command line knows the default.
    pub data_dir: Option<PathBuf>,
    /// Memory of the store; default 1 GiB.
    pub max_memory: Option<ByteSize>,
    /// Worker threads; default one for each core.
    pub threads: Option<usize>,
    /// Certificate chain, PEM.
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM.
    pub tls_key: Option<PathBuf>,
    /// Authorities whose client certificates are asked for, PEM.
    pub client_ca: Option<PathBuf>,
    /// Client certificates that are no longer good, PEM.
    pub client_crl: Option<PathBuf>,
    /// Serve clear text beyond loopback, and ask an Accounts server there in it.
    pub allow_clear_text: Option<bool>,
    /// Another Accounts server, `http://` or `https://`.
    pub accounts: Option<String>,
    /// Credential to show to it, with the right to verify tokens.
    pub accounts_token_file: Option<PathBuf>,
    /// Authority of its certificate, PEM.
    pub accounts_ca: Option<PathBuf>,
    /// Certificate chain to show to it, PEM.
    pub accounts_cert: Option<PathBuf>,
    /// Its private key, PEM.
    pub accounts_key: Option<PathBuf>,
    /// How long an answer of an Accounts server that gives no `max_age` is
    /// used, seconds; default 10.
    pub accounts_max_age_seconds: Option<u64>,
    /// Account of callers without a credential.
    pub anonymous: Option<String>,
    /// One key space for all accounts, as in the talk.
    pub shared_keyspace: Option<bool>,
    /// Origins whose pages may call.
    pub cors_origin: Option<Vec<String>>,
    /// Most connections; default 10,000.
    pub max_connections: Option<usize>,
    /// Longest key, bytes.
    pub max_key_bytes: Option<usize>,
    /// Largest value.
    pub max_value_bytes: Option<ByteSize>,
    /// Most keys in a batch.
    pub max_batch_keys: Option<usize>,
    /// Largest page of a list.
    pub max_list_page: Option<usize>,
    /// How the access log is written; default text.
    pub log_format: Option<LogFormat>,
    /// Filter of the log, in the syntax of `tracing`; default `info`.
    pub log_filter: Option<String>,
    /// Most lines a second for calls that went well; default 100. Errors have
    /// 10 of each reason.
    pub log_calls_per_second: Option<u64>,
    /// How long calls in flight may take to end at shutdown, seconds; default
    /// 10.
    pub drain_grace_seconds: Option<u64>,
    /// Where health and metrics are told, `IP:PORT`; default nowhere.
    pub admin: Option<String>,
    /// Snapshots of the store, in the data directory.
    pub snapshot: Option<SnapshotSettings>,
    /// More of TLS.
    pub tls: Option<TlsSettings>,
    /// The log of who did what.
    pub audit: Option<AuditSettings>,
    /// What is let in.
    pub admission: Option<AdmissionSettings>,
    /// How long calls may take.
    pub deadlines: Option<DeadlineSettings>,
    /// Which answers are compressed.
    pub compression: Option<CompressionSettings>,
    /// Limits of the transport; in a file only.
    pub transport: Option<TransportSettings>,
    /// What is remembered of requests.
    pub request_ids: Option<RequestIdSettings>,
    /// Metrics and traces.
    pub telemetry: Option<TelemetrySettings>,
}

/// Where a file is wrong, on one line: its line, what stands there, and why.
fn one_line(text: &str, error: &toml::de::Error) -> String {
    let reason = words::plain(error.message());
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else {
        return reason;
    };
    let number = before.matches('\n').count() + 1;
    let line = text.lines().nth(number - 1).unwrap_or_default().trim();
    let hint = unknown(&reason).and_then(check::suggestion);
    let hint = hint.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
    format!("line {number}, `{line}`: {reason}{hint}")
}

/// The name in a message about one that is not known.
fn unknown(reason: &str) -> Option<&str> {
    reason.strip_prefix("unknown field `")?.split('`').next()
}

impl Settings {
    /// Reads a TOML file.
    ///
    /// # Errors
    /// [`ConfigError::File`] names the file, the line and the key.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let failed = |reason: String| ConfigError::File {
            path: path.into(),
            reason,
        };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        toml::from_str(&text).map_err(|error| failed(one_line(&text, &error)))
    }

    /// Reads a table.
    fn deserialize_table(table: toml::Table) -> Result<Self, toml::de::Error> {
        table.try_into()
    }
}

/// Another Accounts server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteAccounts {
    /// Where it is.
    pub uri: http::Uri,
    /// File with the credential to show to it.
    pub token_file: Option<PathBuf>,
    /// Authority of its certificate, PEM; the platform's are not used.
    pub ca: Option<PathBuf>,
    /// What is shown to it in a handshake.
    pub certificate: Option<ClientCertificateFiles>,
    /// How long an answer without a `max_age` is used.
    pub default_max_age: Duration,
}

/// What a server serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// The cache, with its accounts or in front of another Accounts server.
    #[default]
    Cache,
    /// Accounts alone, for other servers to ask.
    Accounts,
}

/// A checked configuration. Inert: nothing is opened yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What is served.
    pub role: Role,
    /// Where to listen; not empty.
    pub listen: Vec<Listen>,
    /// Where accounts are kept.
    pub data_dir: PathBuf,
    /// Memory of the store, bytes.
    pub max_memory_bytes: u64,
    /// Worker threads.
    pub threads: usize,
    /// TLS; clear text without.
    pub tls: Option<TlsFiles>,
    /// Clear text was asked for beyond loopback.
    pub allow_clear_text: bool,
    /// Client certificates that stand for accounts.
    pub certificate_accounts: Vec<CertificateAccount>,
    /// The same, as they were given.
    pub certificate_account_settings: Vec<CertificateAccountSettings>,
    /// The log of who did what.
    pub audit: AuditConfig,
    /// Another Accounts server; else accounts are kept in this process.
    pub accounts: Option<RemoteAccounts>,
    /// Account of callers without a credential.
    pub anonymous: Option<AccountName>,
    /// True when `anonymous` was not asked for: see [`Config::parse`].
    pub anonymous_by_default: bool,
    /// One key space for all accounts.
    pub shared_keyspace: bool,
    /// Origins whose pages may call.
    pub cors_origins: Vec<String>,
    /// Most connections.
    pub max_connections: usize,
    /// Limits of the data model.
    pub limits: Limits,
    /// How the access log is written.
    pub log_format: LogFormat,
    /// Filter of the log, in the syntax of `tracing`.
    pub log_filter: String,
    /// Most lines a second for calls that went well.
    pub log_calls_per_second: u64,
    /// How long calls in flight may take to end at shutdown.
    pub drain_grace: Duration,
    /// Where health and metrics are told.
    pub admin: Option<SocketAddr>,
    /// Snapshots; `None`: none.
    pub snapshot: Option<SnapshotConfig>,
    /// What is let in.
    pub admission: Admission,
    /// How long calls may take.
    pub deadlines: Deadlines,
    /// Which answers are compressed.
    pub compression: Compression,
    /// The transport's part.
    pub transport: serve::Config,
    /// What is remembered of requests.
    pub replay: larder_model::ReplayLimits,
    /// Metrics and traces.
    pub telemetry: TelemetryConfig,
}

/// Why a configuration is refused. Each message names the setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read or understood.
    #[error("configuration file {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Line, key and reason.
        reason: String,
    },
    /// A variable of the environment cannot be understood.
    #[error("{name}: {reason}")]
    Variable {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Command line, environment and file make no whole.
    #[error("the settings together: {reason}")]
    Together {
        /// Why.
        reason: String,
    },
    /// A setting is out of its range, or contradicts another.
    #[error("{setting}: {reason}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

fn bad(setting: &'static str, reason: impl Into<String>) -> ConfigError {
    ConfigError::Setting {
        setting,
        reason: reason.into(),
    }
}

fn within<T: PartialOrd + fmt::Display + Copy>(
    setting: &'static str,
    given: Option<T>,
    default: T,
    range: std::ops::RangeInclusive<T>,
) -> Result<T, ConfigError> {
    let value = given.unwrap_or(default);
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(bad(
            setting,
            format!("{value} is not within {} to {}", range.start(), range.end()),
        ))
    }
}

/// Smallest store that can hold one entry of every allowed size.
const MIN_MEMORY_BYTES: u64 = 16 << 20;
/// Beyond any machine.
const MAX_MEMORY_BYTES: u64 = 1 << 50;

impl Config {
    /// Checks settings. While every listener is local and neither TLS, nor
    /// another Accounts server, nor `anonymous` is given, callers without a
    /// credential are the account `default`.
    ///
    /// # Errors
    /// [`ConfigError`] names the first setting that cannot be.
    pub fn parse(
        role: Role,
        settings: Settings,
        default_data_dir: &Path,
    ) -> Result<Self, ConfigError> {
        let default_listen = match role {
            Role::Cache => "127.0.0.1:5051",
            Role::Accounts => "127.0.0.1:5052",
        };
        let listen = listeners(settings.listen.as_deref(), default_listen)?;
        let tls = tls::files(&settings)?;
        let local = listen.iter().all(Listen::is_local);
        if !local && tls.is_none() && settings.allow_clear_text != Some(true) {
            return Err(bad(
                "listen",
                "an address beyond loopback needs tls_cert and tls_key, or allow_clear_text \
                 (--allow-clear-text), which lets anybody on the way read values and tokens",
            ));
        }
        let accounts = remote_accounts(&settings)?;
        let certificate_accounts = tls::certificate_accounts(&settings)?;
        let audit = audit::parse(settings.audit.as_ref())?;
        let anonymous_by_default = role == Role::Cache
            && local
            && tls.is_none()
            && accounts.is_none()
            && settings.anonymous.is_none();
        let anonymous = match settings.anonymous.as_deref() {
            _ if anonymous_by_default => Some("default"),
            given => given,
        }
        .map(|name| AccountName::parse(name).map_err(|e| bad("anonymous", e.to_string())))
        .transpose()?;
        for origin in settings.cors_origin.iter().flatten() {
            check_origin(origin)?;
        }
        let memory = ByteSize(MIN_MEMORY_BYTES)..=ByteSize(MAX_MEMORY_BYTES);
        let max_memory = within("max_memory", settings.max_memory, ByteSize(1 << 30), memory)?;
        let grace = within(
            "drain_grace_seconds",
            settings.drain_grace_seconds,
            10,
            0..=3600,
        )?;
        let connections = settings.max_connections;
        let admin = settings.admin.as_deref().map(admin).transpose()?;
        let transport = settings.transport.unwrap_or_default();
        let own_data = accounts.is_none() || settings.data_dir.is_some();
        let snapshot = settings.snapshot.unwrap_or_default().parse(own_data)?;
        let log_format = settings.log_format.unwrap_or_default();
        let config = Self {
            role,
            listen,
            max_memory_bytes: max_memory.0,
            threads: within("threads", settings.threads, cores(), 1..=1024)?,
            tls,
            certificate_accounts,
            certificate_account_settings: settings.tls.clone().unwrap_or_default().account,
            audit,
            accounts,
            anonymous,
            anonymous_by_default,
            shared_keyspace: settings.shared_keyspace.unwrap_or(false),
            max_connections: within("max_connections", connections, 10_000, 1..=1_000_000)?,
            limits: limits(&settings)?,
            log_format,
            log_filter: settings.log_filter.unwrap_or_else(|| log_format.filter()),
            allow_clear_text: settings.allow_clear_text.unwrap_or(false),
            log_calls_per_second: within(
                "log_calls_per_second",
                settings.log_calls_per_second,
                100,
                0..=10_000_000,
            )?,
            drain_grace: Duration::from_secs(grace),
            cors_origins: settings.cors_origin.unwrap_or_default(),
            data_dir: settings.data_dir.unwrap_or_else(|| default_data_dir.into()),
            admin,
            snapshot: snapshot.filter(|_| role == Role::Cache),
            admission: settings.admission.unwrap_or_default().parse()?,
            deadlines: settings.deadlines.unwrap_or_default().parse()?,
            compression: settings.compression.unwrap_or_default().parse()?,
            transport: serve::Config::default(),
            replay: settings.request_ids.unwrap_or_default().limits()?,
            telemetry: settings.telemetry.unwrap_or_default().check()?,
        };
        config.set_transport(&transport)
    }
}

fn admin(text: &str) -> Result<SocketAddr, ConfigError> {
    let text = text.replacen("localhost:", "127.0.0.1:", 1);
    text.parse().map_err(|_| {
        bad(
            "admin",
            format!("`{text}` is no IP:PORT (as 127.0.0.1:5053)"),
        )
    })
}

fn listeners(given: Option<&[String]>, default: &str) -> Result<Vec<Listen>, ConfigError> {
    let parse = |text: &str| text.parse().map_err(|reason: String| bad("listen", reason));
    match given {
        None => Ok(vec![parse(default)?]),
        Some([]) => Err(bad("listen", "must not be empty")),
        Some(list) => list.iter().map(|text| parse(text)).collect(),
    }
}

fn limits(settings: &Settings) -> Result<Limits, ConfigError> {
    let defaults = Limits::default();
    let given = settings.max_value_bytes.map(|size| size.0);
    let largest = MAX_CONFIGURED_VALUE_BYTES;
    let max_value_bytes = within("max_value_bytes", given, largest, 0..=largest)?;
    Ok(Limits {
        max_key_bytes: within("max_key_bytes", settings.max_key_bytes, 1024, 1..=64 << 10)?,
        max_value_bytes: usize::try_from(max_value_bytes)
            .map_err(|e| bad("max_value_bytes", e.to_string()))?,
        max_batch_keys: within("max_batch_keys", settings.max_batch_keys, 1000, 1..=10_000)?,
        max_list_page: within("max_list_page", settings.max_list_page, 1000, 1..=10_000)?,
        ..defaults
    })
}

/// Largest value that can be allowed, bytes: the message limit leaves room for
/// it in JSON, where base64 makes it a third larger.
const MAX_CONFIGURED_VALUE_BYTES: u64 = 3 << 20;

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

fn remote_accounts(settings: &Settings) -> Result<Option<RemoteAccounts>, ConfigError> {
    let (token_file, ca) = (
        settings.accounts_token_file.clone(),
        settings.accounts_ca.clone(),
    );
    let max_age = settings.accounts_max_age_seconds;
    let Some(url) = &settings.accounts else {
        let useless = [
            ("accounts_token_file", token_file.is_some()),
            ("accounts_ca", ca.is_some()),
            ("accounts_cert", settings.accounts_cert.is_some()),
            ("accounts_key", settings.accounts_key.is_some()),
            ("accounts_max_age_seconds", max_age.is_some()),
        ];
        return match useless.into_iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(bad(name, "needs accounts")),
            None => Ok(None),
        };
    };
    let uri: http::Uri = url
        .parse()
        .map_err(|_| bad("accounts", format!("`{url}` is no URL")))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let scheme = uri.scheme_str().unwrap_or_default();
    if host.is_empty() || !matches!(scheme, "http" | "https") {
        let reason = format!("`{url}` must be http://HOST:PORT or https://HOST:PORT");
        return Err(bad("accounts", reason));
    }
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if scheme == "http" && !loopback && settings.allow_clear_text != Some(true) {
        return Err(bad(
            "accounts",
            "a server beyond loopback needs https:// and accounts_ca, or allow_clear_text \
             (--allow-clear-text), which lets anybody on the way read tokens",
        ));
    }
    if scheme == "https" && ca.is_none() {
        return Err(bad("accounts_ca", "an https:// Accounts server needs it"));
    }
    let certificate = accounts::client_certificate(settings, scheme == "https")?;
    let default_max_age = within("accounts_max_age_seconds", max_age, 10, 0..=3600)?;
    Ok(Some(RemoteAccounts {
        uri,
        token_file,
        ca,
        certificate,
        default_max_age: Duration::from_secs(default_max_age),
    }))
}

fn check_origin(origin: &str) -> Result<(), ConfigError> {
    let uri: Option<http::Uri> = origin.parse().ok();
    let plain = uri.is_some_and(|uri| {
        uri.scheme().is_some()
            && uri.host().is_some()
            && uri.path() == "/"
            && !origin.ends_with('/')
    });
    if plain {
        Ok(())
    } else {
        Err(bad(
            "cors_origin",
            format!("`{origin}` is no origin: write https://HOST[:PORT]"),
        ))
    }
}

#[cfg(test)]
mod tests;
