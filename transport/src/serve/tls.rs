//! TLS by rustls, and RFC 7301: which protocol is spoken on it.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::listener::TlsInfo;

/// HTTP/2 over TLS (RFC 9113, section 3.2).
const H2: &[u8] = b"h2";

/// The certificates of a listener, and what else its handshakes need. Clones
/// are the same.
#[derive(Debug, Clone)]
pub struct Tls(Arc<RwLock<Arc<ServerConfig>>>);

impl Tls {
    /// ALPN is `h2` and `http/1.1`, unless the configuration names protocols.
    #[must_use]
    pub fn new(config: Arc<ServerConfig>) -> Self {
        Self(Arc::new(RwLock::new(with_protocols(config))))
    }

    /// Changes the configuration of the handshakes that begin from now on.
    pub fn replace(&self, config: Arc<ServerConfig>) {
        let config = with_protocols(config);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn with_protocols(mut config: Arc<ServerConfig>) -> Arc<ServerConfig> {
    if config.alpn_protocols.is_empty() {
        let protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
        Arc::make_mut(&mut config).alpn_protocols = protocols;
    }
    config
}

/// What the client and the server agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Agreed {
    /// HTTP/2.
    Http2,
    /// HTTP/1.1, or nothing: the first bytes tell.
    Unsaid,
}

/// Why a handshake came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HandshakeError {
    Failed,
    /// What came is no TLS: HTTP in clear text, as it happens.
    ClearText,
    TimedOut,
}

impl HandshakeError {
    fn of(error: &io::Error) -> Self {
        match error.get_ref().and_then(|it| it.downcast_ref()) {
            Some(rustls::Error::InvalidMessage(_)) => Self::ClearText,
            _ => Self::Failed,
        }
    }
}

/// Shakes hands within `time`.
///
/// A client has a place among those in flight from its whole `ClientHello` on:
/// those that say nothing hold up nobody.
pub(super) async fn handshake<I: AsyncRead + AsyncWrite + Unpin>(
    tls: &Tls,
    io: I,
    time: Duration,
    in_flight: &Semaphore,
) -> Result<(TlsStream<I>, Agreed, TlsInfo), HandshakeError> {
    let shaken = async {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), io).await?;
        // The semaphore is never closed.
        let _place = in_flight.acquire().await.map_err(io::Error::other)?;
        hello.into_stream(tls.config()).await
    };
    let stream = match tokio::time::timeout(time, shaken).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(HandshakeError::of(&error)),
        Err(_) => return Err(HandshakeError::TimedOut),
    };
    let (_, session) = stream.get_ref();
    let agreed = match session.alpn_protocol() {
        Some(H2) => Agreed::Http2,
        _ => Agreed::Unsaid,
    };
    let info = TlsInfo {
        peer_certificates: session.peer_certificates().map_or_else(Vec::new, |all| {
            all.iter().map(|each| each.clone().into_owned()).collect()
        }),
        server_name: session.server_name().map(str::to_owned),
        version: session.protocol_version(),
        cipher_suite: session.negotiated_cipher_suite().map(|it| it.suite()),
    };
    Ok((stream, agreed, info))
}
