use super::*;
use crate::error_codes::{ErrorCode, Fault};

fn head(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> FrameHead {
    FrameHead {
        length: u32::try_from(payload.len()).unwrap(),
        kind,
        flags,
        stream,
    }
}

fn parse(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Result<Frame<'_>, Fault> {
    Frame::parse(head(kind, flags, stream, payload), payload)
}

#[test]
fn a_head_survives_the_wire_but_for_the_reserved_bit() {
    let whole = FrameHead {
        length: 0xab_cdef,
        kind: Kind(0xee),
        flags: 0xa5,
        stream: 0x7123_4567,
    };
    let mut bytes = whole.bytes();
    bytes[5] |= 0x80;
    assert_eq!(FrameHead::parse(&bytes), Some(whole));
    for cut in 0..FrameHead::BYTES {
        assert_eq!(FrameHead::parse(&bytes[..cut]), None);
    }
}

#[test]
fn every_type_is_read_in_place() {
    let check = |kind, flags, stream, payload: &[u8], expected: Frame<'_>| {
        assert_eq!(parse(kind, flags, stream, payload), Ok(expected));
    };
    let data = |data, end_stream| Frame::Data { data, end_stream };
    check(Kind::DATA, 0, 1, b"abc", data(b"abc", false));
    check(Kind::DATA, 1, 1, b"", data(b"", true));
    check(Kind::DATA, 9, 1, b"\x02abc\0\0", data(b"abc", true));
    check(Kind::DATA, 8, 1, b"\x01\0", data(b"", false));
    let priority = Priority {
        dependency: 3,
        exclusive: true,
        weight: 7,
    };
    let fields = b"\x80\0\0\x03\x07";
    check(Kind::PRIORITY, 0, 1, fields, Frame::Priority(priority));
    check(
        Kind::HEADERS,
        0x2d,
        1,
        b"\x01\x80\0\0\x03\x07xy\0",
        Frame::Headers {
            fragment: b"xy",
            end_stream: true,
            end_headers: true,
            priority: Some(priority),
        },
    );
    let reset = Frame::Reset(ErrorCode::CANCEL);
    check(Kind::RST_STREAM, 0, 1, b"\0\0\0\x08", reset);
    check(Kind::SETTINGS, 1, 0, b"", Frame::SettingsAck);
    check(Kind::PING, 0, 0, b"12345678", Frame::Ping(*b"12345678"));
    check(Kind::PING, 1, 0, b"12345678", Frame::PingAck(*b"12345678"));
    let goaway = Frame::GoAway {
        last_stream: 5,
        code: ErrorCode::NO_ERROR,
    };
    check(Kind::GOAWAY, 0, 0, b"\x80\0\0\x05\0\0\0\0why", goaway);
    let update = b"\x80\0\0\x01";
    check(Kind::WINDOW_UPDATE, 0, 0, update, Frame::WindowUpdate(1));
    let continuation = Frame::Continuation {
        fragment: b"z",
        end_headers: true,
    };
    check(Kind::CONTINUATION, 4, 9, b"z", continuation);
    check(Kind(0xbe), 0xff, 77, b"anything", Frame::Unknown);
}

#[test]
fn settings_are_read_in_order() {
    let Ok(Frame::Settings(settings)) =
        parse(Kind::SETTINGS, 0, 0, b"\0\x04\0\0\0\x01\0\xff\0\0\0\x02")
    else {
        panic!("a good frame");
    };
    let read: Vec<_> = settings.iter().collect();
    assert_eq!(read, [(SettingId(4), 1), (SettingId(0xff), 2)]);
}

#[test]
fn wrong_sizes_streams_and_values_are_faults() {
    use ErrorCode as Code;
    let check = |kind, flags, stream, payload: &[u8], expected: (u32, Code)| {
        let (scope, code) = match parse(kind, flags, stream, payload) {
            Err(Fault::Connection(code, _)) => (0, code),
            Err(Fault::Stream(id, code, _)) => (id, code),
            Ok(frame) => panic!("{frame:?} was taken"),
        };
        assert_eq!((scope, code), expected, "{kind:?} {payload:?}");
    };
    for kind in [0, 1, 2, 3, 9] {
        check(Kind(kind), 0, 0, b"12345", (0, Code::PROTOCOL_ERROR));
    }
    for kind in [4, 6, 7] {
        check(Kind(kind), 0, 1, b"12345678", (0, Code::PROTOCOL_ERROR));
    }
    check(Kind::PUSH_PROMISE, 0, 1, b"", (0, Code::PROTOCOL_ERROR));
    check(Kind::DATA, 8, 1, b"", (0, Code::FRAME_SIZE_ERROR));
    check(Kind::DATA, 8, 1, b"\x03ab", (0, Code::PROTOCOL_ERROR));
    check(Kind::HEADERS, 8, 1, b"\x01", (0, Code::PROTOCOL_ERROR));
    check(Kind::HEADERS, 0x20, 1, b"1234", (0, Code::FRAME_SIZE_ERROR));
    let own = b"\0\0\0\x01\0";
    check(Kind::HEADERS, 0x20, 1, own, (0, Code::PROTOCOL_ERROR));
    check(Kind::PRIORITY, 0, 1, own, (1, Code::PROTOCOL_ERROR));
    check(Kind::PRIORITY, 0, 1, b"1234", (1, Code::FRAME_SIZE_ERROR));
    check(Kind::PRIORITY, 0, 1, b"123456", (1, Code::FRAME_SIZE_ERROR));
    check(Kind::RST_STREAM, 0, 1, b"123", (0, Code::FRAME_SIZE_ERROR));
    check(Kind::SETTINGS, 1, 0, b"123456", (0, Code::FRAME_SIZE_ERROR));
    check(Kind::SETTINGS, 0, 0, b"12345", (0, Code::FRAME_SIZE_ERROR));
    check(Kind::PING, 0, 0, b"1234567", (0, Code::FRAME_SIZE_ERROR));
    check(Kind::GOAWAY, 0, 0, b"1234567", (0, Code::FRAME_SIZE_ERROR));
    check(
        Kind::WINDOW_UPDATE,
        0,
        1,
        b"123",
        (0, Code::FRAME_SIZE_ERROR),
    );
    let zero = b"\x80\0\0\0";
    check(Kind::WINDOW_UPDATE, 0, 1, zero, (1, Code::PROTOCOL_ERROR));
    check(Kind::WINDOW_UPDATE, 0, 0, zero, (0, Code::PROTOCOL_ERROR));
}

#[test]
fn settings_out_of_range_are_faults() {
    let check = |id: SettingId, value, code: Option<ErrorCode>| {
        let got = PeerSettings::default().apply(id, value);
        let got = got.err().map(|fault| match fault {
            Fault::Connection(code, _) | Fault::Stream(_, code, _) => code,
        });
        assert_eq!(got, code, "{id:?} = {value}");
    };
    let flow = Some(ErrorCode::FLOW_CONTROL_ERROR);
    let protocol = Some(ErrorCode::PROTOCOL_ERROR);
    check(SettingId::ENABLE_PUSH, 1, None);
    check(SettingId::ENABLE_PUSH, 2, protocol);
    check(SettingId::INITIAL_WINDOW_SIZE, MAX_WINDOW_BYTES, None);
    check(SettingId::INITIAL_WINDOW_SIZE, 1 << 31, flow);
    check(SettingId::MAX_FRAME_SIZE, MIN_MAX_FRAME_BYTES - 1, protocol);
    check(SettingId::MAX_FRAME_SIZE, MIN_MAX_FRAME_BYTES, None);
    check(SettingId::MAX_FRAME_SIZE, MAX_MAX_FRAME_BYTES, None);
    check(SettingId::MAX_FRAME_SIZE, 1 << 24, protocol);
    check(SettingId(0xbeef), u32::MAX, None);
}

#[test]
fn what_is_written_is_read_back() {
    let mut out = Vec::new();
    write_settings(&mut out, &[(SettingId::MAX_FRAME_SIZE, 20_000)]);
    write_settings_ack(&mut out);
    write_ping(&mut out, flag::ACK, *b"abcdefgh");
    write_goaway(&mut out, 7, ErrorCode::ENHANCE_YOUR_CALM, "calm");
    write_window_update(&mut out, 3, 9);
    write_reset(&mut out, 5, ErrorCode::CANCEL);
    let mut rest = &out[..];
    let mut seen = Vec::new();
    while let Some(head) = FrameHead::parse(rest) {
        let end = FrameHead::BYTES + head.length as usize;
        let frame = Frame::parse(head, &rest[FrameHead::BYTES..end]).unwrap();
        seen.push((head.stream, format!("{frame:?}")));
        rest = &rest[end..];
    }
    assert!(rest.is_empty());
    let streams: Vec<u32> = seen.iter().map(|(stream, _)| *stream).collect();
    assert_eq!(streams, [0, 0, 0, 0, 3, 5]);
    assert!(seen[3].1.contains("ENHANCE_YOUR_CALM"), "{seen:?}");
}

#[test]
fn what_is_longer_than_a_frame_is_split_in_its_place() {
    let check = |length: usize, most: usize, expected: &[usize]| {
        let content: Vec<u8> = (0..length)
            .map(|at| u8::try_from(at % 251).unwrap())
            .collect();
        let mut out = b"before".to_vec();
        let start = begin_frame(&mut out);
        out.extend_from_slice(&content);
        let more = end_data_frames(&mut out, start, most, 7);
        assert_eq!(&out[..start], b"before");
        let (mut rest, mut sizes, mut read) = (&out[start..], Vec::new(), Vec::new());
        while let Some(head) = FrameHead::parse(rest) {
            assert_eq!((head.kind, head.flags, head.stream), (Kind::DATA, 0, 7));
            let end = FrameHead::BYTES + head.length as usize;
            read.extend_from_slice(&rest[FrameHead::BYTES..end]);
            sizes.push(head.length as usize);
            rest = &rest[end..];
        }
        assert_eq!(sizes, expected, "{length} by {most}");
        assert_eq!(more, expected.len() as u64 - 1);
        assert!(rest.is_empty() && read == content);
    };
    check(1, 10, &[1]);
    check(10, 10, &[10]);
    check(11, 10, &[10, 1]);
    check(40, 10, &[10; 4]);
    check(45, 10, &[10, 10, 10, 10, 5]);
    check(70_000, 16_384, &[16_384, 16_384, 16_384, 16_384, 4_464]);
    check(27, 3, &[3; 9]);
}
