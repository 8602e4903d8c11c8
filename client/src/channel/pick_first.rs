//! pick_first, gRFC A62, whose attempts overlap as RFC 8305 has them (gRFC A61, "happy eyeballs"):
//! the first address that is reached has all calls, and the others stand by.

use std::sync::Arc;
use std::time::Duration;

use super::subchannel::{Id, State, Subchannel};

/// From the start of one attempt to that of the next, unless it fails before: RFC 8305, section 8,
/// "Connection Attempt Delay".
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Where a channel with this policy stands.
#[derive(Debug, Default)]
pub(crate) struct PickFirst {
    order: Vec<Id>,
    phase: Phase,
    /// A call asked before there were addresses.
    is_waited_for: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    /// Nobody asked since the start, or since the connection was lost.
    #[default]
    Idle,
    /// Through the list, from the front.
    Pass {
        /// The first that was not tried.
        next: usize,
        /// When the next is tried though the one before is not through.
        at: Option<Duration>,
    },
    /// All have failed: each is tried again when its own backoff is over.
    Failing,
    Selected(Id),
}

/// What the policy wants done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) connect: Vec<Id>,
    pub(crate) close: Vec<Id>,
    /// The addresses may be old.
    pub(crate) resolve: bool,
}

/// What it comes to for calls.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outlook {
    Idle,
    Connecting,
    Failing(Option<Arc<str>>),
    Ready(Id),
}

impl PickFirst {
    /// A call asks for a connection.
    pub(crate) fn ask(&mut self, now: Duration, subs: &mut [Subchannel]) -> Wish {
        let mut wish = Wish::default();
        if self.phase == Phase::Idle {
            self.is_waited_for = self.order.is_empty();
            if !self.is_waited_for {
                self.begin(now, subs, &mut wish);
            }
        }
        wish
    }

    /// Other addresses, in the order in which they are tried. `subs` are theirs.
    pub(crate) fn update(
        &mut self,
        order: Vec<Id>,
        now: Duration,
        subs: &mut [Subchannel],
    ) -> Wish {
        self.order = order;
        let mut wish = Wish::default();
        match self.phase {
            Phase::Idle if !std::mem::take(&mut self.is_waited_for) => {}
            Phase::Selected(id) if self.order.contains(&id) => {}
            _ => self.begin(now, subs, &mut wish),
        }
        wish
    }

    pub(crate) fn connected(&mut self, id: Id, subs: &mut [Subchannel]) -> Wish {
        let mut wish = Wish::default();
        if matches!(self.phase, Phase::Selected(selected) if selected != id) {
            // Too late, by a moment.
            close(id, subs, &mut wish);
            return wish;
        }
        self.phase = Phase::Selected(id);
        let others = subs.iter().filter(|sub| sub.id != id);
        let losers = others.filter(|sub| sub.state() == State::Connecting);
        for loser in losers.map(|sub| sub.id).collect::<Vec<_>>() {
            close(loser, subs, &mut wish);
        }
        wish
    }

    /// An attempt failed.
    pub(crate) fn failed(&mut self, now: Duration, subs: &mut [Subchannel]) -> Wish {
        let mut wish = Wish::default();
        if let Phase::Pass { .. } = self.phase {
            self.advance(now, subs, &mut wish);
        }
        wish
    }

    /// A connection takes no more calls.
    pub(crate) fn lost(&mut self, id: Id, subs: &[Subchannel]) -> Wish {
        let mut wish = Wish::default();
        let is_up = subs.iter().any(|sub| sub.id == id && sub.is_up());
        if self.phase == Phase::Selected(id) && !is_up {
            // The next call begins anew: until then nothing is worth a connection.
            self.phase = Phase::Idle;
            wish.resolve = true;
        }
        wish
    }

    pub(crate) fn tick(&mut self, now: Duration, subs: &mut [Subchannel]) -> Wish {
        let mut wish = Wish::default();
        match self.phase {
            Phase::Pass { at: Some(at), .. } if at <= now => self.advance(now, subs, &mut wish),
            Phase::Failing => connect_idle(subs, &mut wish),
            _ => {}
        }
        wish
    }

    pub(crate) const fn wake_at(&self) -> Option<Duration> {
        match self.phase {
            Phase::Pass { at, .. } => at,
            _ => None,
        }
    }

    pub(crate) fn outlook(&self, subs: &[Subchannel]) -> Outlook {
        match self.phase {
            Phase::Idle => Outlook::Idle,
            Phase::Pass { .. } => Outlook::Connecting,
            Phase::Failing => {
                let mut order = self.order.iter().rev();
                let sub = |id: &Id| subs.iter().find(|sub| sub.id == *id);
                Outlook::Failing(order.find_map(|id| sub(id)?.failure().cloned()))
            }
            Phase::Selected(id) => Outlook::Ready(id),
        }
    }

    fn begin(&mut self, now: Duration, subs: &mut [Subchannel], wish: &mut Wish) {
        self.phase = Phase::Pass { next: 0, at: None };
        self.advance(now, subs, wish);
    }

    /// Tries the next address that is not in backoff, or ends the pass.
    fn advance(&mut self, now: Duration, subs: &mut [Subchannel], wish: &mut Wish) {
        let Phase::Pass { mut next, .. } = self.phase else {
            return;
        };
        while let Some(id) = self.order.get(next) {
            next += 1;
            let Some(sub) = subs.iter_mut().find(|sub| sub.id == *id) else {
                continue;
            };
            let is_new = sub.connect();
            if is_new {
                wish.connect.push(*id);
            }
            if is_new || sub.state() == State::Connecting {
                let more = next < self.order.len();
                let at = more.then(|| now.saturating_add(ATTEMPT_DELAY));
                self.phase = Phase::Pass { next, at };
                return;
            }
        }
        if subs.iter().any(|sub| sub.state() == State::Connecting) {
            self.phase = Phase::Pass { next, at: None };
            return;
        }
        self.phase = Phase::Failing;
        wish.resolve = true;
        connect_idle(subs, wish);
    }
}

fn close(id: Id, subs: &mut [Subchannel], wish: &mut Wish) {
    if let Some(sub) = subs.iter_mut().find(|sub| sub.id == id) {
        sub.closed();
    }
    wish.close.push(id);
}

fn connect_idle(subs: &mut [Subchannel], wish: &mut Wish) {
    for sub in subs {
        if sub.connect() {
            wish.connect.push(sub.id);
        }
    }
}
