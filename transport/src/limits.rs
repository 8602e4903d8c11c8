//! Every limit of the transport, with its unit and default.
//!
//! What a peer can send is bounded here, in one place: bytes, frames, streams and
//! waits. The defaults suit a service of small messages on a trusted port of an
//! untrusted network.

use std::time::Duration;

use crate::frame::{INITIAL_WINDOW_BYTES, MAX_WINDOW_BYTES, MIN_MAX_FRAME_BYTES};

/// The limits of a connection and its calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// `SETTINGS_HEADER_TABLE_SIZE`, bytes. A connection holds at most twice as
    /// many for its decoder. At least 4,096, which a client may use before it
    /// has read any settings. Default 4,096.
    pub header_table_bytes: u32,
    /// `SETTINGS_MAX_CONCURRENT_STREAMS`. Default 1,024.
    pub max_concurrent_streams: u32,
    /// `SETTINGS_INITIAL_WINDOW_SIZE`, bytes: what a client may send on one
    /// stream before it is read. At least 65,535, which a client may send before
    /// it has read any settings. Default 256 KiB.
    pub stream_window_bytes: u32,
    /// The connection's window, bytes; at least 65,535. Default 1 MiB.
    pub connection_window_bytes: u32,
    /// `SETTINGS_MAX_HEADER_LIST_SIZE`, bytes as RFC 9113, section 10.5.1 counts
    /// them. Larger requests are answered with status 431. Default 16 KiB.
    pub max_header_list_bytes: u32,
    /// One header block on the wire, bytes. More ends the connection. Default
    /// 64 KiB.
    pub max_header_block_bytes: usize,
    /// `CONTINUATION` frames in one header block. More end the connection.
    /// Default 16.
    pub max_continuations: u32,
    /// Frames that are read before other connections get their turn. Default 256.
    pub max_frames_per_turn: u32,
    /// Bytes written and not yet taken by the socket, above which nothing is
    /// read or produced; 64 KiB, while as much as this waits with its streams.
    /// One answer may go beyond. Default 256 KiB.
    pub max_output_bytes: usize,
    /// Bytes of answers that wait for the client to open its windows. Above it,
    /// calls are held back until it does; those of the general lane, above twice as
    /// many. One answer may go beyond. Default 4 MiB.
    pub max_unsent_bytes: usize,
    /// One gRPC message of the typed lane, bytes. Default 4 MiB.
    pub max_message_bytes: usize,
    /// All messages of a connection that are not complete yet, bytes. A call
    /// that would go beyond fails. Default 16 MiB.
    pub max_assembly_bytes: usize,
    /// What a client may do for nothing.
    pub abuse: AbuseLimits,
    /// How long anything may take.
    pub times: Times,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_table_bytes: 4096,
            max_concurrent_streams: 1024,
            stream_window_bytes: 256 * 1024,
            connection_window_bytes: 1024 * 1024,
            max_header_list_bytes: 16 * 1024,
            max_header_block_bytes: 64 * 1024,
            max_continuations: 16,
            max_frames_per_turn: 256,
            max_output_bytes: 256 * 1024,
            max_unsent_bytes: 4 * 1024 * 1024,
            max_message_bytes: 4 * 1024 * 1024,
            max_assembly_bytes: 16 * 1024 * 1024,
            abuse: AbuseLimits::default(),
            times: Times::default(),
        }
    }
}

impl Limits {
    /// `SETTINGS_MAX_FRAME_SIZE`, bytes: the smallest that the protocol knows, so
    /// that a frame fits every read buffer.
    pub const MAX_FRAME_BYTES: u32 = MIN_MAX_FRAME_BYTES;

    /// The same, with each value brought into the range that the protocol has
    /// for it.
    #[must_use]
    pub fn in_range(mut self) -> Self {
        self.header_table_bytes = self.header_table_bytes.max(4096);
        let window = |bytes: u32| bytes.clamp(INITIAL_WINDOW_BYTES, MAX_WINDOW_BYTES);
        self.stream_window_bytes = window(self.stream_window_bytes);
        self.connection_window_bytes = window(self.connection_window_bytes);
        self.max_frames_per_turn = self.max_frames_per_turn.max(1);
        self
    }
}

/// A token bucket: `burst` at first and at most, `per_second` more with time, and
/// `per_work` more with each answered call and each `DATA` frame sent. The last
/// is what keeps ordinary traffic free, however much there is of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Events at once.
    pub burst: u32,
    /// Events a second.
    pub per_second: u32,
    /// Events for each call answered or `DATA` frame sent.
    pub per_work: u32,
}

impl Budget {
    const fn new(burst: u32, per_second: u32, per_work: u32) -> Self {
        Self {
            burst,
            per_second,
            per_work,
        }
    }
}

/// What a client may do although it costs the server more than the client
/// (RFC 9113, section 10.5). Excess ends the connection with
/// `ENHANCE_YOUR_CALM`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbuseLimits {
    /// Calls taken back by `RST_STREAM` (CVE-2023-44487). The burst is four
    /// times as many as can be open: they may all pass their deadlines at once.
    /// Default 4,096, 100 a second, 1 for each answer.
    pub client_resets: Budget,
    /// Streams that the server reset for an error of the client's
    /// (CVE-2025-8671). Default 200, 10 a second.
    pub server_resets: Budget,
    /// Streams refused over `max_concurrent_streams`. A client that has not read
    /// the settings yet may open any number. Default 4,096, 100 a second.
    pub refused_streams: Budget,
    /// `PING`. Clients that measure their bandwidth send one for each round trip
    /// that brings data. Default 1,000, 10 a second, 1 for each answer.
    pub pings: Budget,
    /// `SETTINGS`. Default 100, 1 a second.
    pub settings: Budget,
    /// `WINDOW_UPDATE`. Default 4,096, 100 a second, 4 for each answer.
    pub window_updates: Budget,
    /// `PRIORITY`. Default 1,000, 10 a second, 4 for each answer.
    pub priorities: Budget,
    /// `DATA` without content that does not end its stream. Default 200, 10 a
    /// second.
    pub empty_data: Budget,
    /// `HEADERS` without fields. Default 100, 10 a second.
    pub empty_headers: Budget,
    /// Frames for streams that are gone. Default 4,096, 100 a second, 1 for each
    /// answer.
    pub stray_frames: Budget,
    /// Frames of unknown types. Default 1,000, 10 a second.
    pub unknown_frames: Budget,
}

impl Default for AbuseLimits {
    fn default() -> Self {
        Self {
            client_resets: Budget::new(4096, 100, 1),
            server_resets: Budget::new(200, 10, 0),
            refused_streams: Budget::new(4096, 100, 0),
            pings: Budget::new(1000, 10, 1),
            settings: Budget::new(100, 1, 0),
            window_updates: Budget::new(4096, 100, 4),
            priorities: Budget::new(1000, 10, 4),
            empty_data: Budget::new(200, 10, 0),
            empty_headers: Budget::new(100, 10, 0),
            stray_frames: Budget::new(4096, 100, 1),
            unknown_frames: Budget::new(1000, 10, 0),
        }
    }
}

/// How long anything may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Times {
    /// For a TLS handshake, from the connection's beginning. Default 10 s.
    pub handshake: Duration,
    /// From the connection's beginning, its handshake and preface included, to
    /// the end of its first request. Default 10 s.
    pub first_request: Duration,
    /// From the connection's beginning to its preface and first `SETTINGS`.
    /// Default 10 s.
    pub preface: Duration,
    /// From the first to the last frame of a header block. Default 10 s.
    pub header_block: Duration,
    /// From a request's head to its end, on the typed lane. Default 60 s.
    pub request: Duration,
    /// For the client to acknowledge the settings (section 6.5.3). Default 10 s.
    pub settings_ack: Duration,
    /// For the client to take any of the bytes that wait for it, over all of the
    /// connection and on each stream whose window it keeps shut. Default 60 s.
    pub stall: Duration,
    /// Silence after which the client is asked for a sign of life. Default 60 s.
    pub keepalive: Duration,
    /// For that sign to come. Default 20 s.
    pub keepalive_ack: Duration,
    /// Without any stream, after which the connection is drained. Default 15 min.
    pub idle: Duration,
    /// After which the connection is drained, ± 10 %; so that connections spread
    /// again over the servers there are. Default 30 min.
    pub age: Duration,
    /// For calls in flight to end once the connection is drained. Default 30 s.
    pub drain_grace: Duration,
    /// Between the two `GOAWAY`s of a drain, if the client does not answer the
    /// `PING` between them (section 6.8). Default 1 s.
    pub goaway: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            first_request: Duration::from_secs(10),
            preface: Duration::from_secs(10),
            header_block: Duration::from_secs(10),
            request: Duration::from_secs(60),
            settings_ack: Duration::from_secs(10),
            stall: Duration::from_secs(60),
            keepalive: Duration::from_secs(60),
            keepalive_ack: Duration::from_secs(20),
            idle: Duration::from_secs(15 * 60),
            age: Duration::from_secs(30 * 60),
            drain_grace: Duration::from_secs(30),
            goaway: Duration::from_secs(1),
        }
    }
}
