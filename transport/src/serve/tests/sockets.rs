//! The whole server, on loopback.

use tokio::net::UnixStream;

use super::*;
use crate::abuse::Abuse;
use crate::frame::{PREFACE, write_ping, write_settings};
use crate::stats::Counter;

#[tokio::test]
async fn connections_are_spread_evenly_and_drained() {
    let config = Config {
        threads: 3,
        ..Config::default()
    };
    let (running, address, service) = started(config);
    let mut clients = Vec::new();
    for number in 0..12_u8 {
        let client = connected(address).await;
        let answer = call(&client, "Echo", &[number]).await.unwrap();
        assert_eq!(answer.content, prefixed(&[number]));
        clients.push(client);
    }
    let threads: Vec<String> = service
        .connections
        .lock()
        .unwrap()
        .iter()
        .map(|(thread, _)| thread.clone())
        .collect();
    for number in 0..3 {
        let name = format!("rpc-{number}");
        let count = threads.iter().filter(|thread| **thread == name).count();
        assert_eq!(count, 4, "{threads:?}");
    }
    assert_eq!(running.stats().of(Counter::Accepted), 12);
    running.drain();
    // Clients that are told so close their connections.
    soon(running.ended()).await;
    let joined = tokio::task::spawn_blocking(move || running.join());
    soon(joined).await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn http1_is_handed_over_with_all_its_bytes_and_nothing_else_is() {
    let (running, address, _) = started(Config::default());
    let speak = async |words: &[u8]| {
        let mut io = TcpStream::connect(address).await.unwrap();
        for byte in words {
            if io.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
        let mut back = Vec::new();
        // It may be closed already.
        let _ = io.shutdown().await;
        // It may be reset instead of closed.
        let _ = io.read_to_end(&mut back).await;
        back
    };
    assert_eq!(speak(b"GET / HTTP/1.1").await, b"GET / HTTP/1.1");
    assert_eq!(speak(b"POST / HTTP/1.").await, b"POST / HTTP/1.");
    assert_eq!(speak(b"PRI * HTTP/1.1").await, b"");
    assert_eq!(speak(b"\x16\x03\x01\x02").await, b"");
    assert_eq!(running.stats().of(Counter::Http1), 2);
    running.drain();
}

#[tokio::test]
async fn unix_sockets_are_served_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let (tcp, address) = listening();
    let service = Arc::new(Service::default());
    let listeners = vec![unix.into(), tcp.into()];
    let running = serve(listeners, &service, Config::default()).unwrap();
    let on_unix = greeted(UnixStream::connect(&path).await.unwrap()).await;
    let on_tcp = connected(address).await;
    let large = vec![7; 1 << 20];
    for client in [&on_unix, &on_tcp] {
        let answer = soon(call(client, "Echo", &large)).await.unwrap();
        assert_eq!(answer.content, prefixed(&large));
    }
    let mut http1 = UnixStream::connect(&path).await.unwrap();
    http1.write_all(b"GET / HTTP/1.1").await.unwrap();
    let mut back = [0; 14];
    http1.read_exact(&mut back).await.unwrap();
    let connections = service.connections.lock().unwrap().clone();
    let is_unix = |(_, who): &&(String, ConnectionInfo)| who.peer == Peer::Unix;
    assert_eq!(connections.len(), 2);
    assert_eq!(connections.iter().filter(is_unix).count(), 1);
    assert_eq!(service.http1.lock().unwrap()[0].peer, Peer::Unix);
    drop(http1);
    running.drain();
    soon(running.ended()).await;
    assert!(UnixStream::connect(&path).await.is_err());
}

#[tokio::test]
async fn a_flood_is_told_why_and_counted() {
    let (running, address, _) = started(Config::default());
    let mut io = TcpStream::connect(address).await.unwrap();
    let mut flood = PREFACE.to_vec();
    write_settings(&mut flood, &[]);
    for _ in 0..3000 {
        write_ping(&mut flood, 0, [0; 8]);
    }
    io.write_all(&flood).await.unwrap();
    let mut back = Vec::new();
    io.read_to_end(&mut back).await.unwrap();
    assert!(back.ends_with(b"\0\0\0\x0bpings"));
    until(|| running.stats().abuse(Abuse::Pings) == 1).await;
    assert_eq!(running.stats().of(Counter::Failed), 1);
    running.drain();
}

/// The `MAX_CONCURRENT_STREAMS` that a new connection is told; SETTINGS comes first (RFC 9113,
/// section 3.4).
async fn told_max_streams(address: SocketAddr) -> u32 {
    let mut io = TcpStream::connect(address).await.unwrap();
    let mut hello = PREFACE.to_vec();
    write_settings(&mut hello, &[]);
    io.write_all(&hello).await.unwrap();
    let mut head = [0; 9];
    io.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], 4, "SETTINGS");
    let mut settings = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    io.read_exact(&mut settings).await.unwrap();
    let setting = settings.chunks(6).find(|setting| setting[..2] == [0, 3]);
    u32::from_be_bytes(setting.unwrap()[2..].try_into().unwrap())
}

#[tokio::test]
async fn new_limits_are_those_of_connections_that_begin_then() {
    let (running, address, _) = started(Config::default());
    let limits = Limits {
        max_concurrent_streams: 7,
        ..Limits::default()
    };
    let client = connected(address).await;
    assert_ne!(told_max_streams(address).await, 7);
    running.set_limits(&limits);
    assert_eq!(told_max_streams(address).await, 7);
    // The one that was there goes on.
    let answer = soon(call(&client, "Echo", b"x")).await.unwrap();
    assert_eq!(answer.content, prefixed(b"x"));
    running.drain();
}
