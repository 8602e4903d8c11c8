//! Where a server is and how it is to be trusted, for a client with a transport
//! of its own.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::ServerName;

use crate::config::ClientConfig;
use crate::endpoint::Place;
use crate::error::Error;
use crate::tls::{server_name, tls_config};

/// What a [`ClientConfig`] comes to: an address, and the TLS to speak to it.
#[derive(Debug, Clone)]
pub struct Route {
    /// Where to connect to.
    pub target: Target,
    /// TLS with ALPN `h2`, and the name that the certificate has to have; `None`
    /// for clear text.
    pub tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    /// What stands in `:authority`.
    pub authority: String,
}

/// An address before any name is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A host name or address, and a port.
    Tcp(String, u16),
    /// The path of a socket.
    Unix(PathBuf),
}

impl ClientConfig {
    /// Reads certificates and keys, and opens nothing. Of several servers it is
    /// the way to the first.
    ///
    /// # Errors
    /// A certificate, a key or a host name that cannot be used, or a token that
    /// would go over clear text to another machine.
    pub fn route(&self) -> Result<Route, Error> {
        self.check()?;
        let (host, port) = self.endpoint.host_and_port().unwrap_or_default();
        let uri = match self.endpoint.place() {
            Place::Unix(path) => {
                return Ok(Route {
                    target: Target::Unix(path.clone()),
                    tls: None,
                    // A socket has no name; servers take this one as loopback.
                    authority: "localhost".into(),
                });
            }
            Place::ClearText(uri) | Place::Tls(uri) => uri,
        };
        let tls = match self.endpoint.place() {
            Place::Tls(uri) => {
                let name = server_name(uri)?;
                Some((Arc::new(tls_config(self)?), name))
            }
            Place::ClearText(_) | Place::Unix(_) => None,
        };
        Ok(Route {
            target: Target::Tcp(host.to_owned(), port),
            tls,
            authority: uri
                .authority()
                .map_or_else(|| host.to_owned(), ToString::to_string),
        })
    }
}
