//! The larder server: [`Config`] (parsed, inert) → [`App`] (built, sockets
//! bound) → [`Running`] (a handle that can drain).

mod admin;
mod app;
mod audit;
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
mod tenants;
mod tls;
mod typed;

pub use app::{App, Drained, Running, StartError};
pub use config::{
    AbuseSettings, AuditConfig, AuditSettings, BudgetSettings, ByteSize,
    CertificateAccountSettings, CertificateUse, ClientCertificates, Config, ConfigError, Listen,
    LogFormat, RemoteAccounts, Role, Settings, TlsFiles, TlsSettings, TransportSettings,
};
/// What became of the administrator's token at start-up.
pub use larder_accounts::{AdminToken, AdminTokenState};
pub use tls::TlsError;
pub use tls::caller::CertificateAccount;
pub use tls::names::NamePattern;
pub use tls::reload::{CertificateStatus, Reload};
