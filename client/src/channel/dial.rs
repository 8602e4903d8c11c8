//! Makes one connection to one address: TCP or a Unix socket, TLS, HTTP/2.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use larder_transport::client::{Config, Connection};
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
        connection
            .ready()
            .await
            .map_err(|closed| says(address, closed))?;
        Ok(connection)
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
        .map_err(|error| says(address, format_args!("the TLS handshake failed: {error}")))?;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(says(address, "the server does not offer HTTP/2"));
    }
    Ok(stream)
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
