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
mod in_flight;
mod layers;
mod listen;
mod methods;
mod rate;
mod refusals;
mod rpc;
mod tenants;
mod tls;
mod typed;

pub use app::{App, Drained, Running, StartError};
pub use config::{
    AbuseSettings, Admission, AdmissionSettings, BudgetSettings, ByteSize, Config, ConfigError,
    DeadlineSettings, Deadlines, Listen, LogFormat, RemoteAccounts, Role, Settings, TlsFiles,
    TransportSettings,
};
/// What became of the administrator's token at start-up.
pub use larder_accounts::{AdminToken, AdminTokenState};
pub use layers::shed::Shedding;
pub use tls::TlsError;
