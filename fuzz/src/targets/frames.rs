//! RFC 9113, sections 4 and 6: a frame that was read, and is written without
//! padding, is read as the same frame.

use larder_transport::error_codes::Fault;
use larder_transport::frame::{
    Frame, FrameHead, Kind, PREFACE, Priority, SettingId, begin_frame, end_frame, flag,
    write_goaway, write_ping, write_reset, write_settings, write_settings_ack, write_window_update,
};

use crate::features::note;

/// Bytes of frames, with or without the preface.
pub(crate) fn run(data: &[u8]) {
    let mut rest = data.strip_prefix(PREFACE).unwrap_or(data);
    while let Some(head) = FrameHead::parse(rest) {
        let bytes = head.bytes();
        assert_eq!(FrameHead::parse(&bytes), Some(head));
        let whole = FrameHead::BYTES + head.length as usize;
        let available = rest.len().min(whole);
        let payload = &rest[FrameHead::BYTES..available];
        rest = &rest[available..];
        // A length that lies is shortened: the payload is what there is.
        let head = FrameHead {
            length: length(payload),
            ..head
        };
        match Frame::parse(head, payload) {
            Ok(frame) => check_again(head, frame),
            Err(fault) => check_fault(head, fault),
        }
    }
}

fn length(payload: &[u8]) -> u32 {
    u32::try_from(payload.len()).expect("inputs are short")
}

fn check_again(head: FrameHead, frame: Frame<'_>) {
    note((head.kind.0.min(10), head.flags & 0x2d));
    let mut out = Vec::new();
    write(&mut out, head, frame);
    let again = FrameHead::parse(&out).expect("a whole frame was written");
    assert_eq!(again.stream, head.stream);
    assert_eq!(again.length as usize, out.len() - FrameHead::BYTES);
    let read = Frame::parse(again, &out[FrameHead::BYTES..]);
    assert_eq!(read, Ok(frame));
}

fn check_fault(head: FrameHead, fault: Fault) {
    note(fault.to_string().len());
    if let Fault::Stream(id, ..) = fault {
        assert_ne!(id, 0, "a stream error of the connection");
        assert_eq!(id, head.stream);
        assert_ne!(
            head.kind,
            Kind::HEADERS,
            "a field block would not be decoded, and the compression state lost"
        );
    }
}

fn write(out: &mut Vec<u8>, head: FrameHead, frame: Frame<'_>) {
    let end = |ends: bool| if ends { flag::END_STREAM } else { 0 };
    let headers_end = |ends: bool| if ends { flag::END_HEADERS } else { 0 };
    match frame {
        Frame::Data { data, end_stream } => {
            raw(out, Kind::DATA, end(end_stream), head.stream, &[data]);
        }
        Frame::Headers {
            fragment,
            end_stream,
            end_headers,
            priority,
        } => {
            let flags = end(end_stream) | headers_end(end_headers);
            match priority {
                Some(priority) => {
                    let fields = priority_bytes(priority);
                    let flags = flags | flag::PRIORITY;
                    raw(out, Kind::HEADERS, flags, head.stream, &[&fields, fragment]);
                }
                None => raw(out, Kind::HEADERS, flags, head.stream, &[fragment]),
            }
        }
        Frame::Priority(priority) => {
            let fields = priority_bytes(priority);
            raw(out, Kind::PRIORITY, 0, head.stream, &[&fields]);
        }
        Frame::Reset(code) => write_reset(out, head.stream, code),
        Frame::Settings(settings) => {
            let settings: Vec<(SettingId, u32)> = settings.iter().collect();
            write_settings(out, &settings);
        }
        Frame::SettingsAck => write_settings_ack(out),
        Frame::Ping(data) => write_ping(out, 0, data),
        Frame::PingAck(data) => write_ping(out, flag::ACK, data),
        Frame::GoAway { last_stream, code } => write_goaway(out, last_stream, code, "why"),
        Frame::WindowUpdate(increment) => write_window_update(out, head.stream, increment),
        Frame::Continuation {
            fragment,
            end_headers,
        } => {
            let flags = headers_end(end_headers);
            raw(out, Kind::CONTINUATION, flags, head.stream, &[fragment]);
        }
        Frame::Unknown => raw(out, head.kind, head.flags, head.stream, &[b"?"]),
    }
}

fn priority_bytes(priority: Priority) -> [u8; 5] {
    let [a, b, c, d] = priority.dependency.to_be_bytes();
    let exclusive = if priority.exclusive { 0x80 } else { 0 };
    [a | exclusive, b, c, d, priority.weight]
}

fn raw(out: &mut Vec<u8>, kind: Kind, flags: u8, stream: u32, payload: &[&[u8]]) {
    let start = begin_frame(out);
    for part in payload {
        out.extend_from_slice(part);
    }
    end_frame(out, start, kind, flags, stream);
}
