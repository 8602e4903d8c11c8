//! RFC 9113, section 6.8: `GOAWAY`.
//!
//! "A server that is attempting to gracefully shut down a connection SHOULD send
//! an initial GOAWAY frame with the last stream identifier set to 2^31-1", and
//! the true one at least a round trip later, which a `PING` measures.

use std::time::Instant;

use super::{Application, Connection};
use crate::error_codes::ErrorCode;
use crate::frame::{write_goaway, write_ping};

const EVERY_STREAM: u32 = (1 << 31) - 1;
/// The `PING` between the two `GOAWAY`s.
const DRAIN_PING: [u8; 8] = *b"drain\0\0\0";
/// The `PING` that asks for a sign of life.
pub(super) const KEEPALIVE_PING: [u8; 8] = *b"alive?\0\0";

/// How far the end of a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Requests are taken.
    Open,
    /// Told to go; requests that are on their way are taken.
    Leaving,
    /// Told which stream was the last.
    Draining {
        /// It.
        last: u32,
    },
    /// Nothing is read any more; what is to leave still may.
    Closed,
}

impl Phase {
    #[inline]
    pub(super) const fn accepts(self, id: u32) -> bool {
        match self {
            Self::Open | Self::Leaving => true,
            Self::Draining { last } => id <= last,
            Self::Closed => false,
        }
    }
}

impl<A: Application> Connection<A> {
    /// Has the client make its next calls elsewhere; those in flight, and on
    /// their way, are answered. The connection ends with the last of them, or
    /// after `drain_grace`.
    pub fn drain(&mut self, now: Instant) {
        if self.phase != Phase::Open {
            return;
        }
        self.phase = Phase::Leaving;
        self.moments.draining(now);
        write_goaway(&mut self.core.out, EVERY_STREAM, ErrorCode::NO_ERROR, "");
        write_ping(&mut self.core.out, 0, DRAIN_PING);
    }

    pub(super) fn on_ping_ack(&mut self, data: [u8; 8]) {
        match data {
            DRAIN_PING => self.second_goaway(),
            KEEPALIVE_PING => self.moments.alive(),
            _ => {}
        }
    }

    pub(super) fn second_goaway(&mut self) {
        if self.phase == Phase::Leaving {
            let last = self.core.streams.last_id();
            write_goaway(&mut self.core.out, last, ErrorCode::NO_ERROR, "");
            self.phase = Phase::Draining { last };
            self.moments.drained_once();
        }
    }

    /// The client said that it goes: no streams follow.
    pub(super) fn client_leaves(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Draining {
                last: self.core.streams.last_id(),
            };
        }
    }

    /// True once nothing is to be done any more but to send the output.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match self.phase {
            Phase::Open | Phase::Leaving => false,
            Phase::Draining { .. } => self.core.streams.len() == 0,
            Phase::Closed => true,
        }
    }
}
