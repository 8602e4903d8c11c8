//! What the protocol layer lets pass, and should not: a gRPC message whose flag
//! is neither 0 nor 1, one whose prefix announces more than is allowed, JSON that
//! is no object, and more request bytes at a time than the server wants to hold.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http_body::{Body, Frame, SizeHint};
use larder_api::errors::Reason;
use larder_api::wire::MAX_MESSAGE_BYTES;
use larder_model::Store;

use crate::call::Call;
use crate::failure::Failure;
use crate::gauge::{Gauge, Held};
use crate::layers::admit::overloaded;

/// A body was refused; the call knows why.
#[derive(Debug, thiserror::Error)]
#[error("the request was refused")]
pub(crate) struct Refused;

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
    /// Refuses a message that begins as it should not (gRPC over HTTP/2,
    /// "Length-Prefixed-Message").
    fn look(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            if self.seen < PREFIX_BYTES {
                let byte = bytes[0];
                if self.seen == 0 && byte > 1 {
                    return Err(malformed("the compressed flag of a message must be 0 or 1"));
                }
                if self.seen > 0 {
                    self.left = self.left << 8 | u64::from(byte);
                }
                self.seen += 1;
                bytes = &bytes[1..];
                if self.seen == PREFIX_BYTES && self.left > MAX_MESSAGE_BYTES as u64 {
                    return Err(too_large(self.left));
                }
            } else {
                let here = usize::try_from(self.left).map_or(bytes.len(), |n| n.min(bytes.len()));
                self.left -= here as u64;
                bytes = &bytes[here..];
            }
            if self.seen == PREFIX_BYTES && self.left == 0 {
                self.seen = 0;
            }
        }
        Ok(())
    }
}

fn malformed(message: &str) -> Failure {
    Failure::new(Reason::MalformedRequest, message)
}

fn too_large(bytes: u64) -> Failure {
    let message =
        format!("the message has {bytes} bytes, more than the limit of {MAX_MESSAGE_BYTES}");
    Failure::new(Reason::MessageTooLarge, message)
}

/// A request body that is looked at as it passes. Costs a look at each chunk.
pub(crate) struct Strict<B, S: Store> {
    body: B,
    check: Check,
    call: Arc<Call<S>>,
    held: Held,
}

impl<B, S: Store> Strict<B, S> {
    pub(crate) fn new(head: &HeaderMap, body: B, call: Arc<Call<S>>, all: &Arc<Gauge>) -> Self {
        let kind = head
            .get(CONTENT_TYPE)
            .map_or(&b""[..], |kind| kind.as_bytes());
        let check = if kind.starts_with(b"application/grpc-web-text") {
            // In base64; the protocol layer refuses it.
            Check::Nothing
        } else if kind.starts_with(b"application/grpc") {
            Check::Messages(Prefix { seen: 0, left: 0 })
        } else if kind.starts_with(b"application/json") && !head.contains_key(CONTENT_ENCODING) {
            // Compressed JSON cannot be told by its first byte.
            Check::JsonStart
        } else {
            Check::Nothing
        };
        let held = all.hold();
        Self {
            body,
            check,
            call,
            held,
        }
    }

    fn look(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        // A stream's messages come and go; only what is read whole is held.
        if !self.call.was_handled() {
            let full = |_| overloaded("the server receives as many bytes as it wants to hold");
            self.held.add(bytes.len()).map_err(full)?;
        }
        match &mut self.check {
            Check::Nothing => Ok(()),
            Check::Messages(prefix) => prefix.look(bytes),
            Check::JsonStart => {
                let Some(first) = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) else {
                    return Ok(());
                };
                if *first != b'{' {
                    return Err(malformed("a message in JSON must be an object"));
                }
                self.check = Check::Nothing;
                Ok(())
            }
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin, S: Store> Body for Strict<B, S> {
    type Data = Bytes;
    type Error = Refused;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Refused>>> {
        let looked = match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            None => return Poll::Ready(None),
            Some(Ok(frame)) => match frame.data_ref().map(|bytes| self.look(bytes)) {
                Some(Err(failure)) => Err(failure),
                Some(Ok(())) | None => Ok(frame),
            },
            Some(Err(_)) => Err(malformed("the request ended before it was complete")),
        };
        Poll::Ready(Some(looked.map_err(|failure| {
            self.call.refuse(failure);
            Refused
        })))
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
                let all = stream.chunks(chunk).all(|bytes| prefix.look(bytes).is_ok());
                assert_eq!(all, accepted, "{stream:?} in chunks of {chunk}");
            }
        };
        check(b"\0\0\0\0\0", true);
        check(b"\0\0\0\0\x03abc", true);
        check(b"\x01\0\0\0\x03\xff\xff\xff\0\0\0\0\x01\x80", true);
        check(b"\x02\0\0\0\0", false);
        check(b"\0\0\0\0\0\x80\0\0\0\0", false);
        check(b"\0\0\0\0\x03abc\x04", false);
        check(b"\0\xff\xff\xff\xff", false);
    }
}
