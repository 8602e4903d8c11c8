//! What the protocol layer lets pass, and should not: a gRPC message whose flag
//! is neither 0 nor 1, and JSON that is no object.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http_body::{Body, Frame, SizeHint};

/// Why a body is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StrictError<E> {
    /// gRPC over HTTP/2, "Length-Prefixed-Message": the flag is 0 or 1.
    #[error("the compressed flag of a message must be 0 or 1")]
    Flag,
    /// A message in JSON is an object (ProtoJSON).
    #[error("a message in JSON must be an object")]
    NoObject,
    /// The body itself.
    #[error(transparent)]
    Body(E),
}

/// What is looked at.
enum Check {
    Nothing,
    /// The first byte that is no white space.
    JsonStart,
    /// The first byte of each message.
    Messages(Prefix),
}

/// Where in its messages a body is.
struct Prefix {
    /// Bytes of the five-byte prefix that were seen.
    seen: usize,
    /// The message's length, as far as it was seen; then, what is left of it.
    left: u64,
}

const PREFIX_BYTES: usize = 5;

impl Prefix {
    /// True as long as every message begins as it should.
    fn accepts(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            if self.seen < PREFIX_BYTES {
                let byte = bytes[0];
                if self.seen == 0 && byte > 1 {
                    return false;
                }
                if self.seen > 0 {
                    self.left = self.left << 8 | u64::from(byte);
                }
                self.seen += 1;
                bytes = &bytes[1..];
            } else {
                let here = usize::try_from(self.left).map_or(bytes.len(), |n| n.min(bytes.len()));
                self.left -= here as u64;
                bytes = &bytes[here..];
            }
            if self.seen == PREFIX_BYTES && self.left == 0 {
                self.seen = 0;
            }
        }
        true
    }
}

/// A request body that is looked at as it passes. Costs a look at each chunk.
pub(crate) struct Strict<B> {
    body: B,
    check: Check,
}

impl<B> Strict<B> {
    pub(crate) fn new(head: &HeaderMap, body: B) -> Self {
        let kind = head
            .get(CONTENT_TYPE)
            .map_or(&b""[..], |kind| kind.as_bytes());
        let check = if kind.starts_with(b"application/grpc") {
            Check::Messages(Prefix { seen: 0, left: 0 })
        } else if kind.starts_with(b"application/json") && !head.contains_key(CONTENT_ENCODING) {
            // Compressed JSON cannot be told by its first byte.
            Check::JsonStart
        } else {
            Check::Nothing
        };
        Self { body, check }
    }

    fn look<E>(&mut self, bytes: &[u8]) -> Result<(), StrictError<E>> {
        match &mut self.check {
            Check::Nothing => Ok(()),
            Check::Messages(prefix) => {
                if prefix.accepts(bytes) {
                    return Ok(());
                }
                Err(StrictError::Flag)
            }
            Check::JsonStart => {
                let Some(first) = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) else {
                    return Ok(());
                };
                if *first != b'{' {
                    return Err(StrictError::NoObject);
                }
                self.check = Check::Nothing;
                Ok(())
            }
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Strict<B> {
    type Data = Bytes;
    type Error = StrictError<B::Error>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(match polled {
            Some(Ok(frame)) => match frame.data_ref().map(|bytes| self.look(bytes)) {
                Some(Err(refused)) => Some(Err(refused)),
                Some(Ok(())) | None => Some(Ok(frame)),
            },
            Some(Err(error)) => Some(Err(StrictError::Body(error))),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart_however_they_are_cut() {
        let check = |stream: &[u8], accepted: bool| {
            for chunk in 1..=stream.len() {
                let mut prefix = Prefix { seen: 0, left: 0 };
                let all = stream.chunks(chunk).all(|bytes| prefix.accepts(bytes));
                assert_eq!(all, accepted, "{stream:?} in chunks of {chunk}");
            }
        };
        check(b"\0\0\0\0\0", true);
        check(b"\0\0\0\0\x03abc", true);
        check(b"\x01\0\0\0\x03\xff\xff\xff\0\0\0\0\x01\x80", true);
        check(b"\x02\0\0\0\0", false);
        check(b"\0\0\0\0\0\x80\0\0\0\0", false);
        check(b"\0\0\0\0\x03abc\x04", false);
    }
}
