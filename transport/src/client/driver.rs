//! One connection on one byte stream.
//!
//! A turn writes once what all callers have to send, reads once, and wakes the
//! callers whose answers came. The read buffer belongs to the thread: a connection
//! holds bytes only of a frame that has not come whole.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::failed::Closed;
use super::send::set;
use super::shared::Shared;
use crate::frame::{FrameHead, MIN_MAX_FRAME_BYTES};

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// A read buffer: the longest part of a frame, and a read.
const SCRATCH_BYTES: usize = READ_BYTES + FrameHead::BYTES + MIN_MAX_FRAME_BYTES as usize;
/// A write buffer is kept if it holds no more, bytes.
const KEPT_OUTPUT_BYTES: usize = 64 * 1024;
/// Reads and writes before others get their turn.
const TURNS: usize = 8;
/// How long the last bytes may take to leave.
const PARTING: Duration = Duration::from_secs(1);

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Drives a connection until it ends.
pub(super) struct Driver<I> {
    io: I,
    shared: Arc<Shared>,
    /// What leaves now, from `written` on.
    writing: Vec<u8>,
    written: usize,
    /// The stream may hold bytes that it took, as TLS does.
    unflushed: bool,
    /// It takes no more. What came before may still be read.
    is_broken: bool,
    /// Bytes that were read and are part of a frame.
    held: Vec<u8>,
    timer: Pin<Box<Sleep>>,
    armed: Option<Instant>,
    /// Kept for the next turn.
    wake: Vec<Waker>,
    parting: Option<Instant>,
    /// It has let others run before it, and does not do so twice.
    gave_way: bool,
}

/// What a look at the connection says.
struct Look {
    closed: Option<Closed>,
    next_time: Option<Instant>,
}

impl<I> Driver<I> {
    pub(super) fn new(io: I, shared: Arc<Shared>) -> Self {
        Self {
            io,
            shared,
            writing: Vec::new(),
            written: 0,
            unflushed: false,
            is_broken: false,
            held: Vec::new(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: None,
            wake: Vec::new(),
            parting: None,
            gave_way: false,
        }
    }
}

/// Whoever drops a driver ends its calls.
impl<I> Drop for Driver<I> {
    fn drop(&mut self) {
        self.shared.with(|core| core.close(Closed::Dropped));
    }
}

/// The parts are never pinned.
impl<I: Unpin> Unpin for Driver<I> {}

impl<I: AsyncRead + AsyncWrite + Unpin> Future for Driver<I> {
    type Output = Closed;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Closed> {
        let this = &mut *self;
        if this.gives_way(cx) {
            return Poll::Pending;
        }
        let now = tokio::time::Instant::now().into_std();
        for _ in 0..TURNS {
            let look = this.look(cx, now);
            let flushed = this.flush(cx, now);
            if let Some(closed) = look.closed {
                return this.part(cx, now, flushed.is_ready(), closed);
            }
            match this.receive(cx, now) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    let why = Closed::io(&error);
                    this.shared.with(|core| core.close(why));
                }
                Poll::Pending if this.is_broken => {
                    let why = Closed::io(&io::ErrorKind::BrokenPipe.into());
                    this.shared.with(|core| core.close(why));
                }
                Poll::Pending => {
                    this.arm(cx, look.next_time);
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Driver<I> {
    /// A runtime of many threads runs first what was woken last. The first caller that has
    /// its answer and asks again would have this write its request alone, and so would
    /// each after it: this lets those run that are about to ask, and writes for all.
    fn gives_way(&mut self, cx: &Context<'_>) -> bool {
        if std::mem::take(&mut self.gave_way) {
            return false;
        }
        let mut core = self.shared.lock();
        if core.told == 0 || core.out.is_empty() {
            return false;
        }
        set(&mut core.driver, cx.waker());
        drop(core);
        self.gave_way = true;
        cx.waker().wake_by_ref();
        true
    }

    /// Does what is due, and takes what is to leave.
    fn look(&mut self, cx: &Context<'_>, now: Instant) -> Look {
        let mut core = self.shared.lock();
        set(&mut core.driver, cx.waker());
        core.calls_driver = false;
        if core.next_time().is_some_and(|at| at <= now) {
            core.on_time(now);
        }
        let closed = core.finish();
        if self.writing.is_empty() {
            core.take_output(&mut self.writing, now);
        }
        let next_time = core.next_time();
        std::mem::swap(&mut self.wake, &mut core.wake);
        drop(core);
        self.wake.drain(..).for_each(Waker::wake);
        Look { closed, next_time }
    }

    /// Writes what is to leave. Ready when all that there was has left, or nothing
    /// can any more.
    fn flush(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        loop {
            if self.is_broken {
                self.writing.clear();
                self.written = 0;
                return Poll::Ready(());
            }
            let polled = if self.written < self.writing.len() {
                let rest = &self.writing[self.written..];
                Pin::new(&mut self.io).poll_write(cx, rest)
            } else if self.unflushed {
                Pin::new(&mut self.io).poll_flush(cx).map_ok(|()| 0)
            } else {
                return Poll::Ready(());
            };
            match polled {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => self.is_broken = true,
                Poll::Ready(Ok(0)) if self.written < self.writing.len() => self.is_broken = true,
                Poll::Ready(Ok(0)) => self.unflushed = false,
                Poll::Ready(Ok(count)) => {
                    self.written += count;
                    self.unflushed = true;
                    self.wrote(now);
                }
            }
        }
    }

    /// Makes room for what is next, once all of it has left.
    fn wrote(&mut self, now: Instant) {
        if self.written < self.writing.len() {
            return;
        }
        self.written = 0;
        self.writing.clear();
        if self.writing.capacity() > KEPT_OUTPUT_BYTES {
            self.writing = Vec::new();
        }
        // What came meanwhile, or waited for room, leaves in this turn too.
        self.shared.lock().take_output(&mut self.writing, now);
    }

    /// Reads once, and takes in what was read.
    fn receive(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<io::Result<()>> {
        let mut scratch = SCRATCH.take();
        scratch.resize(SCRATCH_BYTES, 0);
        let polled = self.receive_into(&mut scratch, cx, now);
        SCRATCH.set(scratch);
        polled
    }

    fn receive_into(
        &mut self,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Poll<io::Result<()>> {
        let before = self.held.len();
        let most = (before + READ_BYTES).min(scratch.len());
        let mut buffer = ReadBuf::new(&mut scratch[before..most]);
        match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) => {}
            other => return other,
        }
        let count = buffer.filled().len();
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        scratch[..before].copy_from_slice(&self.held);
        let input = &scratch[..before + count];
        let mut core = self.shared.lock();
        let used = core.receive(input, now);
        std::mem::swap(&mut self.wake, &mut core.wake);
        drop(core);
        self.wake.drain(..).for_each(Waker::wake);
        self.held.clear();
        self.held.extend_from_slice(&input[used..]);
        Poll::Ready(Ok(()))
    }

    /// The connection has ended: its last bytes may leave, and it is closed.
    fn part(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        is_flushed: bool,
        closed: Closed,
    ) -> Poll<Closed> {
        let until = *self.parting.get_or_insert(now + PARTING);
        let is_over = until <= now || self.is_broken;
        if !is_over {
            let is_shut = is_flushed && Pin::new(&mut self.io).poll_shutdown(cx).is_ready();
            if !is_shut {
                self.arm(cx, Some(until));
                return Poll::Pending;
            }
        }
        Poll::Ready(closed)
    }

    /// Has the timer wake this at a time, or earlier.
    fn arm(&mut self, cx: &mut Context<'_>, next: Option<Instant>) {
        let Some(next) = next else {
            return;
        };
        let mut is_late = self.armed.is_none_or(|armed| next < armed);
        loop {
            if is_late {
                self.armed = Some(next);
                self.timer.as_mut().reset(next.into());
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return;
            }
            // It has rung, for what is over perhaps: it is set anew, or what is due
            // is done in another turn.
            self.armed = None;
            if is_late {
                cx.waker().wake_by_ref();
                return;
            }
            is_late = true;
        }
    }
}
