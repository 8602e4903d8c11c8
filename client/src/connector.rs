//! Opens the connection: TCP, TLS or a Unix socket. Every failure before the
//! first byte of a call is a [`ConnectFailure`], so that nobody takes a server
//! that was never reached for one that may have done something.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::{ClientConfig, Place, ServerCheck};
use crate::error::Error;

/// No connection could be made.
#[derive(Debug)]
pub(crate) struct ConnectFailure {
    what: &'static str,
    source: Box<dyn StdError + Send + Sync>,
}

/// A byte stream to the server: any of the three kinds.
pub(crate) struct BoxedStream(Pin<Box<dyn Duplex>>);

/// What HTTP/2 needs of a stream.
trait Duplex: AsyncRead + AsyncWrite + Send {}

/// Opens connections to one server.
#[derive(Clone)]
pub(crate) struct Connector {
    place: Place,
    tls: Option<Arc<rustls::ClientConfig>>,
    timeout: Duration,
}

impl Connector {
    /// Reads certificates and keys, opens nothing.
    pub(crate) fn new(config: &ClientConfig) -> Result<Self, Error> {
        let tls = match config.endpoint.place() {
            Place::Tls(_) => Some(Arc::new(tls_config(config)?)),
            Place::ClearText(_) | Place::Unix(_) => None,
        };
        Ok(Self {
            place: config.endpoint.place().clone(),
            tls,
            timeout: config.connect_timeout,
        })
    }

    /// Opens one connection within the connect timeout.
    pub(crate) async fn open(self) -> Result<BoxedStream, ConnectFailure> {
        let timeout = self.timeout;
        tokio::time::timeout(timeout, self.dial())
            .await
            .map_err(|_| {
                let late = io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no connection within {timeout:?}"),
                );
                ConnectFailure::new("connecting took too long", late)
            })?
    }

    async fn dial(self) -> Result<BoxedStream, ConnectFailure> {
        match self.place {
            Place::Unix(path) => {
                let stream = tokio::net::UnixStream::connect(&path)
                    .await
                    .map_err(|error| ConnectFailure::new("the socket cannot be opened", error))?;
                Ok(BoxedStream(Box::pin(stream)))
            }
            Place::ClearText(uri) => Ok(BoxedStream(Box::pin(dial_tcp(&uri, 80).await?))),
            Place::Tls(uri) => {
                let name = server_name(&uri)?;
                let stream = dial_tcp(&uri, 443).await?;
                let config = self.tls.expect("made with every TLS endpoint");
                let stream = TlsConnector::from(config)
                    .connect(name, stream)
                    .await
                    .map_err(|error| ConnectFailure::new("the TLS handshake failed", error))?;
                if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                    let error = io::Error::other("the server does not offer HTTP/2");
                    return Err(ConnectFailure::new("the TLS handshake failed", error));
                }
                Ok(BoxedStream(Box::pin(stream)))
            }
        }
    }
}

impl ConnectFailure {
    pub(crate) fn new(
        what: &'static str,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self {
            what,
            source: source.into(),
        }
    }
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The innermost cause is the one that a person can act on.
        let mut cause: &dyn StdError = &*self.source;
        while let Some(next) = cause.source() {
            cause = next;
        }
        write!(f, "{}: {cause}", self.what)
    }
}

impl StdError for ConnectFailure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}

impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

impl AsyncRead for BoxedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for BoxedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_shutdown(cx)
    }
}

/// Resolves the name and tries its addresses, both families side by side.
async fn dial_tcp(uri: &Uri, default_port: u16) -> Result<TcpStream, ConnectFailure> {
    let host = uri.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(default_port);
    let no_connection = |error| ConnectFailure::new("no connection", error);
    let stream = TcpStream::connect((bare, port))
        .await
        .map_err(no_connection)?;
    // It writes as much as it has at once, and waits for nothing.
    stream.set_nodelay(true).map_err(no_connection)?;
    Ok(stream)
}

pub(crate) fn server_name(uri: &Uri) -> Result<ServerName<'static>, ConnectFailure> {
    let host = uri.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(bare.to_owned())
        .map_err(|error| ConnectFailure::new("the host name cannot be checked", error))
}

pub(crate) fn tls_config(config: &ClientConfig) -> Result<rustls::ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| bad_tls("TLS cannot be set up", error))?;
    let builder = match config.server_check {
        ServerCheck::Verify => builder.with_root_certificates(roots(config)?),
        ServerCheck::Skip => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AcceptAny(provider))),
    };
    let mut tls = match &config.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = certificates(&identity.chain_pem, "the client certificate")?;
            let key = PrivateKeyDer::from_pem_slice(&identity.key_pem)
                .map_err(|error| bad_tls("the client key is no PEM private key", error))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| bad_tls("the client certificate and key do not fit", error))?
        }
    };
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(tls)
}

fn roots(config: &ClientConfig) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    match &config.authorities {
        Some(authorities) => {
            for certificate in certificates(&authorities.0, "the certificate authority")? {
                roots
                    .add(certificate)
                    .map_err(|error| bad_tls("a certificate authority is unusable", error))?;
            }
        }
        None => {
            // One unreadable file of the platform does not spoil the others.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(Error::configuration(
            "no certificate authority is known; name one",
        ));
    }
    Ok(roots)
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| bad_tls(&format!("{what} is no PEM certificate"), error))?;
    if found.is_empty() {
        return Err(Error::configuration(format!(
            "{what} holds no PEM certificate"
        )));
    }
    Ok(found)
}

fn bad_tls(what: &str, error: impl StdError + Send + Sync + 'static) -> Error {
    Error::configuration(format!("{what}: {error}")).with_source(error)
}

/// Accepts every certificate, but still checks that the server holds its key.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
