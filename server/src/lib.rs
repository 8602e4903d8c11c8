//! The larder server: [`Config`] (parsed, inert) → [`App`] (built, sockets
//! bound) → [`Running`] (a handle that can drain).

mod addresses;
mod admin;
mod app;
mod audit;
mod authority;
mod call;
mod callers;
mod clock;
mod config;
mod connection;
mod core;
mod edge;
mod failure;
mod gauge;
mod http1;
mod in_flight;
mod layers;
mod listen;
mod live;
mod methods;
mod rate;
mod refusals;
mod rpc;
mod snapshot;
mod telemetry;
mod tenants;
mod tls;
mod typed;

pub use addresses::ADDRESS_FILE;
pub use app::{App, Drained, Ended, ReloadError, Running, StartError};
pub use config::{
    AbuseSettings, Admission, AdmissionSettings, AuditConfig, AuditSettings, BudgetSettings,
    ByteSize, CertificateAccountSettings, CertificateUse, Changes, ClientCertificateFiles,
    ClientCertificates, Compression, CompressionSettings, Config, ConfigError, DeadlineSettings,
    Deadlines, Layers, Listen, LogFormat, NeedsRestart, RemoteAccounts, RequestIdSettings, Role,
    Settings, SnapshotConfig, SnapshotSettings, Source, TelemetryConfig, TelemetrySettings,
    TlsFiles, TlsSettings, TraceConfig, TransportSettings, unknown_variables,
};
/// What became of the administrator's token at start-up.
pub use larder_accounts::{AdminToken, AdminTokenState};
/// Where a call came from, and how it ended, as an [`Interceptor`] is told.
pub use larder_api::errors::{Code, Reason};
pub use larder_transport::serve::Peer;
pub use layers::shed::Shedding;
pub use telemetry::interceptor::{CallEnd, CallStart, Interceptor};
pub use tls::TlsError;
pub use tls::caller::CertificateAccount;
pub use tls::names::NamePattern;
pub use tls::reload::{CertificateStatus, Reload};
