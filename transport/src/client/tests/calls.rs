//! Calls in the hands of a server that keeps to the protocol.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_call_is_what_grpc_says_and_its_answer_is_handed_over() {
    let (connection, mut peer, _driven) = greeted(Config::default(), &[]).await;
    let mut head = head().with("user-agent", b"tests/1").unwrap();
    head.metadata("x-one", b"1").unwrap();
    let deadline = within(Duration::from_secs(5));
    let call = connection.unary(&head, |out| out.extend_from_slice(b"ask"), deadline);
    assert_eq!(connection.in_flight(), 1);
    let asked = peer.asked().await;
    assert_eq!(asked.stream, 1);
    assert_eq!(asked.content, framed(b"ask"));
    let expected = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/t.T/Echo"),
        (":authority", "host:1"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", "tests/1"),
        ("grpc-timeout", "5000m"),
        ("x-one", "1"),
    ];
    assert_eq!(asked.fields, expected.map(|(n, v)| (n.into(), v.into())));
    peer.answer(1, b"told").flush().await;
    let answer = call.await.unwrap();
    assert_eq!(&answer.message[..], b"told");
    assert_eq!(answer.trailers, Trailers::default());
    assert!(answer.headers.is_empty());
    assert_eq!(connection.in_flight(), 0);
    assert_eq!(connection.activity().streams_succeeded, 1);
}

#[tokio::test(start_paused = true)]
async fn metadata_and_statuses_are_handed_over() {
    let (connection, mut peer, _driven) = greeted(Config::default(), &[]).await;
    // (status, code)
    for (status, code) in [
        ("5", 5),
        ("16", 16),
        ("17", 2),
        ("-1", 2),
        ("x", 2),
        ("", 2),
    ] {
        let call = ask(&connection, b"");
        let stream = peer.asked().await.stream;
        let head: Vec<_> = HEAD.iter().copied().chain([("x-head", "a")]).collect();
        let trailers = [
            ("grpc-status", status),
            ("grpc-message", "no"),
            ("x-end", "b"),
        ];
        peer.block(stream, &head, false);
        peer.block(stream, &trailers, true).flush().await;
        let answer = call.await.unwrap();
        assert_eq!(answer.trailers.code, Code(code), "{status}");
        assert_eq!(answer.headers.value(b"x-head"), Some(&b"a"[..]));
        assert_eq!(answer.trailers.fields.value(b"x-end"), Some(&b"b"[..]));

        let call = ask(&connection, b"");
        let stream = peer.asked().await.stream;
        let only: Vec<_> = HEAD.iter().copied().chain(trailers).collect();
        peer.block(stream, &only, true).flush().await;
        let answer = call.await.unwrap();
        assert_eq!(answer.trailers.code, Code(code), "{status} alone");
        assert_eq!(
            answer.trailers.fields.value(b"grpc-message"),
            Some(&b"no"[..])
        );
    }
}

#[tokio::test(start_paused = true)]
async fn calls_side_by_side_get_their_own_answers_in_any_order() {
    let (connection, mut peer, _driven) = greeted(Config::default(), &[]).await;
    let calls: Vec<_> = (0..32u8).map(|n| ask(&connection, &[n])).collect();
    let mut asked = Vec::new();
    for _ in 0..32 {
        asked.push(peer.asked().await);
    }
    asked.sort_by_key(|it| it.stream.wrapping_mul(0x9e37_79b9));
    for it in &asked {
        peer.answer(it.stream, &it.content[5..]);
    }
    peer.flush().await;
    for (call, n) in calls.into_iter().zip(0..) {
        assert_eq!(&call.await.unwrap().message[..], [n]);
    }
    assert_eq!(connection.0.shared.lock().calls.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn many_callers_share_a_write_and_a_wake_up() {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (connection, driver) = Connection::start(near, Config::default());
    let polls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&polls);
    let mut driver = Box::pin(driver);
    tokio::spawn(std::future::poll_fn(move |cx| {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        driver.as_mut().poll(cx)
    }));
    let mut peer = Peer {
        io: far,
        decoder: Decoder::new(4096),
        fields: Fields::default(),
        out: Vec::new(),
    };
    write_settings(&mut peer.out, &[]);
    peer.flush().await;
    let mut preface = [0; PREFACE.len()];
    peer.io.read_exact(&mut preface).await.unwrap();
    for _ in 0..3 {
        peer.frame().await;
    }
    settle().await;
    let before = polls.load(std::sync::atomic::Ordering::Relaxed);
    let calls: Vec<_> = (0..100).map(|_| ask(&connection, b"x")).collect();
    settle().await;
    for stream in 0..100 {
        assert_eq!(peer.asked().await.stream, 2 * stream + 1);
        peer.answer(2 * stream + 1, b"y");
    }
    peer.flush().await;
    for call in calls {
        call.await.unwrap();
    }
    settle().await;
    let turns = polls.load(std::sync::atomic::Ordering::Relaxed) - before;
    assert!(turns <= 3, "{turns} turns for 100 calls");
    // Nothing to do, nobody runs.
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let idle = polls.load(std::sync::atomic::Ordering::Relaxed) - before - turns;
    assert!(idle <= 1, "{idle} turns of an idle connection");
}

/// As on a runtime that runs first what was woken last.
#[tokio::test(start_paused = true)]
async fn callers_that_ask_again_at_once_share_a_write() {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (connection, driver) = Connection::start(near, Config::default());
    let mut driver = Box::pin(driver);
    let cx = &mut std::task::Context::from_waker(std::task::Waker::noop());
    let mut peer = Peer {
        io: far,
        decoder: Decoder::new(4096),
        fields: Fields::default(),
        out: Vec::new(),
    };
    write_settings(&mut peer.out, &[]);
    peer.flush().await;
    assert!(driver.as_mut().poll(cx).is_pending());
    let mut calls: Vec<_> = (0..3).map(|_| Box::pin(ask(&connection, b"x"))).collect();
    for call in &mut calls {
        assert!(call.as_mut().poll(cx).is_pending());
    }
    assert!(driver.as_mut().poll(cx).is_pending());
    let mut preface = [0; PREFACE.len()];
    peer.io.read_exact(&mut preface).await.unwrap();
    for _ in 0..3 {
        peer.frame().await;
    }
    for stream in [1, 3, 5] {
        peer.asked().await;
        peer.answer(stream, b"y");
    }
    peer.flush().await;
    assert!(driver.as_mut().poll(cx).is_pending());
    // One has its answer and asks again; the driver lets the others do so first, and
    // waits for them no longer than once.
    assert!(calls[0].as_mut().poll(cx).is_ready());
    let _first = ask(&connection, b"x");
    let mut nothing = [0];
    assert!(driver.as_mut().poll(cx).is_pending());
    let mut read = Box::pin(peer.io.read(&mut nothing));
    assert!(read.as_mut().poll(cx).is_pending());
    drop(read);
    assert!(calls[1].as_mut().poll(cx).is_ready());
    let _second = ask(&connection, b"x");
    assert!(driver.as_mut().poll(cx).is_pending());
    assert_eq!(peer.asked().await.stream, 7);
    assert_eq!(peer.asked().await.stream, 9);
    drop(calls);
    assert_eq!(connection.0.shared.lock().told, 0);
}

#[tokio::test(start_paused = true)]
async fn streams_go_both_ways_at_once() {
    let (connection, mut peer, _driven) = greeted(Config::default(), &[]).await;
    let (mut sending, mut receiving) = connection.stream(&head(), None).unwrap();
    let opened = peer.frame().await;
    assert_eq!(
        (opened.kind, opened.flags),
        (Kind::HEADERS, flag::END_HEADERS)
    );
    for n in 0..3u8 {
        sending.send(|out| out.push(n)).await.unwrap();
        assert_eq!(peer.frame().await.payload, framed(&[n]));
        if n == 0 {
            peer.head(1);
        }
        peer.data(1, &framed(&[n])).flush().await;
        assert!(receiving.headers().await.unwrap().is_empty());
        assert_eq!(receiving.message().await.unwrap().unwrap()[..], [n]);
    }
    sending.finish();
    let end = peer.frame().await;
    assert_eq!(
        (end.kind, end.flags, &end.payload[..]),
        (Kind::DATA, flag::END_STREAM, &[][..])
    );
    peer.data(1, &framed(b"last")).status(1, "0").flush().await;
    assert_eq!(&receiving.message().await.unwrap().unwrap()[..], b"last");
    assert_eq!(receiving.trailers(), None);
    assert_eq!(receiving.message().await.unwrap(), None);
    assert_eq!(receiving.trailers(), Some(&Trailers::default()));
    assert_eq!(receiving.message().await.unwrap(), None);
    drop(receiving);
    assert_eq!(connection.0.shared.lock().calls.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_is_reset() {
    let (connection, mut peer, _driven) = greeted(Config::default(), &[]).await;
    let cancelled = |came: &Came| (came.kind, came.payload[3]) == (Kind::RST_STREAM, 8);
    drop(ask(&connection, b""));
    peer.asked().await;
    assert!(cancelled(&peer.frame().await));

    let (sending, mut receiving) = connection.stream(&head(), None).unwrap();
    peer.frame().await;
    drop(sending);
    assert!(cancelled(&peer.frame().await));
    let failed = receiving.message().await.unwrap_err();
    assert_eq!(failed, Failed::Reset(ErrorCode::CANCEL));
    drop(receiving);

    let (mut sending, receiving) = connection.stream(&head(), None).unwrap();
    peer.frame().await;
    drop(receiving);
    assert!(cancelled(&peer.frame().await));
    assert_eq!(sending.send(|_| {}).await, Err(SendClosed));
    drop(sending);

    // Frames that were under way do no harm.
    for stream in [1, 3, 5] {
        peer.answer(stream, b"late");
    }
    let call = ask(&connection, b"");
    peer.asked().await;
    peer.answer(7, b"good").flush().await;
    assert_eq!(&call.await.unwrap().message[..], b"good");
    assert_eq!(connection.0.shared.lock().calls.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn calls_wait_for_a_stream_in_order() {
    let config = Config {
        max_waiting_calls: 3,
        ..Config::default()
    };
    let one = [(SettingId::MAX_CONCURRENT_STREAMS, 1)];
    let (connection, mut peer, _driven) = greeted(config, &one).await;
    assert_eq!(connection.readiness(), Readiness::Ready);
    let mut calls: Vec<_> = (0..4u8).map(|n| ask(&connection, &[n])).collect();
    assert_eq!(connection.readiness(), Readiness::Full);
    let refused = ask(&connection, b"5").await.unwrap_err();
    assert_eq!(refused, Failed::NotSent(NotSent::Full { max: 3 }));
    // One that waits is given up, and never seen.
    drop(calls.remove(2));
    for (n, call) in [0u8, 1, 3].into_iter().zip(calls) {
        let asked = peer.asked().await;
        assert_eq!(asked.content, framed(&[n]));
        peer.answer(asked.stream, &[n]).flush().await;
        assert_eq!(call.await.unwrap().message[..], [n]);
    }
    assert_eq!(connection.changed(Readiness::Full).await, Readiness::Ready);
    assert_eq!(connection.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_goes_away_ends_what_it_did_not_take() {
    let two = [(SettingId::MAX_CONCURRENT_STREAMS, 2)];
    let (connection, mut peer, driven) = greeted(Config::default(), &two).await;
    let calls: Vec<_> = (0..3).map(|_| ask(&connection, b"x")).collect();
    peer.asked().await;
    peer.asked().await;
    peer.goaway(u32::MAX >> 1, ErrorCode::NO_ERROR, "")
        .flush()
        .await;
    assert_eq!(
        connection.changed(Readiness::Full).await,
        Readiness::Closing
    );
    peer.goaway(1, ErrorCode::ENHANCE_YOUR_CALM, "too_many_pings");
    peer.answer(1, b"done").flush().await;
    let mut calls = calls.into_iter();
    let mut next = async || calls.next().unwrap().await;
    assert_eq!(&next().await.unwrap().message[..], b"done");
    assert_eq!(next().await, Err(Failed::Refused));
    assert_eq!(next().await, Err(Failed::NotSent(NotSent::Closing)));
    let why = Closed::GoAway {
        code: ErrorCode::ENHANCE_YOUR_CALM,
        debug: "too_many_pings".into(),
    };
    assert_eq!(driven.await.unwrap(), why);
    let refused = ask(&connection, b"").await.unwrap_err();
    assert_eq!(refused, Failed::NotSent(NotSent::Closed(why)));
    assert_eq!(connection.readiness(), Readiness::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_drained_connection_ends_with_its_calls() {
    let (connection, mut peer, driven) = greeted(Config::default(), &[]).await;
    let call = ask(&connection, b"x");
    connection.drain();
    let refused = ask(&connection, b"").await.unwrap_err();
    assert_eq!(refused, Failed::NotSent(NotSent::Closing));
    peer.asked().await;
    peer.answer(1, b"y").flush().await;
    assert_eq!(&call.await.unwrap().message[..], b"y");
    assert_eq!(driven.await.unwrap(), Closed::Drained);
    assert_eq!(peer.frame().await.kind, Kind::GOAWAY);
    assert_eq!(peer.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_streams_left_ends_with_its_calls() {
    let (connection, mut peer, driven) = greeted(Config::default(), &[]).await;
    let last = core::LAST_STREAM - 2;
    connection.0.shared.lock().next_stream = last;
    let call = ask(&connection, b"x");
    assert_eq!(connection.readiness(), Readiness::Closing);
    let refused = ask(&connection, b"").await.unwrap_err();
    assert_eq!(refused, Failed::NotSent(NotSent::Closing));
    assert_eq!(peer.asked().await.stream, last);
    peer.answer(last, b"y").flush().await;
    assert_eq!(&call.await.unwrap().message[..], b"y");
    assert_eq!(driven.await.unwrap(), Closed::Drained);
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_with_its_last_handle() {
    let (connection, mut peer, driven) = greeted(Config::default(), &[]).await;
    let call = ask(&connection.clone(), b"x");
    drop(connection);
    peer.asked().await;
    peer.answer(1, b"y").flush().await;
    call.await.unwrap();
    assert_eq!(driven.await.unwrap(), Closed::Drained);
}

#[tokio::test(start_paused = true)]
async fn whoever_drops_the_driver_ends_its_calls() {
    let (connection, mut peer, driven) = greeted(Config::default(), &[]).await;
    let call = ask(&connection, b"x");
    peer.asked().await;
    driven.abort();
    assert_eq!(call.await, Err(Failed::Lost(Closed::Dropped)));
    let refused = ask(&connection, b"").await;
    assert_eq!(
        refused,
        Err(Failed::NotSent(NotSent::Closed(Closed::Dropped)))
    );
}

#[tokio::test(start_paused = true)]
async fn a_message_that_panics_ends_the_connection_and_no_caller_hangs() {
    let (connection, mut peer, driven) = greeted(Config::default(), &[]).await;
    let call = ask(&connection, b"x");
    peer.asked().await;
    let other = connection.clone();
    let panics = tokio::spawn(async move {
        let call = other.unary(&head(), |_| panic!("a test"), None);
        call.await.is_ok()
    });
    assert!(panics.await.is_err());
    assert!(matches!(call.await, Err(Failed::Lost(Closed::Fault(..)))));
    assert!(matches!(driven.await.unwrap(), Closed::Fault(..)));
}
