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
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tower::Service;

use crate::config::{ClientConfig, Place, ServerCheck};
use crate::error::Error;

/// No connection could be made.
#[derive(Debug)]
pub(crate) struct ConnectFailure {
    what: &'static str,
    source: Box<dyn StdError + Send + Sync>,
}

/// A byte stream to the server.
pub(crate) type Stream = TokioIo<BoxedStream>;

/// Any of the three kinds of stream.
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

    /// What stands in `:authority`, and in front of every path.
    pub(crate) fn base_uri(&self) -> Uri {
        match &self.place {
            Place::ClearText(uri) | Place::Tls(uri) => uri.clone(),
            // A socket has no name; servers take this one as loopback.
            Place::Unix(_) => Uri::from_static("http://localhost"),
        }
    }

    /// Opens one connection within the connect timeout.
    pub(crate) async fn open(self) -> Result<Stream, ConnectFailure> {
        let timeout = self.timeout;
        let stream = tokio::time::timeout(timeout, self.dial())
            .await
            .map_err(|_| {
                let late = io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no connection within {timeout:?}"),
                );
                ConnectFailure::new("connecting took too long", late)
            })??;
        Ok(TokioIo::new(stream))
    }

    async fn dial(self) -> Result<BoxedStream, ConnectFailure> {
        match self.place {
            Place::Unix(path) => {
                let stream = tokio::net::UnixStream::connect(&path)
                    .await
                    .map_err(|error| ConnectFailure::new("the socket cannot be opened", error))?;
                Ok(BoxedStream(Box::pin(stream)))
            }
            Place::ClearText(uri) => Ok(BoxedStream(Box::pin(dial_tcp(uri).await?))),
            Place::Tls(uri) => {
                let name = server_name(&uri)?;
                let stream = dial_tcp(uri).await?;
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
    fn new(what: &'static str, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
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

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.as_mut().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

/// Resolves the name and tries its addresses, both families side by side.
async fn dial_tcp(uri: Uri) -> Result<tokio::net::TcpStream, ConnectFailure> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.enforce_http(false);
    std::future::poll_fn(|cx| connector.poll_ready(cx))
        .await
        .map_err(|error| ConnectFailure::new("no connection", error))?;
    let stream = connector
        .call(uri)
        .await
        .map_err(|error| ConnectFailure::new("no connection", error))?;
    Ok(stream.into_inner())
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
