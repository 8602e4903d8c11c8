//! Calls whose handlers wait, and server streams: polled by the connection, each
//! when it is woken and what it has sent has left.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::calls::{Rpc, State};
use super::reply::{Closing, Reply, Sent};
use super::{Handler, Refusal, Status, Step, Waiting};
use crate::connection::{Core, StreamKey};
use crate::error_codes::ErrorCode;
use crate::general::{GeneralLane, Progress};
use crate::stats::Counter;

/// How often one call may go on in a turn, before its neighbours and the socket
/// get theirs.
const ROUNDS: usize = 16;

/// A call whose handler waits.
pub(super) struct WaitingCall<W> {
    waiting: W,
    pub(super) sent: Sent,
    pub(super) deadline: Option<Instant>,
    waker: Waker,
}

impl<W> WaitingCall<W> {
    pub(super) const fn new(
        waiting: W,
        sent: Sent,
        deadline: Option<Instant>,
        waker: Waker,
    ) -> Self {
        Self {
            waiting,
            sent,
            deadline,
            waker,
        }
    }
}

impl<W: Waiting> WaitingCall<W> {
    /// How the call says that it ends.
    pub(super) fn refuse(&mut self, core: &Core, why: Refusal) -> Status {
        refuse(core, &mut self.waiting, why, &mut self.sent)
    }
}

fn refuse(core: &Core, waiting: &mut impl Waiting, why: Refusal, sent: &mut Sent) -> Status {
    core.count(why.counter());
    let plain = why.clone();
    let mut closing = Closing(sent);
    catch_unwind(AssertUnwindSafe(|| waiting.refuse(why, &mut closing)))
        .unwrap_or_else(|_| plain.status())
}

/// What one poll of a call came to.
enum Polled {
    /// It will be woken, or asked again when what it sent has left.
    Waits,
    /// It can go on at once.
    GoesOn,
    /// It is over.
    Ended,
}

impl<H: Handler, L: GeneralLane> Rpc<H, L> {
    /// True if [`Self::poll`] has anything to look at.
    #[inline]
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.waiting > 0 || !self.held_back.is_empty()
    }

    /// True if a call can go on without being woken.
    #[inline]
    #[must_use]
    pub fn has_ready(&self) -> bool {
        // Without calls that wait, those are of calls that are gone.
        (self.waiting > 0 && !self.ready.is_empty()) || !self.held_back.is_empty()
    }

    /// Polls the calls that can go on; `task` is woken with the next.
    ///
    /// Those that could go on at once, or could if the output had room or the
    /// client opened its windows, are left for the next turn: see
    /// [`Self::has_ready`].
    pub fn poll(&mut self, core: &mut Core, task: &Waker) {
        self.wakes.register(task);
        self.release_held_back(core);
        let mut held = Vec::new();
        for _ in 0..ROUNDS {
            self.wakes.take(&mut self.ready);
            if self.ready.is_empty() {
                break;
            }
            let mut keys = std::mem::take(&mut self.ready);
            keys.sort_unstable_by_key(|key| key.id);
            keys.dedup();
            for (done, &key) in keys.iter().enumerate() {
                if !core.has_room() {
                    self.ready.extend_from_slice(&keys[done..]);
                    self.ready.append(&mut held);
                    return;
                }
                // A call that has begun keeps its answer back where a new one is
                // held back: else each could go beyond the limit. Those of the
                // general lane are not held back when they come, and are mostly
                // small: they may wait beside as much again.
                let is_held = match self.call_at(key) {
                    Some(State::Waiting(_)) => core.is_clogged(),
                    _ => core.is_choked(),
                };
                if is_held {
                    held.push(key);
                    continue;
                }
                match self.poll_call(core, key) {
                    Polled::Waits => {}
                    Polled::GoesOn => self.ready.push(key),
                    Polled::Ended => drop(self.take(key)),
                }
            }
        }
        self.ready.append(&mut held);
    }

    fn poll_call(&mut self, core: &mut Core, key: StreamKey) -> Polled {
        match self.call_at(key) {
            Some(State::Waiting(call)) => {
                let before = call.sent.messages();
                let polled = poll_waiting(core, key, call);
                let sent = call.sent.messages() - before;
                self.messages_sent += sent;
                polled
            }
            Some(State::General(call)) => {
                let polled = catch_unwind(AssertUnwindSafe(|| call.poll(core, key)));
                match polled {
                    Ok(Progress::Waits) => Polled::Waits,
                    Ok(Progress::GoesOn) => Polled::GoesOn,
                    Ok(Progress::Ended) => {
                        let unread = call.unread();
                        core.consumed(key, unread);
                        Polled::Ended
                    }
                    Err(_) => {
                        core.count(Counter::StreamsPanicked);
                        let unread = call.unread();
                        core.consumed(key, unread);
                        core.reset(key, ErrorCode::INTERNAL_ERROR);
                        Polled::Ended
                    }
                }
            }
            Some(State::Gathering(_)) | None => Polled::Waits,
        }
    }
}

fn poll_waiting<W: Waiting>(core: &mut Core, key: StreamKey, call: &mut WaitingCall<W>) -> Polled {
    if !core.is_drained(key) {
        return Polled::Waits;
    }
    let WaitingCall {
        waiting,
        sent,
        waker,
        ..
    } = call;
    let mut cx = Context::from_waker(waker);
    let mut reply = Reply::new(core, key, sent);
    let polled = catch_unwind(AssertUnwindSafe(|| waiting.poll(&mut cx, &mut reply)));
    match polled {
        Ok(Poll::Pending) => Polled::Waits,
        Ok(Poll::Ready(Step::More)) => Polled::GoesOn,
        Ok(Poll::Ready(Step::End(status))) => {
            reply.end(&status);
            Polled::Ended
        }
        Err(_) => {
            let (core, sent) = reply.parts();
            let status = refuse(core, waiting, Refusal::Panicked, sent);
            reply.end(&status);
            Polled::Ended
        }
    }
}
