//! gRPC over HTTP/2, "Responses": written as the handler makes them.

use super::message::{PREFIX_BYTES, write_prefix};
use super::status::{Prepared, Status};
use crate::connection::{BlockWriter, Core, DataMark, End, StreamKey};
use crate::hpack::{Repeated, write_literal};
use crate::message::HeadFault;

/// What of a response was sent, and what is to go with its head and trailers.
#[derive(Debug, Default)]
pub(super) struct Sent {
    headers: bool,
    /// Literals, encoded. Empty, and without memory, for nearly every call.
    metadata: Vec<u8>,
    trailers: Vec<u8>,
    /// Messages, and their bytes without prefixes.
    messages: u64,
    message_bytes: u64,
}

impl Sent {
    pub(super) const fn messages(&self) -> u64 {
        self.messages
    }
}

/// What goes with the status of a call that the transport ends.
pub struct Closing<'a>(pub(super) &'a mut Sent);

impl Closing<'_> {
    /// Adds to the response's headers, if none were sent yet. `name` is in lower
    /// case.
    pub fn metadata(&mut self, name: &[u8], value: &[u8]) {
        write_literal(&mut self.0.metadata, name, value);
    }

    /// Adds to the response's trailers. `name` is in lower case.
    pub fn trailer(&mut self, name: &[u8], value: &[u8]) {
        write_literal(&mut self.0.trailers, name, value);
    }

    /// Bytes of the messages that were sent before, without their prefixes.
    #[must_use]
    pub const fn message_bytes(&self) -> u64 {
        self.0.message_bytes
    }
}

/// Where a handler writes its answer: straight into the connection's output.
pub struct Reply<'a> {
    core: &'a mut Core,
    key: StreamKey,
    sent: &'a mut Sent,
    /// The message that is being written.
    open: Option<DataMark>,
}

impl<'a> Reply<'a> {
    #[inline]
    pub(super) const fn new(core: &'a mut Core, key: StreamKey, sent: &'a mut Sent) -> Self {
        Self {
            core,
            key,
            sent,
            open: None,
        }
    }

    #[inline]
    pub(super) const fn core(&self) -> &Core {
        self.core
    }

    /// Messages so far.
    #[inline]
    pub(super) const fn messages(&self) -> u64 {
        self.sent.messages
    }

    pub(super) const fn parts(&mut self) -> (&Core, &mut Sent) {
        (self.core, self.sent)
    }

    /// Adds to the response's headers; without effect after the first message.
    /// `name` is in lower case.
    pub fn metadata(&mut self, name: &[u8], value: &[u8]) {
        write_literal(&mut self.sent.metadata, name, value);
    }

    /// Adds to the response's trailers. `name` is in lower case.
    pub fn trailer(&mut self, name: &[u8], value: &[u8]) {
        write_literal(&mut self.sent.trailers, name, value);
    }

    /// Sends a message: `encode` appends it to what it is given, and leaves what
    /// is there.
    #[inline]
    pub fn message(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        self.write(0, encode);
    }

    /// Sends a message that [`gzip`](crate::gzip) has made smaller. The headers must say
    /// so, by [`metadata`](Self::metadata) before the first message, and the client must
    /// have offered to read it.
    pub fn compressed(&mut self, message: &[u8]) {
        self.write(1, |out| out.extend_from_slice(message));
    }

    #[inline]
    fn write(&mut self, flag: u8, encode: impl FnOnce(&mut Vec<u8>)) {
        self.headers();
        // Kept here, so that a panic in `encode` leaves no half of a frame.
        self.open = Some(self.core.begin_data());
        let out = self.core.output();
        let start = out.len();
        out.extend_from_slice(&[flag, 0, 0, 0, 0]);
        encode(out);
        write_prefix(out, start);
        self.sent.messages += 1;
        self.sent.message_bytes += (out.len() - start - PREFIX_BYTES) as u64;
        if let Some(mark) = self.open.take() {
            self.core.end_data(self.key, mark);
        }
    }

    /// Bytes of the messages so far, without their prefixes.
    #[inline]
    #[must_use]
    pub const fn message_bytes(&self) -> u64 {
        self.sent.message_bytes
    }

    /// Sends the headers, unless they are sent already.
    #[inline]
    fn headers(&mut self) {
        if !self.sent.headers {
            self.sent.headers = true;
            let metadata = &self.sent.metadata;
            if metadata.is_empty() && self.core.send_usual_headers(self.key) {
                return;
            }
            self.core.send_headers(self.key, End::Open, |block| {
                head(block);
                block.literals(metadata);
            });
        }
    }

    /// Ends a response that has not begun, as "Trailers-Only".
    pub(super) fn refuse(self, status: &Prepared) {
        self.core.send_headers(self.key, End::Stream, |block| {
            head(block);
            block.literals(status.literals());
        });
    }

    /// Ends the response; as "Trailers-Only" if nothing was sent before, and there
    /// is no metadata: a client would take it for trailers there.
    #[inline]
    pub(super) fn end(mut self, status: &Status) {
        if let Some(mark) = self.open.take() {
            self.core.drop_data(mark);
        }
        if !self.sent.metadata.is_empty() {
            self.headers();
        }
        let Self {
            core, key, sent, ..
        } = self;
        let usual = sent.headers && status.is_plain_ok() && sent.trailers.is_empty();
        if usual && core.send_usual_trailers(key) {
            return;
        }
        let write = |block: &mut BlockWriter<'_>| {
            status.write(block);
            block.literals(&sent.trailers);
        };
        if sent.headers {
            core.send_trailers(key, write);
        } else {
            core.send_headers(key, End::Stream, |block| {
                head(block);
                write(block);
            });
        }
    }
}

/// Answers a request whose head cannot be read, so that it is not known what the
/// client speaks: with the status of gRPC, for those who look for it, under one of
/// HTTP that says the same.
pub(super) fn refuse_head(core: &mut Core, key: StreamKey, fault: HeadFault, status: &Status) {
    core.send_headers(key, End::Stream, |block| {
        block.status(fault.http_status());
        block.repeated(Repeated::ContentTypeGrpc);
        status.write(block);
    });
}

#[inline]
fn head(block: &mut BlockWriter<'_>) {
    block.status(200);
    block.repeated(Repeated::ContentTypeGrpc);
}
