//! From the names of servers to addresses.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::address::{Address, Socket};

/// Longest look-up of one name. The system's own limits are longer, and a look-up cannot be
/// stopped, only left.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// The addresses of a name, to come.
pub type Addresses<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// Finds the addresses of a server's name.
///
/// A client asks before it connects for the first time, and again when a connection was lost or
/// could not be made: not within 30 s of an answer, and after a failure with a backoff from 1 s to
/// 120 s. An answer without addresses counts as a failure; addresses that were known stay in use
/// meanwhile. At most the first 1,000 addresses are used.
pub trait Resolver: Send + Sync + 'static {
    /// The addresses of `host`, in the order in which they are to be tried.
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Addresses<'a>;
}

/// Asks the system, as every program does: files, then DNS.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Addresses<'a> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

/// One of the servers that a channel is for, before any name is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name {
    Host(String, u16),
    Unix(PathBuf),
}

/// Looks the names of a channel up.
#[derive(Clone)]
pub(crate) struct Names {
    names: Arc<[Name]>,
    resolver: Arc<dyn Resolver>,
}

impl Names {
    pub(crate) fn new(names: Vec<Name>, resolver: Arc<dyn Resolver>) -> Self {
        Self {
            names: names.into(),
            resolver,
        }
    }

    /// All addresses, in the order of the names. A name that has none is left out if another has.
    pub(crate) async fn look_up(&self) -> Result<Vec<Address>, Arc<str>> {
        let mut all = Vec::new();
        let mut failure = None;
        for (target, name) in self.names.iter().enumerate() {
            let address = |socket| Address { socket, target };
            match name {
                Name::Unix(path) => all.push(address(Socket::Unix(path.clone()))),
                Name::Host(host, port) => match self.resolve(host, *port).await {
                    Ok(found) => all.extend(found.into_iter().map(Socket::Tcp).map(address)),
                    Err(error) => failure = Some((host, error)),
                },
            }
        }
        match failure {
            Some((host, error)) if all.is_empty() => {
                Err(format!("{host} cannot be resolved: {error}").into())
            }
            _ => Ok(all),
        }
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        match tokio::time::timeout(LOOK_UP_TIMEOUT, self.resolver.resolve(bare, port)).await {
            Ok(found) => found,
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {LOOK_UP_TIMEOUT:?}"),
            )),
        }
    }
}
