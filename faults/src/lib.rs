//! A TCP proxy that breaks connections, for tests of clients and servers.
//!
//! What happens to a connection is its [`Plan`], and what happens to the n-th
//! connection follows from the [`Schedule`] alone: the same seed makes the same
//! faults, at the same bytes. (When they happen depends on when the bytes come.)
//! It knows nothing of what it carries, so under TLS a corrupted byte is one of the
//! ciphertext.
//!
//! ```no_run
//! # async fn example(server: std::net::SocketAddr) -> std::io::Result<()> {
//! use larder_faults::{Proxy, Schedule};
//! let proxy = Proxy::start("127.0.0.1:0".parse().unwrap(), server, Schedule::random(7)).await?;
//! println!("clients connect to {}", proxy.address());
//! # Ok(())
//! # }
//! ```

mod pipe;
mod plan;
mod proxy;

pub use plan::{Fault, Plan, PlanError, Schedule};
pub use proxy::{Proxy, Served};
