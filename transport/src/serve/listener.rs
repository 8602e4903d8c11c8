//! Where connections come from, and who they say they are.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::tls::Tls;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// It has an address.
    Tcp(SocketAddr),
    /// A process of this machine, on a Unix socket.
    Unix,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// What is known of a connection before its first request.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// The other end.
    pub peer: Peer,
    /// What its handshake came to. `None`: it speaks clear text.
    pub tls: Option<Arc<TlsInfo>>,
}

/// What a TLS handshake came to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TlsInfo {
    /// The client's certificate and those above it, verified as the
    /// configuration says. Empty if it gave none.
    pub peer_certificates: Vec<CertificateDer<'static>>,
    /// The name by which the client called the server (RFC 6066, section 3).
    pub server_name: Option<String>,
    /// The version of TLS.
    pub version: Option<rustls::ProtocolVersion>,
    /// What it is encrypted with.
    pub cipher_suite: Option<rustls::CipherSuite>,
}

/// A bound socket to take connections from, and what they speak under HTTP.
#[derive(Debug)]
pub struct Listener {
    pub(super) socket: Bound,
    pub(super) tls: Option<Tls>,
}

#[derive(Debug)]
pub(super) enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// The same, with TLS on each connection.
    #[must_use]
    pub fn with_tls(self, tls: Tls) -> Self {
        Self {
            tls: Some(tls),
            ..self
        }
    }
}

impl From<TcpListener> for Listener {
    /// Clear text on TCP.
    fn from(listener: TcpListener) -> Self {
        Self {
            socket: Bound::Tcp(listener),
            tls: None,
        }
    }
}

impl From<UnixListener> for Listener {
    /// Clear text on a Unix socket. Its file stays when the server ends.
    fn from(listener: UnixListener) -> Self {
        Self {
            socket: Bound::Unix(listener),
            tls: None,
        }
    }
}
