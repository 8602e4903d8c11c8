//! Against servers: this crate's own, and the `h2` crate's.

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::*;
use crate::limits::Limits;
use crate::rpc::Rpc;
use crate::serve::{Course, Driver as Serving};
use crate::testing::service::{Methods, Mirror};
use crate::testing::{Random, shared};

fn method(name: &str) -> RequestHead {
    RequestHead::new(Scheme::Http, "host", &format!("/t.T/{name}")).unwrap()
}

/// Calls that overlap, of all sizes, some of them taken back, through pipes of random
/// width and windows of random size.
async fn conversation(seed: u64) {
    let mut random = Random::new(seed);
    let width = [1 + random.below(50), 1 + random.below(5000), 100_000][random.below(3)];
    let (near, far) = tokio::io::duplex(width);
    let methods = Methods::default();
    let gate = methods.gate.clone();
    let limits = Limits {
        stream_window_bytes: [65_535, 1 << 20][random.below(2)],
        connection_window_bytes: [65_535, 1 << 20][random.below(2)],
        max_concurrent_streams: [3, 100][random.below(2)],
        ..Limits::default()
    };
    let start = now();
    let server = crate::connection::Connection::new(
        Rpc::new(methods, Mirror),
        Arc::new(limits.in_range()),
        shared(),
        start,
        0,
    );
    let (_drain, drained) = watch::channel(Course::Serving);
    let served = tokio::spawn(Serving::new(far, server, Vec::new(), drained));
    let config = Config {
        stream_window_bytes: [65_535, 1 << 20][random.below(2)],
        connection_window_bytes: [65_535, 1 << 20][random.below(2)],
        ..Config::default()
    };
    let (connection, driver) = Connection::start(near, config);
    let driven = tokio::spawn(driver);
    let mut calls = JoinSet::new();
    for _ in 0..40 {
        let connection = connection.clone();
        let random = Random::new(random.next());
        calls.spawn(one_call(connection, random));
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    gate.open();
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
    assert_eq!(connection.0.shared.lock().calls.held(), 0, "seed {seed}");
    connection.drain();
    assert_eq!(driven.await.unwrap(), Closed::Drained, "seed {seed}");
    assert_eq!(served.await.unwrap(), None, "seed {seed}");
}

async fn one_call(connection: Connection, mut random: Random) {
    let most = [20, 5000, 40_000][random.below(3)];
    let length = random.below(most);
    let message = random.bytes(length);
    let write = |out: &mut Vec<u8>| out.extend_from_slice(&message);
    let taken_back = random.below(6) == 0;
    match random.below(4) {
        kind @ 0..3 => {
            let name = ["Echo", "Later", "Fail"][kind];
            let call = connection.unary(&method(name), write, None);
            if taken_back {
                tokio::task::yield_now().await;
                return;
            }
            let answer = call.await.unwrap();
            if name == "Fail" {
                assert_eq!(answer.trailers.code, Code::NOT_FOUND);
            } else {
                assert!(answer.message == message);
            }
        }
        _ => {
            let (count, size) = (random.byte() / 8, random.byte());
            let (mut sending, mut receiving) = connection.stream(&method("Stream"), None).unwrap();
            sending.send(|out| out.extend([count, size])).await.unwrap();
            sending.finish();
            for byte in (0..count).rev() {
                if taken_back && random.below(4) == 0 {
                    return;
                }
                let message = receiving.message().await.unwrap().unwrap();
                assert!(message == vec![byte; 100 * usize::from(size)]);
            }
            assert_eq!(receiving.message().await.unwrap(), None);
            assert_eq!(receiving.trailers().map(|it| it.code), Some(Code::OK));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn conversations_with_the_server_of_this_crate() {
    for seed in 0..60 {
        conversation(seed).await;
    }
}

/// A server on `h2` that sends back each message as it comes.
async fn mirror(io: DuplexStream) {
    let mut server = h2::server::handshake(io).await.unwrap();
    while let Some(Ok((request, mut respond))) = server.accept().await {
        tokio::spawn(async move {
            let mut body = request.into_body();
            let head = http::Response::builder().header("content-type", "application/grpc+proto");
            let mut out = respond
                .send_response(head.body(()).unwrap(), false)
                .unwrap();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                let mut data: Bytes = data;
                while !data.is_empty() {
                    out.reserve_capacity(data.len());
                    let Some(Ok(most)) = std::future::poll_fn(|cx| out.poll_capacity(cx)).await
                    else {
                        return;
                    };
                    let part = data.split_to(most.min(data.len()));
                    let _ = out.send_data(part, false);
                }
            }
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            let _ = out.send_trailers(trailers);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn streams_both_ways_with_the_h2_crate() {
    for width in [50, 5_000, 1 << 20] {
        let (near, far) = tokio::io::duplex(width);
        tokio::spawn(mirror(far));
        let (connection, driver) = Connection::start(near, Config::default());
        tokio::spawn(driver);
        let mut streams = JoinSet::new();
        for seed in 0..8 {
            let (mut sending, mut receiving) = connection.stream(&method("Any"), None).unwrap();
            streams.spawn(async move {
                let messages = |seed| {
                    let mut random = Random::new(seed);
                    (0..20).map(move |_| {
                        let length = random.below(60_000);
                        random.bytes(length)
                    })
                };
                for message in messages(seed) {
                    let write = |out: &mut Vec<u8>| out.extend_from_slice(&message);
                    sending.send(write).await.unwrap();
                }
                sending.finish();
                for message in messages(seed) {
                    let came = receiving.message().await.unwrap();
                    assert!(came.unwrap() == message);
                }
                assert_eq!(receiving.message().await.unwrap(), None);
            });
            let call = connection.unary(&method("Any"), |out| out.push(1), None);
            assert_eq!(call.await.unwrap().message[..], [1]);
        }
        while let Some(done) = streams.join_next().await {
            done.unwrap();
        }
    }
}
