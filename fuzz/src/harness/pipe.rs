//! A byte stream without a socket: one end for the driver of a client's connection, the
//! other in a target's hands.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Both ends of a byte stream.
#[derive(Clone, Default)]
pub struct Pipe(Arc<Mutex<Ends>>);

#[derive(Default)]
struct Ends {
    /// What the server sent and the client has not read.
    to_client: VecDeque<u8>,
    /// What follows on it: the end (`None`), or a failure.
    after: Option<Option<io::ErrorKind>>,
    /// What the client wrote and the server has not read.
    to_server: Vec<u8>,
    /// Bytes that the socket takes before it has to be emptied.
    room: usize,
    /// It takes none any more.
    is_broken: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// How often it was asked for anything.
    asked: usize,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, Ends> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server's bytes come.
    pub fn deliver(&self, bytes: &[u8]) {
        let mut ends = self.lock();
        ends.to_client.extend(bytes);
        wake(ends.reader.take());
    }

    /// The server sends no more: it has closed, or the stream fails.
    pub fn end(&self, failure: Option<io::ErrorKind>) {
        let mut ends = self.lock();
        ends.after = Some(failure);
        wake(ends.reader.take());
    }

    /// The socket takes so many bytes more.
    pub fn make_room(&self, bytes: usize) {
        let mut ends = self.lock();
        ends.room = ends.room.saturating_add(bytes);
        wake(ends.writer.take());
    }

    /// The socket takes nothing any more.
    pub fn break_off(&self) {
        let mut ends = self.lock();
        ends.is_broken = true;
        wake(ends.writer.take());
    }

    /// What the client wrote.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.lock().to_server)
    }

    /// How often reads and writes were tried.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.lock().asked
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut ends = self.lock();
        ends.asked += 1;
        let count = into.remaining().min(ends.to_client.len());
        if count > 0 {
            let bytes: Vec<u8> = ends.to_client.drain(..count).collect();
            into.put_slice(&bytes);
            return Poll::Ready(Ok(()));
        }
        match ends.after {
            Some(None) => Poll::Ready(Ok(())),
            Some(Some(kind)) => Poll::Ready(Err(kind.into())),
            None => {
                ends.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut ends = self.lock();
        ends.asked += 1;
        if ends.is_broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = bytes.len().min(ends.room);
        if count == 0 {
            ends.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        ends.room -= count;
        ends.to_server.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
