//! The larder server: [`Config`] (parsed, inert) → [`App`] (built, sockets
//! bound) → [`Running`] (a handle that can drain).

mod admin;
mod app;
mod authority;
mod call;
mod clock;
mod config;
mod connection;
mod core;
mod edge;
mod failure;
mod gauge;
mod layers;
mod listen;
mod methods;
mod rate;
mod rpc;
mod telemetry;
mod tenants;
mod tls;
mod typed;

pub use app::{App, Drained, Running, StartError};
pub use config::{
    AbuseSettings, BudgetSettings, ByteSize, Config, ConfigError, Listen, LogFormat,
    RemoteAccounts, Role, Settings, TelemetryConfig, TelemetrySettings, TlsFiles, TraceConfig,
    TransportSettings,
};
/// What became of the administrator's token at start-up.
pub use larder_accounts::{AdminToken, AdminTokenState};
/// Where a call came from, and how it ended, as an [`Interceptor`] is told.
pub use larder_api::errors::{Code, Reason};
pub use larder_transport::serve::Peer;
pub use telemetry::interceptor::{CallEnd, CallStart, Interceptor};
pub use tls::TlsError;
