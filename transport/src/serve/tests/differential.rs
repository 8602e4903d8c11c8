//! The `h2` crate as the client: calls that overlap, in random parts, with
//! random windows, through pipes of random width, some of them taken back.

use tokio::task::JoinSet;

use super::*;
use crate::testing::Random;

/// A method, a message, and what is to come of them.
fn pick(random: &mut Random) -> (&'static str, Vec<u8>, Answer) {
    let most = [20, 5000, 40_000][random.below(3)];
    let length = random.below(most);
    let message = random.bytes(length);
    let answer = |status: Option<&str>, content| Answer {
        status: status.map(str::to_owned),
        content,
    };
    let mirrored = prefixed(&message);
    match random.below(6) {
        0 | 1 => ("Echo", message, answer(Some("0"), mirrored)),
        2 => ("Later", message, answer(Some("0"), mirrored)),
        3 => {
            let (count, size) = (random.byte() / 8, random.byte());
            let content = (0..count)
                .rev()
                .flat_map(|byte| prefixed(&vec![byte; 100 * usize::from(size)]))
                .collect();
            ("Stream", vec![count, size], answer(Some("0"), content))
        }
        4 => ("Fail", message, answer(Some("5"), vec![])),
        _ => ("Unknown", message, answer(None, mirrored)),
    }
}

/// One call, and what is to come of it; `None`: it is taken back.
async fn one_call(client: SendRequest<Bytes>, mut random: Random) -> Option<(Answer, Answer)> {
    let (method, message, expected) = pick(&mut random);
    let taken_back = random.below(5) == 0;
    let mut client = client.ready().await.unwrap();
    let (response, mut body) = client.send_request(request(method), false).unwrap();
    let whole = prefixed(&message);
    let mut rest = &whole[..];
    while !rest.is_empty() {
        let length = (1 + random.below(rest.len())).min(1 + random.below(20_000));
        let (now, later) = rest.split_at(length);
        rest = later;
        let end = rest.is_empty() && random.below(2) == 0;
        body.send_data(Bytes::copy_from_slice(now), end).unwrap();
        if end {
            break;
        }
        if random.below(3) == 0 {
            tokio::task::yield_now().await;
        }
        if taken_back && random.below(3) == 0 {
            body.send_reset(h2::Reason::CANCEL);
            return None;
        }
        if rest.is_empty() {
            body.send_data(Bytes::new(), true).unwrap();
        }
    }
    if taken_back {
        drop(response);
        return None;
    }
    Some((read_answer(response).await.unwrap(), expected))
}

async fn conversation(seed: u64) {
    let mut random = Random::new(seed);
    let width = [1 + random.below(50), 1 + random.below(5000), 100_000][random.below(3)];
    let (near, far) = tokio::io::duplex(width);
    let methods = Methods::default();
    let gate = methods.gate.clone();
    let limits = Limits {
        stream_window_bytes: [65_535, 1 << 20][random.below(2)],
        connection_window_bytes: [65_535, 1 << 20][random.below(2)],
        // Larger than all answers: `h2` reads nothing while it cannot write the
        // acknowledgement of the settings.
        max_output_bytes: [1 << 20, 1 << 22][random.below(2)],
        max_frames_per_turn: [1, 3, 256][random.below(3)],
        // Nothing is refused for being too much.
        max_unsent_bytes: usize::MAX,
        max_assembly_bytes: usize::MAX,
        ..Limits::default()
    };
    let (_drain, driver) = drive(far, methods, limits);
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size([100, 1000, 1 << 20][random.below(3)])
        .initial_connection_window_size([1 << 20, 1 << 24][random.below(2)])
        .max_frame_size([16_384, 100_000][random.below(2)])
        .header_table_size([0, 100, 4096][random.below(3)])
        .handshake::<_, Bytes>(near)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let mut calls = JoinSet::new();
    for _ in 0..24 {
        calls.spawn(one_call(client.clone(), Random::new(random.next())));
    }
    for _ in 0..random.below(50) {
        tokio::task::yield_now().await;
    }
    gate.open();
    while let Some(done) = calls.join_next().await {
        if let Some((got, expected)) = done.unwrap() {
            assert_eq!(got, expected, "seed {seed}");
        }
    }
    drop(client);
    connection.await.unwrap().unwrap();
    assert_eq!(driver.await.unwrap(), None, "seed {seed}");
}

#[tokio::test]
async fn answers_are_right_whatever_the_order() {
    for seed in 0..80 {
        let done = tokio::time::timeout(Duration::from_secs(60), conversation(seed));
        assert!(done.await.is_ok(), "seed {seed} does not come to an end");
    }
}

#[tokio::test]
async fn a_thousand_calls_at_once_succeed() {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (_drain, driver) = drive(far, Methods::default(), Limits::default());
    // tonic's window: `h2` derives from it how many small frames it holds unread.
    let (client, connection) = h2::client::Builder::new()
        .initial_connection_window_size(5 * 1024 * 1024)
        .handshake::<_, Bytes>(near)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let mut calls = JoinSet::new();
    for number in 0..1000_u32 {
        let client = client.clone();
        calls.spawn(async move {
            let message = number.to_be_bytes();
            let mut client = client.ready().await.unwrap();
            let (response, mut body) = client.send_request(request("Echo"), false).unwrap();
            // As tonic does: the end comes by itself.
            body.send_data(prefixed(&message).into(), false).unwrap();
            body.send_data(Bytes::new(), true).unwrap();
            let answer = read_answer(response).await.unwrap();
            assert_eq!(answer.content, prefixed(&message));
        });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
    drop(client);
    connection.await.unwrap().unwrap();
    assert_eq!(driver.await.unwrap(), None);
}

#[tokio::test]
async fn a_drain_ends_the_connection_after_its_calls() {
    let (near, far) = tokio::io::duplex(1 << 16);
    let methods = Methods::default();
    let gate = methods.gate.clone();
    let (drain, driver) = drive(far, methods, Limits::default());
    let (client, connection) = h2::client::handshake(near).await.unwrap();
    let connection = tokio::spawn(connection);
    call(&client, "Echo", b"").await.unwrap();
    let late = client.clone();
    let late = tokio::spawn(async move { call(&late, "Later", b"late").await });
    while !gate.has_waiters() {
        tokio::task::yield_now().await;
    }
    drain.send_replace(Course::Draining);
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert!(call(&client, "Echo", b"").await.is_err());
    gate.open();
    assert_eq!(late.await.unwrap().unwrap().content, prefixed(b"late"));
    connection.await.unwrap().unwrap();
    assert_eq!(driver.await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_kept_without_traffic() {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (_drain, _driver) = drive(far, Methods::default(), Limits::default());
    let (client, connection) = h2::client::handshake(near).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let mut request = request("Later");
    request
        .headers_mut()
        .insert("grpc-timeout", "30S".parse().unwrap());
    let (response, mut body) = client.send_request(request, false).unwrap();
    body.send_data(prefixed(b"").into(), true).unwrap();
    let before = tokio::time::Instant::now();
    let answer = read_answer(response).await.unwrap();
    assert_eq!(answer.status.as_deref(), Some("4"));
    let took = before.elapsed();
    assert!((29_990..30_010).contains(&took.as_millis()), "{took:?}");
}
