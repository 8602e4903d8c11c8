//! Calls that are answered at once, and requests that are wrong.

use super::*;

#[test]
fn a_call_is_answered_at_once() {
    let mut client = Client::new(Limits::default());
    for message in [&b""[..], b"abc", &[7; 300]] {
        assert_eq!(client.call("Echo", &[], message), answer(message));
    }
    let with = client.call("Echo", &[("x-meta", "m")], b"abc");
    assert_eq!(with.headers, format!("{HEAD} x-meta=m"));
    assert_eq!(with.trailers, "grpc-status=0 x-trailer=m");
}

#[test]
fn a_head_is_looked_at_once() {
    let mut client = Client::new(Limits::default());
    for _ in 0..10 {
        client.call("Echo", &[], b"abc");
        client.call("Echo", &[("x-meta", "m")], b"abc");
    }
    assert_eq!(*client.methods.routed.lock().unwrap(), 2);
}

#[test]
fn a_request_may_come_in_any_parts() {
    let mut client = Client::new(Limits::default());
    let whole = prefixed(b"some message");
    for cut in 0..=whole.len() {
        for last in 0..3 {
            let stream = client.begin("Echo", &[]);
            let (one, two) = whole.split_at(cut);
            client.send(&frame(Kind::DATA, 0, stream, one));
            let flags = u8::from(last == 0);
            client.send(&frame(Kind::DATA, flags, stream, two));
            if last == 1 {
                client.send(&frame(Kind::DATA, 1, stream, &[]));
            } else if last == 2 {
                client.send(&frame(Kind::HEADERS, 5, stream, b"\0\x01a\x01b"));
            }
            assert_eq!(client.answer(stream), answer(b"some message"));
        }
    }
}

#[test]
fn an_error_is_told_in_trailers() {
    let mut client = Client::new(Limits::default());
    let expected = "grpc-status=5 grpc-message=no %C3%A9 grpc-status-details-bin=d2h5";
    assert_eq!(client.call("Fail", &[], b""), trailers_only(expected));
}

#[test]
fn metadata_of_an_error_is_told_in_headers() {
    let mut client = Client::new(Limits::default());
    let got = client.call("Fail", &[("x-meta", "m")], b"");
    assert_eq!(got.headers, format!("{HEAD} x-meta=m"));
    let expected = "grpc-status=5 grpc-message=no %C3%A9 grpc-status-details-bin=d2h5";
    assert_eq!((&got.trailers[..], got.ended), (expected, true));
    assert_eq!(got.content, b"");
}

#[test]
fn a_panic_ends_its_call_alone() {
    let mut client = Client::new(Limits::default());
    let failed = "grpc-status=13 grpc-message=the server failed at this call";
    assert_eq!(client.call("Panic", &[], b""), trailers_only(failed));
    let half = client.call("HalfPanic", &[], b"");
    assert_eq!((&half.headers[..], &half.content[..]), (HEAD, &b""[..]));
    assert_eq!((&half.trailers[..], half.ended), (failed, true));
    assert_eq!(client.call("Echo", &[], b"abc"), answer(b"abc"));
    let general = client.call("GeneralPanic", &[], b"");
    assert_eq!(general.reset.as_deref(), Some("INTERNAL_ERROR"));
    assert_eq!(client.call("Echo", &[], b"abc"), answer(b"abc"));
}

#[test]
fn a_wrong_request_has_a_status() {
    let limits = || Limits {
        max_message_bytes: 1000,
        max_assembly_bytes: 1500,
        ..Limits::default()
    };
    let check = |content: &[u8], flags: u8, status: &str| {
        let mut client = Client::new(limits());
        let stream = client.begin("Echo", &[]);
        client.send(&frame(Kind::DATA, flags, stream, content));
        let got = client.answer(stream);
        assert!(
            got.headers.contains(&format!("grpc-status={status} ")),
            "{got:?}"
        );
        assert!(got.ended);
        // The server does not read on.
        assert_eq!(got.reset.is_some(), flags == 0);
        if flags == 0 {
            client.send(&frame(Kind::DATA, 0, stream, b"on its way"));
        }
        assert_eq!(client.call("Echo", &[], b"abc"), answer(b"abc"));
    };
    check(b"", 1, "12");
    check(&prefixed(b"abc")[..7], 1, "13");
    check(&[prefixed(b"a"), prefixed(b"b")].concat(), 1, "12");
    check(&[prefixed(b"a"), prefixed(b"b")].concat(), 0, "12");
    check(b"\x01\0\0\0\x01a", 1, "13");
    // A prefix that lies is refused at once.
    check(b"\0\xff\xff\xff\xff", 0, "8");
    check(b"\0\0\0\x03\xe9", 0, "8");
    let mut client = Client::new(limits());
    let streams: Vec<u32> = (0..2).map(|_| client.begin("Echo", &[])).collect();
    for &stream in &streams {
        let part = &prefixed(&[0; 1000])[..900];
        client.send(&frame(Kind::DATA, 0, stream, part));
    }
    assert!(client.answer(streams[1]).headers.contains("grpc-status=8 "));
    client.send(&frame(Kind::DATA, 1, streams[0], &[0; 105]));
    assert_eq!(client.answer(streams[0]), answer(&[0; 1000]));
}

#[test]
fn a_message_too_large_for_a_frame_or_a_window_is_cut() {
    let mut client = Client::with_window(Limits::default(), 10);
    let stream = client.begin("Echo", &[]);
    client.send(&frame(Kind::DATA, 1, stream, &prefixed(&[9; 100])));
    assert_eq!(client.answers[&stream].content.len(), 10);
    client.send(&frame(Kind::WINDOW_UPDATE, 0, stream, &[0, 0, 0, 200]));
    assert_eq!(client.answer(stream), answer(&[9; 100]));
    let mut client = Client::new(Limits::default());
    let stream = client.begin("Echo", &[]);
    let message = vec![8; 50_000];
    let whole = prefixed(&message);
    for part in whole.chunks(16_384) {
        client.send(&frame(Kind::DATA, 0, stream, part));
    }
    client.send(&frame(Kind::DATA, 1, stream, &[]));
    assert_eq!(client.answer(stream), answer(&message));
}

#[test]
fn calls_are_held_back_while_windows_are_shut() {
    let limits = Limits {
        max_unsent_bytes: 50_000,
        max_assembly_bytes: 500_000,
        ..Limits::default()
    };
    let mut client = Client::with_window(limits, 0);
    let message = [1; 10_000];
    let begin = |client: &mut Client| {
        let stream = client.begin("Echo", &[]);
        client.send(&frame(Kind::DATA, 1, stream, &prefixed(&message)));
        stream
    };
    let streams: Vec<u32> = (0..50).map(|_| begin(&mut client)).collect();
    // Those that were answered have told their heads, at least.
    assert_eq!(client.answers.len(), 5 + 1);
    // What would be too much to keep is refused.
    let more: Vec<u32> = (0..10).map(|_| begin(&mut client)).collect();
    let refused = |stream: &&u32| {
        let answer = client.answers.get(stream);
        answer.is_some_and(|answer| answer.headers.contains("grpc-status=8 "))
    };
    assert_eq!(more.iter().filter(refused).count(), 6);
    // One whose client leaves is none any more.
    client.send(&frame(Kind::RST_STREAM, 0, streams[20], &[0, 0, 0, 8]));
    let mut opened = Vec::new();
    write_settings(&mut opened, &[(SettingId::INITIAL_WINDOW_SIZE, 20_000)]);
    client.send(&opened);
    for _ in 0..100 {
        client.send(&frame(Kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0x40, 0]));
    }
    for &stream in &streams {
        let expected = match stream == streams[20] {
            true => Answer::default(),
            false => answer(&message),
        };
        assert_eq!(client.answer(stream), expected, "{stream}");
    }
}

#[test]
fn a_request_in_parts_is_waited_for_if_the_handler_wants_to() {
    let mut client = Client::new(Limits::default());
    let whole = prefixed(b"abc");
    let stream = client.begin("NoWait", &[]);
    client.send(&frame(Kind::DATA, 0, stream, &whole[..6]));
    assert_eq!(
        client.answer(stream),
        Answer {
            reset: Some("NO_ERROR".to_owned()),
            ..trailers_only("grpc-status=16 grpc-message=no x-why=parts")
        }
    );
    // One that is there is not asked about.
    assert_eq!(client.call("NoWait", &[], b"abc"), answer(b"abc"));
}

#[test]
fn deadlines_are_kept() {
    let mut client = Client::new(Limits::default());
    let late = || trailers_only("grpc-status=4 grpc-message=the deadline has passed");
    assert_eq!(
        client.call("Left", &[("grpc-timeout", "1S")], b""),
        answer(b"")
    );
    assert_eq!(client.call("Echo", &[("grpc-timeout", "0m")], b""), late());
    let timed = client.begin("Echo", &[("grpc-timeout", "100m")]);
    let waiting = client.begin("Later", &[("grpc-timeout", "50m")]);
    client.send(&frame(Kind::DATA, 1, waiting, &prefixed(b"")));
    let endless = client.begin("Echo", &[]);
    client.wait(Duration::from_millis(49));
    assert!(
        client
            .answers
            .values()
            .all(|answer| answer.headers.is_empty())
    );
    client.wait(Duration::from_millis(1));
    assert_eq!(client.answer(waiting), late());
    client.wait(Duration::from_millis(50));
    assert_eq!(client.answer(timed).headers, late().headers);
    client.wait(Duration::from_secs(59));
    assert_eq!(client.answer(endless), Answer::default());
    client.wait(Duration::from_secs(1));
    let silent = "grpc-status=4 grpc-message=the request did not come in time";
    assert_eq!(
        client.answer(endless).headers,
        trailers_only(silent).headers
    );
    assert_eq!(client.connection.streams(), 0);
}

#[test]
fn what_is_not_of_the_typed_lane_goes_to_the_general_one() {
    let mut client = Client::new(Limits::default());
    let mut check = |method: &str, more: &[(&str, &str)]| {
        let got = client.call(method, more, b"abc");
        assert!(
            got.headers.starts_with(":status=200 x-uri=/t.T/"),
            "{got:?}"
        );
        assert_eq!((got.content, got.ended), (prefixed(b"abc"), true));
    };
    check("Unknown", &[]);
    check("Echo", &[("grpc-encoding", "gzip")]);
    check("Echo", &[("grpc-timeout", "soon")]);
    check("Echo", &[("content-type", "application/json")]);
    let stream = client.begin("Unknown", &[]);
    for part in [&b"one"[..], b"two"] {
        client.send(&frame(Kind::DATA, 0, stream, part));
    }
    assert_eq!(client.answers[&stream].content, b"onetwo");
    client.send(&frame(Kind::HEADERS, 5, stream, b"\0\x01a\x01b"));
    assert_eq!(client.answer(stream).trailers, "a=b");
    let stream = client.begin("Unknown", &[]);
    client.send(&frame(Kind::RST_STREAM, 0, stream, &[0, 0, 0, 8]));
    assert_eq!(client.connection.streams(), 0);
    assert!(!client.connection.app().is_waiting());
}
