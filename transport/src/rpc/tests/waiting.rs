//! Calls that wait, and streams.

use super::*;

#[test]
fn a_call_that_waits_holds_up_nobody() {
    let mut client = Client::new(Limits::default());
    let gate = client.methods.gate.clone();
    let mut waiting = Vec::new();
    for number in 0..50 {
        let stream = client.begin("Later", &[]);
        client.send(&frame(Kind::DATA, 1, stream, &prefixed(&[number])));
        waiting.push((stream, number));
        assert_eq!(client.call("Echo", &[], b"abc"), answer(b"abc"));
    }
    // One of them is taken back.
    let (gone, _) = waiting.swap_remove(7);
    client.send(&frame(Kind::RST_STREAM, 0, gone, &[0, 0, 0, 8]));
    gate.open();
    client.turn();
    for (stream, number) in waiting {
        assert_eq!(client.answer(stream), answer(&[number]));
    }
    assert_eq!(client.answer(gone), Answer::default());
    assert!(!client.connection.app().is_waiting());
    assert_eq!(client.connection.streams(), 0);
}

#[test]
fn a_stream_sends_all_of_its_messages() {
    let mut client = Client::new(Limits::default());
    let got = client.call("Stream", &[], &[3, 1]);
    let messages = [2, 1, 0].map(|byte| prefixed(&[byte; 100]));
    assert_eq!((got.content, got.ended), (messages.concat(), true));
    assert_eq!(got.trailers, "grpc-status=0");
    let none = client.call("Stream", &[], &[0, 1]);
    assert_eq!(none, trailers_only("grpc-status=0"));
}

#[test]
fn a_stream_that_is_not_read_stops() {
    let mut client = Client::with_window(Limits::default(), 1000);
    let stream = client.begin("Stream", &[]);
    client.send(&frame(Kind::DATA, 1, stream, &prefixed(&[200, 10])));
    // One message of 1,005 bytes, of which a window's worth has left.
    assert_eq!(client.answers[&stream].content.len(), 1000);
    for round in 2..200_usize {
        client.send(&frame(Kind::WINDOW_UPDATE, 0, 0, &[0, 0, 3, 0xe8]));
        client.send(&frame(Kind::WINDOW_UPDATE, 0, stream, &[0, 0, 3, 0xe8]));
        assert_eq!(client.answers[&stream].content.len(), 1000 * round);
    }
    client.send(&frame(Kind::WINDOW_UPDATE, 0, stream, &[0, 0, 0xff, 0xff]));
    let got = client.answer(stream);
    assert_eq!((got.content.len(), got.ended), (200 * 1005, true));
}

#[test]
fn a_lost_connection_drops_every_call() {
    let mut client = Client::new(Limits::default());
    for method in ["Later", "Echo", "Unknown"] {
        let stream = client.begin(method, &[]);
        let flags = u8::from(method == "Later");
        client.send(&frame(Kind::DATA, flags, stream, &prefixed(b"")));
    }
    assert_eq!(client.connection.streams(), 3);
    client.connection.lost();
    assert_eq!(client.connection.streams(), 0);
    assert!(!client.connection.app().is_waiting());
}

#[test]
fn streams_and_calls_take_turns() {
    let mut client = Client::new(Limits {
        max_output_bytes: 4096,
        ..Limits::default()
    });
    let mut bytes = Vec::new();
    let long = client.begin("Stream", &[]);
    bytes.extend(frame(Kind::DATA, 1, long, &prefixed(&[50, 10])));
    client.send(&bytes);
    for _ in 0..20 {
        assert_eq!(client.call("Echo", &[], b"abc"), answer(b"abc"));
    }
    assert_eq!(client.answer(long).content.len(), 50 * 1005);
}

#[test]
fn a_call_that_is_gone_before_it_is_polled_leaves_nothing_to_do() {
    let mut client = Client::new(Limits::default());
    let mut both = Vec::new();
    for stream in [1, 3, 5] {
        let mut block = Vec::new();
        for (name, value) in [(":method", "GET"), (":scheme", "http"), (":path", "/")] {
            write_literal(&mut block, name.as_bytes(), value.as_bytes());
        }
        both.extend(frame(Kind::HEADERS, 5, stream, &block));
        both.extend(frame(Kind::RST_STREAM, 0, stream, &[0, 0, 0, 8]));
    }
    let received = client.connection.receive(&both, start());
    assert_eq!(received.consumed, both.len());
    assert!(!client.connection.app().is_waiting());
    assert!(!client.connection.app().has_ready());
}

#[test]
fn answers_that_were_waited_for_stay_within_the_limit() {
    let limits = Limits {
        max_unsent_bytes: 10_000,
        ..Limits::default()
    };
    let mut client = Client::with_window(limits, 0);
    let gate = client.methods.gate.clone();
    let mut calls = Vec::new();
    for number in 0..50 {
        let stream = client.begin("Later", &[]);
        let message = vec![number; 1000];
        client.send(&frame(Kind::DATA, 1, stream, &prefixed(&message)));
        calls.push((stream, message));
    }
    gate.open();
    client.turn();
    assert!(client.connection.is_clogged());
    // Ten answers, of 1,005 bytes each, are more than the limit.
    let begun = |client: &Client| {
        let answers = client.answers.values();
        answers.filter(|answer| !answer.headers.is_empty()).count()
    };
    assert_eq!(begun(&client), 10);
    // Each that leaves lets another one in.
    for (done, (stream, message)) in calls.into_iter().enumerate() {
        client.send(&frame(Kind::WINDOW_UPDATE, 0, stream, &[0, 0, 4, 0]));
        assert_eq!(client.answer(stream), answer(&message));
        assert!(begun(&client) <= 10, "{done}");
    }
    assert_eq!(client.connection.streams(), 0);
    assert!(!client.connection.app().has_ready());
}

#[test]
fn nothing_follows_the_goaway_of_an_error() {
    let mut client = Client::new(Limits {
        stream_window_bytes: 65_535,
        connection_window_bytes: 65_535,
        ..Limits::default()
    });
    let stream = client.begin("Unknown", &[]);
    // More than half of the window, which nobody reads before the error.
    let mut bytes = Vec::new();
    for _ in 0..3 {
        bytes.extend(frame(Kind::DATA, 0, stream, &[0; 16_000]));
    }
    bytes.extend(frame(Kind::PING, 0, stream, &[0; 8]));
    let received = client.connection.receive(&bytes, start());
    assert_eq!(received.consumed, bytes.len());
    let mut out = client.connection.output();
    let mut kinds = Vec::new();
    while let Some(head) = FrameHead::parse(out) {
        kinds.push(head.kind);
        out = &out[FrameHead::BYTES + head.length as usize..];
    }
    assert_eq!(kinds, [Kind::WINDOW_UPDATE, Kind::GOAWAY]);
}
