//! TLS, with rustls as the client.

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::tls::{Agreed, HandshakeError, handshake};
use super::*;
use crate::stats::Counter;

const AUTHORITY: &[u8] = include_bytes!("certificates/authority.pem");
const SERVER: &[u8] = include_bytes!("certificates/server.pem");
const OTHER: &[u8] = include_bytes!("certificates/other.pem");
const CLIENT: &[u8] = include_bytes!("certificates/client.pem");

fn certificate(pem: &[u8]) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem).unwrap()
}

fn key(pem: &[u8]) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(pem).unwrap()
}

fn roots() -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(AUTHORITY)).unwrap();
    Arc::new(roots)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A server that asks for a certificate, and does not insist.
fn server_config(pem: &[u8]) -> Arc<ServerConfig> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(), provider())
        .allow_unauthenticated()
        .build()
        .unwrap();
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate(pem)], key(pem))
        .unwrap();
    Arc::new(config)
}

/// A client that offers a protocol, and has a certificate or none.
fn connector(protocol: Option<&str>, pem: Option<&[u8]>) -> TlsConnector {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots());
    let mut config = match pem {
        Some(pem) => builder
            .with_client_auth_cert(vec![certificate(pem)], key(pem))
            .unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocol
        .map(|name| name.as_bytes().to_vec())
        .into_iter()
        .collect();
    TlsConnector::from(Arc::new(config))
}

fn host() -> ServerName<'static> {
    ServerName::try_from("host").unwrap()
}

async fn shaken(address: SocketAddr, connector: TlsConnector) -> TlsStream<TcpStream> {
    let io = TcpStream::connect(address).await.unwrap();
    soon(connector.connect(host(), io)).await.unwrap()
}

/// A server of TLS on TCP.
fn started_with_tls(config: Config) -> (Running, SocketAddr, Arc<Service>, Tls) {
    let (listener, address) = listening();
    let service = Arc::new(Service::default());
    let tls = Tls::new(server_config(SERVER));
    let listener = Listener::from(listener).with_tls(tls.clone());
    let running = serve(vec![listener], &service, config).unwrap();
    (running, address, service, tls)
}

#[tokio::test]
async fn http2_and_http1_are_served_over_tls() {
    let (running, address, service, _) = started_with_tls(Config::default());
    let large = vec![7; 3 << 20];
    // Agreed on, or known by its preface.
    for protocol in [Some("h2"), None] {
        let client = greeted(shaken(address, connector(protocol, None)).await).await;
        for message in [&b"abc"[..], &large] {
            let answer = soon(call(&client, "Echo", message)).await.unwrap();
            assert_eq!(answer.content, prefixed(message));
        }
        let answer = soon(call(&client, "Stream", &[200, 100])).await.unwrap();
        assert_eq!(answer.content.len(), 200 * 10_005);
    }
    for protocol in [Some("http/1.1"), None] {
        let mut io = shaken(address, connector(protocol, None)).await;
        io.write_all(b"GET / HTTP/1.1").await.unwrap();
        let mut back = [0; 14];
        soon(io.read_exact(&mut back)).await.unwrap();
        assert_eq!(&back, b"GET / HTTP/1.1");
        io.shutdown().await.unwrap();
        // The server answers `close_notify` in kind: else this is an error.
        assert_eq!(soon(io.read(&mut back)).await.unwrap(), 0);
    }
    let who = service.http1.lock().unwrap()[0].clone();
    let tls = who.tls.unwrap();
    assert_eq!(tls.server_name.as_deref(), Some("host"));
    assert_eq!(tls.version, Some(rustls::ProtocolVersion::TLSv1_3));
    assert!(matches!(who.peer, Peer::Tcp(_)));
    running.drain();
    soon(running.ended()).await;
}

#[tokio::test]
async fn what_was_agreed_on_is_to_be_spoken() {
    let (running, address, service, _) = started_with_tls(Config::default());
    let mut io = shaken(address, connector(Some("h2"), None)).await;
    io.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut back = Vec::new();
    soon(io.read_to_end(&mut back)).await.unwrap();
    assert!(back.ends_with(b"a wrong connection preface"));
    assert!(service.http1.lock().unwrap().is_empty());
    assert_eq!(running.stats().of(Counter::Failed), 1);
    // Nothing in common.
    let io = TcpStream::connect(address).await.unwrap();
    let refused = connector(Some("spdy/3"), None).connect(host(), io);
    assert!(soon(refused).await.is_err());
    // No TLS at all.
    let mut io = TcpStream::connect(address).await.unwrap();
    io.write_all(crate::frame::PREFACE).await.unwrap();
    // It may be reset instead of closed.
    let _ = soon(io.read_to_end(&mut back)).await;
    until(|| running.stats().of(Counter::HandshakesFailed) == 2).await;
    assert_eq!(running.stats().of(Counter::HandshakesClearText), 1);
    running.drain();
}

#[tokio::test]
async fn a_clients_certificate_is_shown_to_the_service() {
    let (running, address, service, _) = started_with_tls(Config::default());
    for pem in [Some(CLIENT), None] {
        let client = greeted(shaken(address, connector(Some("h2"), pem)).await).await;
        soon(call(&client, "Echo", b"")).await.unwrap();
        let (_, who) = service.connections.lock().unwrap().pop().unwrap();
        let expected: Vec<_> = pem.into_iter().map(certificate).collect();
        assert_eq!(who.tls.unwrap().peer_certificates, expected);
    }
    running.drain();
}

#[tokio::test]
async fn certificates_are_replaced_for_later_handshakes() {
    let (running, address, _, tls) = started_with_tls(Config::default());
    let shown = |io: &TlsStream<TcpStream>| io.get_ref().1.peer_certificates().unwrap()[0].clone();
    let before = shaken(address, connector(Some("h2"), None)).await;
    assert_eq!(shown(&before), certificate(SERVER));
    tls.replace(server_config(OTHER));
    let after = shaken(address, connector(Some("h2"), None)).await;
    assert_eq!(shown(&after), certificate(OTHER));
    for io in [before, after] {
        let client = greeted(io).await;
        soon(call(&client, "Echo", b"")).await.unwrap();
    }
    running.drain();
}

#[tokio::test]
async fn the_protocols_that_a_configuration_names_are_kept() {
    let mut config = ServerConfig::clone(&server_config(SERVER));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let tls = Tls::new(Arc::new(config));
    let check = async |tls: &Tls, protocol: &str, expected: Result<Agreed, HandshakeError>| {
        let (near, far) = tokio::io::duplex(1 << 16);
        let connector = connector(Some(protocol), None);
        let client = tokio::spawn(connector.connect(host(), near));
        let places = Semaphore::new(1);
        let done = handshake(tls, far, Duration::from_secs(10), &places).await;
        assert_eq!(done.map(|(_, agreed, _)| agreed), expected, "{protocol}");
        assert_eq!(places.available_permits(), 1);
        assert_eq!(client.await.unwrap().is_ok(), expected.is_ok());
    };
    check(&tls, "http/1.1", Ok(Agreed::Unsaid)).await;
    check(&tls, "h2", Err(HandshakeError::Failed)).await;
    tls.replace(server_config(SERVER));
    check(&tls, "h2", Ok(Agreed::Http2)).await;
    check(&tls, "http/1.1", Ok(Agreed::Unsaid)).await;
}

#[tokio::test(start_paused = true)]
async fn a_handshake_has_its_time() {
    let tls = Tls::new(server_config(SERVER));
    let places = Semaphore::new(1);
    let time = Duration::from_secs(10);
    // Nothing, or the beginning of a `ClientHello`.
    for bytes in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00"] {
        let (mut near, far) = tokio::io::duplex(1 << 16);
        near.write_all(bytes).await.unwrap();
        let start = tokio::time::Instant::now();
        let done = handshake(&tls, far, time, &places).await;
        assert_eq!(done.err(), Some(HandshakeError::TimedOut));
        assert_eq!(start.elapsed().as_secs(), 10);
    }
    // Clear text.
    for bytes in [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\n",
    ] {
        let (mut near, far) = tokio::io::duplex(1 << 16);
        near.write_all(bytes).await.unwrap();
        let done = handshake(&tls, far, time, &places).await;
        assert_eq!(done.err(), Some(HandshakeError::ClearText));
    }
    // A client that leaves.
    let (near, far) = tokio::io::duplex(1 << 16);
    drop(near);
    let done = handshake(&tls, far, time, &places).await;
    assert_eq!(done.err(), Some(HandshakeError::Failed));
}

#[tokio::test(start_paused = true)]
async fn handshakes_wait_for_a_place_and_the_silent_take_none() {
    let tls = Tls::new(server_config(SERVER));
    let places = Arc::new(Semaphore::new(1));
    let silent = tokio::io::duplex(1 << 16);
    let (near, far) = tokio::io::duplex(1 << 16);
    let shake = |io| {
        let (tls, places) = (tls.clone(), Arc::clone(&places));
        tokio::spawn(async move {
            let done = handshake(&tls, io, Duration::from_secs(10), &places).await;
            done.map(|(_, agreed, _)| agreed)
        })
    };
    let first = shake(silent.1);
    let place = places.acquire().await.unwrap();
    let second = shake(far);
    let client = tokio::spawn(connector(Some("h2"), None).connect(host(), near));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!client.is_finished() && !second.is_finished());
    drop(place);
    assert_eq!(second.await.unwrap(), Ok(Agreed::Http2));
    assert!(client.await.unwrap().is_ok());
    assert_eq!(first.await.unwrap(), Err(HandshakeError::TimedOut));
}

#[tokio::test]
async fn a_connection_that_is_drained_ends_with_close_notify() {
    let (running, address, _, _) = started_with_tls(Config::default());
    let mut io = shaken(address, connector(Some("h2"), None)).await;
    let mut greeting = crate::frame::PREFACE.to_vec();
    crate::frame::write_settings(&mut greeting, &[]);
    io.write_all(&greeting).await.unwrap();
    let mut some = [0; 9];
    io.read_exact(&mut some).await.unwrap();
    running.drain();
    let mut all = Vec::new();
    // An end without `close_notify` is an error.
    soon(io.read_to_end(&mut all)).await.unwrap();
    drop(io);
    soon(running.ended()).await;
}
