//! One connection in the client's role, without any input or output: calls go in,
//! bytes come out, bytes go in, answers come out, and the time is an argument.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Instant;

use tokio::sync::watch;

use super::Readiness;
use super::answer::Trailers;
use super::assembly::{Encoding, PREFIX_BYTES, write_prefix};
use super::blocks::Blocks;
use super::calls::{Calls, Key, Place, Shape};
use super::config::Config;
use super::encoder::HeadEncoder;
use super::failed::{Closed, Failed, NotSent};
use super::head::RequestHead;
use super::receive::PartialBlock;
use super::times::Times;
use crate::connection::ReceiveWindow;
use crate::error_codes::ErrorCode;
use crate::frame::{
    INITIAL_WINDOW_BYTES, PREFACE, PeerSettings, SettingId, write_goaway, write_reset,
    write_settings, write_window_update,
};
use crate::registry::Activity;

/// Section 5.1.1: the last stream that a client could open. An hour of calls reaches it.
pub(super) const LAST_STREAM: u32 = (1 << 31) - 1;

/// How far a connection has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// The server's settings have not come (section 3.4).
    Greeting,
    /// Calls may be made.
    Open,
    /// No more calls; it ends after the last, and why.
    Closing(Closed),
    /// It has ended, and why.
    Closed(Closed),
}

/// What a connection knows.
pub(super) struct Core {
    pub(super) config: Config,
    pub(super) phase: Phase,
    pub(super) calls: Calls,
    pub(super) heads: HeadEncoder,
    pub(super) blocks: Blocks,
    /// A header block that goes on (section 6.10).
    pub(super) partial: Option<PartialBlock>,
    /// Bytes that are to leave.
    pub(super) out: Vec<u8>,
    pub(super) peer: PeerSettings,
    /// `SETTINGS_MAX_CONCURRENT_STREAMS`.
    pub(super) max_streams: u32,
    pub(super) next_stream: u32,
    /// Section 5.2: what may be sent on all streams together.
    pub(super) send_window: i64,
    pub(super) receive: ReceiveWindow,
    /// Calls without a stream, in order; some may have been given up.
    pub(super) waiting: VecDeque<Key>,
    /// How many of them have not.
    pub(super) waiting_calls: usize,
    /// Calls whose request waits for a window or for room, in order.
    pub(super) blocked: VecDeque<Key>,
    /// Callers that were woken for the end of their call and have not run since: more to
    /// write comes from them.
    pub(super) told: usize,
    /// Whom to wake once nobody looks at this any more.
    pub(super) wake: Vec<Waker>,
    /// Whom to wake when there is something to write, or an earlier time to keep.
    pub(super) driver: Option<Waker>,
    /// There is.
    pub(super) calls_driver: bool,
    pub(super) times: Times,
    pub(super) activity: Activity,
    pub(super) readiness: watch::Sender<Readiness>,
    pub(super) gauge: Arc<Gauge>,
}

/// What is asked of a connection again and again, without its lock.
#[derive(Default)]
pub(super) struct Gauge {
    readiness: AtomicU8,
    in_flight: AtomicUsize,
}

impl Gauge {
    pub(super) fn readiness(&self) -> Readiness {
        Readiness::ALL[usize::from(self.readiness.load(Ordering::Acquire)) % Readiness::ALL.len()]
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

impl Core {
    /// A connection that begins now.
    pub(super) fn new(config: Config, now: Instant) -> Self {
        let config = config.in_range();
        let mut out = PREFACE.to_vec();
        let settings = [
            (SettingId::ENABLE_PUSH, 0),
            (SettingId::INITIAL_WINDOW_SIZE, config.stream_window_bytes),
            (
                SettingId::MAX_HEADER_LIST_SIZE,
                config.max_header_list_bytes,
            ),
        ];
        write_settings(&mut out, &settings);
        let more = config.connection_window_bytes - INITIAL_WINDOW_BYTES;
        if more > 0 {
            write_window_update(&mut out, 0, more);
        }
        Self {
            blocks: Blocks::new(config.max_header_list_bytes as usize),
            receive: ReceiveWindow::new(config.connection_window_bytes),
            times: Times::new(&config, now),
            config,
            phase: Phase::Greeting,
            calls: Calls::default(),
            heads: HeadEncoder::default(),
            partial: None,
            out,
            peer: PeerSettings::default(),
            max_streams: u32::MAX,
            next_stream: 1,
            send_window: INITIAL_WINDOW_BYTES.into(),
            waiting: VecDeque::new(),
            waiting_calls: 0,
            blocked: VecDeque::new(),
            told: 0,
            wake: Vec::new(),
            driver: None,
            calls_driver: false,
            activity: Activity::default(),
            readiness: watch::Sender::new(Readiness::Connecting),
            gauge: Arc::default(),
        }
    }

    /// A call begins. `message` writes the one message of a unary call.
    ///
    /// # Errors
    /// It cannot be sent, and will not be.
    pub(super) fn begin(
        &mut self,
        head: &RequestHead,
        message: Option<impl FnOnce(&mut Vec<u8>)>,
        deadline: Option<Instant>,
        now: Instant,
    ) -> Result<Key, Failed> {
        match &self.phase {
            Phase::Greeting | Phase::Open => {}
            Phase::Closing(_) => return Err(Failed::NotSent(NotSent::Closing)),
            Phase::Closed(why) => return Err(Failed::NotSent(NotSent::Closed(why.clone()))),
        }
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Err(Failed::Deadline { sent: false });
        }
        let max = self.config.max_waiting_calls;
        let has_room = self.has_room() && self.waiting_calls == 0;
        if !has_room && self.waiting_calls >= max {
            return Err(Failed::NotSent(NotSent::Full { max }));
        }
        let shape = match message {
            Some(_) => Shape::Unary,
            None => Shape::Stream,
        };
        let receive = ReceiveWindow::new(self.config.stream_window_bytes);
        let is_first = self.calls.open() + self.waiting_calls == 0;
        self.times.call_begins(now, is_first);
        self.calls_driver |= is_first;
        let encoding = match self.config.takes_gzip {
            true => Encoding::Identity,
            false => Encoding::Unasked,
        };
        let key = self.calls.begin(shape, deadline, receive, encoding);
        if let Some(deadline) = deadline
            && self.times.keep_deadline(deadline)
        {
            self.calls_driver = true;
        }
        if has_room {
            self.open(key, head, now);
            if let Some(message) = message {
                self.send_whole(key, head.fixed.flag, message);
            }
            self.show_readiness();
        } else {
            self.wait(key, head.clone(), message);
        }
        Ok(key)
    }

    /// Keeps a call until there is a stream for it.
    fn wait(&mut self, key: Key, head: RequestHead, message: Option<impl FnOnce(&mut Vec<u8>)>) {
        let mut framed = Vec::new();
        let mut fits = true;
        if let Some(message) = message {
            framed.resize(PREFIX_BYTES, 0);
            message(&mut framed);
            fits = write_prefix(&mut framed, 0, head.fixed.flag);
        }
        if let Some(call) = self.calls.at(key) {
            call.sending.is_last = !framed.is_empty();
            call.sending.bytes = framed;
            call.waiting = Some(head);
        }
        self.waiting.push_back(key);
        self.waiting_calls += 1;
        if !fits {
            self.end(key, Err(Failed::Protocol(TOO_LONG)));
        }
        self.show_readiness();
    }

    /// Gives streams to calls that wait, as far as there are any.
    pub(super) fn send_waiting(&mut self, now: Instant) {
        while self.waiting_calls > 0 && self.has_room() {
            let Some(key) = self.waiting.pop_front() else {
                break;
            };
            let head = self.calls.at(key).and_then(|call| call.waiting.take());
            // Without one it was given up meanwhile.
            if let Some(head) = head {
                self.waiting_calls -= 1;
                self.open(key, &head, now);
                self.send_more(key);
            }
        }
        if self.waiting_calls == 0 {
            self.waiting.clear();
        }
        self.show_readiness();
    }

    fn open(&mut self, key: Key, head: &RequestHead, now: Instant) {
        let stream = self.next_stream;
        self.next_stream += 2;
        self.calls
            .open_stream(key, stream, self.peer.initial_window_bytes);
        self.activity.streams_started += 1;
        let deadline = self.calls.at(key).and_then(|call| call.deadline);
        let left = deadline.map(|deadline| deadline.saturating_duration_since(now));
        self.write_head(stream, head, left);
        self.calls_driver = true;
        if self.next_stream >= LAST_STREAM {
            // Section 5.1.1: whoever wants more makes another connection.
            self.close_to_calls(Closed::Drained);
        }
    }

    /// True if a call can have a stream now.
    pub(super) fn has_room(&self) -> bool {
        self.phase == Phase::Open
            && self.calls.open() < self.max_streams as usize
            && self.out.len() < self.config.max_output_bytes
    }

    /// Ends a call that has not: the one place where calls end.
    pub(super) fn end(&mut self, key: Key, end: Result<Trailers, Failed>) {
        let Some(call) = self.calls.at(key) else {
            return;
        };
        match call.place() {
            Place::Ended => return,
            Place::Waiting => self.waiting_calls -= 1,
            Place::Open => {
                let stream = call.stream;
                self.calls.close_stream(stream);
                match end {
                    Ok(_) => self.activity.streams_succeeded += 1,
                    Err(_) => self.activity.streams_failed += 1,
                }
            }
        }
        if let Some(call) = self.calls.at(key) {
            call.finish(end, &mut self.wake);
            self.told += usize::from(call.is_told);
        }
        // There may be a stream for a call that waits, or no more to wait for.
        self.calls_driver |= self.waiting_calls > 0 || self.is_done();
        self.show_readiness();
    }

    /// Ends a call, and tells the server so.
    pub(super) fn reset(&mut self, key: Key, code: ErrorCode, end: Failed) {
        if let Some(call) = self.calls.at(key)
            && call.place() == Place::Open
        {
            write_reset(&mut self.out, call.stream, code);
            self.calls_driver = true;
        }
        self.end(key, Err(end));
    }

    /// One of those who hold a call lets go of it. `gives_up`: before its end.
    pub(super) fn release(&mut self, key: Key, gives_up: bool) {
        if gives_up {
            self.reset(key, ErrorCode::CANCEL, Failed::Reset(ErrorCode::CANCEL));
        }
        if let Some(call) = self.calls.at(key) {
            self.told -= usize::from(std::mem::take(&mut call.is_told));
            call.holders -= 1;
            if call.holders == 0 {
                self.calls.free(key);
            }
        }
        // Those that were given up are kept in the queue no longer than they wait.
        if self.waiting.len() > 2 * self.waiting_calls + 64 {
            let calls = &mut self.calls;
            self.waiting
                .retain(|&key| calls.at(key).is_some_and(|call| call.waiting.is_some()));
        }
    }

    /// No more calls: it ends after those under way.
    pub(super) fn close_to_calls(&mut self, why: Closed) {
        if matches!(self.phase, Phase::Greeting | Phase::Open) {
            self.phase = Phase::Closing(why);
        }
        let waiting: Vec<Key> = self.waiting.drain(..).collect();
        for key in waiting {
            if let Some(call) = self.calls.at(key)
                && call.waiting.is_some()
            {
                self.end(key, Err(Failed::NotSent(NotSent::Closing)));
            }
        }
        self.calls_driver = true;
        self.show_readiness();
    }

    /// The connection has ended, with every call. What is in the output may still
    /// leave.
    pub(super) fn close(&mut self, why: Closed) {
        if matches!(self.phase, Phase::Closed(_)) {
            return;
        }
        // A server that said why it goes away has said more than its socket does.
        let why = match (&self.phase, why) {
            (Phase::Closing(said @ Closed::GoAway { .. }), Closed::Io { .. }) => said.clone(),
            (Phase::Closing(Closed::Drained), Closed::Io { .. }) if self.calls.open() == 0 => {
                Closed::Drained
            }
            (_, why) => why,
        };
        self.phase = Phase::Closed(why.clone());
        let held: Vec<Key> = self.calls.all().map(|(key, _)| key).collect();
        for key in held {
            let Some(call) = self.calls.at(key) else {
                continue;
            };
            let failed = match call.place() {
                Place::Ended => continue,
                Place::Waiting => Failed::NotSent(NotSent::Closed(why.clone())),
                Place::Open => Failed::Lost(why.clone()),
            };
            self.end(key, Err(failed));
        }
        self.waiting.clear();
        self.blocked.clear();
        self.calls_driver = true;
        self.show_readiness();
    }

    /// Ends the connection for what the server did (section 5.4.1).
    pub(super) fn fail(&mut self, code: ErrorCode, why: &'static str) {
        // Section 6.8: a client has had no streams opened to it.
        write_goaway(&mut self.out, 0, code, why);
        self.close(Closed::Fault(code, why));
    }

    /// True if nothing is to be read any more: what is in the output may leave.
    pub(super) fn is_done(&self) -> bool {
        match self.phase {
            Phase::Greeting | Phase::Open => false,
            Phase::Closing(_) => self.calls.open() == 0,
            Phase::Closed(_) => true,
        }
    }

    /// Says goodbye, if nothing is to come any more. Why it ended.
    pub(super) fn finish(&mut self) -> Option<Closed> {
        if !self.is_done() {
            return None;
        }
        if let Phase::Closing(why) = &self.phase {
            let why = why.clone();
            write_goaway(&mut self.out, 0, ErrorCode::NO_ERROR, "");
            self.close(why);
        }
        match &self.phase {
            Phase::Closed(why) => Some(why.clone()),
            _ => None,
        }
    }

    /// Lets those who choose among connections know.
    pub(super) fn show_readiness(&mut self) {
        let now = match &self.phase {
            Phase::Greeting => Readiness::Connecting,
            Phase::Open if self.calls.open() >= self.max_streams as usize => Readiness::Full,
            Phase::Open => Readiness::Ready,
            Phase::Closing(_) => Readiness::Closing,
            Phase::Closed(_) => Readiness::Closed,
        };
        let in_flight = self.calls.open() + self.waiting_calls;
        self.gauge.in_flight.store(in_flight, Ordering::Relaxed);
        if self.gauge.readiness() != now {
            self.gauge.readiness.store(now as u8, Ordering::Release);
            self.readiness.send_replace(now);
        }
    }
}

/// What a prefix cannot tell.
pub(super) const TOO_LONG: &str = "a request of 4 GiB or more, which gRPC cannot send";
