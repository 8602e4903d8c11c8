//! RFC 9113, section 5.2: flow control both ways.

use super::*;
use crate::frame::write_window_update;

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_windows_and_others_pass_it() {
    let small = [(SettingId::INITIAL_WINDOW_SIZE, 10)];
    let (connection, mut peer, _driven) = greeted(Config::default(), &small).await;
    let large = ask(&connection, &[7; 100]);
    let first = peer.frame().await;
    assert_eq!(first.kind, Kind::HEADERS);
    let part = peer.frame().await;
    assert_eq!((part.payload.len(), part.flags), (10, 0));
    let other = ask(&connection, b"abc");
    assert_eq!(peer.frame().await.kind, Kind::HEADERS);
    let whole = peer.frame().await;
    assert_eq!((whole.stream, whole.flags), (3, flag::END_STREAM));
    peer.answer(3, b"");
    write_window_update(&mut peer.out, 1, 50);
    peer.flush().await;
    other.await.unwrap();
    assert_eq!(peer.frame().await.payload.len(), 50);
    // Settings widen what is open (section 6.9.2).
    write_settings(&mut peer.out, &[(SettingId::INITIAL_WINDOW_SIZE, 1000)]);
    peer.flush().await;
    let mut rest = vec![peer.frame().await, peer.frame().await];
    rest.retain(|it| it.kind == Kind::DATA);
    assert_eq!(
        (rest[0].payload.len(), rest[0].flags),
        (45, flag::END_STREAM)
    );
    peer.answer(1, b"").flush().await;
    large.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_connections_window_is_shared() {
    let wide = [(SettingId::INITIAL_WINDOW_SIZE, 1 << 20)];
    let (connection, mut peer, _driven) = greeted(Config::default(), &wide).await;
    let calls = [
        ask(&connection, &vec![1; 50_000]),
        ask(&connection, &vec![2; 50_000]),
    ];
    let mut came = 0;
    while came < 65_535 {
        let frame = peer.frame().await;
        if frame.kind == Kind::DATA {
            assert!(frame.payload.len() <= 16_384);
            came += frame.payload.len();
        }
    }
    assert_eq!(came, 65_535);
    write_window_update(&mut peer.out, 0, 100_000);
    peer.flush().await;
    while came < 2 * 50_005 {
        came += peer.frame().await.payload.len();
    }
    peer.answer(1, b"").answer(3, b"").flush().await;
    for call in calls {
        call.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_not_taken_stops_its_sender() {
    let (connection, mut peer, _driven) = greeted(Config::default(), &[]).await;
    let (mut sending, receiving) = connection.stream(&head(), None).unwrap();
    // The window takes 64 KiB, and 64 KiB may wait: the third has to.
    let mut sent = 0;
    let patience = Duration::from_secs(1);
    while tokio::time::timeout(
        patience,
        sending.send(|out| out.resize(out.len() + 50_000, 0)),
    )
    .await
    .is_ok()
    {
        sent += 1;
    }
    assert_eq!(sent, 3);
    peer.frame().await;
    write_window_update(&mut peer.out, 0, 1 << 20);
    write_window_update(&mut peer.out, 1, 1 << 20);
    peer.flush().await;
    sending.send(|out| out.push(1)).await.unwrap();
    sending.finish();
    let mut came = 0;
    loop {
        let frame = peer.frame().await;
        came += frame.payload.len();
        if frame.flags == flag::END_STREAM {
            break;
        }
    }
    assert_eq!(came, 3 * 50_005 + 6);
    drop(receiving);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_not_read_stops_the_server() {
    let config = Config {
        stream_window_bytes: 100_000,
        ..Config::default()
    };
    let (connection, mut peer, _driven) = greeted(config, &[]).await;
    let (sending, mut receiving) = connection.stream(&head(), None).unwrap();
    sending.finish();
    peer.frame().await;
    peer.frame().await;
    peer.head(1);
    let message = framed(&[3; 9_995]);
    for _ in 0..10 {
        peer.data(1, &message);
    }
    peer.flush().await;
    settle().await;
    // Another call goes on, and nothing was opened for the stream that is full.
    let other = ask(&connection, b"");
    assert_eq!(peer.asked().await.stream, 3);
    peer.answer(3, b"").flush().await;
    other.await.unwrap();
    for _ in 0..10 {
        assert_eq!(receiving.message().await.unwrap().unwrap().len(), 9_995);
    }
    let opened = peer.frame().await;
    assert_eq!((opened.kind, opened.stream), (Kind::WINDOW_UPDATE, 1));
    assert_eq!(opened.payload, 100_000_u32.to_be_bytes());
}

#[tokio::test(start_paused = true)]
async fn a_message_larger_than_the_window_comes_whole() {
    let config = Config {
        stream_window_bytes: 65_535,
        connection_window_bytes: 100_000,
        max_message_bytes: 300_000,
        ..Config::default()
    };
    let (connection, mut peer, _driven) = greeted(config, &[]).await;
    for shape in 0..2 {
        let message = vec![5; 300_000];
        let content = framed(&message);
        let (mut unary, mut stream) = (None, None);
        if shape == 0 {
            unary = Some(ask(&connection, b""));
            peer.asked().await;
        } else {
            let (sending, receiving) = connection.stream(&head(), None).unwrap();
            sending.finish();
            stream = Some(receiving);
            peer.frame().await;
            peer.frame().await;
        }
        let id = 2 * shape + 1;
        peer.head(id);
        let mut window = 60_000_usize;
        for part in content.chunks(10_000) {
            while window < part.len() {
                peer.flush().await;
                let opened = peer.frame().await;
                assert_eq!(opened.kind, Kind::WINDOW_UPDATE);
                if opened.stream == id {
                    let [a, b, c, d] = opened.payload[..].try_into().unwrap();
                    window += u32::from_be_bytes([a, b, c, d]) as usize;
                }
            }
            window -= part.len();
            peer.data(id, part);
        }
        peer.status(id, "0").flush().await;
        let came = match (unary, stream) {
            (Some(call), _) => call.await.unwrap().message,
            (_, Some(mut stream)) => stream.message().await.unwrap().unwrap(),
            _ => unreachable!(),
        };
        assert!(came == message);
        // Window updates that are left over.
        while let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(1), peer.next()).await {}
    }
}

#[tokio::test(start_paused = true)]
async fn requests_of_many_times_the_output_leave_without_a_word_from_the_server() {
    let config = Config {
        max_output_bytes: 16 << 10,
        ..Config::default()
    };
    let wide = [(SettingId::INITIAL_WINDOW_SIZE, 1 << 20)];
    let (connection, mut peer, _driven) = greeted(config, &wide).await;
    write_window_update(&mut peer.out, 0, 1 << 20);
    peer.flush().await;
    settle().await;
    let calls: Vec<_> = (0..8).map(|_| ask(&connection, &vec![7; 40_000])).collect();
    let mut came = 0;
    while came < 8 * 40_005 {
        let next = tokio::time::timeout(Duration::from_secs(60), peer.frame()).await;
        let frame = next.unwrap_or_else(|_| panic!("it stopped after {came} bytes"));
        if frame.kind == Kind::DATA {
            came += frame.payload.len();
        }
    }
    for stream in 0..8 {
        peer.answer(2 * stream + 1, b"");
    }
    peer.flush().await;
    for call in calls {
        call.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_takes_nothing_holds_up_calls_and_not_memory() {
    let config = Config {
        max_output_bytes: 16 << 10,
        max_waiting_calls: 10,
        ..Config::default()
    };
    let wide = [(SettingId::INITIAL_WINDOW_SIZE, 1 << 20)];
    let (near, far) = tokio::io::duplex(64);
    let (connection, driver) = Connection::start(near, config);
    tokio::spawn(driver);
    let (mut from, mut to) = tokio::io::split(far);
    let mut settings = Vec::new();
    write_settings(&mut settings, &wide);
    to.write_all(&settings).await.unwrap();
    let mut preface = [0; 64];
    from.read_exact(&mut preface[..30]).await.unwrap();
    connection.ready().await.unwrap();
    let deadline = within(Duration::from_secs(1));
    let calls: Vec<_> = (0..100)
        .map(|_| connection.unary(&head(), |out| out.resize(out.len() + 3000, 0), deadline))
        .collect();
    let held = connection.0.shared.lock().out.len();
    assert!(held < (16 << 10) + 4000, "{held} bytes");
    let (mut full, mut late) = (0, 0);
    for call in calls {
        match call.await.unwrap_err() {
            Failed::NotSent(NotSent::Full { max: 10 }) => full += 1,
            Failed::Deadline { .. } => late += 1,
            other => panic!("{other}"),
        }
    }
    assert!(full > 50 && late > 10, "{full} {late}");
}
