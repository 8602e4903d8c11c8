//! A connection without a socket, and a server that does as each test says.

use std::collections::BTreeMap;

use larder_transport::hpack::write_literal;

use super::super::super::stats::Outcome;
use super::super::api::tests::calls;
use super::*;

/// What has ended so far, by slot.
type Ends = Vec<(usize, Result<Outcome, ErrorKind>)>;

struct Pair {
    grpc: Grpc,
    /// Of each stream: bytes of `DATA`, and whether it was ended.
    sent: BTreeMap<u32, (usize, bool)>,
    /// Kinds of the other frames, with their streams.
    others: Vec<(Kind, u32)>,
    ends: Ends,
}

impl Pair {
    /// A connection of four slots whose server has these settings.
    fn new(calls: Calls, settings: &[(SettingId, u32)]) -> Self {
        let mut pair = Self {
            grpc: Grpc::new(Arc::new(calls), 4, 1),
            sent: BTreeMap::new(),
            others: Vec::new(),
            ends: Vec::new(),
        };
        assert!(!pair.grpc.may_begin(), "before the settings came");
        let mut greeting = Vec::new();
        write_settings(&mut greeting, settings);
        pair.give(&greeting);
        assert!(pair.grpc.may_begin());
        pair.look();
        let kinds: Vec<_> = pair.others.drain(..).map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [Kind::SETTINGS, Kind::WINDOW_UPDATE, Kind::SETTINGS]);
        pair
    }

    fn usual() -> Self {
        Self::new(calls(Api::Rpc), &[])
    }

    fn begin(&mut self, slot: usize, operation: Operation) {
        let request = Request {
            operation,
            key: b"k000000000000001",
            index: 1,
        };
        self.grpc.begin(slot, request);
    }

    fn give(&mut self, bytes: &[u8]) {
        let broken = self.try_give(bytes);
        assert_eq!(broken, Ok(bytes.len()));
    }

    fn try_give(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let mut ended = Vec::new();
        let used = self.grpc.receive(bytes, &mut ended);
        let ended = ended.into_iter().map(|end| (end.slot, end.result));
        self.ends.extend(ended);
        used
    }

    /// Reads what the connection has written.
    fn look(&mut self) {
        let out = std::mem::take(self.grpc.out());
        let mut rest = out.strip_prefix(PREFACE).unwrap_or(&out);
        while let Some(head) = FrameHead::parse(rest) {
            assert!(head.length <= MIN_MAX_FRAME_BYTES);
            rest = &rest[FrameHead::BYTES + head.length as usize..];
            if head.kind == Kind::DATA {
                let sent = self.sent.entry(head.stream).or_default();
                sent.0 += head.length as usize;
                assert!(!sent.1, "nothing comes after the end");
                sent.1 = head.has(flag::END_STREAM);
            } else {
                self.others.push((head.kind, head.stream));
            }
        }
        assert_eq!(rest, [0; 0]);
    }
}

fn frame(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let start = begin_frame(&mut out);
    out.extend_from_slice(payload);
    end_frame(&mut out, start, kind, flags, stream);
    out
}

fn head(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        write_literal(&mut block, name.as_bytes(), value.as_bytes());
    }
    frame(Kind::HEADERS, flags | flag::END_HEADERS, stream, &block)
}

/// An answer's message with a value of so many bytes.
fn message_with(value_bytes: u8) -> Vec<u8> {
    let mut message = vec![0, 0, 0, 0, value_bytes + 2, 10, value_bytes];
    message.resize(message.len() + usize::from(value_bytes), 7);
    message
}

/// A whole answer.
fn answer(stream: u32, value_bytes: u8) -> Vec<u8> {
    let message = message_with(value_bytes);
    [
        head(
            stream,
            0,
            &[(":status", "200"), ("content-type", "application/grpc")],
        ),
        frame(Kind::DATA, 0, stream, &message),
        head(stream, flag::END_STREAM, &[("grpc-status", "0")]),
    ]
    .concat()
}

fn failed(code: &'static str, reason: &str) -> Result<Outcome, ErrorKind> {
    Err((code, Some(reason.to_owned())))
}

#[test]
fn each_answer_is_counted_once_however_its_bytes_come() {
    let answers = [answer(3, 100), answer(1, 100), answer(5, 99)].concat();
    for size in [1, 2, 3, 10, 50, answers.len()] {
        let mut pair = Pair::usual();
        for slot in 0..3 {
            pair.begin(slot, Operation::Get);
        }
        let mut rest = Vec::new();
        for piece in answers.chunks(size) {
            rest.extend_from_slice(piece);
            let used = pair.try_give(&rest).unwrap();
            rest.drain(..used);
        }
        let expected = [
            (1, Ok(Outcome::Hit(100))),
            (0, Ok(Outcome::Hit(100))),
            (2, failed("DATA_LOSS", "VALUE_LENGTH")),
        ];
        assert_eq!(pair.ends, expected, "{size}");
        assert_eq!(pair.grpc.slots.open(), 0);
    }
}

#[test]
fn a_message_may_come_in_many_frames() {
    let mut pair = Pair::usual();
    pair.begin(2, Operation::Get);
    pair.give(&head(1, 0, &[(":status", "200")]));
    for part in message_with(100).chunks(20) {
        pair.give(&frame(Kind::DATA, 0, 1, part));
    }
    assert_eq!(pair.ends, []);
    pair.give(&head(1, flag::END_STREAM, &[("grpc-status", "0")]));
    assert_eq!(pair.ends, [(2, Ok(Outcome::Hit(100)))]);
}

#[test]
fn what_an_answer_without_a_message_means() {
    let end = flag::END_STREAM;
    for (end_of_it, expected) in [
        (
            head(1, end, &[(":status", "200"), ("grpc-status", "5")]),
            Ok(Outcome::Miss),
        ),
        (
            head(1, end, &[(":status", "200"), ("grpc-status", "14")]),
            Err(("UNAVAILABLE", None)),
        ),
        (
            head(1, end, &[(":status", "200"), ("grpc-status", "no")]),
            Err(("UNKNOWN", None)),
        ),
        (
            head(1, end, &[(":status", "200"), ("grpc-status", "0")]),
            failed("INTERNAL", "NO_MESSAGE"),
        ),
        (
            head(1, end, &[(":status", "200")]),
            failed("INTERNAL", "NO_STATUS"),
        ),
        (
            head(1, end, &[(":status", "503")]),
            failed("UNAVAILABLE", "HTTP_503"),
        ),
        (
            frame(Kind::RST_STREAM, 0, 1, &[0, 0, 0, 11]),
            failed("RESOURCE_EXHAUSTED", "RESET_ENHANCE_YOUR_CALM"),
        ),
        (
            frame(Kind::RST_STREAM, 0, 1, &[0, 0, 0, 7]),
            failed("UNAVAILABLE", "RESET_REFUSED_STREAM"),
        ),
    ] {
        let mut pair = Pair::usual();
        pair.begin(0, Operation::Get);
        pair.give(&end_of_it);
        // What comes late, to a stream that is gone, is passed over.
        pair.give(&answer(1, 100));
        assert_eq!(pair.ends, [(0, expected)]);
    }
}

#[test]
fn a_request_waits_for_the_windows() {
    let large = Calls {
        value: vec![7; 200_000].into(),
        ..calls(Api::Rpc)
    };
    let mut pair = Pair::new(large, &[(SettingId::INITIAL_WINDOW_SIZE, 100_000)]);
    pair.begin(0, Operation::Set);
    pair.begin(1, Operation::Set);
    pair.begin(2, Operation::Get);
    pair.look();
    // The connection's window is what is left of 65,535.
    assert_eq!(pair.sent, BTreeMap::from([(1, (65_535, false))]));
    let mut more = Vec::new();
    write_window_update(&mut more, 0, 100_000);
    pair.give(&more);
    pair.look();
    assert_eq!(pair.sent[&1], (100_000, false), "its own window");
    assert_eq!(pair.sent[&3], (65_535, false), "what that one left");
    assert!(!pair.sent.contains_key(&5));
    // Section 6.9.2: larger windows are larger for streams that are open, too.
    let mut more = Vec::new();
    write_settings(&mut more, &[(SettingId::INITIAL_WINDOW_SIZE, 150_000)]);
    write_window_update(&mut more, 0, 1_000_000);
    write_window_update(&mut more, 1, 100_000);
    pair.give(&more);
    pair.look();
    assert_eq!(pair.sent[&1], (200_000 + 27, true));
    assert_eq!(pair.sent[&3], (150_000, false));
    assert_eq!(pair.sent[&5], (23, true));
    // An answer before the end of the request ends it.
    let end = flag::END_STREAM;
    pair.give(&head(3, end, &[(":status", "200"), ("grpc-status", "8")]));
    assert_eq!(pair.ends, [(1, Err(("RESOURCE_EXHAUSTED", None)))]);
    pair.others.clear();
    pair.look();
    assert_eq!(pair.others, [(Kind::RST_STREAM, 3)]);
}

#[test]
fn no_more_streams_than_the_server_allows() {
    let mut pair = Pair::new(calls(Api::Rpc), &[(SettingId::MAX_CONCURRENT_STREAMS, 2)]);
    pair.begin(0, Operation::Get);
    assert!(pair.grpc.may_begin());
    pair.begin(1, Operation::Get);
    assert!(!pair.grpc.may_begin());
    pair.give(&answer(1, 100));
    assert!(pair.grpc.may_begin());
}

#[test]
fn a_server_that_goes_away_is_left() {
    let mut pair = Pair::usual();
    for slot in 0..3 {
        pair.begin(slot, Operation::Get);
    }
    // Streams 1 and 3 go on, 5 was not begun.
    pair.give(&frame(Kind::GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 11]));
    let refused = failed("UNAVAILABLE", "GOAWAY_ENHANCE_YOUR_CALM");
    assert_eq!(pair.ends, [(2, refused)]);
    assert!(!pair.grpc.may_begin() && !pair.grpc.is_over());
    pair.give(&[answer(1, 100), answer(3, 100)].concat());
    assert_eq!(pair.ends.len(), 3);
    assert!(pair.grpc.is_over());
    let closed = Broken::unavailable("GOAWAY_ENHANCE_YOUR_CALM");
    assert_eq!(pair.grpc.closed(), closed);
}

#[test]
fn signs_of_life_are_given() {
    let mut pair = Pair::usual();
    pair.give(&frame(Kind::PING, 0, 0, &[7; 8]));
    assert_eq!(*pair.grpc.out(), frame(Kind::PING, flag::ACK, 0, &[7; 8]));
}

#[test]
fn the_connection_window_is_opened_again() {
    let mut pair = Pair::usual();
    pair.look();
    pair.begin(0, Operation::Get);
    pair.look();
    pair.others.clear();
    let part = frame(Kind::DATA, 0, 9, &[0; 16_384]);
    let parts = (RENEW_WINDOW_BYTES / 16_384) + 1;
    for _ in 0..parts {
        pair.give(&part);
    }
    pair.look();
    assert_eq!(pair.others, [(Kind::WINDOW_UPDATE, 0)]);
}

#[test]
fn what_breaks_the_protocol_ends_the_connection() {
    for (input, reason) in [
        (frame(Kind::DATA, 0, 0, &[]), "PROTOCOL_ERROR"),
        (frame(Kind::PING, 0, 0, &[1]), "FRAME_SIZE_ERROR"),
        (frame(Kind::DATA, 0, 1, &vec![0; 16_385]), "FRAME_TOO_LARGE"),
        (
            frame(Kind::HEADERS, flag::END_HEADERS, 1, &[0xff]),
            "HEADER_BLOCK_MALFORMED",
        ),
        (
            frame(Kind::CONTINUATION, 0, 1, &[]),
            "CONTINUATION_OF_NOTHING",
        ),
        (
            [
                frame(Kind::HEADERS, 0, 1, &[]),
                frame(Kind::PING, 0, 0, &[0; 8]),
            ]
            .concat(),
            "HEADER_BLOCK_INTERRUPTED",
        ),
        (
            [frame(Kind::WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255])].concat(),
            "WINDOW_TOO_LARGE",
        ),
    ] {
        let mut pair = Pair::usual();
        assert_eq!(pair.try_give(&input), Err(Broken::protocol(reason)));
    }
}

#[test]
fn a_header_block_may_be_continued() {
    let mut pair = Pair::usual();
    pair.begin(0, Operation::Get);
    let mut block = Vec::new();
    write_literal(&mut block, b":status", b"200");
    write_literal(&mut block, b"grpc-status", b"5");
    pair.give(&frame(Kind::HEADERS, flag::END_STREAM, 1, &block[..3]));
    pair.give(&frame(Kind::CONTINUATION, 0, 1, &block[3..9]));
    pair.give(&frame(
        Kind::CONTINUATION,
        flag::END_HEADERS,
        1,
        &block[9..],
    ));
    assert_eq!(pair.ends, [(0, Ok(Outcome::Miss))]);
}
