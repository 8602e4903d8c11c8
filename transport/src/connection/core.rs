//! What a connection knows beside its application: what it may send and receive,
//! its streams, and the bytes that are to leave.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::flow_control::ReceiveWindow;
use super::streams::{Ending, StreamKey, Streams};
use crate::abuse::{Abuse, Buckets};
use crate::error_codes::{ErrorCode, Fault};
use crate::frame::{
    INITIAL_WINDOW_BYTES, PeerSettings, SettingId, write_reset, write_settings, write_window_update,
};
use crate::hpack::Encoder;
use crate::limits::Limits;
use crate::message::Head;
use crate::shared::Shared;
use crate::stats::Counter;

/// What a connection may keep even while the server keeps more than it may, bytes.
const FAIR_SHARE_BYTES: usize = 64 * 1024;
/// What is produced for a client that does not take it, while all connections
/// together keep more than they may, bytes.
const OVERLOADED_OUTPUT_BYTES: usize = 16 * 1024;
/// What waits with its stream comes into the output in parts of so many bytes: what is
/// kept for a client that does not read is then little more than the answer itself.
const PART_BYTES: usize = 64 * 1024;
/// A smaller buffer is not worth a copy, bytes.
const LARGE_BUFFER_BYTES: usize = 16 * 1024;
/// Heads kept for the next requests.
const KEPT_HEADS: usize = 16;
/// A head is kept if it holds no more, bytes.
const KEPT_HEAD_BYTES: usize = 4096;

/// The part of a connection that an application writes its answers to.
pub struct Core {
    pub(super) limits: Arc<Limits>,
    pub(super) shared: Arc<Shared>,
    pub(super) now: Instant,
    /// What is to leave, from `out_sent` on.
    pub(crate) out: Vec<u8>,
    pub(super) out_sent: usize,
    pub(super) encoder: Encoder,
    pub(super) peer: PeerSettings,
    pub(super) streams: Streams,
    pub(super) receive: ReceiveWindow,
    pub(super) send_window: i64,
    /// Streams with something to send, each once; the first is next.
    pub(super) queue: VecDeque<StreamKey>,
    /// Bytes that wait for windows.
    pub(super) unsent: usize,
    /// The same, with those before them in the same buffers.
    pub(super) pending: usize,
    /// A request was complete, or answered.
    pub(super) proven: bool,
    /// The server keeps more than it may, as the turn began.
    overloaded: bool,
    /// What the output may hold for more to be read or produced.
    pub(super) max_output: usize,
    /// Since when content waits and the client keeps the connection's window shut.
    pub(super) shut_since: Option<Instant>,
    /// No stream's window has been shut for too long before.
    pub(super) next_stall: Option<Instant>,
    /// Streams whose bytes have all left and that may send more.
    pub(super) drained: Vec<StreamKey>,
    pub(super) buckets: Buckets,
    heads: Vec<Arc<Head>>,
}

impl Core {
    /// Writes what a server sends first (section 3.4).
    pub(super) fn new(limits: Arc<Limits>, shared: Arc<Shared>, now: Instant) -> Self {
        let mut out = Vec::new();
        write_settings(
            &mut out,
            &[
                (SettingId::HEADER_TABLE_SIZE, limits.header_table_bytes),
                (
                    SettingId::MAX_CONCURRENT_STREAMS,
                    limits.max_concurrent_streams,
                ),
                (SettingId::INITIAL_WINDOW_SIZE, limits.stream_window_bytes),
                (SettingId::MAX_FRAME_SIZE, Limits::MAX_FRAME_BYTES),
                (
                    SettingId::MAX_HEADER_LIST_SIZE,
                    limits.max_header_list_bytes,
                ),
            ],
        );
        let more = limits
            .connection_window_bytes
            .saturating_sub(INITIAL_WINDOW_BYTES);
        if more > 0 {
            write_window_update(&mut out, 0, more);
        }
        Self {
            now,
            out,
            out_sent: 0,
            encoder: Encoder::default(),
            peer: PeerSettings::default(),
            streams: Streams::new(),
            receive: ReceiveWindow::new(limits.connection_window_bytes),
            send_window: i64::from(INITIAL_WINDOW_BYTES),
            queue: VecDeque::new(),
            unsent: 0,
            pending: 0,
            shut_since: None,
            next_stall: None,
            proven: false,
            overloaded: false,
            max_output: limits.max_output_bytes,
            drained: Vec::new(),
            buckets: Buckets::new(),
            heads: Vec::new(),
            shared,
            limits,
        }
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Counts what is rare.
    pub(crate) fn count(&self, counter: Counter) {
        self.shared.stats().count(counter);
    }

    /// The time of the current turn.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// True if the socket has taken enough for more to be produced.
    #[inline]
    #[must_use]
    pub fn has_room(&self) -> bool {
        let left = self.out.len() - self.out_sent;
        // As much again waits behind it, and could leave.
        let is_full = left >= PART_BYTES && self.unsent >= self.max_output;
        left < self.max_output && !is_full
    }

    /// True if the socket has taken enough for the next of what waits with its stream.
    #[inline]
    pub(super) fn has_room_for_part(&self) -> bool {
        self.out.len() - self.out_sent < self.max_output.min(PART_BYTES)
    }

    /// The socket took bytes. What is left moves to the front only when it is the
    /// smaller part, so that small pieces cost what they hold.
    #[inline]
    pub(super) fn took(&mut self, count: usize) {
        self.out_sent = self.out_sent.saturating_add(count);
        if self.out_sent >= self.out.len() {
            self.out.clear();
            self.out_sent = 0;
        } else if self.out_sent > self.out.len() / 2 {
            self.out.drain(..self.out_sent);
            self.out_sent = 0;
        }
    }

    /// Looks whether the server keeps more than it may.
    #[inline]
    pub(super) fn look_at_load(&mut self) {
        let overloaded = self.shared.is_overloaded();
        if overloaded != self.overloaded {
            self.overloaded = overloaded;
            self.max_output = match overloaded {
                true => OVERLOADED_OUTPUT_BYTES.min(self.limits.max_output_bytes),
                false => self.limits.max_output_bytes,
            };
        }
    }

    /// True if the connections of the server keep more than they may, and this one
    /// is not among those that keep little, with `assembled` bytes of requests: no
    /// call is to begin. Who reads its answers is served whatever others do.
    #[inline]
    #[must_use]
    pub const fn is_overloaded(&self, assembled: usize) -> bool {
        self.overloaded
            && self.unsent + self.pending + assembled + self.receive.unread() as usize
                > FAIR_SHARE_BYTES
    }

    /// The connection need not hurry to make its first whole request.
    pub(crate) const fn prove(&mut self) {
        self.proven = true;
    }

    /// Bytes that it keeps, if the output is its own.
    #[inline]
    pub(super) const fn kept_bytes(&self) -> usize {
        self.out.capacity() + self.pending + self.receive.unread() as usize
    }

    /// The output's buffer, if it is twice as large as what is to leave, which gets one
    /// of its own.
    #[cold]
    pub(super) fn take_large_buffer(&mut self) -> Option<Vec<u8>> {
        let left = &self.out[self.out_sent..];
        if self.out.capacity() < LARGE_BUFFER_BYTES || left.len() > self.out.capacity() / 2 {
            return None;
        }
        let own = left.to_vec();
        self.out_sent = 0;
        let mut large = std::mem::replace(&mut self.out, own);
        large.clear();
        Some(large)
    }

    /// True if too much waits for the client's windows for any call to begin.
    #[inline]
    #[must_use]
    pub fn is_clogged(&self) -> bool {
        self.unsent >= self.limits.max_unsent_bytes
    }

    /// True if twice as much waits.
    #[inline]
    pub(crate) fn is_choked(&self) -> bool {
        self.unsent / 2 >= self.limits.max_unsent_bytes
    }

    /// True if the stream has sent all that it was given, so that more may be
    /// produced.
    pub fn is_drained(&mut self, key: StreamKey) -> bool {
        self.streams
            .at(key)
            .is_some_and(|stream| stream.unsent() == 0)
    }

    /// Ends a stream before its end (section 6.4).
    pub fn reset(&mut self, key: StreamKey, code: ErrorCode) {
        if self.streams.at(key).is_some() {
            write_reset(&mut self.out, key.id, code);
            self.close(key, Ending::ServerReset);
        }
    }

    /// Section 5.1: identifiers of clients are odd, and used in order.
    #[inline]
    pub(super) const fn is_idle(&self, id: u32) -> bool {
        id.is_multiple_of(2) || id > self.streams.last_id()
    }

    #[inline]
    pub(super) fn close(&mut self, key: StreamKey, ending: Ending) {
        if let Some((unsent, pending)) = self.streams.close(key, ending) {
            self.unsent -= unsent;
            self.pending -= pending;
            if self.unsent == 0 {
                self.shut_since = None;
            }
        }
    }

    pub(super) fn spend(&mut self, what: Abuse) -> Result<(), Fault> {
        self.buckets.spend(what, &self.limits.abuse, self.now)
    }

    /// A head to decode into.
    #[inline]
    pub(super) fn take_head(&mut self) -> Arc<Head> {
        self.heads.pop().unwrap_or_default()
    }

    /// Takes a head back whose call has ended.
    #[inline]
    pub fn recycle(&mut self, mut head: Arc<Head>) {
        // The count first: most heads are in the cache, too, and a look is cheap.
        if self.heads.len() < KEPT_HEADS
            && Arc::strong_count(&head) == 1
            && Arc::get_mut(&mut head)
                .is_some_and(|head| head.fields.held_bytes() <= KEPT_HEAD_BYTES)
        {
            self.heads.push(head);
        }
    }

    /// Gives back what an idle connection need not hold.
    pub(super) fn release(&mut self) {
        if self.streams.len() > 0 {
            return;
        }
        self.streams.release();
        self.heads = Vec::new();
        self.queue = VecDeque::new();
        self.drained = Vec::new();
    }
}
