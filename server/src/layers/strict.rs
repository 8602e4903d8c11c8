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
use crate::telemetry::sizes::MessageBytes;

/// A body was refused; the call knows why.
#[derive(Debug, thiserror::Error)]
#[error("the request was refused")]
pub(crate) struct Refused;

/// What is looked at.
enum Check {
    Nothing,
    /// The first byte that is no white space.
    JsonStart,
    /// Each message's prefix, and where the last one ends.
    Messages(Framing),
}

/// Where in its messages a body is.
struct Framing {
    /// The method takes one message.
    one: bool,
    /// Messages may be compressed.
    compressible: bool,
    /// Messages that began.
    begun: usize,
    /// Bytes of the five-byte prefix that were seen.
    seen: usize,
    /// The message's length, as far as it was seen; then, what is left of it.
    left: u64,
}

const PREFIX_BYTES: usize = 5;

/// What the transport says of the same on the typed lane.
const CUT_SHORT: &str = "a message that ends too early";
const SEVERAL: &str = "more than the one message of this method";
const NOT_COMPRESSIBLE: &str = "a compressed message without grpc-encoding";
const BAD_FLAG: &str = "the compressed flag of a message must be 0 or 1";
pub(crate) const RECEIVING_FULL: &str = "the server receives as many bytes as it wants to hold";
pub(crate) const NO_MESSAGE: &str = "a request without a message";

impl Framing {
    fn new(one: bool, compressible: bool) -> Self {
        Self {
            one,
            compressible,
            begun: 0,
            seen: 0,
            left: 0,
        }
    }

    /// Refuses a message that begins as it should not (gRPC over HTTP/2,
    /// "Length-Prefixed-Message").
    fn look(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            if self.seen < PREFIX_BYTES {
                self.prefix(bytes[0])?;
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
        Ok(())
    }

    /// The next byte of a prefix.
    fn prefix(&mut self, byte: u8) -> Result<(), Failure> {
        if self.seen == 0 {
            self.begun += 1;
            match byte {
                _ if self.one && self.begun > 1 => return Err(malformed(SEVERAL)),
                0 => {}
                1 if self.compressible => {}
                1 => return Err(malformed(NOT_COMPRESSIBLE)),
                _ => return Err(malformed(BAD_FLAG)),
            }
        } else {
            self.left = self.left << 8 | u64::from(byte);
        }
        self.seen += 1;
        if self.seen == PREFIX_BYTES && self.left > MAX_MESSAGE_BYTES as u64 {
            return Err(too_large(self.left));
        }
        Ok(())
    }

    /// Refuses a body that ends here, if it should not.
    fn end(&self) -> Result<(), Failure> {
        if self.seen > 0 {
            return Err(malformed(CUT_SHORT));
        }
        Ok(())
    }
}

pub(crate) fn malformed(message: &str) -> Failure {
    Failure::new(Reason::MalformedRequest, message)
}

pub(crate) fn too_large(bytes: u64) -> Failure {
    let message =
        format!("the message has {bytes} bytes, more than the limit of {MAX_MESSAGE_BYTES}");
    Failure::new(Reason::MessageTooLarge, message)
}

/// A request body that is looked at as it passes. Costs a look at each chunk.
pub(crate) struct Strict<B, S: Store> {
    body: B,
    check: Check,
    sizes: MessageBytes,
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
            let one = !call.method.takes_messages();
            let encoding = head.get("grpc-encoding");
            Check::Messages(Framing::new(
                one,
                encoding.is_some_and(|it| it != "identity"),
            ))
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
            sizes: MessageBytes::of(head),
            call,
            held,
        }
    }

    fn look(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.call.request_bytes.add(self.sizes.count(bytes));
        // A stream's messages come and go; only what is read whole is held.
        if !self.call.was_handled() {
            let full = |_| overloaded(RECEIVING_FULL);
            self.held.add(bytes.len()).map_err(full)?;
        }
        match &mut self.check {
            Check::Nothing => Ok(()),
            Check::Messages(framing) => framing.look(bytes),
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

impl<B, S: Store> Strict<B, S> {
    fn end(&self) -> Result<(), Failure> {
        match &self.check {
            Check::Messages(framing) => framing.end(),
            Check::Nothing | Check::JsonStart => Ok(()),
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
            None => match self.end() {
                Ok(()) => return Poll::Ready(None),
                Err(failure) => Err(failure),
            },
            Some(Ok(frame)) => {
                let looked = frame.data_ref().map_or(Ok(()), |bytes| self.look(bytes));
                // Whoever reads may not ask again after what says that it is the last.
                let ended = self.body.is_end_stream();
                looked
                    .and_then(|()| if ended { self.end() } else { Ok(()) })
                    .map(|()| frame)
            }
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
        let check = |one: bool, stream: &[u8], refusal: Option<&str>| {
            for chunk in 1..=stream.len().max(1) {
                let mut framing = Framing::new(one, !one);
                let mut chunks = stream.chunks(chunk);
                let looked = chunks.try_for_each(|bytes| framing.look(bytes));
                let ended = looked.and_then(|()| framing.end()).err();
                let message = ended.as_ref().map(|failure| failure.message.as_str());
                assert_eq!(message, refusal, "{stream:?} in chunks of {chunk}");
            }
        };
        check(true, b"", None);
        check(true, b"\0\0\0\0\0", None);
        check(true, b"\0\0\0\0\x03abc", None);
        check(false, b"\x01\0\0\0\x03\xff\xff\xff\0\0\0\0\x01\x80", None);
        check(true, b"\0\0\0\0\0\0\0\0\0\0", Some(SEVERAL));
        check(true, b"\0\0\0\0\x03abc\x04", Some(SEVERAL));
        check(true, b"\x01\0\0\0\0", Some(NOT_COMPRESSIBLE));
        check(true, b"\x02\0\0\0\0", Some(BAD_FLAG));
        check(false, b"\0\0\0\0\0\x80\0\0\0\0", Some(BAD_FLAG));
        check(true, b"\0\0\0\0\x03ab", Some(CUT_SHORT));
        check(false, b"\0\0\0\0\x01a\0\0", Some(CUT_SHORT));
        let all = "the message has 4294967295 bytes, more than the limit of 5242880";
        check(true, b"\0\xff\xff\xff\xff", Some(all));
    }
}
