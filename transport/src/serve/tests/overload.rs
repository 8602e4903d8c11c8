//! The memory that all connections together may keep.

use super::*;
use crate::stats::Counter;

/// A connection of a server; its client's windows have `window` bytes.
async fn connection(server: &Arc<Shared>, window: u32) -> SendRequest<Bytes> {
    let (near, far) = tokio::io::duplex(1 << 20);
    let limits = Limits::default();
    drop(drive_in(
        far,
        Methods::default(),
        limits,
        Arc::clone(server),
    ));
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(window)
        .handshake::<_, Bytes>(near)
        .await
        .unwrap();
    tokio::spawn(connection);
    client
}

async fn status(client: &SendRequest<Bytes>, method: &str) -> Option<String> {
    let answer = soon(call(client, method, b"abc")).await;
    answer.map_or(None, |answer| answer.status)
}

#[tokio::test]
async fn answers_that_are_not_taken_count_for_all_and_are_freed() {
    let server = Arc::new(Shared::new(100_000));
    let other = connection(&server, 65_535).await;
    assert_eq!(status(&other, "Echo").await.as_deref(), Some("0"));
    assert_eq!(server.buffered_bytes(), 0);
    let shut = connection(&server, 0).await;
    let mut bodies = Vec::new();
    for kept in 1..=2 {
        let mut client = shut.clone().ready().await.unwrap();
        let (response, mut body) = client.send_request(request("Echo"), false).unwrap();
        body.send_data(prefixed(&vec![1; 60_000]).into(), true)
            .unwrap();
        bodies.push((soon(response).await.unwrap(), body));
        until(|| server.buffered_bytes() > kept * 60_000).await;
    }
    assert!(server.is_overloaded());
    // Who keeps too much is refused, on either lane, and nobody else is.
    assert_eq!(status(&shut, "Echo").await.as_deref(), Some("14"));
    assert_eq!(status(&shut, "Unknown").await, None);
    assert_eq!(status(&other, "Echo").await.as_deref(), Some("0"));
    assert_eq!(server.stats().of(Counter::CallsOverloaded), 1);
    assert_eq!(server.stats().of(Counter::StreamsOverloaded), 1);
    // One of the answers is given up.
    bodies.pop();
    until(|| !server.is_overloaded()).await;
    assert_eq!(status(&other, "Echo").await.as_deref(), Some("0"));
    drop((bodies, shut));
    until(|| server.buffered_bytes() == 0).await;
}

#[tokio::test]
async fn requests_that_are_not_complete_count() {
    let server = Arc::new(Shared::new(100_000));
    let client = connection(&server, 65_535).await;
    let mut open = Vec::new();
    for (method, most) in [("Echo", 60_000), ("Echo", 120_000)] {
        let mut client = client.clone().ready().await.unwrap();
        let (response, mut body) = client.send_request(request(method), false).unwrap();
        body.send_data(prefixed(&vec![1; 62_000])[..61_000].to_vec().into(), false)
            .unwrap();
        open.push((response, body));
        until(|| server.buffered_bytes() > most).await;
    }
    // What is there may stay, and more of it is refused.
    let (_, body) = &mut open[0];
    body.send_data(vec![1; 5].into(), false).unwrap();
    let (response, _) = open.remove(0);
    let answer = soon(read_answer(response)).await.unwrap();
    assert_eq!(answer.status.as_deref(), Some("14"));
    until(|| !server.is_overloaded()).await;
    let (response, mut body) = open.remove(0);
    body.send_data(vec![1; 1005].into(), true).unwrap();
    let answer = soon(read_answer(response)).await.unwrap();
    assert_eq!(answer.status.as_deref(), Some("0"));
    until(|| server.buffered_bytes() == 0).await;
}
