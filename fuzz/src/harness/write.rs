//! The frames that a client sends.

use larder_transport::connection::End;
use larder_transport::frame::{Kind, begin_frame, end_frame, flag};
use larder_transport::hpack::write_literal;

/// Which lane a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// gRPC.
    Typed,
    /// Plain HTTP.
    General,
}

/// Any frame.
pub fn frame(out: &mut Vec<u8>, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
    let start = begin_frame(out);
    out.extend_from_slice(payload);
    end_frame(out, start, kind, flags, stream);
}

/// The field block of a call of `/t.T/METHOD`, with more fields after the usual.
#[must_use]
pub fn headers(lane: Lane, method: &str, more: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    write_literal(&mut block, b":method", b"POST");
    write_literal(&mut block, b":scheme", b"http");
    write_literal(&mut block, b":path", format!("/t.T/{method}").as_bytes());
    write_literal(&mut block, b":authority", b"host");
    if lane == Lane::Typed {
        write_literal(&mut block, b"content-type", b"application/grpc");
        write_literal(&mut block, b"te", b"trailers");
    }
    for (name, value) in more {
        write_literal(&mut block, name, value);
    }
    block
}

/// `HEADERS` with a whole field block.
pub fn headers_frame(out: &mut Vec<u8>, stream: u32, block: &[u8], end: End) {
    let flags = flag::END_HEADERS | end_flag(end);
    frame(out, Kind::HEADERS, flags, stream, block);
}

/// `DATA`.
pub fn data_frame(out: &mut Vec<u8>, stream: u32, content: &[u8], end: End) {
    frame(out, Kind::DATA, end_flag(end), stream, content);
}

fn end_flag(end: End) -> u8 {
    match end {
        End::Stream => flag::END_STREAM,
        End::Open => 0,
    }
}
