//! RFC 9113, section 9.1: connection management. How long anything may take.

use std::time::{Duration, Instant};

use super::goaway::{KEEPALIVE_PING, Phase};
use super::{Application, Connection};
use crate::error_codes::ErrorCode;
use crate::frame::write_ping;
use crate::limits::Times;
use crate::stats::Counter;

/// When what was last seen, and until when what must be.
#[derive(Debug)]
pub(super) struct Moments {
    /// A frame was read.
    heard: Instant,
    /// The socket took bytes, or had none to take.
    wrote: Instant,
    /// A stream was open.
    busy: Instant,
    /// The preface and the first settings must be there.
    preface: Option<Instant>,
    settings_ack: Option<Instant>,
    header_block: Option<Instant>,
    keepalive_ack: Option<Instant>,
    /// Time to drain.
    age: Option<Instant>,
    /// Time for the second `GOAWAY`.
    goaway: Option<Instant>,
    /// Time to end, whatever is in flight.
    end: Option<Instant>,
    /// Signs of life asked for.
    pub(super) keepalives: u64,
    times: Times,
}

impl Moments {
    pub(super) fn new(times: &Times, now: Instant, jitter: u64) -> Self {
        // 90 to 110 per cent.
        let thousandths = 900 + u32::try_from(jitter % 201).unwrap_or(100);
        let age = times.age.saturating_mul(thousandths) / 1000;
        Self {
            heard: now,
            wrote: now,
            busy: now,
            preface: now.checked_add(times.preface),
            settings_ack: now.checked_add(times.settings_ack),
            header_block: None,
            keepalive_ack: None,
            age: now.checked_add(age),
            goaway: None,
            end: None,
            keepalives: 0,
            times: times.clone(),
        }
    }

    #[inline]
    pub(super) const fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    #[inline]
    pub(super) const fn wrote(&mut self, now: Instant) {
        self.wrote = now;
    }

    #[inline]
    pub(super) const fn busy(&mut self, now: Instant) {
        self.busy = now;
    }

    pub(super) const fn greeted(&mut self) {
        self.preface = None;
    }

    pub(super) const fn settings_acked(&mut self) {
        self.settings_ack = None;
    }

    pub(super) fn block_began(&mut self, now: Instant) {
        self.header_block = now.checked_add(self.times.header_block);
    }

    pub(super) const fn block_ended(&mut self) {
        self.header_block = None;
    }

    pub(super) const fn alive(&mut self) {
        self.keepalive_ack = None;
    }

    pub(super) fn draining(&mut self, now: Instant) {
        self.age = None;
        self.goaway = now.checked_add(self.times.goaway);
        self.end = now.checked_add(self.times.drain_grace);
    }

    pub(super) const fn drained_once(&mut self) {
        self.goaway = None;
    }

    /// The earliest moment at which something is to be done.
    fn next(&self, stalled: bool) -> Option<Instant> {
        let after = |at: Instant, time: Duration| at.checked_add(time);
        let keepalive = match self.keepalive_ack {
            None => after(self.heard, self.times.keepalive),
            some => some,
        };
        let stall = stalled
            .then(|| after(self.wrote, self.times.stall))
            .flatten();
        let idle = after(self.busy, self.times.idle);
        [
            self.preface,
            self.settings_ack,
            self.header_block,
            keepalive,
            self.age,
            self.goaway,
            self.end,
            stall,
            idle,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

fn is_past(at: Option<Instant>, now: Instant) -> bool {
    at.is_some_and(|at| at <= now)
}

impl<A: Application> Connection<A> {
    /// When [`Self::on_time`] is to be called next. May be earlier than needed,
    /// never later.
    #[must_use]
    pub fn next_time(&self) -> Option<Instant> {
        if self.is_alive() {
            let shut = self.core.shut_since;
            let stall = shut.and_then(|since| since.checked_add(self.moments.times.stall));
            let next = self.moments.next(self.is_stalled());
            next.into_iter()
                .chain(stall)
                .chain(self.core.next_stall)
                .min()
        } else {
            // Output that nobody takes.
            self.moments.wrote.checked_add(self.moments.times.stall)
        }
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.core.unsent > 0 || !self.core.out.is_empty()
    }

    /// Does what the time asks for. False: the client does not take what it is
    /// sent; the socket is to be dropped.
    #[must_use]
    pub fn on_time(&mut self, now: Instant) -> bool {
        self.core.now = now;
        let stall = self.moments.wrote.checked_add(self.moments.times.stall);
        if self.is_stalled() {
            if is_past(stall, now) {
                self.core.count(Counter::Stall);
                return false;
            }
        } else {
            self.moments.wrote = now;
        }
        if !self.is_alive() {
            return true;
        }
        if self.core.streams.len() > 0 {
            self.moments.busy = now;
        }
        self.check_waits(now);
        self.check_life(now);
        self.end_stalled(now);
        true
    }

    /// Things that must come.
    fn check_waits(&mut self, now: Instant) {
        let moments = &self.moments;
        let shut = self.core.shut_since;
        let stall = shut.and_then(|since| since.checked_add(moments.times.stall));
        let (counter, code, why) = if is_past(moments.preface, now) {
            let why = "no connection preface in time";
            (Counter::Preface, ErrorCode::PROTOCOL_ERROR, why)
        } else if is_past(moments.settings_ack, now) {
            let why = "settings that were not acknowledged";
            (Counter::SettingsAck, ErrorCode::SETTINGS_TIMEOUT, why)
        } else if is_past(moments.header_block, now) {
            let code = ErrorCode::ENHANCE_YOUR_CALM;
            (Counter::HeaderBlock, code, "header_block")
        } else if is_past(stall, now) {
            let code = ErrorCode::ENHANCE_YOUR_CALM;
            (Counter::Stall, code, "a window that stays shut")
        } else if is_past(moments.keepalive_ack, now) {
            let why = "no sign of life";
            (Counter::KeepaliveAck, ErrorCode::NO_ERROR, why)
        } else if is_past(moments.end, now) {
            let why = "the grace of the drain is over";
            return self.cut(now, Counter::DrainGrace, why);
        } else {
            return;
        };
        self.core.count(counter);
        self.fail(code, why);
    }

    /// Streams that are kept from ending, whatever the others do.
    fn end_stalled(&mut self, now: Instant) {
        if !is_past(self.core.next_stall, now) || !self.is_alive() {
            return;
        }
        for key in self.core.stalled(now) {
            self.core.count(Counter::StreamsStalled);
            self.core.reset(key, ErrorCode::ENHANCE_YOUR_CALM);
            self.app.stalled(&mut self.core, key);
        }
        self.send_pending();
    }

    /// The connection's course.
    fn check_life(&mut self, now: Instant) {
        if !self.is_alive() {
            return;
        }
        let moments = &mut self.moments;
        let silent = moments.heard.checked_add(moments.times.keepalive);
        if moments.keepalive_ack.is_none() && is_past(silent, now) {
            moments.keepalive_ack = now.checked_add(moments.times.keepalive_ack);
            // Asked once for each silence.
            moments.heard = now;
            moments.keepalives += 1;
            write_ping(&mut self.core.out, 0, KEEPALIVE_PING);
        }
        if is_past(moments.goaway, now) {
            self.second_goaway();
        }
        let idle = self.moments.busy.checked_add(self.moments.times.idle);
        let counter = match (is_past(self.moments.age, now), is_past(idle, now)) {
            (true, _) => Some(Counter::Age),
            (_, true) => Some(Counter::Idle),
            _ => None,
        };
        if let Some(counter) = counter {
            // A connection that is drained already stays so.
            if self.phase == Phase::Open {
                self.core.count(counter);
            }
            self.moments.age = None;
            self.moments.busy = now;
            self.drain(now);
        }
    }
}
