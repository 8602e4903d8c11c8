//! One address's state: gRPC's `connectivity-semantics-and-api.md`, with the wait between attempts
//! of `connection-backoff.md`. Time is an argument, counted from anywhere.

use std::sync::Arc;
use std::time::Duration;

use super::address::Address;
use super::backoff::{self, Backoff};

/// Tells the subchannels of one channel apart; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Id(pub(crate) u64);

/// What a policy may know of a subchannel, or a caller of a channel. (SHUTDOWN is a subchannel that
/// is no longer there.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Idle,
    Connecting,
    Ready,
    TransientFailure,
}

#[derive(Debug)]
pub(crate) struct Subchannel {
    pub(crate) id: Id,
    pub(crate) address: Address,
    link: Link,
    backoff: Backoff,
    health: Health,
    is_ejected: bool,
    /// Why it failed last; gone when it is reached.
    failure: Option<Arc<str>>,
    /// A call asked for it, and it was not reached since.
    is_wanted: bool,
    /// Its last connection did not last the shortest wait.
    was_brief: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Idle,
    Connecting,
    Up {
        since: Duration,
        /// At least one.
        connections: u32,
        more: More,
    },
    /// In backoff: it is not connected to before.
    Down {
        until: Duration,
    },
}

/// Another connection beside those there are, gRFC A105.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum More {
    None,
    Connecting,
    /// One failed: no other before.
    Down {
        until: Duration,
    },
}

/// What a watch of the server's health says, gRFC A17.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// It is not watched, or the server knows no health: it counts as serving.
    Unwatched,
    /// The watch has not answered.
    Unknown,
    Serving,
    NotServing,
}

impl Subchannel {
    pub(crate) fn new(id: Id, address: Address) -> Self {
        Self {
            id,
            address,
            link: Link::Idle,
            backoff: Backoff::default(),
            health: Health::Unwatched,
            is_ejected: false,
            failure: None,
            is_wanted: false,
            was_brief: false,
        }
    }

    /// What a policy goes by: a connection whose server does not serve is as good as none.
    pub(crate) fn state(&self) -> State {
        match self.link {
            Link::Idle => State::Idle,
            Link::Connecting => State::Connecting,
            Link::Down { .. } => State::TransientFailure,
            Link::Up { .. } if self.is_ejected => State::TransientFailure,
            Link::Up { .. } => match self.health {
                Health::Unwatched | Health::Serving => State::Ready,
                Health::Unknown => State::Connecting,
                Health::NotServing => State::TransientFailure,
            },
        }
    }

    /// Whether it has failed and was not reached since. Policies hold on to TRANSIENT_FAILURE
    /// while they connect anew, so that calls do not wait for what has just failed.
    pub(crate) const fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    pub(crate) fn failure(&self) -> Option<&Arc<str>> {
        self.failure.as_ref()
    }

    /// A call asked for it.
    pub(crate) const fn want(&mut self) {
        self.is_wanted = true;
    }

    pub(crate) const fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// True if an attempt has to be started now: it was idle.
    #[must_use]
    pub(crate) fn connect(&mut self) -> bool {
        let is_idle = self.link == Link::Idle;
        if is_idle {
            self.link = Link::Connecting;
        }
        is_idle
    }

    /// True if another connection has to be started now, for those there are have no room
    /// (gRFC A105).
    #[must_use]
    pub(crate) fn connect_more(&mut self, now: Duration, most: u32) -> bool {
        let Link::Up {
            connections, more, ..
        } = &mut self.link
        else {
            return false;
        };
        let may = match more {
            More::None => true,
            More::Connecting => false,
            More::Down { until } => *until <= now,
        };
        if may && *connections < most {
            *more = More::Connecting;
            return true;
        }
        false
    }

    /// An attempt came through; false if none was under way.
    #[must_use]
    pub(crate) fn connected(&mut self, now: Duration, health: Health) -> bool {
        match &mut self.link {
            Link::Up {
                connections, more, ..
            } => {
                *connections = connections.saturating_add(1);
                *more = More::None;
            }
            Link::Idle | Link::Down { .. } => return false,
            link @ Link::Connecting => {
                *link = Link::Up {
                    since: now,
                    connections: 1,
                    more: More::None,
                };
                self.health = health;
                self.is_wanted = false;
                if self.state() == State::Ready {
                    self.failure = None;
                }
            }
        }
        true
    }

    /// An attempt failed.
    pub(crate) fn failed(&mut self, now: Duration, why: Arc<str>, draw: f64) {
        match &mut self.link {
            Link::Up { more, .. } => {
                let until = now.saturating_add(self.backoff.next(draw));
                *more = More::Down { until };
            }
            Link::Connecting => self.down(now, why, draw),
            Link::Idle | Link::Down { .. } => {}
        }
    }

    /// A connection takes no more calls. The second in a row that did not last the shortest wait
    /// counts as an attempt that failed: a server that hangs up on everybody is not called without
    /// a pause.
    pub(crate) fn lost(&mut self, now: Duration, why: Arc<str>, draw: f64) {
        let Link::Up {
            since, connections, ..
        } = &mut self.link
        else {
            return;
        };
        if *connections > 1 {
            *connections -= 1;
            return;
        }
        let is_brief = now.saturating_sub(*since) < backoff::INITIAL;
        if is_brief && self.was_brief {
            self.down(now, why, draw);
        } else {
            self.link = Link::Idle;
        }
        if !is_brief {
            self.backoff.reset();
        }
        self.was_brief = is_brief;
        self.health = Health::Unwatched;
    }

    /// What there is of it, or under way, is no longer needed.
    pub(crate) fn closed(&mut self) {
        if !matches!(self.link, Link::Down { .. }) {
            self.link = Link::Idle;
        }
    }

    pub(crate) fn health(&mut self, health: Health, why: &str) {
        if !self.is_up() {
            return;
        }
        self.health = health;
        match health {
            Health::NotServing => self.failure = Some(why.into()),
            Health::Serving | Health::Unwatched if !self.is_ejected => self.failure = None,
            _ => {}
        }
    }

    pub(crate) fn eject(&mut self, is_ejected: bool) {
        if self.is_ejected == is_ejected {
            return;
        }
        self.is_ejected = is_ejected;
        if is_ejected {
            self.failure = Some("its calls fail more than those of the others".into());
        } else if self.state() == State::Ready {
            self.failure = None;
        }
    }

    /// Ends a backoff that is over; true if it was.
    pub(crate) fn tick(&mut self, now: Duration) -> bool {
        let is_over = matches!(self.link, Link::Down { until } if until <= now);
        if is_over {
            self.link = Link::Idle;
        }
        is_over
    }

    /// Ends the pause after an attempt at another connection that failed; true if it was over, so
    /// that calls which still find no room may ask for one again.
    #[must_use]
    pub(crate) fn may_grow_again(&mut self, now: Duration) -> bool {
        let Link::Up { more, .. } = &mut self.link else {
            return false;
        };
        let is_over = matches!(*more, More::Down { until } if until <= now);
        if is_over {
            *more = More::None;
        }
        is_over
    }

    /// When its backoff is over, or that of another connection.
    pub(crate) const fn wake_at(&self) -> Option<Duration> {
        match self.link {
            Link::Down { until }
            | Link::Up {
                more: More::Down { until },
                ..
            } => Some(until),
            _ => None,
        }
    }

    /// Whether it has a connection, healthy or not.
    pub(crate) const fn is_up(&self) -> bool {
        matches!(self.link, Link::Up { .. })
    }

    fn down(&mut self, now: Duration, why: Arc<str>, draw: f64) {
        self.failure = Some(why);
        self.link = Link::Down {
            until: now.saturating_add(self.backoff.next(draw)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::address::Socket;
    use super::*;

    fn subchannel() -> Subchannel {
        let address = Address {
            socket: Socket::Unix("/s".into()),
            target: 0,
        };
        Subchannel::new(Id(1), address)
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn why() -> Arc<str> {
        "refused".into()
    }

    #[test]
    fn one_in_backoff_is_not_connected_to_before_it_is_over() {
        let mut sub = subchannel();
        assert_eq!(sub.state(), State::Idle);
        assert!(sub.connect());
        assert!(!sub.connect(), "an attempt is under way");
        sub.failed(at(0), why(), 0.5);
        assert_eq!(sub.state(), State::TransientFailure);
        assert!(!sub.connect());
        assert_eq!(sub.wake_at(), Some(at(1000)));
        assert!(!sub.tick(at(999)));
        assert!(sub.tick(at(1000)));
        assert_eq!((sub.state(), sub.has_failed()), (State::Idle, true));
        assert!(sub.connect());
        sub.failed(at(1000), why(), 0.5);
        assert_eq!(sub.wake_at(), Some(at(2600)), "longer with each failure");
        assert!(sub.tick(at(2600)) && sub.connect());
        assert!(sub.connected(at(2700), Health::Unwatched));
        assert_eq!((sub.state(), sub.has_failed()), (State::Ready, false));
        sub.lost(at(9000), why(), 0.5);
        assert_eq!(sub.state(), State::Idle);
        assert!(sub.connect());
        sub.failed(at(9000), why(), 0.5);
        assert_eq!(sub.wake_at(), Some(at(10_000)), "anew once it was reached");
    }

    #[test]
    fn connections_that_are_lost_at_once_count_as_failures_from_the_second_on() {
        let mut sub = subchannel();
        // When it is there, when it is lost, and when the next may be tried.
        for (connected, lost, next) in [
            (0, 10, None),
            (20, 30, Some(1030)),
            (1030, 1500, Some(3100)),
            (3100, 4100, None),
            (4100, 4200, None),
            (4200, 4300, Some(5300)),
        ] {
            assert!(sub.connect());
            assert!(sub.connected(at(connected), Health::Unwatched));
            sub.lost(at(lost), why(), 0.5);
            assert_eq!(sub.wake_at(), next.map(at), "lost at {lost}");
            match next {
                None => assert_eq!(sub.state(), State::Idle),
                Some(next) => {
                    assert_eq!(sub.state(), State::TransientFailure);
                    assert!(sub.tick(at(next)));
                }
            }
        }
    }

    #[test]
    fn health_and_ejection_take_a_connection_out() {
        let mut sub = subchannel();
        assert!(sub.connect());
        assert!(sub.connected(at(0), Health::Unknown));
        type Step = fn(&mut Subchannel);
        let steps: [(Step, State); 8] = [
            (|_| {}, State::Connecting),
            (|sub| sub.health(Health::Serving, ""), State::Ready),
            (
                |sub| sub.health(Health::NotServing, "draining"),
                State::TransientFailure,
            ),
            (|sub| sub.health(Health::Unwatched, ""), State::Ready),
            (|sub| sub.eject(true), State::TransientFailure),
            (
                |sub| sub.health(Health::Serving, ""),
                State::TransientFailure,
            ),
            (|sub| sub.eject(false), State::Ready),
            (|sub| sub.lost(at(5000), why(), 0.5), State::Idle),
        ];
        for (at, (step, state)) in steps.into_iter().enumerate() {
            step(&mut sub);
            assert_eq!(sub.state(), state, "step {at}");
            assert_eq!(
                sub.has_failed(),
                state == State::TransientFailure,
                "step {at}"
            );
        }
    }

    #[test]
    fn more_connections_one_at_a_time_up_to_the_most() {
        let mut sub = subchannel();
        assert!(!sub.connect_more(at(0), 3), "none there yet");
        assert!(sub.connect());
        assert!(sub.connected(at(0), Health::Unwatched));
        assert!(sub.connect_more(at(0), 3));
        assert!(!sub.connect_more(at(0), 3), "one is under way");
        sub.failed(at(0), why(), 0.5);
        assert_eq!(sub.state(), State::Ready, "the first is still there");
        assert!(!sub.connect_more(at(999), 3));
        assert!(sub.connect_more(at(1000), 3));
        assert!(sub.connected(at(1000), Health::Unwatched));
        assert!(sub.connect_more(at(1000), 3));
        assert!(sub.connected(at(1000), Health::Unwatched));
        assert!(!sub.connect_more(at(9000), 3), "three are the most");
        sub.lost(at(9000), why(), 0.5);
        assert!(sub.connect_more(at(9000), 3));
        sub.lost(at(9000), why(), 0.5);
        assert_eq!(sub.state(), State::Ready);
        sub.lost(at(9000), why(), 0.5);
        assert_eq!(sub.state(), State::Idle);
    }
}
