//! A call with streams, as its caller sees it: two halves, each of which can be
//! moved to a task of its own.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::answer::Trailers;
use super::assembly::{Flag, Message};
use super::calls::{Key, Place};
use super::core::Core;
use super::failed::Failed;
use super::send::{Ended, set};
use super::shared::Shared;
use crate::error_codes::ErrorCode;
use crate::hpack::Fields;

/// The sending half. Dropped before [`finish`](Self::finish), it resets the call: a
/// server is never to take half a stream for all of it.
#[must_use = "a stream whose sender is dropped is given up"]
pub struct Sending {
    shared: Arc<Shared>,
    key: Key,
    is_finished: bool,
}

/// The receiving half. Dropped before the end, it resets the call.
#[must_use = "a stream whose receiver is dropped is given up"]
pub struct Receiving {
    shared: Arc<Shared>,
    key: Key,
    trailers: Option<Trailers>,
    /// Why a message that came is none.
    failed: Option<Failed>,
    message_bytes: usize,
}

/// The call takes no more messages: it has ended, and its receiving half says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendClosed;

impl std::fmt::Display for SendClosed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the call has ended")
    }
}

impl std::error::Error for SendClosed {}

pub(super) fn halves(shared: Arc<Shared>, key: Key) -> (Sending, Receiving) {
    let sending = Sending {
        shared: Arc::clone(&shared),
        key,
        is_finished: false,
    };
    let receiving = Receiving {
        shared,
        key,
        trailers: None,
        failed: None,
        message_bytes: 0,
    };
    (sending, receiving)
}

impl Sending {
    /// Sends a message, which `message` appends to the bytes that it is given: it runs
    /// while other calls of the connection wait, so it does no more. Waits while the
    /// server, or the socket, does not take what was sent before (64 KiB and a message
    /// may wait). Dropped while it waits, it has sent nothing.
    ///
    /// # Errors
    /// If the call has ended.
    pub async fn send(&mut self, message: impl FnOnce(&mut Vec<u8>)) -> Result<(), SendClosed> {
        self.send_flagged(Flag::Plain, message).await
    }

    /// As [`send`](Self::send), for a message that [`gzip`](crate::gzip) has made smaller.
    /// The stream's head must say so ([`RequestHead::compressed`]).
    ///
    /// # Errors
    /// If the call has ended.
    ///
    /// [`RequestHead::compressed`]: super::RequestHead::compressed
    pub async fn send_compressed(&mut self, message: &[u8]) -> Result<(), SendClosed> {
        let write = |out: &mut Vec<u8>| out.extend_from_slice(message);
        self.send_flagged(Flag::Compressed, write).await
    }

    async fn send_flagged(
        &mut self,
        flag: Flag,
        message: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), SendClosed> {
        let mut message = Some(message);
        poll_fn(|cx| {
            self.shared
                .with(|core| match core.poll_sendable(self.key, cx.waker()) {
                    Poll::Ready(Ok(())) => {
                        if let Some(message) = message.take() {
                            core.send(self.key, flag, message);
                        }
                        Poll::Ready(Ok(()))
                    }
                    Poll::Ready(Err(Ended)) => Poll::Ready(Err(SendClosed)),
                    Poll::Pending => Poll::Pending,
                })
        })
        .await
    }

    /// Says that no more messages come. What was sent still leaves.
    pub fn finish(mut self) {
        self.is_finished = true;
        self.shared.with(|core| core.send_end(self.key));
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let gives_up = !self.is_finished;
        self.shared.with(|core| core.release(self.key, gives_up));
    }
}

impl Receiving {
    /// Waits for the head of the answer: initial metadata, with `:status` and
    /// `content-type`; empty if that is all and says 200 and gRPC, or if the answer has
    /// none beside its end.
    ///
    /// # Errors
    /// If the call failed before.
    pub async fn headers(&mut self) -> Result<Fields, Failed> {
        poll_fn(|cx| self.shared.with(|core| core.poll_headers(self.key, cx))).await
    }

    /// Waits for the next message. `None` at the end, of which [`trailers`](Self::trailers)
    /// then tells. Dropped while it waits, it has taken nothing.
    ///
    /// # Errors
    /// If the call failed; again with each further call.
    pub async fn message(&mut self) -> Result<Option<Bytes>, Failed> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        if self.trailers.is_some() {
            return Ok(None);
        }
        let next = poll_fn(|cx| self.shared.with(|core| core.poll_message(self.key, cx))).await?;
        match next {
            Next::Message(message, max_bytes) => {
                self.message_bytes = message.bytes.len();
                let opened = message.open(max_bytes);
                opened.map(Some).inspect_err(|failed| self.fail(failed))
            }
            Next::End(trailers) => {
                self.trailers = Some(trailers);
                Ok(None)
            }
        }
    }

    /// How many bytes the last message was as it came: fewer, if it was compressed.
    #[must_use]
    pub const fn message_bytes(&self) -> usize {
        self.message_bytes
    }

    /// What comes is of no use.
    #[cold]
    fn fail(&mut self, failed: &Failed) {
        self.failed = Some(failed.clone());
        let reset = |core: &mut Core| core.reset(self.key, ErrorCode::CANCEL, failed.clone());
        self.shared.with(reset);
    }

    /// How the call ended, once [`message`](Self::message) has said `None`.
    #[must_use]
    pub const fn trailers(&self) -> Option<&Trailers> {
        self.trailers.as_ref()
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        // A call that has ended cannot be given up.
        self.shared.with(|core| core.release(self.key, true));
    }
}

enum Next {
    /// And how large it may be.
    Message(Message, usize),
    End(Trailers),
}

impl Core {
    fn poll_headers(&mut self, key: Key, cx: &Context<'_>) -> Poll<Result<Fields, Failed>> {
        let Some(call) = self.calls.at(key) else {
            return Poll::Ready(Ok(Fields::default()));
        };
        match &call.end {
            _ if call.has_head => Poll::Ready(Ok(std::mem::take(&mut call.headers))),
            Some(Err(failed)) => Poll::Ready(Err(failed.clone())),
            Some(Ok(_)) => Poll::Ready(Ok(Fields::default())),
            None => {
                set(&mut call.reader, cx.waker());
                Poll::Pending
            }
        }
    }

    fn poll_message(&mut self, key: Key, cx: &Context<'_>) -> Poll<Result<Next, Failed>> {
        let Some(call) = self.calls.at(key) else {
            return Poll::Ready(Ok(Next::End(Trailers::default())));
        };
        if let Some(message) = call.messages.pop_front() {
            if call.messages.is_empty() && call.place() == Place::Open {
                self.credit(key);
            }
            let max_bytes = self.config.max_message_bytes;
            return Poll::Ready(Ok(Next::Message(message, max_bytes)));
        }
        if std::mem::take(&mut call.is_told) {
            self.told -= 1;
        }
        match &call.end {
            Some(Err(failed)) => Poll::Ready(Err(failed.clone())),
            Some(Ok(trailers)) => Poll::Ready(Ok(Next::End(trailers.clone()))),
            None => {
                set(&mut call.reader, cx.waker());
                Poll::Pending
            }
        }
    }
}
