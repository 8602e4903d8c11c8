//! gRPC over HTTP/2, "Responses": `grpc-status`, `grpc-message` and
//! `grpc-status-details-bin`.

use std::borrow::Cow;

use crate::connection::BlockWriter;
use crate::hpack::Repeated;

/// A status code of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub u8);

impl Code {
    /// It went well.
    pub const OK: Self = Self(0);
    /// The caller gave up.
    pub const CANCELLED: Self = Self(1);
    /// Nobody knows.
    pub const UNKNOWN: Self = Self(2);
    /// The request cannot be right.
    pub const INVALID_ARGUMENT: Self = Self(3);
    /// The deadline passed.
    pub const DEADLINE_EXCEEDED: Self = Self(4);
    /// There is no such thing.
    pub const NOT_FOUND: Self = Self(5);
    /// A limit was reached.
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    /// There is no such method, or not in this form.
    pub const UNIMPLEMENTED: Self = Self(12);
    /// The server failed, or the protocol was broken.
    pub const INTERNAL: Self = Self(13);
    /// Not now.
    pub const UNAVAILABLE: Self = Self(14);
}

/// Longest `grpc-message`, bytes before it is encoded. More is cut off.
const MAX_MESSAGE_BYTES: usize = 1024;
/// Longest `grpc-status-details-bin`, bytes before it is encoded. More is left
/// out, as half of it means nothing: clients take 8 KiB of headers.
const MAX_DETAILS_BYTES: usize = 4096;

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The code.
    pub code: Code,
    /// For people.
    pub message: Cow<'static, str>,
    /// A serialized `google.rpc.Status`; empty if there is none.
    pub details: Cow<'static, [u8]>,
}

impl Status {
    /// It went well.
    pub const OK: Self = Self::new(Code::OK, "");

    /// A status with a message that is known beforehand.
    #[must_use]
    pub const fn new(code: Code, message: &'static str) -> Self {
        Self {
            code,
            message: Cow::Borrowed(message),
            details: Cow::Borrowed(&[]),
        }
    }

    /// True if it is [`Self::OK`], and says no more.
    #[inline]
    pub(super) fn is_plain_ok(&self) -> bool {
        self.code == Code::OK && self.message.is_empty() && self.details.is_empty()
    }

    /// Writes the trailers.
    #[inline]
    pub(crate) fn write(&self, block: &mut BlockWriter<'_>) {
        if self.code == Code::OK {
            block.repeated(Repeated::GrpcStatusOk);
        } else {
            let mut digits = [0; 3];
            block.field(b"grpc-status", decimal(self.code.0, &mut digits));
        }
        if !self.message.is_empty() {
            block.field(b"grpc-message", &percent_encoded(&self.message));
        }
        if !self.details.is_empty() && self.details.len() <= MAX_DETAILS_BYTES {
            block.field(b"grpc-status-details-bin", &base64(&self.details));
        }
    }
}

/// A status that is written again and again, on any connection: encoded once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared(Vec<u8>);

impl Prepared {
    /// Of a status that is not OK, with more trailers; their names are in lower case.
    #[must_use]
    pub fn new(status: &Status, trailers: &[(&[u8], &[u8])]) -> Self {
        let mut literals = Vec::new();
        let mut block = BlockWriter::detached(&mut literals);
        status.write(&mut block);
        for (name, value) in trailers {
            block.field(name, value);
        }
        Self(literals)
    }

    pub(super) fn literals(&self) -> &[u8] {
        &self.0
    }
}

fn decimal(mut number: u8, digits: &mut [u8; 3]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + number % 10;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

/// "Percent-Encoded": printable ASCII but `%` stands for itself.
fn percent_encoded(text: &str) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(text.len());
    for byte in text.bytes().take(MAX_MESSAGE_BYTES) {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(byte),
            _ => out.extend([
                b'%',
                DIGITS[usize::from(byte >> 4)],
                DIGITS[usize::from(byte & 15)],
            ]),
        }
    }
    // RFC 9113, section 8.2.1: no blank around a value.
    while out.last() == Some(&b' ') {
        out.pop();
    }
    let blanks = out.iter().take_while(|byte| **byte == b' ').count();
    out.drain(..blanks);
    out
}

/// RFC 4648, section 4, without padding, as "Binary-Header" allows.
fn base64(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |index| u32::from(three.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..=three.len() {
            let place = 18 - 6 * digit;
            out.push(DIGITS[(bits >> place & 63) as usize]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_percent_encoded() {
        let check = |text: &str, expected: &str| {
            assert_eq!(percent_encoded(text), expected.as_bytes());
        };
        check("plain text!", "plain text!");
        check("100%", "100%25");
        check("a\nb\0", "a%0Ab%00");
        check("\u{e9}~\u{7f}", "%C3%A9~%7F");
        check("  blanks ", "blanks");
        assert_eq!(percent_encoded(&"x".repeat(5000)).len(), MAX_MESSAGE_BYTES);
    }

    #[test]
    fn details_are_base64() {
        let check = |text: &[u8], expected: &str| assert_eq!(base64(text), expected.as_bytes());
        // RFC 4648, section 10.
        check(b"", "");
        check(b"f", "Zg");
        check(b"fo", "Zm8");
        check(b"foo", "Zm9v");
        check(b"foob", "Zm9vYg");
        check(b"fooba", "Zm9vYmE");
        check(b"foobar", "Zm9vYmFy");
        check(&[0xff, 0xfe, 0xfd], "//79");
    }

    #[test]
    fn codes_are_decimal() {
        for code in 0..=255 {
            assert_eq!(decimal(code, &mut [0; 3]), code.to_string().as_bytes());
        }
    }
}
