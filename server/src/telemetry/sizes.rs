//! Bytes of messages, in bodies that pass.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// Bytes before a message, in gRPC ("Length-Prefixed-Message"), gRPC-Web and the streams of
/// Connect ("Enveloped-Message").
const PREFIX_BYTES: usize = 5;
/// Flags of what goes like a message and is none: the trailers of gRPC-Web, the end of a stream of
/// Connect.
const NO_MESSAGE: u8 = 0x80 | 0x02;

/// Counts the bytes of messages, however they are cut.
#[derive(Debug)]
pub(crate) enum MessageBytes {
    /// The body is one message.
    Plain,
    Framed(Framed),
}

#[derive(Debug, Default)]
pub(crate) struct Framed {
    prefix: [u8; PREFIX_BYTES],
    /// Bytes of the prefix that were seen.
    seen: usize,
    /// Bytes of the message that are still to come.
    left: usize,
}

impl MessageBytes {
    pub(crate) fn of(head: &HeaderMap) -> Self {
        let kind = head.get(CONTENT_TYPE).map_or(&b""[..], |it| it.as_bytes());
        let is_framed =
            kind.starts_with(b"application/grpc") || kind.starts_with(b"application/connect");
        match is_framed {
            true => Self::Framed(Framed::default()),
            false => Self::Plain,
        }
    }

    /// How many of these bytes are of messages.
    pub(crate) fn count(&mut self, bytes: &[u8]) -> u64 {
        match self {
            Self::Plain => bytes.len() as u64,
            Self::Framed(framed) => framed.count(bytes),
        }
    }
}

impl Framed {
    fn count(&mut self, mut bytes: &[u8]) -> u64 {
        let mut messages = 0;
        while !bytes.is_empty() {
            let most = match self.seen {
                PREFIX_BYTES => self.left,
                seen => PREFIX_BYTES - seen,
            };
            let (here, rest) = bytes.split_at(most.min(bytes.len()));
            bytes = rest;
            if self.seen == PREFIX_BYTES {
                self.left -= here.len();
                if self.prefix[0] & NO_MESSAGE == 0 {
                    messages += here.len() as u64;
                }
            } else {
                self.prefix[self.seen..self.seen + here.len()].copy_from_slice(here);
                self.seen += here.len();
                if self.seen == PREFIX_BYTES {
                    let [_, length @ ..] = self.prefix;
                    self.left = u32::from_be_bytes(length) as usize;
                }
            }
            if self.seen == PREFIX_BYTES && self.left == 0 {
                self.seen = 0;
            }
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let check = |kind: &str, body: &[u8], expected: u64| {
            for chunk in 1..=body.len().max(1) {
                let mut head = HeaderMap::new();
                head.insert(CONTENT_TYPE, kind.parse().expect("a header value"));
                let mut sizes = MessageBytes::of(&head);
                let counted: u64 = body.chunks(chunk).map(|each| sizes.count(each)).sum();
                assert_eq!(counted, expected, "{kind}, {body:?} in chunks of {chunk}");
            }
        };
        check("application/json", b"{\"a\":1}", 7);
        check("application/proto", b"", 0);
        check("application/grpc", b"", 0);
        check("application/grpc", b"\0\0\0\0\0", 0);
        check(
            "application/grpc+proto",
            b"\0\0\0\0\x03abc\x01\0\0\0\x01d",
            4,
        );
        check(
            "application/grpc-web",
            b"\0\0\0\0\x03abc\x80\0\0\0\x02xy",
            3,
        );
        check(
            "application/connect+json",
            b"\0\0\0\0\x02{}\x02\0\0\0\x02{}",
            2,
        );
        check("application/grpc", b"\0\0\0\0\x09cut", 3);
    }
}
