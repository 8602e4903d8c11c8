//! A connection, driven as `serve::Driver` drives it, and what must hold after
//! each step.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use larder_transport::connection::{Connection, Failure};
use larder_transport::frame::{FrameHead, MAX_WINDOW_BYTES};
use larder_transport::limits::Limits;
use larder_transport::rpc::Rpc;
use larder_transport::shared::Shared;

use super::peer::Peer;
use super::service::{Gate, Methods, Mirror};
use crate::features::{note, note_size};

/// Turns before other connections get theirs, as in the driver.
const TURNS: usize = 4;
/// More turns than any input needs before everything rests.
const MANY_TURNS: usize = 20_000;
/// What one answer of the service may be above a limit, bytes, with its frames.
const ONE_ANSWER_BYTES: usize = 40 * 1024;
/// What the answers to calls whose time is over may take, bytes: each is a frame of
/// headers.
const LATE_ANSWERS_BYTES: usize = 128 * 1024;

/// The budget of a server; one connection stays far below it.
const MAX_BUFFERED_BYTES: usize = 1 << 30;

/// Limits that small inputs can reach.
#[must_use]
pub fn small_limits() -> Limits {
    Limits {
        max_concurrent_streams: 50,
        stream_window_bytes: 65_535,
        connection_window_bytes: 100_000,
        max_header_list_bytes: 4096,
        max_header_block_bytes: 8192,
        max_frames_per_turn: 16,
        max_output_bytes: 16 * 1024,
        max_unsent_bytes: 64 * 1024,
        max_message_bytes: 32 * 1024,
        max_assembly_bytes: 64 * 1024,
        ..Limits::default()
    }
    .in_range()
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// One connection and its client.
pub struct Session {
    connection: Connection<Rpc<Methods, Mirror>>,
    limits: Limits,
    now: Instant,
    /// What the client sent and the socket still has.
    wire: Vec<u8>,
    /// What was read and not looked at.
    held: Vec<u8>,
    more: bool,
    woken: Arc<Flag>,
    waker: Waker,
    /// The socket is gone.
    dropped: bool,
    /// What `Later` calls wait for.
    pub gate: Gate,
    /// The client.
    pub peer: Peer,
}

#[allow(
    clippy::disallowed_methods,
    reason = "an `Instant` cannot be made otherwise; time goes on from it by arguments"
)]
fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

impl Session {
    /// A connection that begins.
    #[must_use]
    pub fn new(limits: Limits, peer: Peer) -> Self {
        let gate = Gate::default();
        let methods = Methods { gate: gate.clone() };
        let rpc = Rpc::new(methods, Mirror { gate: gate.clone() });
        let woken = Arc::new(Flag(AtomicBool::new(false)));
        let shared = Arc::new(Shared::new(MAX_BUFFERED_BYTES));
        Self {
            connection: Connection::new(rpc, Arc::new(limits.clone()), shared, start(), 100),
            limits,
            now: start(),
            wire: Vec::new(),
            held: Vec::new(),
            more: false,
            waker: Waker::from(Arc::clone(&woken)),
            woken,
            dropped: false,
            gate,
            peer,
        }
    }

    /// True while the connection takes and gives anything.
    pub fn is_open(&self) -> bool {
        !self.dropped
    }

    /// Why it ended.
    pub fn failure(&self) -> Option<Failure> {
        self.connection.failure()
    }

    /// Streams that are open.
    pub fn streams(&self) -> usize {
        self.connection.streams()
    }

    /// The client writes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.wire.extend_from_slice(bytes);
    }

    /// At most `most` bytes come from the socket, and everything goes on that can.
    pub fn deliver(&mut self, most: usize) {
        if self.dropped {
            return;
        }
        let count = most.min(self.wire.len());
        self.turns(count);
    }

    /// The socket takes at most `most` bytes, and the client reads them.
    pub fn take(&mut self, most: usize) {
        if self.dropped {
            return;
        }
        let output = self.connection.output();
        let count = most.min(output.len());
        let taken = output[..count].to_vec();
        self.connection.wrote(count, self.now);
        self.peer.read(&taken);
        self.check();
        self.turns(0);
    }

    /// Time goes on, and what it asks for is done.
    pub fn advance(&mut self, by: Duration) {
        self.now += by;
        if self.dropped {
            return;
        }
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= self.now);
        if !due(self.connection.next_time()) && !due(self.connection.app().next_time()) {
            return;
        }
        self.connection.with_app(self.now, Rpc::on_time);
        if !self.connection.on_time(self.now) {
            note("stalled");
            self.lost();
            return;
        }
        if self.connection.streams() == 0 {
            self.connection.release();
            self.connection.app().release();
        }
        let next = [
            self.connection.next_time(),
            self.connection.app().next_time(),
        ];
        let later = next.iter().flatten().all(|&next| next > self.now);
        assert!(later, "time asks again for what was done");
        self.check();
        self.turns(0);
    }

    /// The server is to end.
    pub fn drain(&mut self) {
        if !self.dropped {
            self.connection.drain(self.now);
            self.turns(0);
        }
    }

    /// The socket is gone.
    pub fn lost(&mut self) {
        if !self.dropped {
            self.connection.lost();
            self.dropped = true;
            self.check();
            assert_eq!(self.connection.streams(), 0);
            assert_eq!(self.connection.app().inspect().calls, 0, "calls are left");
        }
    }

    /// Everything comes, everything is taken, and the client acknowledges, until
    /// nothing moves any more.
    pub fn settle(&mut self) {
        for _ in 0..MANY_TURNS {
            let answers = std::mem::take(&mut self.peer.answers);
            self.send(&answers);
            let before = (self.wire.len(), self.held.len());
            self.turns(self.wire.len());
            let quiet = self.connection.output().is_empty();
            self.take(usize::MAX);
            let after = (self.wire.len(), self.held.len());
            let waits = !self.woken.0.load(Ordering::Acquire) && !self.more;
            if self.dropped || (quiet && waits && before == after && self.peer.answers.is_empty()) {
                return;
            }
        }
        unreachable!("it never rests: {:?}", self.connection.app().inspect());
    }

    /// As the driver's turns: calls that wait, then input.
    fn turns(&mut self, mut count: usize) {
        for _ in 0..TURNS {
            if self.dropped {
                return;
            }
            self.woken.0.store(false, Ordering::Release);
            if self.connection.app().is_waiting() {
                let task = &self.waker;
                self.connection
                    .with_app(self.now, |app, core| app.poll(core, task));
                self.check();
            }
            if self.connection.is_done() && self.connection.output().is_empty() {
                return self.lost();
            }
            let received = self.connection.has_room() && self.receive(&mut count);
            let flushed = self.connection.output().is_empty();
            let goes_on =
                flushed && !self.connection.is_clogged() && self.connection.app().has_ready();
            if !received && !goes_on {
                return;
            }
        }
        self.woken.0.store(true, Ordering::Release);
    }

    /// False if there was nothing to read.
    fn receive(&mut self, count: &mut usize) -> bool {
        if !self.more {
            if *count == 0 {
                return false;
            }
            self.held.extend(self.wire.drain(..*count));
            *count = 0;
        }
        let received = self.connection.receive(&self.held, self.now);
        assert!(received.consumed <= self.held.len());
        let blocked = !self.connection.has_room() || received.consumed > 0;
        assert!(!received.more || blocked, "a turn that does nothing");
        self.held.drain(..received.consumed);
        self.more = received.more;
        let part = FrameHead::BYTES + Limits::MAX_FRAME_BYTES as usize;
        assert!(self.more || self.held.len() < part, "a frame is left");
        self.check();
        true
    }

    /// What holds at any time.
    fn check(&mut self) {
        let streams = self.connection.streams();
        let held = self.connection.inspect();
        let calls = self.connection.app().inspect();
        let limits = &self.limits;
        note_size("streams", streams);
        note_size("unsent", held.unsent_bytes);
        if let Some(failure) = self.connection.failure() {
            note((failure.code, failure.why));
        }
        assert!(
            streams <= limits.max_concurrent_streams as usize,
            "{streams}"
        );
        assert!(calls.calls <= streams, "{calls:?} on {streams} streams");
        assert!(calls.waiting <= calls.calls, "{calls:?}");
        let most = limits.max_output_bytes + ONE_ANSWER_BYTES + LATE_ANSWERS_BYTES;
        assert!(held.output_bytes <= most, "{held:?}");
        let most = 2 * limits.max_unsent_bytes + ONE_ANSWER_BYTES;
        assert!(held.unsent_bytes <= most, "{held:?}");
        assert_eq!(held.unsent_bytes, held.unsent_bytes_of_streams, "{held:?}");
        assert!(calls.assembled_bytes <= limits.max_assembly_bytes);
        let table = limits.header_table_bytes as usize;
        assert!(held.decoder_bytes <= 2 * table + 16 * 1024, "{held:?}");
        let frame = Limits::MAX_FRAME_BYTES as usize;
        let most = 2 * (limits.max_header_block_bytes + frame);
        assert!(held.block_bytes <= most, "{held:?}");
        assert!(held.queued + held.drained <= 8192, "{held:?}");
        let window = 0..=i64::from(MAX_WINDOW_BYTES);
        let failed = self.connection.failure().is_some();
        assert!(failed || window.contains(&held.send_window), "{held:?}");
        let (open, read) = held.receive_window;
        let size = limits.connection_window_bytes;
        assert!(open + read <= size, "{held:?}");
        if streams == 0 && calls.calls == 0 && !failed && !self.dropped {
            assert_eq!(open + read, size, "content was read by nobody: {held:?}");
        }
    }
}
