//! How long anything may take: deadlines, gRFC A8 keepalive, and the greeting.

use std::time::Instant;

use super::calls::{Key, Place};
use super::config::{Config, Keepalive};
use super::core::{Core, Phase};
use super::failed::{Closed, Failed};
use crate::error_codes::ErrorCode;
use crate::frame::write_ping;

/// What a `PING` of this end carries.
const PING: [u8; 8] = *b"larder\0\0";

/// The moments that count.
pub(super) struct Times {
    /// By when the server's settings have to come.
    greeting: Option<Instant>,
    /// No call's deadline is earlier. That of the call which set it may be over: a
    /// look at all calls then finds the next. So a call whose answer comes in time
    /// costs no timer, and the looks are as rare as deadlines are long.
    next_deadline: Option<Instant>,
    keepalive: Option<Keepalive>,
    /// When something last came.
    heard: Instant,
    /// When a call was first sent after that, with no other under way: since then silence means
    /// something. Calls that are over before an answer came leave it, or a server that is
    /// gone would not be missed by calls that are shorter than the interval.
    unanswered: Option<Instant>,
    /// When a `PING` was sent that nothing has come after.
    asked: Option<Instant>,
}

impl Times {
    pub(super) fn new(config: &Config, now: Instant) -> Self {
        Self {
            greeting: now.checked_add(config.greeting_timeout),
            next_deadline: None,
            keepalive: config.keepalive,
            heard: now,
            unanswered: None,
            asked: None,
        }
    }

    /// Something came.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.unanswered = None;
        self.asked = None;
    }

    /// A call begins, the first after none was under way if `is_first`.
    #[inline]
    pub(super) fn call_begins(&mut self, now: Instant, is_first: bool) {
        if is_first {
            self.unanswered.get_or_insert(now);
        }
    }

    /// A call has a deadline. True if it is earlier than any before.
    #[inline]
    pub(super) fn keep_deadline(&mut self, deadline: Instant) -> bool {
        let is_earlier = self.next_deadline.is_none_or(|next| deadline < next);
        if is_earlier {
            self.next_deadline = Some(deadline);
        }
        is_earlier
    }
}

impl Core {
    /// When [`on_time`](Self::on_time) is to be called next.
    pub(super) fn next_time(&self) -> Option<Instant> {
        let greeting = match self.phase {
            Phase::Greeting => self.times.greeting,
            Phase::Closed(_) => return None,
            Phase::Open | Phase::Closing(_) => None,
        };
        let times = [greeting, self.times.next_deadline, self.next_keepalive()];
        times.into_iter().flatten().min()
    }

    fn next_keepalive(&self) -> Option<Instant> {
        let keepalive = self.times.keepalive?;
        if self.phase == Phase::Greeting {
            return None;
        }
        if let Some(asked) = self.times.asked {
            // Also when the calls it was asked for are over: the next would be sent in vain.
            return asked.checked_add(keepalive.timeout);
        }
        // Calls without a stream wait for the server as well.
        let is_idle = self.calls.open() + self.waiting_calls == 0;
        if is_idle && !keepalive.without_calls {
            return None;
        }
        let since = match keepalive.without_calls {
            true => self.times.heard,
            false => self.times.unanswered.unwrap_or(self.times.heard),
        };
        since.checked_add(keepalive.interval)
    }

    /// Does what is due.
    pub(super) fn on_time(&mut self, now: Instant) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if self.phase == Phase::Greeting && is_due(self.times.greeting) {
            return self.close(Closed::Silent("settings"));
        }
        if is_due(self.times.next_deadline) {
            self.expire(now);
        }
        if is_due(self.next_keepalive()) {
            if self.times.asked.is_some() {
                return self.close(Closed::Silent(
                    "answer to a sign of life that was asked for",
                ));
            }
            write_ping(&mut self.out, 0, PING);
            self.times.asked = Some(now);
            self.activity.keepalives_sent += 1;
        }
    }

    /// Ends the calls whose deadline has passed, and finds the next.
    fn expire(&mut self, now: Instant) {
        let mut due: Vec<(Key, bool)> = Vec::new();
        let mut next: Option<Instant> = None;
        for (key, call) in self.calls.all() {
            let Some(deadline) = call.deadline.filter(|_| call.place() != Place::Ended) else {
                continue;
            };
            if deadline <= now {
                due.push((key, call.place() == Place::Open));
            } else {
                next = Some(next.map_or(deadline, |next| next.min(deadline)));
            }
        }
        self.times.next_deadline = next;
        for (key, sent) in due {
            self.reset(key, ErrorCode::CANCEL, Failed::Deadline { sent });
        }
        self.send_waiting(now);
    }
}
