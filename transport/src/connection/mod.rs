//! RFC 9113 as a server, without any input or output: bytes in, bytes out, and
//! the time as an argument.
//!
//! | file | section |
//! |---|---|
//! | `mod.rs` | 3.4 connection preface; the loop over frames |
//! | `error_handling.rs` | 5.4 error handling |
//! | `field_section.rs` | 4.3 field section compression, 6.2 `HEADERS`, 6.10 `CONTINUATION` |
//! | `block_cache.rs` | field blocks that were seen before |
//! | `streams.rs` | 5.1 stream states |
//! | `flow_control.rs` | 5.2 flow control, 6.9 `WINDOW_UPDATE` |
//! | `ahead.rs` | 4.1 frame format: requests that have come and were not read yet |
//! | `dispatch.rs` | 6.1 `DATA` to 6.7 `PING`, as far as they have no file |
//! | `goaway.rs` | 6.8 `GOAWAY`: draining in two phases |
//! | `send.rs` | 8.1 answers |
//! | `core.rs` | what all of them share |
//! | `times.rs` | 9.1 connection management: how long anything may take |

mod ahead;
mod block_cache;
mod core;
mod dispatch;
mod error_handling;
mod field_section;
mod flow_control;
mod goaway;
#[cfg(feature = "fuzzing")]
mod inspect;
mod send;
mod streams;
mod times;

use std::sync::Arc;
use std::time::Instant;

pub use self::ahead::Coming;
use self::block_cache::BlockCache;
pub use self::core::Core;
use self::field_section::PartialBlock;
pub(crate) use self::flow_control::ReceiveWindow;
use self::goaway::Phase;
#[cfg(feature = "fuzzing")]
pub use self::inspect::Inspection;
pub use self::send::{BlockWriter, DataMark, End};
pub use self::streams::StreamKey;
use self::times::Moments;
use crate::error_codes::{ErrorCode, Fault};
use crate::frame::{Frame, FrameHead, Kind, PREFACE};
use crate::hpack::{Changes, Decoder, Fields};
use crate::limits::Limits;
use crate::message::{Head, HeadFault};
use crate::registry::Activity;
use crate::shared::Shared;

/// What answers the requests of a connection.
///
/// Every function gets the connection's [`Core`], to write answers to. State of
/// a stream is kept by the application, beside the stream's [`StreamKey`].
pub trait Application {
    /// What a head leads to. It is kept with the head for as long as the same
    /// header block comes again, so it must follow from the head alone.
    type Route: Clone;

    /// Reads a head.
    fn route(&mut self, head: &Head) -> Self::Route;

    /// Reads a head that differs from a known one in values of
    /// [`VARYING_FIELDS`](crate::message::VARYING_FIELDS) alone.
    #[inline]
    fn reroute(&mut self, known: &Self::Route, head: &Head, changes: &Changes) -> Self::Route {
        let _ = (known, changes);
        self.route(head)
    }

    /// Answers a request whose head is none: it is reset after that, if it is
    /// malformed, and ended.
    fn unreadable(&mut self, core: &mut Core, key: StreamKey, fault: HeadFault);

    /// A request begins. With [`End::Stream`] it is complete.
    fn request(
        &mut self,
        core: &mut Core,
        key: StreamKey,
        head: Arc<Head>,
        route: Self::Route,
        end: End,
    );

    /// Content came; it may be empty at the end. What is read of it is told by
    /// [`Core::consumed`].
    fn data(&mut self, core: &mut Core, key: StreamKey, data: &[u8], end: End);

    /// The request ended with trailers.
    fn trailers(&mut self, core: &mut Core, key: StreamKey, trailers: &Fields);

    /// What requests hold that have come after the first and are about to be told, in their order.
    /// A hint: it may be wrong, and must have no effect but on how fast they are answered. Told again
    /// when those are through that it looked at; if it looked at none, not before there is more input.
    #[inline]
    fn expect(&mut self, coming: Coming<'_, '_>) {
        let _ = coming;
    }

    /// All content that the stream was given has left; more may follow.
    fn drained(&mut self, core: &mut Core, key: StreamKey);

    /// The stream was closed before its answer was complete.
    fn gone(&mut self, core: &mut Core, key: StreamKey);

    /// The client did not open the stream's window while its answer waited. The
    /// stream was closed.
    fn stalled(&mut self, core: &mut Core, key: StreamKey) {
        self.gone(core, key);
    }

    /// The connection is about to end, with every stream: the last chance to
    /// answer.
    fn ending(&mut self, core: &mut Core) {
        let _ = core;
    }

    /// Bytes kept of requests that are not complete, without those that flow
    /// control counts.
    fn kept_bytes(&self) -> usize {
        0
    }
}

/// What became of some input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes that were read. The rest must come again, with more after it.
    pub consumed: usize,
    /// The turn ended, although there may be a whole frame left.
    pub more: bool,
}

/// Why a connection came to its end before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// What the client was told.
    pub code: ErrorCode,
    /// Why, for people; for abuse, the budget's name.
    pub why: &'static str,
}

/// One connection.
pub struct Connection<A: Application> {
    core: Core,
    app: A,
    decoder: Decoder,
    cache: BlockCache<A::Route>,
    /// A header block that goes on.
    partial: Option<PartialBlock>,
    trailers: Fields,
    greeting: Greeting,
    phase: Phase,
    moments: Moments,
    failure: Option<Failure>,
}

/// How far the connection's beginning came (section 3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Greeting {
    Preface,
    Settings,
    Done,
}

impl<A: Application> Connection<A> {
    /// A connection that begins now. The limits are [in range](Limits::in_range).
    /// `jitter` is any number: it spreads the ages that connections reach.
    pub fn new(
        app: A,
        limits: Arc<Limits>,
        shared: Arc<Shared>,
        now: Instant,
        jitter: u64,
    ) -> Self {
        Self {
            decoder: Decoder::new(limits.header_table_bytes as usize),
            moments: Moments::new(&limits.times, now, jitter),
            core: Core::new(limits, shared, now),
            app,
            cache: BlockCache::new(),
            partial: None,
            trailers: Fields::default(),
            greeting: Greeting::Preface,
            phase: Phase::Open,
            failure: None,
        }
    }

    /// Reads whole frames from `input`, and answers what can be answered.
    ///
    /// A turn ends after `max_frames_per_turn` frames, or when the output is
    /// full.
    pub fn receive(&mut self, input: &[u8], now: Instant) -> Received {
        self.begin_turn(now);
        self.moments.heard(now);
        let before = self.core.streams.last_id();
        let mut consumed = 0;
        if self.greeting == Greeting::Preface && self.is_alive() {
            match self.read_preface(input) {
                Some(bytes) => consumed = bytes,
                None => return self.received(input, 0, false),
            }
        }
        let mut frames = 0;
        let mut more = false;
        let mut looked = consumed;
        while self.is_alive() {
            // What the windows let through fills the output first: a client that
            // reads is not refused a call for what could have left.
            if self.core.unsent >= self.core.limits.max_output_bytes {
                self.core.send_pending();
            }
            if frames == self.core.limits.max_frames_per_turn || !self.core.has_room() {
                more = FrameHead::parse(&input[consumed..]).is_some();
                break;
            }
            // One request, two frames, is answered before there is a look for more: a connection
            // that has one at a time pays nothing for it.
            if frames >= 2 && consumed >= looked && consumed < input.len() {
                looked = self.look_ahead(input, consumed);
            }
            match self.read_frame(&input[consumed..]) {
                Ok(0) => break,
                Ok(bytes) => consumed += bytes,
                Err((bytes, fault)) => {
                    consumed += bytes;
                    self.on_fault(fault);
                }
            }
            frames += 1;
        }
        self.send_pending();
        if self.core.streams.len() > 0 || self.core.streams.last_id() != before {
            self.moments.busy(now);
        }
        self.received(input, consumed, more)
    }

    fn begin_turn(&mut self, now: Instant) {
        self.core.now = now;
        self.core.look_at_load();
        if !self.is_stalled() {
            self.moments.wrote(now);
        }
    }

    fn received(&self, input: &[u8], consumed: usize, more: bool) -> Received {
        // After the end everything is read and nothing is looked at.
        let consumed = if self.is_alive() {
            consumed
        } else {
            input.len()
        };
        let more = more && self.is_alive();
        Received { consumed, more }
    }

    /// Section 3.4. `None`: it is not complete, or not the preface.
    fn read_preface(&mut self, input: &[u8]) -> Option<usize> {
        let length = input.len().min(PREFACE.len());
        if input[..length] != PREFACE[..length] {
            self.on_fault(Fault::protocol("a wrong connection preface"));
            return None;
        }
        (length == PREFACE.len()).then(|| {
            self.greeting = Greeting::Settings;
            length
        })
    }

    /// Reads a frame. Returns its bytes; 0 if it is not complete.
    #[inline]
    fn read_frame(&mut self, input: &[u8]) -> Result<usize, (usize, Fault)> {
        let Some(head) = FrameHead::parse(input) else {
            return Ok(0);
        };
        if head.length > Limits::MAX_FRAME_BYTES {
            return Err((0, Fault::frame_size("a frame over SETTINGS_MAX_FRAME_SIZE")));
        }
        let bytes = FrameHead::BYTES + head.length as usize;
        let Some(payload) = input.get(FrameHead::BYTES..bytes) else {
            return Ok(0);
        };
        if self.greeting == Greeting::Settings {
            if head.kind != Kind::SETTINGS || head.flags & 1 != 0 {
                let fault = Fault::protocol("the first frame is not SETTINGS");
                return Err((bytes, fault));
            }
            self.greeting = Greeting::Done;
            self.moments.greeted();
        }
        if let Some(partial) = &self.partial
            && (head.kind != Kind::CONTINUATION || head.stream != partial.stream)
        {
            let fault = Fault::protocol("a header block that is interrupted");
            return Err((bytes, fault));
        }
        Frame::parse(head, payload)
            .and_then(|frame| self.on_frame(head, frame))
            .map_err(|fault| (bytes, fault))?;
        Ok(bytes)
    }

    /// Writes what waits for windows or for room, and asks for more where all
    /// has left.
    fn send_pending(&mut self) {
        if self.core.queue.is_empty() && self.core.drained.is_empty() {
            return;
        }
        self.core.send_pending();
        while self.core.has_room() {
            let Some(key) = self.core.drained.pop() else {
                return;
            };
            self.app.drained(&mut self.core, key);
            self.core.send_pending();
        }
    }

    /// The application, with what it answers to: for calls that were waited for.
    pub fn with_app<T>(&mut self, now: Instant, act: impl FnOnce(&mut A, &mut Core) -> T) -> T {
        self.begin_turn(now);
        let done = act(&mut self.app, &mut self.core);
        self.send_pending();
        done
    }

    /// Bytes that are to leave.
    #[inline]
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.core.out[self.core.out_sent..]
    }

    /// The socket took `count` bytes of the output: there may be room for more.
    #[inline]
    pub fn wrote(&mut self, count: usize, now: Instant) {
        self.core.now = now;
        self.core.took(count);
        self.moments.wrote(now);
        self.send_pending();
    }

    /// Lends a buffer to write the output to, unless there is one.
    #[inline]
    pub fn lend_buffer(&mut self, buffer: impl FnOnce() -> Vec<u8>) {
        if self.core.out.capacity() == 0 {
            self.core.out = buffer();
        }
    }

    /// Takes the output's buffer back, if nothing is to leave, or so little that
    /// it is better kept in a buffer of its size.
    #[inline]
    pub fn take_buffer(&mut self) -> Option<Vec<u8>> {
        if self.core.out.is_empty() {
            return Some(std::mem::take(&mut self.core.out));
        }
        self.core.take_large_buffer()
    }

    #[cfg(test)]
    pub(crate) const fn output_mut(&mut self) -> &mut Vec<u8> {
        &mut self.core.out
    }

    /// True while frames are read.
    #[inline]
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.phase != Phase::Closed
    }

    /// Why it ended, if it did so before its time.
    #[must_use]
    pub const fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// True once a request was complete, or answered.
    #[inline]
    #[must_use]
    pub const fn is_proven(&self) -> bool {
        self.core.proven
    }

    /// What it shares with the others of its server.
    #[must_use]
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.core.shared)
    }

    /// Bytes that it keeps until its client or its application does something:
    /// answers that were not taken, and requests that are not complete or not
    /// read.
    #[inline]
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.core.kept_bytes() + self.app.kept_bytes()
    }

    /// True if the socket has taken enough for more to be read.
    #[inline]
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.core.has_room()
    }

    /// True if too much waits for the client's windows for any call to go on.
    #[inline]
    #[must_use]
    pub fn is_clogged(&self) -> bool {
        self.core.is_clogged()
    }

    /// Streams that are open.
    #[must_use]
    pub const fn streams(&self) -> usize {
        self.core.streams.len()
    }

    /// What it has done so far, beside what its application knows.
    #[must_use]
    pub const fn activity(&self) -> Activity {
        let (streams_started, streams_succeeded, streams_failed) = self.core.streams.history();
        Activity {
            streams_started,
            streams_succeeded,
            streams_failed,
            messages_received: 0,
            messages_sent: 0,
            keepalives_sent: self.moments.keepalives,
        }
    }

    /// The application.
    pub const fn app(&mut self) -> &mut A {
        &mut self.app
    }

    /// Gives back the memory that a connection without streams need not hold.
    pub fn release(&mut self) {
        self.core.release();
    }
}

#[cfg(test)]
mod tests;
