//! The whole server, on loopback.

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::abuse::Abuse;
use crate::frame::{PREFACE, write_ping, write_settings};

#[derive(Default)]
struct Service {
    methods: Methods,
    /// Which threads had connections.
    threads: Mutex<Vec<String>>,
}

impl Serve for Service {
    type Handler = Methods;
    type General = Mirror;

    fn connection(&self, _: SocketAddr) -> Rpc<Methods, Mirror> {
        let thread = std::thread::current().name().unwrap().to_owned();
        self.threads.lock().unwrap().push(thread);
        Rpc::new(self.methods.clone(), Mirror)
    }

    fn http1(
        &self,
        mut io: Rewind<TcpStream>,
        _: SocketAddr,
        _: watch::Receiver<bool>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let mut line = [0; 14];
            io.read_exact(&mut line).await.unwrap();
            io.write_all(&line).await.unwrap();
        })
    }
}

fn started(config: Config) -> (Running, SocketAddr, Arc<Service>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let service = Arc::new(Service::default());
    let running = serve(vec![listener], &service, config).unwrap();
    (running, address, service)
}

async fn connected(address: SocketAddr) -> SendRequest<Bytes> {
    let io = TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(io).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Waits for what other threads do.
async fn until(condition: impl Fn() -> bool) {
    let waited = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waited)
        .await
        .unwrap();
}

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
    let threads = service.threads.lock().unwrap().clone();
    for number in 0..3 {
        let name = format!("rpc-{number}");
        let count = threads.iter().filter(|thread| **thread == name).count();
        assert_eq!(count, 4, "{threads:?}");
    }
    assert_eq!(running.stats().accepted.load(Ordering::Relaxed), 12);
    running.drain();
    // Clients that are told so close their connections.
    let joined = tokio::task::spawn_blocking(move || running.join());
    tokio::time::timeout(Duration::from_secs(20), joined)
        .await
        .unwrap()
        .unwrap();
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
        // It may be reset instead of closed.
        let _ = io.read_to_end(&mut back).await;
        back
    };
    assert_eq!(speak(b"GET / HTTP/1.1").await, b"GET / HTTP/1.1");
    assert_eq!(speak(b"POST / HTTP/1.").await, b"POST / HTTP/1.");
    assert_eq!(speak(b"PRI * HTTP/1.1").await, b"");
    assert_eq!(speak(b"\x16\x03\x01\x02").await, b"");
    assert_eq!(running.stats().http1.load(Ordering::Relaxed), 2);
    running.drain();
}

#[tokio::test]
async fn the_silent_share_a_pool_and_the_proven_do_not() {
    let config = Config {
        max_unproven_connections: 2,
        ..Config::default()
    };
    let (running, address, _) = started(config);
    let mut clients = Vec::new();
    for _ in 0..5 {
        let client = connected(address).await;
        call(&client, "Echo", b"").await.unwrap();
        clients.push(client);
    }
    let _one = TcpStream::connect(address).await.unwrap();
    let _two = TcpStream::connect(address).await.unwrap();
    until(|| running.stats().accepted.load(Ordering::Relaxed) == 7).await;
    let mut three = TcpStream::connect(address).await.unwrap();
    let mut nothing = Vec::new();
    let _ = three.read_to_end(&mut nothing).await;
    assert!(nothing.is_empty());
    until(|| running.stats().refused.load(Ordering::Relaxed) == 1).await;
    call(&clients[0], "Echo", b"").await.unwrap();
    running.drain();
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
    assert_eq!(running.stats().failed.load(Ordering::Relaxed), 1);
    running.drain();
}
