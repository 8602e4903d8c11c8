//! Connections that have made no request yet.

use tokio::io::DuplexStream;

use super::super::unproven::{Fate, Pool, Unproven, Verdict};
use super::super::workers::http2;
use super::*;
use crate::stats::Counter;

#[test]
fn one_too_many_closes_the_oldest() {
    let pool = Pool::new(2);
    let mut members: Vec<_> = (0..2).map(|_| pool.enter()).collect();
    let verdict = |receiver: &mut tokio::sync::oneshot::Receiver<Verdict>| receiver.try_recv().ok();
    members[0].0.proven();
    assert_eq!(verdict(&mut members[0].1), Some(Verdict::Proven));
    members.push(pool.enter());
    assert_eq!(verdict(&mut members[1].1), None);
    members.push(pool.enter());
    assert_eq!(verdict(&mut members[1].1), Some(Verdict::Evicted));
    // Whoever has ended makes room, too.
    drop(members.remove(2));
    members.push(pool.enter());
    assert_eq!(verdict(&mut members[2].1), None);
    // Too late, and without effect.
    members[1].0.proven();
    assert!(members[1].0.is_proven());
    assert_eq!(verdict(&mut members[3].1), None);
}

#[tokio::test]
async fn the_silent_share_a_pool_and_the_proven_do_not() {
    let config = Config {
        max_unproven_connections: 2,
        ..Config::default()
    };
    let (running, address, _) = started(config);
    let evicted = || running.stats().of(Counter::UnprovenEvicted);
    let mut clients = Vec::new();
    for _ in 0..5 {
        let client = connected(address).await;
        call(&client, "Echo", b"").await.unwrap();
        clients.push(client);
    }
    let mut http1 = TcpStream::connect(address).await.unwrap();
    http1.write_all(b"GET / HTTP/1.1").await.unwrap();
    let mut back = [0; 14];
    http1.read_exact(&mut back).await.unwrap();
    // One that says nothing, one in HTTP/2, one in HTTP/1.1.
    let mut silent = TcpStream::connect(address).await.unwrap();
    until(|| running.stats().of(Counter::Accepted) == 7).await;
    let greeted = connected(address).await;
    until(|| running.stats().of(Counter::Accepted) == 8).await;
    assert_eq!(evicted(), 0);
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(b"GET /").await.unwrap();
    let mut nothing = Vec::new();
    let _ = soon(silent.read_to_end(&mut nothing)).await;
    until(|| evicted() == 1).await;
    until(|| running.stats().of(Counter::Http1) == 2).await;
    let _two = TcpStream::connect(address).await.unwrap();
    until(|| evicted() == 2).await;
    assert!(call(&greeted, "Echo", b"").await.is_err());
    let _three = TcpStream::connect(address).await.unwrap();
    let _ = soon(half.read_to_end(&mut nothing)).await;
    assert!(nothing.is_empty());
    until(|| evicted() == 3).await;
    call(&clients[0], "Echo", b"").await.unwrap();
    http1.write_all(b"!").await.unwrap();
    http1.read_exact(&mut back[..1]).await.unwrap();
    running.abort();
}

/// A connection of HTTP/2 as a thread serves it; ends with it.
fn served(limits: Limits) -> (DuplexStream, Methods, tokio::task::JoinHandle<Arc<Shared>>) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let methods = Methods::default();
    let rpc = Rpc::new(methods.clone(), Mirror);
    let now = tokio::time::Instant::now().into_std();
    let (first_request, server) = (limits.times.first_request, shared());
    let limits = Arc::new(limits.in_range());
    let connection = Connection::new(rpc, limits, Arc::clone(&server), now, 0);
    let task = tokio::spawn(async move {
        let (_course, courses) = watch::channel(Course::Serving);
        let driver = Driver::new(far, connection, Vec::new(), courses);
        let (proof, verdict) = Pool::new(1).enter();
        http2(driver, proof, Unproven::new(verdict, first_request)).await;
        server
    });
    (near, methods, task)
}

#[tokio::test(start_paused = true)]
async fn a_first_request_comes_in_time_or_never() {
    let start = tokio::time::Instant::now();
    let (near, _, task) = served(Limits::default());
    let client = greeted(near).await;
    let mut client = client.ready().await.unwrap();
    // The head alone proves nothing.
    let (response, _body) = client.send_request(request("Echo"), false).unwrap();
    let stats = task.await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 10);
    assert_eq!(stats.stats().of(Counter::FirstRequest), 1);
    assert!(response.await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_complete_proves_a_connection_also_while_it_waits() {
    let (near, methods, task) = served(Limits::default());
    let client = greeted(near).await;
    let late = tokio::spawn(async move { call(&client, "Later", b"late").await });
    tokio::time::sleep(Duration::from_secs(50)).await;
    methods.gate.open();
    assert_eq!(late.await.unwrap().unwrap().content, prefixed(b"late"));
    let server = task.await.unwrap();
    assert_eq!(server.stats().of(Counter::FirstRequest), 0);
}

#[tokio::test(start_paused = true)]
async fn a_proof_that_is_dropped_leaves_the_time() {
    let (proof, verdict) = Pool::new(1).enter();
    let mut unproven = Unproven::new(verdict, Duration::from_secs(10));
    let start = tokio::time::Instant::now();
    drop(proof);
    let fate = std::future::poll_fn(|cx| unproven.poll(cx)).await;
    assert_eq!((fate, start.elapsed().as_secs()), (Fate::TooLate, 10));
}

#[tokio::test]
async fn http1_without_a_request_is_closed_in_time() {
    let mut config = Config::default();
    config.limits.times.first_request = Duration::from_millis(20);
    let (running, address, _) = started(config);
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(b"GET /").await.unwrap();
    let mut nothing = Vec::new();
    let _ = soon(half.read_to_end(&mut nothing)).await;
    assert!(nothing.is_empty());
    until(|| running.stats().of(Counter::FirstRequest) == 1).await;
    running.abort();
}
