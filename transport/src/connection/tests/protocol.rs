//! Sections 3.4, 5, 6 and 8: what a client may do, and what becomes of the rest.

use super::*;

#[test]
fn a_server_greets_and_acknowledges() {
    let mut connection = connection(Limits::default());
    let first = output(&mut connection);
    assert!(first[0].starts_with("Settings"), "{first:?}");
    assert_eq!(first[1], format!("0 window {}", 1024 * 1024 - 65_535));
    receive(&mut connection, &greeting(&[]));
    assert_eq!(output(&mut connection), ["settings ack"]);
}

#[test]
fn a_wrong_greeting_ends_the_connection() {
    let mut ping = Vec::new();
    write_ping(&mut ping, 0, [0; 8]);
    for wrong in [
        b"GET / HTTP/1.1\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r.".to_vec(),
        [&PREFACE[..], &ping].concat(),
        [&PREFACE[..], &raw(Kind::SETTINGS, 1, 0, &[])].concat(),
        [&PREFACE[..], &headers(1, End::Stream)].concat(),
    ] {
        let mut connection = connection(Limits::default());
        connection.output_mut().clear();
        receive(&mut connection, &wrong);
        assert!(!connection.is_alive());
        assert_eq!(output(&mut connection), ["goaway 0 PROTOCOL_ERROR"]);
    }
}

#[test]
fn a_request_is_answered() {
    let check = |request: &[Vec<u8>], expected: &[&str]| assert_eq!(answers(request), expected);
    let whole = ["1 headers false", "1 headers true"];
    check(&[headers(1, End::Stream)], &whole);
    let echoed = ["1 headers false", "1 data 3 false", "1 headers true"];
    let open = || headers(1, End::Open);
    check(&[open(), data(1, b"abc", End::Stream)], &echoed);
    let empty = data(1, b"", End::Stream);
    check(&[open(), data(1, b"abc", End::Open), empty], &echoed);
    let trailers = raw(Kind::HEADERS, 5, 1, &block(&[("a", "b")]));
    check(&[open(), data(1, b"abc", End::Open), trailers], &echoed);
    let padded = raw(Kind::DATA, 9, 1, b"\x02abc\0\0");
    check(&[open(), padded], &echoed);
    let fields = block(REQUEST);
    let (one, rest) = fields.split_at(9);
    let (two, three) = rest.split_at(1);
    let parts = [
        raw(Kind::HEADERS, 1, 1, one),
        raw(Kind::CONTINUATION, 0, 1, two),
        raw(Kind::CONTINUATION, 4, 1, three),
    ];
    check(&parts, &whole);
}

#[test]
fn errors_of_a_stream_reset_it_alone() {
    let check = |what: Vec<Vec<u8>>, code: &str| {
        let got = answers(&[what.concat(), headers(99, End::Stream)]);
        let expected = [
            &format!("1 {code}")[..],
            "99 headers false",
            "99 headers true",
        ];
        assert_eq!(got, expected);
    };
    let length = |length| block(&[REQUEST, &[("content-length", length)]].concat());
    let with_length = |text| raw(Kind::HEADERS, 4, 1, &length(text));
    check(
        vec![raw(Kind::HEADERS, 5, 1, &length("1"))],
        "PROTOCOL_ERROR",
    );
    let three = data(1, b"abc", End::Stream);
    check(vec![with_length("2"), three.clone()], "PROTOCOL_ERROR");
    check(vec![with_length("4"), three], "PROTOCOL_ERROR");
    let open = || headers(1, End::Open);
    let trailers = |flags, fields: &[_]| raw(Kind::HEADERS, flags, 1, &block(fields));
    check(
        vec![with_length("1"), trailers(5, &[("a", "b")])],
        "PROTOCOL_ERROR",
    );
    check(vec![open(), trailers(4, &[("a", "b")])], "PROTOCOL_ERROR");
    check(
        vec![open(), trailers(5, &[(":path", "/")])],
        "PROTOCOL_ERROR",
    );
    let zero = raw(Kind::WINDOW_UPDATE, 0, 1, &[0; 4]);
    check(vec![open(), zero], "PROTOCOL_ERROR");
    let most = raw(Kind::WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff]);
    check(vec![open(), most], "FLOW_CONTROL_ERROR");
    check(
        vec![open(), reset(1), data(1, b"", End::Stream)],
        "STREAM_CLOSED",
    );
    check(
        vec![open(), reset(1), headers(1, End::Stream)],
        "STREAM_CLOSED",
    );
}

#[test]
fn a_malformed_head_is_answered_before_its_stream_is_reset() {
    let check = |fields: &[(&str, &str)], flags| {
        let got = answers(&[raw(Kind::HEADERS, flags, 1, &block(fields))]);
        assert_eq!(got, ["1 headers true", "1 PROTOCOL_ERROR"], "{fields:?}");
        // What was on its way is let pass.
        let crossing = data(1, b"abc", End::Stream);
        let head = raw(Kind::HEADERS, 4, 1, &block(fields));
        let got = answers(&[head, crossing, headers(99, End::Stream)]);
        let served = ["99 headers false", "99 headers true"];
        assert_eq!(
            got,
            [&["1 headers true", "1 PROTOCOL_ERROR"], &served[..]].concat()
        );
    };
    for flags in [4, 5] {
        check(&REQUEST[1..], flags);
        check(&[REQUEST, &[("Upper", "x")]].concat(), flags);
        check(&[REQUEST, &[("a", "blank ")]].concat(), flags);
    }
}

#[test]
fn frames_cross_a_reset_of_the_servers_and_not_one_of_the_clients() {
    let connect = block(&[(":method", "CONNECT"), (":authority", "a:1")]);
    let answered = || raw(Kind::HEADERS, 4, 1, &connect);
    let crossing = || data(1, b"abc", End::Open);
    let early = ["1 headers true", "1 NO_ERROR"];
    assert_eq!(answers(&[answered(), crossing()]), early);
    let got = answers(&[answered(), crossing(), reset(1), crossing()]);
    assert_eq!(got, [&early[..], &["1 STREAM_CLOSED"]].concat());
}

#[test]
fn errors_of_the_connection_end_it() {
    let check = |what: Vec<Vec<u8>>, last: u32, code: &str| {
        let got = answers(&what);
        assert_eq!(
            got.last(),
            Some(&format!("goaway {last} {code}")),
            "{got:?}"
        );
    };
    let done = || headers(1, End::Stream);
    check(vec![headers(2, End::Stream)], 0, "PROTOCOL_ERROR");
    check(
        vec![headers(5, End::Stream), headers(3, End::Stream)],
        5,
        "PROTOCOL_ERROR",
    );
    check(vec![done(), done()], 1, "STREAM_CLOSED");
    check(vec![done(), data(1, b"", End::Stream)], 1, "STREAM_CLOSED");
    check(vec![data(1, b"", End::Stream)], 0, "PROTOCOL_ERROR");
    check(vec![reset(1)], 0, "PROTOCOL_ERROR");
    check(
        vec![raw(Kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])],
        0,
        "PROTOCOL_ERROR",
    );
    check(
        vec![raw(Kind::WINDOW_UPDATE, 0, 0, &[0; 4])],
        0,
        "PROTOCOL_ERROR",
    );
    check(
        vec![raw(Kind::CONTINUATION, 4, 1, &[])],
        0,
        "PROTOCOL_ERROR",
    );
    check(
        vec![raw(Kind::PUSH_PROMISE, 4, 1, &[])],
        0,
        "PROTOCOL_ERROR",
    );
    check(
        vec![raw(Kind::HEADERS, 5, 1, &[0x80])],
        1,
        "COMPRESSION_ERROR",
    );
    let begun = raw(Kind::HEADERS, 1, 1, &block(REQUEST));
    check(
        vec![begun.clone(), data(1, b"", End::Open)],
        0,
        "PROTOCOL_ERROR",
    );
    let other = raw(Kind::CONTINUATION, 4, 3, &[]);
    check(vec![begun, other], 0, "PROTOCOL_ERROR");
    let most = raw(Kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]);
    check(vec![most], 0, "FLOW_CONTROL_ERROR");
    let window = raw(Kind::SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]);
    check(vec![window], 0, "FLOW_CONTROL_ERROR");
    let huge = vec![0, 0x40, 1, 0, 0, 0, 0, 0, 1];
    check(vec![huge], 0, "FRAME_SIZE_ERROR");
}

#[test]
fn what_has_no_meaning_is_passed_over() {
    let priority = raw(Kind::PRIORITY, 0, 77, &[0, 0, 0, 1, 2]);
    let unknown = raw(Kind(0x42), 0xff, 4, b"?");
    let pong = raw(Kind::PING, 1, 0, b"whatever");
    assert!(answers(&[priority, unknown, pong]).is_empty());
    let late = raw(Kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 9]);
    let got = answers(&[headers(1, End::Stream), late, reset(1)]);
    assert_eq!(got, ["1 headers false", "1 headers true"]);
}

#[test]
fn a_list_too_large_and_a_tunnel_are_answered() {
    let long = "x".repeat(17 * 1024);
    let fields = block(&[REQUEST, &[("long", &long)]].concat());
    let (first, second) = fields.split_at(16_384);
    let parts = [
        raw(Kind::HEADERS, 1, 1, first),
        raw(Kind::CONTINUATION, 4, 1, second),
        headers(3, End::Stream),
    ];
    assert_eq!(
        answers(&parts),
        ["1 headers true", "3 headers false", "3 headers true"]
    );
    let connect = block(&[(":method", "CONNECT"), (":authority", "a:1")]);
    let got = answers(&[raw(Kind::HEADERS, 4, 1, &connect)]);
    assert_eq!(got, ["1 headers true", "1 NO_ERROR"]);
}

#[test]
fn pings_and_settings_are_acknowledged() {
    let mut ping = Vec::new();
    write_ping(&mut ping, 0, *b"12345678");
    let got = answers(&[ping, greeting(&[])[PREFACE.len()..].to_vec()]);
    assert_eq!(got, ["ping ack", "settings ack"]);
}

#[test]
fn a_drain_has_two_phases() {
    let mut connection = greeted(Limits::default());
    receive(&mut connection, &headers(1, End::Open));
    connection.drain(at(0));
    assert_eq!(
        output(&mut connection),
        ["goaway 2147483647 NO_ERROR", "ping"]
    );
    // On its way when the client was told.
    receive(&mut connection, &headers(3, End::Stream));
    assert_eq!(
        output(&mut connection),
        ["3 headers false", "3 headers true"]
    );
    receive(&mut connection, &raw(Kind::PING, 1, 0, b"drain\0\0\0"));
    assert_eq!(output(&mut connection), ["goaway 3 NO_ERROR"]);
    receive(&mut connection, &headers(5, End::Stream));
    assert_eq!(output(&mut connection), ["5 REFUSED_STREAM"]);
    assert!(!connection.is_done());
    receive(&mut connection, &data(1, b"abc", End::Stream));
    assert_eq!(output(&mut connection).len(), 3);
    assert!(connection.is_done() && connection.failure().is_none());
}

#[test]
fn everything_has_its_time() {
    let check = |before: &[Vec<u8>], after_ms: u64, expected: Option<&str>| {
        let mut connection = greeted(Limits::default());
        receive(&mut connection, &before.concat());
        let _ = output(&mut connection);
        assert!(connection.on_time(at(after_ms - 1)));
        assert!(connection.output_mut().is_empty(), "{after_ms}");
        assert!(
            connection
                .next_time()
                .is_some_and(|next| next <= at(after_ms))
        );
        assert!(connection.on_time(at(after_ms)));
        let got = output(&mut connection);
        assert_eq!(got.first().map(String::as_str), expected);
    };
    let begun = raw(Kind::HEADERS, 1, 1, &[]);
    check(&[begun], 10_000, Some("goaway 0 ENHANCE_YOUR_CALM"));
    check(&[], 60_000, Some("ping"));
    let mut silent = connection(Limits::default());
    silent.output_mut().clear();
    receive(&mut silent, &PREFACE[..20]);
    assert!(silent.on_time(at(10_000)));
    assert_eq!(output(&mut silent), ["goaway 0 PROTOCOL_ERROR"]);
    let mut aged = greeted(Limits::default());
    let busy = Duration::from_secs(1799);
    receive_at(&mut aged, &headers(1, End::Open), busy);
    assert!(aged.on_time(start() + Duration::from_secs(1800)));
    assert_eq!(output(&mut aged)[0], "goaway 2147483647 NO_ERROR");
    assert!(aged.on_time(start() + Duration::from_secs(1830)));
    assert!(!aged.is_alive());
}

#[test]
fn headers_that_depend_on_themselves_end_the_connection() {
    // The block would not be decoded, and the compression state lost.
    let own = [&[0, 0, 0, 1, 15], &block(REQUEST)[..]].concat();
    let got = answers(&[raw(Kind::HEADERS, 0x25, 1, &own)]);
    assert_eq!(got, ["goaway 0 PROTOCOL_ERROR"]);
}

#[test]
fn a_goaway_never_takes_streams_back_in() {
    let mut connection = greeted(Limits::default());
    receive(&mut connection, &headers(1, End::Open));
    connection.drain(at(0));
    receive(&mut connection, &raw(Kind::PING, 1, 0, b"drain\0\0\0"));
    receive(&mut connection, &headers(3, End::Stream));
    let _ = output(&mut connection);
    receive(&mut connection, &raw(Kind::PING, 0, 1, &[0; 8]));
    assert_eq!(output(&mut connection), ["goaway 1 PROTOCOL_ERROR"]);
}
