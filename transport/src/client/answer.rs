//! Answers (gRPC over HTTP/2, "Responses").

use bytes::Bytes;

use crate::hpack::Fields;
pub use crate::rpc::Code;

/// The answer to a unary call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// Initial metadata, with `:status` and `content-type`; empty, without an
    /// allocation, if that is all and says 200 and gRPC.
    pub headers: Fields,
    /// The message, if the code is [`Code::OK`]; else empty.
    pub message: Bytes,
    /// How many bytes the message was as it came: fewer, if it was compressed.
    pub message_bytes: usize,
    /// How it ended.
    pub trailers: Trailers,
}

/// How a call ended, in the server's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trailers {
    /// `grpc-status`; [`Code::UNKNOWN`] if that is no number of the table.
    pub code: Code,
    /// All fields, `grpc-status` among them; empty if that is 0 and the only one.
    pub fields: Fields,
}

impl Default for Trailers {
    fn default() -> Self {
        Self {
            code: Code::OK,
            fields: Fields::default(),
        }
    }
}

/// The largest code of the table.
const LAST_CODE: u8 = 16;

/// Reads `grpc-status`. `None`: there is none.
pub(super) fn code(fields: &Fields) -> Option<Code> {
    let digits = fields.value(b"grpc-status")?;
    let number = std::str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse().ok());
    // gRPC's statuscodes.md: what is not in the table is UNKNOWN.
    Some(match number {
        Some(number) if number <= LAST_CODE => Code(number),
        _ => Code::UNKNOWN,
    })
}
