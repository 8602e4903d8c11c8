//! Peers that break the protocol, or gRPC's: each has a clear end, in time.

use super::*;
use crate::frame::{write_ping, write_window_update};

/// What a peer does, and what comes of it.
type Row = (&'static str, fn(&mut Peer), Failed);

/// Makes a call, has the peer write what `wrong` says, and gives out how it ended. The
/// connection is sound after that if `goes_on`.
async fn check(name: &str, wrong: fn(&mut Peer), expected: Failed, goes_on: bool) {
    let config = Config {
        max_message_bytes: 100,
        max_header_list_bytes: 4096,
        ..Config::default()
    };
    let (connection, mut peer, driven) = greeted(config, &[]).await;
    let call = connection.unary(&head(), |_| {}, within(Duration::from_secs(5)));
    peer.asked().await;
    wrong(&mut peer);
    peer.flush().await;
    let start = now();
    assert_eq!(call.await, Err(expected), "{name}");
    assert_eq!(now(), start, "{name}: nobody waited for time to pass");
    assert_eq!(connection.0.shared.lock().calls.held(), 0, "{name}");
    if goes_on {
        let call = ask(&connection, b"");
        let mut came = peer.frame().await;
        while came.kind == Kind::RST_STREAM || came.kind == Kind::WINDOW_UPDATE {
            came = peer.frame().await;
        }
        assert_eq!(came.kind, Kind::HEADERS, "{name}");
        peer.frame().await;
        peer.answer(3, b"").flush().await;
        call.await
            .unwrap_or_else(|failed| panic!("{name}: {failed}"));
    } else {
        driven.await.unwrap();
        let mut last = None;
        while let Some(came) = peer.next().await {
            last = Some(came.kind);
        }
        assert_eq!(last, Some(Kind::GOAWAY), "{name}");
    }
}

fn lost(code: ErrorCode, why: &'static str) -> Failed {
    Failed::Lost(Closed::Fault(code, why))
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_none_ends_its_call_alone() {
    let no_status = Failed::Protocol("an answer that ends without grpc-status");
    let http = |status, content_type: &str| Failed::Http {
        status,
        content_type: content_type.into(),
    };
    let table: Vec<Row> = vec![
        (
            "refused",
            |p| {
                p.reset(1, ErrorCode::REFUSED_STREAM);
            },
            Failed::Refused,
        ),
        (
            "reset",
            |p| {
                p.reset(1, ErrorCode::CANCEL);
            },
            Failed::Reset(ErrorCode::CANCEL),
        ),
        (
            "a code of the future",
            |p| {
                p.reset(1, ErrorCode(99));
            },
            Failed::Reset(ErrorCode(99)),
        ),
        (
            "data without a head",
            |p| {
                p.data(1, b"x");
            },
            Failed::Protocol("DATA before the answer's head"),
        ),
        (
            "no trailers",
            |p| {
                p.head(1)
                    .put(Kind::DATA, flag::END_STREAM, 1, &framed(b"x"));
            },
            no_status.clone(),
        ),
        (
            "trailers without a status",
            |p| {
                p.head(1).block(1, &[("a", "b")], true);
            },
            no_status.clone(),
        ),
        (
            "a head alone",
            |p| {
                p.block(1, HEAD, true);
            },
            no_status,
        ),
        (
            "an OK without a message",
            |p| {
                p.head(1).status(1, "0");
            },
            Failed::Protocol("an answer of OK without a message"),
        ),
        (
            "a cut message",
            |p| {
                p.head(1).data(1, b"\0\0\0\0\x05abc").status(1, "0");
            },
            Failed::Protocol("a message that ends too early"),
        ),
        (
            "a cut prefix",
            |p| {
                p.head(1).data(1, b"\0\0").status(1, "0");
            },
            Failed::Protocol("a message that ends too early"),
        ),
        (
            "two messages",
            |p| {
                p.head(1).data(1, b"\0\0\0\0\0\0\0\0\0\0");
            },
            Failed::Protocol("more than the one message of this method"),
        ),
        (
            "too large",
            |p| {
                p.head(1).data(1, b"\0\0\0\0\x65");
            },
            Failed::TooLarge {
                bytes: 101,
                max: 100,
            },
        ),
        (
            "compressed",
            |p| {
                p.head(1).data(1, b"\x01\0\0\0\0");
            },
            Failed::Protocol("a compressed message, which was not asked for"),
        ),
        (
            "trailers that go on",
            |p| {
                p.head(1).block(1, &[("grpc-status", "0")], false);
            },
            Failed::Protocol("trailers that do not end the stream"),
        ),
        (
            "two heads",
            |p| {
                p.head(1).block(1, HEAD, true);
            },
            Failed::Protocol("a pseudo-header field in trailers"),
        ),
        (
            "no :status",
            |p| {
                p.block(1, &[("grpc-status", "0")], true);
            },
            Failed::Protocol("an answer that does not begin with :status"),
        ),
        (
            "a :status of letters",
            |p| {
                p.block(1, &[(":status", "2x0")], false);
            },
            Failed::Protocol("a :status that is no number"),
        ),
        (
            "an upper-case name",
            |p| {
                p.block(1, &[(":status", "200"), ("A", "b")], false);
            },
            Failed::Protocol("a field name with octets that it cannot have"),
        ),
        (
            "an interim end",
            |p| {
                p.block(1, &[(":status", "103")], true);
            },
            Failed::Protocol("an interim answer that ends the stream"),
        ),
        (
            "a proxy",
            |p| {
                p.block(
                    1,
                    &[(":status", "502"), ("content-type", "text/html")],
                    false,
                );
            },
            http(502, "text/html"),
        ),
        (
            "a page",
            |p| {
                p.block(
                    1,
                    &[(":status", "200"), ("content-type", "text/html")],
                    false,
                );
            },
            http(200, "text/html"),
        ),
        (
            "no content type",
            |p| {
                p.block(1, &[(":status", "204")], true);
            },
            http(204, ""),
        ),
        (
            "a type that only begins so",
            |p| {
                p.block(
                    1,
                    &[(":status", "200"), ("content-type", "application/grpcx")],
                    true,
                );
            },
            http(200, "application/grpcx"),
        ),
        (
            "long headers",
            |p| {
                p.block(1, &[(":status", "200"), ("a", &"x".repeat(5000))], false);
            },
            Failed::Protocol("a header list larger than is taken"),
        ),
        (
            "a window too wide",
            |p| write_window_update(&mut p.out, 1, u32::MAX >> 1),
            Failed::Protocol("a window over 2^31-1"),
        ),
    ];
    for (name, wrong, expected) in table {
        check(name, wrong, expected, true).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_breaks_the_protocol_loses_its_connection() {
    let protocol = |why| lost(ErrorCode::PROTOCOL_ERROR, why);
    let never = "a frame of a stream that was never opened";
    let interrupted = "a header block that is interrupted";
    let table: Vec<Row> = vec![
        (
            "an idle stream",
            |p| {
                p.data(3, b"");
            },
            protocol(never),
        ),
        (
            "a stream of its own",
            |p| {
                p.head(2);
            },
            protocol(never),
        ),
        (
            "a reset of nothing",
            |p| {
                p.reset(99, ErrorCode::CANCEL);
            },
            protocol(never),
        ),
        (
            "a push",
            |p| {
                p.put(Kind::PUSH_PROMISE, flag::END_HEADERS, 1, &[0, 0, 0, 2]);
            },
            protocol("a push, which SETTINGS_ENABLE_PUSH forbids"),
        ),
        (
            "push asked for",
            |p| write_settings(&mut p.out, &[(SettingId::ENABLE_PUSH, 1)]),
            protocol("a server that asks for pushes"),
        ),
        (
            "a long frame",
            |p| {
                p.data(1, &[0; 16_385]);
            },
            lost(
                ErrorCode::FRAME_SIZE_ERROR,
                "a frame over SETTINGS_MAX_FRAME_SIZE",
            ),
        ),
        (
            "an interrupted block",
            |p| {
                p.put(Kind::HEADERS, 0, 1, &[0x88]).data(1, b"");
            },
            protocol(interrupted),
        ),
        (
            "a block of another",
            |p| {
                p.put(Kind::HEADERS, 0, 1, &[0x88])
                    .put(Kind::CONTINUATION, 4, 3, &[]);
            },
            protocol(interrupted),
        ),
        (
            "a stray continuation",
            |p| {
                p.put(Kind::CONTINUATION, 4, 1, &[]);
            },
            protocol("CONTINUATION without a header block"),
        ),
        (
            "a block of nonsense",
            |p| {
                p.put(Kind::HEADERS, flag::END_HEADERS, 1, &[0xff, 0xff]);
            },
            lost(
                ErrorCode::COMPRESSION_ERROR,
                "a header block that cannot be decoded",
            ),
        ),
        (
            "a block that does not end",
            |p| {
                p.put(Kind::HEADERS, 0, 1, &[]);
                for _ in 0..65 {
                    p.put(Kind::CONTINUATION, 0, 1, &[]);
                }
            },
            lost(
                ErrorCode::ENHANCE_YOUR_CALM,
                "a header block that does not end",
            ),
        ),
        (
            "a window too wide",
            |p| write_window_update(&mut p.out, 0, u32::MAX >> 1),
            lost(ErrorCode::FLOW_CONTROL_ERROR, "a window over 2^31-1"),
        ),
        (
            "an initial window too wide",
            |p| write_settings(&mut p.out, &[(SettingId::INITIAL_WINDOW_SIZE, u32::MAX)]),
            lost(
                ErrorCode::FLOW_CONTROL_ERROR,
                "an initial window over 2^31-1",
            ),
        ),
    ];
    for (name, wrong, expected) in table {
        check(name, wrong, expected, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_and_does_not_read_loses_its_connection() {
    let (connection, mut peer, _driven) = greeted(Config::default(), &[]).await;
    let call = ask(&connection, b"");
    peer.asked().await;
    let mut pings = Vec::new();
    for _ in 0..1000 {
        write_ping(&mut pings, 0, [0; 8]);
    }
    while peer.io.write_all(&pings).await.is_ok() {
        settle().await;
        let held = connection.0.shared.lock().out.len();
        assert!(held < 3 << 20, "{held} bytes");
    }
    let why = "frames that ask for answers, which are not read";
    assert_eq!(call.await, Err(lost(ErrorCode::ENHANCE_YOUR_CALM, why)));
}

#[tokio::test(start_paused = true)]
async fn the_first_frame_is_settings_or_nothing_is_sent() {
    let (connection, mut peer, driven) = silent(Config::default()).await;
    let call = ask(&connection, b"");
    write_ping(&mut peer.out, 0, [0; 8]);
    peer.flush().await;
    let why = Closed::Fault(ErrorCode::PROTOCOL_ERROR, "the first frame is not SETTINGS");
    assert_eq!(
        call.await,
        Err(Failed::NotSent(NotSent::Closed(why.clone())))
    );
    assert_eq!(driven.await.unwrap(), why);

    let (connection, mut peer, driven) = silent(Config::default()).await;
    let call = ask(&connection, b"");
    peer.out
        .extend_from_slice(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    peer.flush().await;
    let why = Closed::Fault(ErrorCode::PROTOCOL_ERROR, "it speaks HTTP/1.1");
    let failed = Failed::NotSent(NotSent::Closed(why.clone()));
    assert_eq!(call.await, Err(failed));
    assert_eq!(driven.await.unwrap(), why);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_goes_at_once_or_without_a_word() {
    let (connection, mut peer, _driven) = silent(Config::default()).await;
    let call = ask(&connection, b"");
    write_settings(&mut peer.out, &[]);
    peer.goaway(0, ErrorCode::NO_ERROR, "").flush().await;
    // It may have left before the server's word came; either way it was not processed.
    let failed = call.await.unwrap_err();
    assert!(
        matches!(failed, Failed::Refused | Failed::NotSent(_)),
        "{failed}"
    );

    let (connection, mut peer, driven) = greeted(Config::default(), &[]).await;
    let call = ask(&connection, b"");
    peer.asked().await;
    drop(peer);
    let failed = call.await.unwrap_err();
    let kind = std::io::ErrorKind::UnexpectedEof;
    let is_eof = |it: &Closed| matches!(it, Closed::Io { kind: found, .. } if *found == kind);
    assert!(
        matches!(&failed, Failed::Lost(why) if is_eof(why)),
        "{failed}"
    );
    assert!(is_eof(&driven.await.unwrap()));
}

/// Frames at random after a good beginning: no panic, and every call ends.
#[tokio::test(start_paused = true)]
async fn nothing_that_comes_at_random_makes_a_call_hang() {
    for seed in 0..300 {
        let mut random = crate::testing::Random::new(seed);
        let (connection, mut peer, _driven) = greeted(Config::default(), &[]).await;
        let deadline = within(Duration::from_secs(1));
        let calls: Vec<_> = (0..4)
            .map(|_| connection.unary(&head(), |_| {}, deadline))
            .collect();
        let stream = connection.stream(&head(), deadline).unwrap();
        for _ in 0..random.below(40) {
            let kind = Kind(random.byte() % 11);
            let stream = u32::from(random.byte() % 12);
            match random.below(3) {
                0 => {
                    let length = random.below(40);
                    let payload = random.bytes(length);
                    peer.put(kind, random.byte(), stream, &payload);
                }
                1 => {
                    peer.head(stream | 1);
                }
                _ => {
                    peer.answer(stream | 1, b"abc");
                }
            }
        }
        let out = std::mem::take(&mut peer.out);
        let _ = peer.io.write_all(&out).await;
        for call in calls {
            let _ = call.await;
        }
        let (sending, mut receiving) = stream;
        while let Ok(Some(_)) = receiving.message().await {}
        drop((sending, receiving));
        assert_eq!(connection.0.shared.lock().calls.held(), 0, "seed {seed}");
    }
}
