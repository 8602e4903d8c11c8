//! What a connection of the client's role may take and hold.

use std::time::Duration;

use crate::frame::{INITIAL_WINDOW_BYTES, MAX_WINDOW_BYTES};

/// Limits of one connection. Whatever a server sends is bounded by one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `SETTINGS_INITIAL_WINDOW_SIZE` (RFC 9113, section 6.5.2): what a server may
    /// send on one stream before it is read, bytes. Default 1 MiB.
    pub stream_window_bytes: u32,
    /// What a server may send on all streams before it is received, bytes. Default
    /// 16 MiB. It is opened again as bytes arrive, so that a stream that nobody
    /// reads holds up no other. What a connection holds is bounded for each stream by
    /// its window, and for each unary call by `max_message_bytes`, as its caller waits
    /// for all of it.
    pub connection_window_bytes: u32,
    /// Largest message of an answer, bytes, as it comes and when it is whole; refused
    /// by its prefix, or by what it says of its length. Default 16 MiB.
    pub max_message_bytes: usize,
    /// Whether answers may be compressed by gzip: whoever says so sends
    /// `grpc-accept-encoding`, too. Else one that is ends its call. Default false.
    pub takes_gzip: bool,
    /// `SETTINGS_MAX_HEADER_LIST_SIZE`: names, values and 32 for each field.
    /// Default 64 KiB.
    pub max_header_list_bytes: u32,
    /// Calls that wait for the server's settings, or for a stream under its
    /// `SETTINGS_MAX_CONCURRENT_STREAMS`. More are not taken. Default 1,024.
    pub max_waiting_calls: usize,
    /// Bytes that wait for the socket before calls and messages have to. Default
    /// 1 MiB.
    pub max_output_bytes: usize,
    /// From the beginning to the server's `SETTINGS`, without which no call is
    /// sent: a server that accepts and never speaks is found out before it can have
    /// done anything. Default 20 s, the minimum connect timeout of gRPC's
    /// connection-backoff.md.
    pub greeting_timeout: Duration,
    /// gRFC A8. Default: every 30 s, 10 s for an answer, while calls are under way.
    pub keepalive: Option<Keepalive>,
}

/// gRFC A8: signs of life that a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence after which a `PING` is sent. At least 10 s, as A8 has it; a server
    /// may end a connection that asks more often than it allows.
    pub interval: Duration,
    /// How long anything may take to come after that.
    pub timeout: Duration,
    /// Also while no call is under way.
    pub without_calls: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            stream_window_bytes: 1 << 20,
            connection_window_bytes: 16 << 20,
            max_message_bytes: 16 << 20,
            takes_gzip: false,
            max_header_list_bytes: 64 << 10,
            max_waiting_calls: 1024,
            max_output_bytes: 1 << 20,
            greeting_timeout: Duration::from_secs(20),
            keepalive: Some(Keepalive {
                interval: Duration::from_secs(30),
                timeout: Duration::from_secs(10),
                without_calls: false,
            }),
        }
    }
}

impl Config {
    /// The same, with every value where HTTP/2 and gRPC have it.
    pub(super) fn in_range(mut self) -> Self {
        let window = INITIAL_WINDOW_BYTES..=MAX_WINDOW_BYTES;
        self.stream_window_bytes = self
            .stream_window_bytes
            .clamp(*window.start(), *window.end());
        self.connection_window_bytes = self
            .connection_window_bytes
            .clamp(*window.start(), *window.end());
        // A prefix tells no more.
        self.max_message_bytes = self.max_message_bytes.min(u32::MAX as usize);
        self.max_header_list_bytes = self.max_header_list_bytes.clamp(4 << 10, 16 << 20);
        self.max_output_bytes = self.max_output_bytes.max(16 << 10);
        if let Some(keepalive) = &mut self.keepalive {
            keepalive.interval = keepalive.interval.max(Keepalive::MIN_INTERVAL);
        }
        self
    }
}

impl Keepalive {
    /// gRFC A8: what a shorter interval counts as.
    pub const MIN_INTERVAL: Duration = Duration::from_secs(10);
}
