//! A client of larder: typed calls over gRPC, a deadline on every one of
//! them, and errors that say what may be done about them.
//!
//! One [`Client`] holds a channel: connections to one server or to several
//! ([`Balancing`]), on which calls run side by side; cloning it is cheap and
//! shares them. It reconnects by itself, with a backoff, and tries again what
//! may be repeated ([`ClientConfig::with_service_config`]). Wire types stop in this crate: what
//! goes in and comes out are [`Entry`], [`QuotaUsage`], [`Error`] and their
//! like.
//!
//! ```no_run
//! use std::time::Duration;
//! use larder_client::{Client, ClientConfig, SetOptions, Token};
//!
//! # async fn example() -> Result<(), larder_client::Error> {
//! let config = ClientConfig::new("http://127.0.0.1:5051")?
//!     .with_token(Token::new("secret")?)
//!     .with_timeout(Duration::from_millis(250));
//! let client = Client::connect(config).await?;
//!
//! client
//!     .set("session/7", "gopher", SetOptions::new().ttl(Duration::from_secs(30)))
//!     .await?;
//! if let Some(entry) = client.get("session/7").await? {
//!     println!("{:?}, version {}", entry.value, entry.version);
//! }
//!
//! // The same connection, another namespace, and nothing is changed.
//! let rehearsal = client.in_namespace("reports").dry_run();
//! match rehearsal.delete_all().await {
//!     Ok(deleted) => println!("{} entries would go", deleted.count),
//!     Err(error) if error.is_retryable() => println!("later: {error}"),
//!     Err(error) => return Err(error),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Deadlines
//!
//! A unary call carries its deadline to the server in `grpc-timeout`
//! ([`ClientConfig::with_timeout`], [`Client::with_timeout`]). A stream may
//! last as long as it has work; the same time bounds each wait for its next
//! part, and [`ClientConfig::with_stream_deadline`] bounds it as a whole.
//!
//! [`Client::within`] ends all calls by one instant: what is left of a call that
//! this program serves. [`Client::wait_for_ready`] waits that long for a server,
//! where another client fails as soon as none can be reached.
//!
//! # Secrets
//!
//! A [`Token`] never shows itself in `Debug`, and is not sent over clear text
//! to another machine unless [`ClientConfig::allow_clear_text_token`] says so.

mod accounts;
mod batch;
mod batched;
mod cache;
mod call;
mod channel;
mod channelz;
mod client;
mod config;
mod convert;
mod dump;
mod endpoint;
mod error;
mod fill;
mod interceptor;
mod keys;
mod load;
mod method;
mod metrics;
mod near;
mod options;
mod ring;
mod route;
mod spread;
mod status;
mod talk;
mod tls;
mod types;

pub use accounts::{AccountPage, AccountPages, Accounts, TokenPage, TokenPages};
pub use batched::Batched;
pub use channel::{Addresses, Balancing, OutlierEjection, Resolver, RingHash};
pub use channelz::{Channelz, ServerStatus, SocketStatus, Sockets};
pub use client::Client;
pub use config::{CaCertificates, ClientConfig, ClientIdentity, Token};
pub use dump::DumpStream;
pub use endpoint::Endpoint;
pub use error::{Error, FieldViolation, QuotaViolation};
pub use fill::{FillError, FillOrigin, Filled};
pub use interceptor::{AttemptEnd, AttemptStart, CallEnd, CallStart, Interceptor, Metadata};
pub use keys::{KeyPage, KeyPages, PageToken};
pub use load::{LoadSummary, Loader};
pub use metrics::{Metric, MetricValue, Metrics};
pub use near::{Invalidations, NearCache, NearConfig, NearStats};
pub use options::{
    Condition, DeleteOptions, Expiry, IncrementOptions, RequestId, SetExpiry, SetOptions,
};
pub use route::{Route, Target};
pub use talk::{Talk, TalkDump};
pub use types::{
    Account, AccountChange, AccountSettings, Action, AtLimit, BatchSetItem, CreatedToken,
    DeleteOutcome, DeleteReply, DeletedPrefix, Entry, IncrementReply, QuotaUsage, ServerInfo,
    SetOutcome, SetReply, TokenInfo, TokenRights, Usage, VerifiedToken,
};

pub use larder_api::errors::{Code, Reason};
