//! The body of a request. What is read of it opens the client's window again
//! (RFC 9113, section 6.9): what is not read is bounded by the stream's window.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::connection::End;

/// Small pieces are put together up to so many bytes: a client that sends one byte
/// at a time does not have the server hold many for each.
const CHUNK_BYTES: usize = 16 * 1024;

struct Shared {
    chunks: VecDeque<BytesMut>,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// The call is over; nothing more comes.
    abandoned: bool,
    /// Content that content-length promises and that was not read.
    promised: Option<u64>,
    /// Bytes read that the connection has not been told of.
    read: u32,
    /// The connection polls the call: it looks at `read` afterwards.
    polled: bool,
    reader: Option<Waker>,
    connection: Waker,
}

/// Why a body ended before its end: the client reset its stream, or the
/// connection was lost, or the response was complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyError;

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request ended before its body")
    }
}

impl std::error::Error for BodyError {}

/// The body of a request of the general lane.
pub struct Body(Arc<Mutex<Shared>>);

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // Nothing panics while it is locked.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut shared = lock(&self.0);
        if let Some(chunk) = shared.chunks.pop_front() {
            let bytes = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            shared.read = shared.read.saturating_add(bytes);
            shared.promised = shared
                .promised
                .map(|promised| promised.saturating_sub(u64::from(bytes)));
            let connection = (!shared.polled).then(|| shared.connection.clone());
            drop(shared);
            if let Some(connection) = connection {
                connection.wake();
            }
            return Poll::Ready(Some(Ok(Frame::data(chunk.freeze()))));
        }
        if let Some(trailers) = shared.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        if shared.ended {
            return Poll::Ready(None);
        }
        if shared.abandoned {
            return Poll::Ready(Some(Err(BodyError)));
        }
        if !shared
            .reader
            .as_ref()
            .is_some_and(|known| known.will_wake(cx.waker()))
        {
            shared.reader = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        let shared = lock(&self.0);
        shared.ended && shared.chunks.is_empty() && shared.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let shared = lock(&self.0);
        let here: usize = shared.chunks.iter().map(BytesMut::len).sum();
        match shared.promised {
            _ if shared.ended => SizeHint::with_exact(here as u64),
            Some(promised) => SizeHint::with_exact(promised),
            None => {
                let mut hint = SizeHint::new();
                hint.set_lower(here as u64);
                hint
            }
        }
    }
}

/// The connection's end of a body.
pub(super) struct Incoming(Arc<Mutex<Shared>>);

impl Incoming {
    pub(super) fn new(end: End, promised: Option<u64>, connection: Waker) -> (Self, Body) {
        let shared = Arc::new(Mutex::new(Shared {
            chunks: VecDeque::new(),
            trailers: None,
            ended: end == End::Stream,
            abandoned: false,
            promised,
            read: 0,
            polled: false,
            reader: None,
            connection,
        }));
        (Self(Arc::clone(&shared)), Body(shared))
    }

    pub(super) fn receive(&self, data: &[u8], end: End) {
        let mut shared = lock(&self.0);
        match shared.chunks.back_mut() {
            Some(last) if last.len() + data.len() <= CHUNK_BYTES => last.extend_from_slice(data),
            _ if data.is_empty() => {}
            _ => shared.chunks.push_back(BytesMut::from(data)),
        }
        shared.ended |= end == End::Stream;
        wake_reader(shared);
    }

    pub(super) fn receive_trailers(&self, trailers: HeaderMap) {
        let mut shared = lock(&self.0);
        shared.trailers = Some(trailers);
        shared.ended = true;
        wake_reader(shared);
    }

    pub(super) fn begin_poll(&self) {
        lock(&self.0).polled = true;
    }

    /// Bytes that were read since the last time.
    pub(super) fn end_poll(&self) -> u32 {
        let mut shared = lock(&self.0);
        shared.polled = false;
        std::mem::take(&mut shared.read)
    }

    /// The call is over. Bytes that the connection was not told of, read or not.
    pub(super) fn abandon(&self) -> u32 {
        let mut shared = lock(&self.0);
        let left: usize = shared.chunks.iter().map(BytesMut::len).sum();
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        let bytes = std::mem::take(&mut shared.read).saturating_add(left);
        // What was cut short does not look complete.
        shared.ended &= shared.chunks.is_empty();
        shared.chunks.clear();
        shared.abandoned = true;
        wake_reader(shared);
        bytes
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.abandon();
    }
}

fn wake_reader(mut shared: MutexGuard<'_, Shared>) {
    let reader = shared.reader.take();
    drop(shared);
    if let Some(reader) = reader {
        reader.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pieces_are_put_together() {
        let (incoming, mut body) = Incoming::new(End::Open, None, Waker::noop().clone());
        for _ in 0..40_000 {
            incoming.receive(b"x", End::Open);
        }
        incoming.receive(b"", End::Stream);
        assert_eq!(lock(&body.0).chunks.len(), 3);
        assert_eq!(body.size_hint().exact(), Some(40_000));
        let mut cx = Context::from_waker(Waker::noop());
        let mut read = 0;
        while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut cx) {
            read += frame.unwrap().into_data().unwrap().len();
        }
        assert_eq!((read, body.is_end_stream()), (40_000, true));
        assert_eq!(incoming.end_poll(), 40_000);
    }

    #[test]
    fn a_body_that_is_cut_short_does_not_look_complete() {
        let (incoming, mut body) = Incoming::new(End::Open, None, Waker::noop().clone());
        incoming.receive(b"half", End::Stream);
        assert_eq!(incoming.abandon(), 4);
        let mut cx = Context::from_waker(Waker::noop());
        let polled = Pin::new(&mut body).poll_frame(&mut cx);
        assert!(matches!(polled, Poll::Ready(Some(Err(BodyError)))));
    }
}
