//! What comes out of the proxy for what goes in, with each fault.

#![allow(clippy::unwrap_used, reason = "in a test, a surprise is a failure")]

use std::io::ErrorKind;
use std::net::SocketAddr;

use larder_faults::{Proxy, Schedule};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A server that sends back what it reads.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                // A client that was reset is no matter here.
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    });
    address
}

/// Sends 1,000 bytes under a plan, and returns what came back and how it ended.
async fn exchange(plan: &str) -> (Vec<u8>, Result<(), ErrorKind>) {
    let schedule = Schedule::Scripted(vec![plan.parse().unwrap()]);
    let any = "127.0.0.1:0".parse().unwrap();
    let proxy = Proxy::start(any, echo().await, schedule).await.unwrap();
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    let (mut from, mut to) = stream.split();
    let send = async {
        // The proxy may be gone before it has read all.
        let _ = to.write_all(&[b'x'; 1000]).await;
        let _ = to.shutdown().await;
    };
    let receive = async {
        let mut received = Vec::new();
        let mut piece = [0; 256];
        loop {
            match from.read(&mut piece).await {
                Ok(0) => return (received, Ok(())),
                Ok(read) => received.extend_from_slice(&piece[..read]),
                Err(error) => return (received, Err(error.kind())),
            }
        }
    };
    tokio::join!(send, receive).1
}

#[tokio::test]
async fn each_fault_does_what_it_says() {
    let check = async |plan: &str, bytes: usize, end: Result<(), ErrorKind>| {
        let (received, ended) = exchange(plan).await;
        assert_eq!((received.len(), ended), (bytes, end), "{plan}");
        assert!(received.iter().all(|byte| *byte == b'x'), "{plan}");
    };
    check("", 1000, Ok(())).await;
    check("up:bytewise,down:bytewise", 1000, Ok(())).await;
    check("up:delay=1ms,down:rate=100000", 1000, Ok(())).await;
    check("up:close=300", 300, Ok(())).await;
    check("down:close=0", 0, Ok(())).await;
    check("down:close=300", 300, Ok(())).await;
    check("up:reset=0", 0, Err(ErrorKind::ConnectionReset)).await;
}

#[tokio::test]
async fn a_reset_lets_no_more_through_than_it_says() {
    let (received, ended) = exchange("down:reset=300").await;
    // What was on its way may be lost with the reset.
    assert!(received.len() <= 300, "{}", received.len());
    assert_eq!(ended, Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_corrupted_byte_is_another_one() {
    let (received, ended) = exchange("down:corrupt=500,up:bytewise").await;
    assert_eq!(ended, Ok(()));
    let wrong: Vec<_> = (0..received.len())
        .filter(|at| received[*at] != b'x')
        .collect();
    assert_eq!((received.len(), wrong), (1000, vec![500]));
}

#[tokio::test]
async fn a_black_hole_says_nothing_and_ends_with_the_proxy() {
    let schedule = Schedule::Scripted(vec!["up:blackhole=10".parse().unwrap()]);
    let any = "127.0.0.1:0".parse().unwrap();
    let proxy = Proxy::start(any, echo().await, schedule).await.unwrap();
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    stream.write_all(&[b'x'; 20]).await.unwrap();
    let mut received = [0; 10];
    stream.read_exact(&mut received).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(proxy);
    let more = stream.read(&mut received).await;
    assert!(!matches!(more, Ok(1..)), "{more:?}");
    // The next connection of a script that is used up is left alone.
    assert_eq!(exchange("").await.0.len(), 1000);
}
