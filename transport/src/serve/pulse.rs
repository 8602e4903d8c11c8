//! How late a thread is: how long what it reads now may have waited to be read.
//!
//! Calls are answered in the read loop, so that no queue of calls can be looked at:
//! what waits does so in the sockets' buffers, while the thread is busy with other
//! connections, or was not given the processor. What can be known is a bound. A
//! thread that has slept since had nothing to do then, and all it reads has come
//! since it woke. One that does not get to sleep goes round: a task that yields
//! ([`pace`]) comes to its turn when all those have had theirs that were to be served
//! before, and the sockets were looked at in between; what is read in one round has
//! come since the beginning of the one before. And what a connection reads that was
//! not read to the end has come since it last was.
//!
//! A thread that sleeps pays a look at one flag in each turn of a connection, and no
//! round is counted.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// A thread that was busy for so long begins to count its rounds.
const PACED_AFTER: Duration = Duration::from_millis(1);
/// It stops after so many rounds, each shorter than half of that.
const QUICK_ROUNDS: u32 = 32;

/// A bound on how long what is read has waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulse {
    /// When the round began, or the thread woke.
    pub began: Instant,
    /// How long before that the oldest of what is read now may have come.
    pub before: Duration,
}

impl Pulse {
    /// How long what is read at `now` has waited, at most.
    #[inline]
    #[must_use]
    pub fn waited(&self, now: Instant) -> Duration {
        self.before + now.saturating_duration_since(self.began)
    }
}

struct Thread {
    /// It has slept, and no connection had its turn since.
    woke: Cell<bool>,
    began: Cell<Option<Instant>>,
    /// How long the round before was.
    before: Cell<Duration>,
    /// The same, or longer if the connection whose turn it is was not read to the end.
    behind: Cell<Duration>,
    is_paced: Cell<bool>,
    /// Of [`pace`], while it waits to be needed.
    pacer: RefCell<Option<Waker>>,
}

thread_local! {
    static THREAD: Thread = const {
        Thread {
            woke: Cell::new(false),
            began: Cell::new(None),
            before: Cell::new(Duration::ZERO),
            behind: Cell::new(Duration::ZERO),
            is_paced: Cell::new(false),
            pacer: RefCell::new(None),
        }
    };
}

/// The thread has slept.
pub(super) fn woke() {
    THREAD.with(|thread| thread.woke.set(true));
}

/// A connection has its turn, at `now`. If it was not read to the end in the one
/// before, `emptied` is when it last was.
#[inline]
pub(super) fn turn(now: Instant, emptied: Option<Instant>) {
    THREAD.with(|thread| {
        if thread.woke.replace(false) {
            thread.began.set(Some(now));
            thread.before.set(Duration::ZERO);
        }
        let before = thread.before.get();
        let Some(began) = thread.began.get() else {
            // Nobody has said that it sleeps: nothing is known.
            thread.behind.set(Duration::ZERO);
            return;
        };
        let since = emptied.map_or(Duration::ZERO, |at| began.saturating_duration_since(at));
        thread.behind.set(before.max(since));
        if !thread.is_paced.get() && now.saturating_duration_since(began) >= PACED_AFTER {
            thread.call_pacer();
        }
    });
}

/// The pulse of this thread, in the turn under way. `None` on threads that are none of
/// a server's.
#[inline]
#[must_use]
pub fn pulse() -> Option<Pulse> {
    THREAD.with(|thread| {
        // Since it has slept, no connection of HTTP/2 had its turn.
        let began = thread.began.get().filter(|_| !thread.woke.get())?;
        Some(Pulse {
            began,
            before: thread.behind.get(),
        })
    })
}

impl Thread {
    #[cold]
    fn call_pacer(&self) {
        if let Some(pacer) = self.pacer.borrow_mut().take() {
            self.is_paced.set(true);
            pacer.wake();
        }
    }

    /// A round is over.
    fn round(&self, now: Instant) -> Duration {
        let began = self.began.replace(Some(now)).unwrap_or(now);
        let took = now.saturating_duration_since(began);
        self.before.set(took);
        took
    }
}

/// Counts rounds while the thread is busy. To be spawned once on each.
pub(super) async fn pace() {
    loop {
        poll_fn(|cx| {
            THREAD.with(|thread| {
                if thread.is_paced.get() {
                    return Poll::Ready(());
                }
                thread.pacer.replace(Some(cx.waker().clone()));
                Poll::Pending
            })
        })
        .await;
        let mut quick = 0;
        while quick < QUICK_ROUNDS {
            // Comes back after the sockets were looked at, and all that was to be
            // served before that has been.
            tokio::task::yield_now().await;
            let now = tokio::time::Instant::now().into_std();
            let took = THREAD.with(|thread| thread.round(now));
            quick = match took < PACED_AFTER / 2 {
                true => quick + 1,
                false => 0,
            };
        }
        THREAD.with(|thread| {
            thread.is_paced.set(false);
            thread.before.set(Duration::ZERO);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waited(now: Instant) -> Option<Duration> {
        pulse().map(|pulse| pulse.waited(now))
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn what_is_read_has_waited_since_the_round_before_or_the_sleep() {
        let ms = Duration::from_millis;
        let start = tokio::time::Instant::now().into_std();
        turn(start, None);
        assert_eq!(waited(start), None, "nobody said that this thread sleeps");
        let pacer = tokio::spawn(pace());
        tokio::task::yield_now().await;

        woke();
        turn(start + ms(3), None);
        assert_eq!(waited(start + ms(3)), Some(ms(0)), "it has just woken");
        // Not read to the end since.
        turn(start + ms(3), Some(start + ms(1)));
        assert_eq!(waited(start + ms(3)), Some(ms(2)));
        turn(start + ms(5), None);
        assert_eq!(waited(start + ms(5)), Some(ms(2)), "busy for two");

        // That was long: from now on, rounds are counted.
        tokio::time::advance(ms(8)).await;
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        turn(start + ms(9), None);
        let first = waited(start + ms(9)).expect("a pulse");
        assert!(first >= ms(1) && first <= ms(6), "{first:?}");

        // Quick rounds end that, and sleep the rest.
        for _ in 0..2 * QUICK_ROUNDS {
            tokio::task::yield_now().await;
        }
        assert!(THREAD.with(|thread| !thread.is_paced.get()));
        woke();
        turn(start + ms(50), None);
        assert_eq!(waited(start + ms(50)), Some(ms(0)));
        pacer.abort();
    }
}
