//! Sections 5.2 and 6.9: flow control.

use super::*;
use crate::stats::Counter;

fn update(stream: u32, by: u32) -> Vec<u8> {
    let mut out = Vec::new();
    write_window_update(&mut out, stream, by);
    out
}

fn settings(window: u32) -> Vec<u8> {
    let mut out = Vec::new();
    write_settings(&mut out, &[(SettingId::INITIAL_WINDOW_SIZE, window)]);
    out
}

#[test]
fn content_waits_for_the_windows() {
    let mut connection = greeted(Limits::default());
    let mut check = |bytes: Vec<u8>, expected: &[&str]| {
        receive(&mut connection, &bytes);
        assert_eq!(output(&mut connection), expected);
    };
    check(settings(2), &["settings ack"]);
    let request = [headers(1, End::Open), data(1, b"abcdefgh", End::Stream)].concat();
    check(request, &["1 headers false", "1 data 2 false"]);
    check(update(0, 100), &[]);
    check(update(1, 1), &["1 data 1 false"]);
    // 2 to 1 makes the stream's window -1.
    check(settings(1), &["settings ack"]);
    check(update(1, 1), &[]);
    check(update(1, 1), &["1 data 1 false"]);
    check(settings(3), &["settings ack", "1 data 2 false"]);
    check(update(1, 50), &["1 data 2 false", "1 headers true"]);
}

#[test]
fn streams_share_the_connections_window_in_turns() {
    let mut connection = greeted(Limits::default());
    let _ = output(&mut connection);
    receive(&mut connection, &settings(1 << 20));
    let body = vec![7; 16_384];
    let mut all = Vec::new();
    for stream in [1, 3] {
        all.extend(headers(stream, End::Open));
        for part in 0..4 {
            let end = if part == 3 { End::Stream } else { End::Open };
            all.extend(data(stream, &body, end));
        }
    }
    receive(&mut connection, &all);
    let first: Vec<String> = output(&mut connection)
        .into_iter()
        .filter(|frame| frame.contains("data"))
        .collect();
    let expected = [
        "1 data 16384 false",
        "3 data 16384 false",
        "1 data 16384 false",
        "3 data 16383 false",
    ];
    assert_eq!(first, expected);
    receive(&mut connection, &update(0, 1 << 20));
    let rest: Vec<String> = output(&mut connection)
        .into_iter()
        .filter(|frame| frame.contains("data"))
        .collect();
    assert_eq!(
        rest[..3],
        [
            "1 data 16384 false",
            "3 data 16384 false",
            "1 data 16384 false"
        ]
    );
}

#[test]
fn a_client_that_does_not_read_has_little_more_kept_than_its_answer() {
    const ANSWER: usize = 300_000;
    let mut connection = greeted(Limits::default());
    receive(&mut connection, &settings(1 << 20));
    receive(&mut connection, &update(0, 1 << 20));
    let _ = output(&mut connection);
    let mut request = headers(1, End::Open);
    let body = vec![0; ANSWER];
    for part in body.chunks(15_000) {
        request.extend(data(1, part, End::Open));
    }
    request.extend(data(1, &[], End::Stream));
    receive(&mut connection, &request);
    // As at the end of a turn, when the socket takes nothing.
    drop(connection.take_buffer());
    let kept = connection.kept_bytes();
    let key = connection.core.streams.find(1).unwrap();
    let stream = connection.core.streams.at(key).unwrap();
    let held = stream.pending.capacity() + connection.core.out.capacity();
    for bytes in [kept, held] {
        assert!((ANSWER..ANSWER + 96 * 1024).contains(&bytes), "{bytes}");
    }
    let mut sent = 0;
    while !connection.output().is_empty() {
        let count = connection.output().len();
        connection.wrote(count, at(0));
        sent += count;
    }
    assert!((ANSWER..ANSWER + 1000).contains(&sent), "{sent}");
}

#[test]
fn windows_are_opened_again_when_half_is_read() {
    let mut connection = greeted(Limits {
        stream_window_bytes: 65_535,
        ..Limits::default()
    });
    receive(&mut connection, &headers(1, End::Open));
    for _ in 0..2 {
        receive(&mut connection, &data(1, &[0; 16_383], End::Open));
    }
    assert!(output(&mut connection).is_empty());
    receive(&mut connection, &data(1, &[0; 1], End::Open));
    assert_eq!(output(&mut connection), ["1 window 32767"]);
    connection.app().silent = true;
    let key = connection.core.streams.find(1).unwrap();
    assert!(
        connection
            .core
            .streams
            .at(key)
            .unwrap()
            .receive
            .take(65_535)
    );
    receive(&mut connection, &data(1, &[0; 1], End::Open));
    assert_eq!(output(&mut connection), ["1 FLOW_CONTROL_ERROR"]);
}

#[test]
fn the_connections_window_is_kept() {
    let mut connection = greeted(Limits {
        connection_window_bytes: 65_535,
        ..Limits::default()
    });
    connection.app().silent = true;
    let mut bytes = Vec::new();
    // Streams that are refused count, too, and are read at once.
    for stream in 0..40 {
        bytes.extend(headers(2 * stream + 1, End::Open));
        bytes.extend(data(2 * stream + 1, &[0; 16_000], End::Open));
    }
    receive(&mut connection, &bytes);
    let out = output(&mut connection);
    assert!(
        out.iter().all(|frame| frame.starts_with("0 window")),
        "{out:?}"
    );
    assert!(connection.is_alive());
}

#[test]
fn an_initial_window_may_not_overflow_a_streams() {
    let mut connection = greeted(Limits::default());
    receive(&mut connection, &headers(1, End::Open));
    receive(&mut connection, &update(1, (1 << 31) - 1 - 65_535));
    receive(&mut connection, &settings(65_536));
    assert_eq!(output(&mut connection), ["goaway 1 FLOW_CONTROL_ERROR"]);
}

#[test]
fn a_client_that_takes_nothing_is_dropped_in_time() {
    let mut connection = greeted(Limits::default());
    receive(&mut connection, &settings(0));
    let _ = output(&mut connection);
    let request = [headers(1, End::Open), data(1, b"abc", End::Stream)].concat();
    receive_at(&mut connection, &request, Duration::from_secs(70));
    let _ = output(&mut connection);
    assert!(connection.on_time(at(129_999)));
    assert!(!connection.on_time(at(130_000)));
}

#[test]
fn little_that_does_not_leave_is_kept_in_little() {
    let mut connection = greeted(Limits::default());
    let check = |connection: &mut Connection<Echo>, left: usize, kept: usize| {
        connection.lend_buffer(|| Vec::with_capacity(1 << 20));
        connection.core.out.resize(100_000, 7);
        connection.wrote(100_000 - left, start());
        let spare = connection.take_buffer().map_or(0, |spare| spare.capacity());
        assert_eq!(connection.kept_bytes(), kept, "{left}");
        assert!(spare + kept >= 1 << 20, "{left}");
        assert_eq!(connection.output(), vec![7; left]);
        connection.wrote(left, start());
        drop(connection.take_buffer());
    };
    drop(connection.take_buffer());
    check(&mut connection, 0, 0);
    check(&mut connection, 10, 10);
    check(&mut connection, 90_000, 90_000);
}

#[test]
fn a_connections_window_that_stays_shut_ends_it_whatever_else_is_sent() {
    let mut connection = greeted(Limits::default());
    receive(&mut connection, &settings(1 << 20));
    let body = vec![7; 16_384];
    let mut request = headers(1, End::Open);
    for part in 0..5 {
        let end = if part == 4 { End::Stream } else { End::Open };
        request.extend(data(1, &body, end));
    }
    receive(&mut connection, &request);
    let mut ping = Vec::new();
    write_ping(&mut ping, 0, [0; 8]);
    for second in (0..60).step_by(10) {
        let _ = output(&mut connection);
        receive_at(&mut connection, &ping, Duration::from_secs(second));
        // The socket takes the answers.
        connection.wrote(0, at(1000 * second));
        assert!(connection.on_time(at(1000 * second)));
        assert!(connection.is_alive());
    }
    assert!(output(&mut connection).contains(&"ping ack".to_owned()));
    assert_eq!(connection.next_time(), Some(at(60_000)));
    assert!(connection.on_time(at(60_000)));
    assert_eq!(output(&mut connection), ["goaway 1 ENHANCE_YOUR_CALM"]);
    let stats = connection.shared();
    assert_eq!(stats.stats().of(Counter::Stall), 1);
}

#[test]
fn a_window_that_is_shut_without_anything_to_send_is_no_matter() {
    let mut connection = greeted(Limits::default());
    receive(&mut connection, &settings(1 << 20));
    let mut request = headers(1, End::Open);
    for _ in 0..5 {
        request.extend(data(1, &[7; 16_384], End::Open));
    }
    request.extend(data(1, &[], End::Stream));
    receive(&mut connection, &request);
    // What waited is taken back with its stream.
    receive(&mut connection, &reset(1));
    let _ = output(&mut connection);
    assert!(connection.on_time(at(60_000)));
    assert!(connection.is_alive());
}

#[test]
fn a_client_that_reads_has_nothing_waiting_beyond_the_output() {
    let limits = Limits::default();
    let most = limits.max_output_bytes + 40_000;
    let mut connection = greeted(limits);
    receive(&mut connection, &settings(1 << 20));
    receive(&mut connection, &update(0, 1 << 30));
    let mut calls = Vec::new();
    for stream in (0..20).map(|number| 2 * number + 1) {
        calls.extend(headers(stream, End::Open));
        // Two frames and a half, so that the answer takes more than one frame.
        for length in [16_000, 16_000, 8000] {
            let end = if length == 8000 {
                End::Stream
            } else {
                End::Open
            };
            calls.extend(data(stream, &vec![1; length], end));
        }
    }
    let mut rest = &calls[..];
    let mut ended = 0;
    while ended < 20 {
        let received = connection.receive(rest, at(0));
        rest = &rest[received.consumed..];
        assert!(connection.core.unsent <= most, "{}", connection.core.unsent);
        let out = frames(&std::mem::take(connection.output_mut()));
        ended += out.iter().filter(|f| f.contains("headers true")).count();
        connection.wrote(0, at(0));
    }
    assert_eq!(connection.core.unsent, 0);
}
