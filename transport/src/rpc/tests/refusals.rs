//! Calls that the transport ends: what their handlers are told, what the client
//! is, and what is counted.

use super::*;
use crate::stats::Counter;

/// The handler's word for each refusal, and the counter.
fn check(limits: Limits, act: impl FnOnce(&mut Client), expected: &[(&str, Counter)]) {
    let mut client = Client::new(limits);
    act(&mut client);
    let lines = client.methods.refused.lock().unwrap().clone();
    let words: Vec<&str> = expected.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, words);
    let shared = client.connection.shared();
    for &(line, counter) in expected {
        let same = expected.iter().filter(|(_, other)| *other == counter);
        let count = same.count() as u64;
        assert_eq!(shared.stats().of(counter), count, "{line}");
    }
}

fn send(client: &mut Client, method: &str, flags: u8, content: &[u8]) -> u32 {
    let stream = client.begin(method, &[]);
    client.send(&frame(Kind::DATA, flags, stream, content));
    stream
}

#[test]
fn a_handler_is_told_of_wrong_requests() {
    let limits = || Limits {
        max_message_bytes: 1000,
        max_assembly_bytes: 900,
        ..Limits::default()
    };
    let one = |flags: u8, content: &[u8], line: &str, counter| {
        let act = |client: &mut Client| {
            send(client, "Echo", flags, content);
        };
        check(limits(), act, &[(line, counter)]);
    };
    let why = "Echo Malformed(\"a compressed message without grpc-encoding\")";
    one(1, b"\x01\0\0\0\x01a", why, Counter::CallsMalformed);
    let why = "Echo Malformed(\"a message that ends too early\")";
    one(1, b"\0\0\0\0\x05a", why, Counter::CallsMalformed);
    let why = "Echo Cardinality(\"a request without a message\")";
    one(1, b"", why, Counter::CallsCardinality);
    let why = "Echo Cardinality(\"more than the one message of this method\")";
    one(1, b"\0\0\0\0\x01ab", why, Counter::CallsCardinality);
    let why = "Echo TooLarge { bytes: 1001, max: 1000 }";
    one(0, b"\0\0\0\x03\xe9", why, Counter::CallsTooLarge);
    let half = &prefixed(&[0; 1000])[..901];
    one(0, half, "Echo AssemblyFull", Counter::CallsAssemblyFull);
}

#[test]
fn a_handler_is_told_of_time_and_of_clients_that_leave() {
    let late = |client: &mut Client| {
        client.call("Echo", &[("grpc-timeout", "0m")], b"");
        client.begin("Echo", &[("grpc-timeout", "1S")]);
        let waiting = client.begin("Later", &[("grpc-timeout", "1S")]);
        client.send(&frame(Kind::DATA, 1, waiting, &prefixed(b"")));
        client.begin("Fail", &[]);
        client.wait(Duration::from_secs(60));
    };
    let told = [
        ("Echo DeadlineExceeded", Counter::CallsDeadline),
        ("Echo DeadlineExceeded", Counter::CallsDeadline),
        ("waiting DeadlineExceeded", Counter::CallsDeadline),
        ("Fail RequestTimeout", Counter::CallsRequestTimeout),
    ];
    check(Limits::default(), late, &told);
    let leaves = |client: &mut Client| {
        let reset = client.begin("Echo", &[]);
        client.send(&frame(Kind::RST_STREAM, 0, reset, &[0, 0, 0, 8]));
        send(client, "Later", 1, &prefixed(b""));
        client.begin("Fail", &[]);
        client.connection.lost();
    };
    let told = [
        ("Echo Gone", Counter::CallsGone),
        ("Fail Gone", Counter::CallsGone),
    ];
    check(Limits::default(), leaves, &told);
}

#[test]
fn a_handler_is_told_of_its_panics_and_may_panic_again() {
    let panics = |client: &mut Client| {
        for method in ["Panic", "HalfPanic", "LatePanic", "RefusePanic"] {
            let answer = client.call(method, &[], b"");
            let text = answer.headers + &answer.trailers;
            assert!(text.contains("grpc-status=13 "), "{text}");
            assert!(answer.ended);
        }
    };
    let told = [
        ("Panic Panicked", Counter::CallsPanicked),
        ("HalfPanic Panicked", Counter::CallsPanicked),
        ("waiting Panicked", Counter::CallsPanicked),
        ("RefusePanic Panicked", Counter::CallsPanicked),
    ];
    check(Limits::default(), panics, &told);
}

#[test]
fn a_connection_that_is_cut_answers_what_it_can() {
    let cut = |client: &mut Client| {
        let waiting = send(client, "Later", 1, &prefixed(b""));
        let gathering = client.begin("Echo", &[]);
        let general = client.begin("Unknown", &[]);
        let now = start() + client.now;
        client.connection.cut(now, Counter::DrainGrace, "enough");
        assert!(client.connection.is_done());
        let out = client.connection.output().to_vec();
        client.read(&out);
        for stream in [waiting, gathering] {
            let answer = client.answer(stream);
            assert_eq!(
                answer.headers,
                format!("{HEAD} grpc-status=14 grpc-message=the server ends")
            );
        }
        assert!(!client.answer(general).ended);
    };
    let told = [
        ("waiting Draining", Counter::CallsDraining),
        ("Echo Draining", Counter::CallsDraining),
    ];
    check(Limits::default(), cut, &told);
}

#[test]
fn a_stream_whose_window_stays_shut_is_ended_and_the_others_are_not() {
    let mut client = Client::with_window(Limits::default(), 1000);
    // One that has answered, one that goes on answering, one that waits, and one
    // that is read.
    let answered = client.begin("Echo", &[]);
    for (part, flags) in prefixed(&vec![1; 60_000]).chunks(15_003).zip([0, 0, 0, 1]) {
        client.send(&frame(Kind::DATA, flags, answered, part));
    }
    let stream = send(&mut client, "Stream", 1, &prefixed(&[200, 10]));
    let later = send(&mut client, "Later", 1, &prefixed(b"later"));
    let read = send(&mut client, "Stream", 1, &prefixed(&[200, 1]));
    assert!(client.connection.kept_bytes() > 50_000);
    for _ in 0..6 {
        for stream in [answered, stream] {
            assert_eq!(client.answers[&stream].reset, None);
        }
        client.wait(Duration::from_secs(10));
        client.send(&frame(Kind::WINDOW_UPDATE, 0, read, &[0, 0, 0, 100]));
    }
    let calm = Some("ENHANCE_YOUR_CALM".to_owned());
    assert_eq!(client.answer(answered).reset, calm);
    assert_eq!(client.answer(stream).reset, calm);
    assert_eq!(client.answers[&read].reset, None);
    client.methods.gate.open();
    client.turn();
    assert_eq!(client.answer(later), answer(b"later"));
    assert_eq!(client.connection.streams(), 1);
    let shared = client.connection.shared();
    assert_eq!(shared.stats().of(Counter::StreamsStalled), 2);
    assert_eq!(shared.stats().of(Counter::CallsStalled), 1);
}
