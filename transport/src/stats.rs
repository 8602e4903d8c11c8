//! What is counted over all connections of a server.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::abuse::Abuse;
use crate::error_codes::ErrorCode;

/// Defines the counters with their names, once.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $counter:ident => $name:literal,)+) => {
        /// What is counted, apart from [`Abuse`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Counter {
            $($(#[doc = $doc])+ #[doc = concat!("\n\nNamed `", $name, "`.")] $counter,)+
        }

        impl Counter {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$counter),+];

            /// The name, for a metrics endpoint.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$counter => $name,)+
                }
            }
        }
    };
}

counters! {
    /// Connections taken.
    Accepted => "connections_accepted",
    /// Times that no connection could be taken, as for want of descriptors.
    AcceptErrors => "accept_errors",
    /// Connections of HTTP/1.1.
    Http1 => "connections_http1",
    /// Connections that ended with an error of their client's.
    Failed => "connections_failed",
    /// TLS handshakes that failed.
    HandshakesFailed => "handshakes_failed",
    /// Of these, those in which the client spoke clear text.
    HandshakesClearText => "handshakes_failed_clear_text",
    /// TLS handshakes that took longer than `Times::handshake`.
    HandshakesTimedOut => "handshakes_timed_out",
    /// Connections without a request, closed for a newer one over
    /// `Config::max_unproven_connections`.
    UnprovenEvicted => "connections_ended_max_unproven_connections",
    /// Connections that made no request within `Times::first_request`.
    FirstRequest => "connections_ended_first_request",
    /// Connections without a preface within `Times::preface`.
    Preface => "connections_ended_preface",
    /// Connections that did not acknowledge the settings within
    /// `Times::settings_ack`.
    SettingsAck => "connections_ended_settings_ack",
    /// Connections whose header block did not end within `Times::header_block`.
    HeaderBlock => "connections_ended_header_block",
    /// Connections with a header block of more frames or bytes than
    /// `Limits::max_continuations` and `Limits::max_header_block_bytes` allow.
    Continuations => "connections_ended_continuations",
    /// Connections that gave no sign of life within `Times::keepalive_ack`.
    KeepaliveAck => "connections_ended_keepalive_ack",
    /// Connections that took nothing of what waited for `Times::stall`.
    Stall => "connections_ended_stall",
    /// Connections that were cut off at the end of `Times::drain_grace`.
    DrainGrace => "connections_ended_drain_grace",
    /// Connections that were cut off as the server ended at once.
    Aborted => "connections_ended_abort",
    /// Connections that were drained after `Times::idle`.
    Idle => "connections_drained_idle",
    /// Connections that were drained after `Times::age`.
    Age => "connections_drained_age",
    /// Streams refused over `Limits::max_concurrent_streams`.
    StreamsRefused => "streams_refused_max_concurrent_streams",
    /// Requests answered with 431, over `Limits::max_header_list_bytes`.
    HeaderList => "streams_refused_max_header_list_bytes",
    /// Requests of the general lane refused over `Config::max_buffered_bytes`.
    StreamsOverloaded => "streams_refused_max_buffered_bytes",
    /// Streams reset whose window stayed shut for `Times::stall`.
    StreamsStalled => "streams_ended_stall",
    /// Calls of the general lane that panicked.
    StreamsPanicked => "streams_ended_panic",
    /// Calls ended with [`Refusal::DeadlineExceeded`](crate::rpc::Refusal).
    CallsDeadline => "calls_ended_deadline",
    /// Calls ended with [`Refusal::RequestTimeout`](crate::rpc::Refusal).
    CallsRequestTimeout => "calls_ended_request",
    /// Calls ended with [`Refusal::Malformed`](crate::rpc::Refusal).
    CallsMalformed => "calls_ended_malformed",
    /// Calls ended with [`Refusal::Cardinality`](crate::rpc::Refusal).
    CallsCardinality => "calls_ended_cardinality",
    /// Calls ended with [`Refusal::TooLarge`](crate::rpc::Refusal).
    CallsTooLarge => "calls_ended_max_message_bytes",
    /// Calls ended with [`Refusal::Clogged`](crate::rpc::Refusal).
    CallsClogged => "calls_ended_max_unsent_bytes",
    /// Calls ended with [`Refusal::AssemblyFull`](crate::rpc::Refusal).
    CallsAssemblyFull => "calls_ended_max_assembly_bytes",
    /// Calls ended with [`Refusal::Overloaded`](crate::rpc::Refusal).
    CallsOverloaded => "calls_ended_max_buffered_bytes",
    /// Calls ended with [`Refusal::Stalled`](crate::rpc::Refusal).
    CallsStalled => "calls_ended_stall",
    /// Calls ended with [`Refusal::Draining`](crate::rpc::Refusal).
    CallsDraining => "calls_ended_draining",
    /// Calls ended with [`Refusal::Panicked`](crate::rpc::Refusal).
    CallsPanicked => "calls_ended_panic",
    /// Calls ended with [`Refusal::Gone`](crate::rpc::Refusal): their clients
    /// left before their requests were complete.
    CallsGone => "calls_ended_gone",
}

/// Counters of a server, all of them growing.
#[derive(Debug)]
pub struct Stats {
    counts: [AtomicU64; Counter::ALL.len()],
    abuse: [AtomicU64; Abuse::COUNT],
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; Counter::ALL.len()],
            abuse: [const { AtomicU64::new(0) }; Abuse::COUNT],
        }
    }
}

impl Stats {
    /// The value of a counter.
    #[must_use]
    pub fn of(&self, counter: Counter) -> u64 {
        self.counts[counter as usize].load(Ordering::Relaxed)
    }

    /// Connections that ended with `ENHANCE_YOUR_CALM` for one kind of abuse.
    #[must_use]
    pub fn abuse(&self, what: Abuse) -> u64 {
        self.abuse[what as usize].load(Ordering::Relaxed)
    }

    /// Every counter by its name: those of [`Counter`], and for each kind of
    /// [`Abuse`] the connections that it ended, by [`Abuse::counter_name`].
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = Counter::ALL
            .iter()
            .map(|&counter| (counter.name(), self.of(counter)));
        let abuse = Abuse::ALL
            .iter()
            .map(|&what| (what.counter_name(), self.abuse(what)));
        counts.chain(abuse)
    }

    pub(crate) fn count(&self, counter: Counter) {
        self.counts[counter as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A connection ended with this error.
    pub(crate) fn failed(&self, code: ErrorCode, why: &'static str) {
        if code != ErrorCode::NO_ERROR {
            self.count(Counter::Failed);
        }
        let kind = Abuse::ALL.iter().find(|kind| kind.name() == why);
        if let (ErrorCode::ENHANCE_YOUR_CALM, Some(kind)) = (code, kind) {
            self.abuse[*kind as usize].fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_counter_has_a_name_of_its_own() {
        let stats = Stats::default();
        for &counter in Counter::ALL {
            stats.count(counter);
        }
        for what in Abuse::ALL {
            stats.failed(ErrorCode::ENHANCE_YOUR_CALM, what.name());
        }
        let names: HashSet<_> = stats.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), Counter::ALL.len() + Abuse::COUNT);
        for (name, value) in stats.iter() {
            let expected = match name == Counter::Failed.name() {
                true => 1 + Abuse::COUNT as u64,
                false => 1,
            };
            assert_eq!(value, expected, "{name}");
            let is_plain = |byte: u8| byte.is_ascii_lowercase() || b"_0123456789".contains(&byte);
            assert!(name.bytes().all(is_plain), "{name}");
        }
    }
}
