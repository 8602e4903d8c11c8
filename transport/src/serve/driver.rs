//! One connection on one socket.
//!
//! A turn reads once, answers what it can, and writes once: all the answers to
//! what one read brought leave in one write. The read and write buffers belong
//! to the thread; a connection holds a buffer only for part of a frame, or for
//! what its socket does not take.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::Sleep;

use super::pulse;
use crate::connection::{Connection, Failure};
use crate::frame::FrameHead;
use crate::general::GeneralLane;
use crate::limits::Limits;
use crate::registry::{Activity, Registered};
use crate::rpc::{Handler, Rpc};
use crate::shared::Buffered;
use crate::stats::Counter;

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// A read buffer: the longest part of a frame, and a read.
const SCRATCH_BYTES: usize = READ_BYTES + FrameHead::BYTES + Limits::MAX_FRAME_BYTES as usize;
/// A write buffer of the thread is kept if it holds no more, bytes.
const KEPT_OUTPUT_BYTES: usize = 1024 * 1024;
/// A connection's own buffer is kept if it holds no more, bytes.
const KEPT_HELD_BYTES: usize = 2048;
/// Reads and writes before other connections get their turn.
const TURNS: usize = 4;
/// After the last byte was written: how long, and how much, is read of what the
/// client still sends. To close before that could take the answer away from it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;
/// How long a connection may still write when the server ends.
const CUT_GRACE: Duration = Duration::from_secs(1);
/// The timer's grain.
const GRAIN: Duration = Duration::from_millis(1);

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static OUTPUT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What a server does with its connections. It only goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Course {
    /// Serves them.
    Serving,
    /// Has them end with their calls.
    Draining,
    /// Ends them.
    Ending,
}

type Changed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Comes with the next change.
fn changed(mut course: watch::Receiver<Course>) -> Changed {
    Box::pin(async move {
        // Its sender gone: nobody can change it any more.
        if course.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

/// Serves a connection; ends with it. Says why, if it was before its time.
pub struct Driver<I, H: Handler, L: GeneralLane> {
    io: I,
    connection: Connection<Rpc<H, L>>,
    /// Bytes that were read and not looked at: part of a frame, or more if the
    /// last turn was cut off.
    held: Vec<u8>,
    /// There may be a whole frame among them.
    more: bool,
    /// When the socket was last seen to have no more to read.
    emptied: Instant,
    /// Not in the last turn: there may be more.
    is_behind: bool,
    timer: Pin<Box<Sleep>>,
    armed: Option<Instant>,
    course: watch::Receiver<Course>,
    changed: Changed,
    /// Whom the timer and the course know to wake.
    waker: Option<Waker>,
    /// The socket may hold bytes that it took, as TLS does.
    unflushed: bool,
    /// When the socket is dropped, whatever it has not taken.
    cut: Option<Instant>,
    /// Nothing is to be sent any more; until when, and how much, is read.
    linger: Option<(Instant, usize)>,
    buffered: Buffered,
    registered: Option<Registered>,
}

impl<I, H: Handler, L: GeneralLane> Driver<I, H, L> {
    /// Serves `connection` on `io`, from which `read` was read already.
    pub fn new(
        io: I,
        connection: Connection<Rpc<H, L>>,
        read: Vec<u8>,
        course: watch::Receiver<Course>,
    ) -> Self {
        Self {
            io,
            buffered: Buffered::new(connection.shared()),
            connection,
            more: !read.is_empty(),
            held: read,
            emptied: tokio::time::Instant::now().into_std(),
            is_behind: false,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: None,
            changed: changed(course.clone()),
            course,
            waker: None,
            unflushed: false,
            cut: None,
            linger: None,
            registered: None,
        }
    }

    /// The same, which tells others what it does.
    pub(super) fn registered(self, registered: Registered) -> Self {
        Self {
            registered: Some(registered),
            ..self
        }
    }

    /// True once a request was complete, or answered.
    #[inline]
    pub fn is_proven(&self) -> bool {
        self.connection.is_proven()
    }

    /// Ends the connection, and says so to the client, in what is written next.
    pub(super) fn close(&mut self, counter: Counter, why: &'static str) {
        let now = tokio::time::Instant::now().into_std();
        self.connection.close(now, counter, why);
    }
}

/// The parts are never pinned.
impl<I: Unpin, H: Handler, L: GeneralLane> Unpin for Driver<I, H, L> {}

impl<I, H, L> Future for Driver<I, H, L>
where
    I: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
    L: GeneralLane,
{
    type Output = Option<Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Failure>> {
        let now = tokio::time::Instant::now().into_std();
        let this = &mut *self;
        pulse::turn(now, this.is_behind.then_some(this.emptied));
        this.is_behind = true;
        this.connection.lend_buffer(|| OUTPUT.take());
        let polled = this.turns(cx, now);
        this.connection.app().turned();
        this.publish(now);
        this.give_back();
        match polled {
            Poll::Ready(Ok(())) => Poll::Ready(this.connection.failure()),
            Poll::Ready(Err(error)) => {
                if error.kind() == io::ErrorKind::UnexpectedEof {
                    // TLS answers `close_notify` in kind, if it can at once.
                    let _ = Pin::new(&mut this.io).poll_shutdown(cx);
                }
                this.connection.lost();
                Poll::Ready(this.connection.failure())
            }
            Poll::Pending => {
                this.arm(cx, now);
                Poll::Pending
            }
        }
    }
}

impl<I, H, L> Driver<I, H, L>
where
    I: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
    L: GeneralLane,
{
    /// The server's course has changed.
    #[cold]
    fn follow(&mut self, now: Instant) {
        let course = *self.course.borrow_and_update();
        match course {
            Course::Serving => {}
            Course::Draining => self.connection.drain(now),
            Course::Ending => {
                self.connection
                    .cut(now, Counter::Aborted, "the server ends");
                self.cut = now.checked_add(CUT_GRACE);
            }
        }
        self.changed = changed(self.course.clone());
        self.waker = None;
    }

    fn turns(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<io::Result<()>> {
        if self.linger.is_some() {
            return self.linger(cx, now);
        }
        if self.course.has_changed().unwrap_or(false) {
            self.follow(now);
        }
        if self.cut.is_some_and(|at| at <= now) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if self.armed.is_some_and(|at| at <= now) && !self.on_time(now) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        for _ in 0..TURNS {
            if self.connection.app().is_waiting() {
                let task = cx.waker();
                self.connection
                    .with_app(now, |app, core| app.poll(core, task));
            }
            let flushed = self.flush(cx, now)?;
            if self.connection.is_done() {
                ready!(flushed);
                ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
                self.linger = Some((now + LINGER, LINGER_BYTES));
                return self.linger(cx, now);
            }
            // A client that does not take its answers is read from until the
            // output is full: it may have to write before it can read.
            let received = match self.connection.has_room() {
                true => self.receive(cx, now)?,
                false => {
                    // What waits behind them does so for the client's sake.
                    self.is_behind = false;
                    self.emptied = now;
                    Poll::Pending
                }
            };
            let goes_on = flushed.is_ready()
                && !self.connection.is_clogged()
                && self.connection.app().has_ready();
            if received.is_pending() && !goes_on {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what is to leave. Ready when all of it has left.
    fn flush(&mut self, cx: &mut Context<'_>, now: Instant) -> io::Result<Poll<()>> {
        loop {
            let output = self.connection.output();
            if output.is_empty() {
                if self.unflushed {
                    let flushed = Pin::new(&mut self.io).poll_flush(cx)?;
                    self.unflushed = flushed.is_pending();
                    return Ok(flushed);
                }
                return Ok(Poll::Ready(()));
            }
            let Poll::Ready(count) = Pin::new(&mut self.io).poll_write(cx, output)? else {
                return Ok(Poll::Pending);
            };
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.unflushed = true;
            self.connection.wrote(count, now);
        }
    }

    /// Reads, and answers what was read.
    fn receive(&mut self, cx: &mut Context<'_>, now: Instant) -> io::Result<Poll<()>> {
        if self.more {
            let received = self.connection.receive(&self.held, now);
            self.held.drain(..received.consumed);
            self.more = received.more;
            return Ok(Poll::Ready(()));
        }
        let mut scratch = SCRATCH.take();
        scratch.resize(SCRATCH_BYTES, 0);
        let result = self.receive_into(&mut scratch, cx, now);
        SCRATCH.set(scratch);
        result
    }

    fn receive_into(
        &mut self,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
        now: Instant,
    ) -> io::Result<Poll<()>> {
        let before = self.held.len();
        let most = (before + READ_BYTES).min(scratch.len());
        let mut buffer = ReadBuf::new(&mut scratch[before..most]);
        if Pin::new(&mut self.io)
            .poll_read(cx, &mut buffer)?
            .is_pending()
        {
            self.is_behind = false;
            self.emptied = now;
            return Ok(Poll::Pending);
        }
        let count = buffer.filled().len();
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        scratch[..before].copy_from_slice(&self.held);
        let input = &scratch[..before + count];
        let received = self.connection.receive(input, now);
        self.held.clear();
        self.held.extend_from_slice(&input[received.consumed..]);
        self.more = received.more;
        Ok(Poll::Ready(()))
    }

    /// Reads and drops what still comes.
    fn linger(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<io::Result<()>> {
        let mut scratch = SCRATCH.take();
        scratch.resize(SCRATCH_BYTES, 0);
        let result = loop {
            match &mut self.linger {
                Some((until, bytes)) if now < *until && *bytes > 0 => {
                    let mut buffer = ReadBuf::new(&mut scratch);
                    match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                        Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                            *bytes = bytes.saturating_sub(buffer.filled().len());
                        }
                        Poll::Ready(_) => break Poll::Ready(Ok(())),
                        Poll::Pending => break Poll::Pending,
                    }
                }
                _ => break Poll::Ready(Ok(())),
            }
        };
        SCRATCH.set(scratch);
        result
    }

    fn on_time(&mut self, now: Instant) -> bool {
        self.armed = None;
        self.connection.with_app(now, Rpc::on_time);
        let alive = self.connection.on_time(now);
        if self.connection.streams() == 0 {
            self.connection.release();
            self.connection.app().release();
        }
        alive
    }

    /// Sees to it that the task is woken when the time asks for something, and
    /// when the connection is to be drained.
    fn arm(&mut self, cx: &mut Context<'_>, now: Instant) {
        let next = match self.linger {
            Some((until, _)) => Some(until),
            None => [
                self.connection.next_time(),
                self.connection.app().next_time(),
            ]
            .into_iter()
            .flatten()
            .min(),
        };
        let next = next.into_iter().chain(self.cut).min();
        let known = self
            .waker
            .as_ref()
            .is_some_and(|known| known.will_wake(cx.waker()));
        if let Some(next) = next
            && self.armed.is_none_or(|armed| next < armed || armed <= now)
        {
            let next = next.max(now + GRAIN);
            self.timer.as_mut().reset(next.into());
            self.armed = Some(next);
        } else if known {
            return;
        }
        if self.timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        if !known {
            self.waker = Some(cx.waker().clone());
            if self.changed.as_mut().poll(cx).is_ready() {
                // Followed in the next turn, which makes a new one.
                self.changed = Box::pin(std::future::pending());
                cx.waker().wake_by_ref();
            }
        }
    }

    fn publish(&mut self, now: Instant) {
        if let Some(registered) = &mut self.registered {
            let (messages_received, messages_sent) = self.connection.app().messages();
            let activity = Activity {
                messages_received,
                messages_sent,
                ..self.connection.activity()
            };
            registered.publish(activity, now);
        }
    }

    /// Gives the buffers to the next connection.
    fn give_back(&mut self) {
        if let Some(spare) = self.connection.take_buffer()
            && spare.capacity() <= KEPT_OUTPUT_BYTES
        {
            OUTPUT.set(spare);
        }
        if self.held.is_empty() && self.held.capacity() > KEPT_HELD_BYTES {
            self.held = Vec::new();
        }
        let held = match self.held.len() {
            0 => 0,
            _ => self.held.capacity(),
        };
        self.buffered.tell(held + self.connection.kept_bytes());
    }
}
