//! Makes one connection to one address: TCP or a Unix socket, TLS, HTTP/2.

use std::fmt::Display;
use std::io::{Error, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use larder_transport::client::{Closed, Config, Connection};
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::address::{Address, Socket};

/// What connections to a channel's servers have in common.
#[derive(Clone)]
pub(crate) struct Dialer {
    /// By target; `None` for clear text.
    pub(crate) tls: Arc<[Option<Tls>]>,
    pub(crate) config: Config,
    /// For all of it: the socket, TLS and the server's settings.
    pub(crate) timeout: Duration,
}

/// TLS, and the name that the certificate has to have.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) config: Arc<rustls::ClientConfig>,
    pub(crate) name: ServerName<'static>,
}

impl Dialer {
    /// A connection whose server has spoken: one that accepts and stays silent is none.
    pub(crate) async fn dial(&self, address: &Address) -> Result<Connection, Arc<str>> {
        match tokio::time::timeout(self.timeout, self.connect(address)).await {
            Ok(made) => made,
            Err(_) => Err(says(
                address,
                format_args!("no connection within {:?}", self.timeout),
            )),
        }
    }

    async fn connect(&self, address: &Address) -> Result<Connection, Arc<str>> {
        let connection = match &address.socket {
            Socket::Unix(path) => {
                let socket = UnixStream::connect(path)
                    .await
                    .map_err(|error| says(address, error))?;
                start(socket, &self.config)
            }
            Socket::Tcp(socket) => {
                let socket = TcpStream::connect(socket)
                    .await
                    .map_err(|error| says(address, error))?;
                // It writes as much as it has at once, and waits for nothing.
                socket
                    .set_nodelay(true)
                    .map_err(|error| says(address, error))?;
                match self.tls.get(address.target) {
                    Some(Some(tls)) => start(handshake(address, tls, socket).await?, &self.config),
                    _ => start(socket, &self.config),
                }
            }
        };
        let ready = connection.ready().await;
        ready.map_err(|closed| match self.may_be_tls(address, &closed) {
            true => says(
                address,
                format_args!("{closed}; if it speaks TLS, it is https://"),
            ),
            false => says(address, closed),
        })?;
        Ok(connection)
    }

    /// True for what becomes of clear text on a port of TLS: an alert, or an end without
    /// a word.
    fn may_be_tls(&self, address: &Address, closed: &Closed) -> bool {
        let is_clear = !matches!(self.tls.get(address.target), Some(Some(_)));
        let is_tcp = matches!(address.socket, Socket::Tcp(_));
        let is_cut = match closed {
            Closed::Fault(..) => true,
            Closed::Io { kind, .. } => {
                matches!(kind, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)
            }
            _ => false,
        };
        is_clear && is_tcp && is_cut
    }
}

async fn handshake(
    address: &Address,
    tls: &Tls,
    socket: TcpStream,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Arc<str>> {
    let stream = TlsConnector::from(Arc::clone(&tls.config))
        .connect(tls.name.clone(), socket)
        .await
        .map_err(|error| {
            let hint = match may_be_clear_text(&error) {
                true => "; if it speaks clear text, it is http://",
                false => "",
            };
            says(
                address,
                format_args!("the TLS handshake failed: {error}{hint}"),
            )
        })?;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(says(address, "the server does not offer HTTP/2"));
    }
    Ok(stream)
}

/// True for what becomes of TLS on a port of clear text: an answer that is no TLS, or an
/// end without a word.
fn may_be_clear_text(error: &Error) -> bool {
    let inner = error.get_ref().and_then(|it| it.downcast_ref());
    match inner {
        Some(rustls::Error::InvalidMessage(_)) => true,
        Some(_) => false,
        None => matches!(
            error.kind(),
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
        ),
    }
}

fn start<I>(io: I, config: &Config) -> Connection
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (connection, driver) = Connection::start(io, config.clone());
    tokio::spawn(driver);
    connection
}

fn says(address: &Address, why: impl Display) -> Arc<str> {
    format!("{address}: {why}").into()
}
