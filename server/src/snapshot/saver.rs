//! The thread that saves: at an interval, and once more when the last call has
//! ended.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use larder_engine::{Engine, Mark};
use larder_model::Time;
use tokio::sync::oneshot;

use super::directory::Directory;
use super::save::{SaveError, Saved, Source, save};
use super::{Snapshots, Stats};
use crate::clock::{self, Clock};

/// A handle on the thread, which ends with it.
pub(crate) struct Saver {
    orders: mpsc::Sender<Order>,
    /// Ends a snapshot that is being written.
    cancelled: Arc<AtomicBool>,
}

enum Order {
    /// The interval is another one; `None`: only at the end.
    Interval(Option<Duration>),
    /// The last snapshot.
    Last(oneshot::Sender<Option<Saved>>),
}

/// What the thread has.
struct Work {
    directory: Directory,
    engine: Arc<Engine>,
    clock: Arc<Clock>,
    cancelled: Arc<AtomicBool>,
    stats: Arc<Stats>,
    interval: Option<Duration>,
    /// What is in the newest snapshot, if this thread wrote it.
    written: Option<Written>,
}

/// What was saved last, to know whether it still is what there is.
#[derive(Debug, Clone, Copy)]
struct Written {
    number: u64,
    /// Of the store, from before the snapshot was begun.
    mark: Mark,
    /// Of the wall clock at the store's origin: a snapshot has its times.
    origin_unix_ms: i64,
}

/// A wall clock that has moved by more makes the times of a snapshot wrong.
const CLOCK_STEP_MS: u64 = 1_000;

impl Saver {
    /// Starts the thread.
    ///
    /// # Errors
    /// The machine gives none.
    pub(crate) fn start(
        snapshots: Snapshots,
        engine: Arc<Engine>,
        clock: Arc<Clock>,
        stats: Arc<Stats>,
    ) -> io::Result<Self> {
        let (orders, received) = mpsc::channel();
        let cancelled = Arc::new(AtomicBool::new(false));
        stats.set_interval(snapshots.config.interval);
        let work = Work {
            directory: snapshots.directory,
            engine,
            clock,
            cancelled: Arc::clone(&cancelled),
            stats,
            interval: snapshots.config.interval,
            written: None,
        };
        std::thread::Builder::new()
            .name("snapshot".to_owned())
            .spawn(move || work.run(&received))?;
        Ok(Self { orders, cancelled })
    }

    /// Saves at this interval from now on; `None`: only at the end.
    pub(crate) fn set_interval(&self, interval: Option<Duration>) {
        // A thread that panicked saves no more, which its last line said.
        let _ = self.orders.send(Order::Interval(interval));
    }

    /// Saves what is there now, and no more after that. `None`: it could not.
    pub(crate) async fn last(self) -> Option<Saved> {
        let (done, answer) = oneshot::channel();
        self.cancelled.store(true, Ordering::Relaxed);
        self.orders.send(Order::Last(done)).ok()?;
        answer.await.ok().flatten()
    }
}

impl Work {
    fn run(mut self, orders: &mpsc::Receiver<Order>) {
        let mut due = self.due();
        loop {
            let order = match due {
                Some(due) => orders.recv_timeout(due.saturating_duration_since(clock::instant())),
                None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match order {
                Ok(Order::Interval(interval)) => {
                    self.interval = interval;
                    self.stats.set_interval(interval);
                    due = self.due();
                }
                Ok(Order::Last(done)) => {
                    self.cancelled.store(false, Ordering::Relaxed);
                    // Whoever waited may have gone.
                    let _ = done.send(self.last());
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {
                    if self.is_current() {
                        self.stats.skipped();
                    } else {
                        self.save();
                    }
                    due = self.due();
                }
                // The server ends without a drain.
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        self.interval.map(|interval| clock::instant() + interval)
    }

    /// Whether the newest snapshot has what one would have that were written now,
    /// but for entries that expired.
    fn is_current(&self) -> bool {
        let Some(written) = self.written else {
            return false;
        };
        let now = self.written_now(written.number);
        let is_same = now.mark == written.mark
            && now.origin_unix_ms.abs_diff(written.origin_unix_ms) <= CLOCK_STEP_MS
            && self.directory.has(written.number);
        if is_same {
            tracing::debug!(
                number = written.number,
                "nothing has changed since the last snapshot: none is written"
            );
        }
        is_same
    }

    fn written_now(&self, number: u64) -> Written {
        Written {
            number,
            mark: self.engine.mark(),
            origin_unix_ms: self.clock.unix_millis_of(Time::ZERO),
        }
    }

    fn last(&mut self) -> Option<Saved> {
        let saved = self.save()?;
        if let Err(error) = self.directory.mark_ended() {
            tracing::error!(%error, "the last snapshot cannot be marked as such");
            return None;
        }
        Some(saved)
    }

    fn save(&mut self) -> Option<Saved> {
        let begun = clock::instant();
        let source = Source {
            engine: &self.engine,
            clock: &self.clock,
        };
        // What changes while it is written may not be in it.
        let before = self.written_now(0);
        let saved = save(source, &self.directory, &self.cancelled);
        let took = clock::instant().saturating_duration_since(begun);
        match saved {
            Ok(saved) => {
                self.stats.saved(&saved, took);
                self.written = Some(Written {
                    number: saved.number,
                    ..before
                });
                let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                tracing::info!(
                    number = saved.number,
                    entries = saved.entries,
                    requests = saved.requests,
                    bytes = saved.bytes,
                    took_ms,
                    "wrote a snapshot"
                );
                Some(saved)
            }
            Err(SaveError::Cancelled) => None,
            Err(SaveError::Io(error)) => {
                self.stats.failed();
                tracing::error!(
                    folder = %self.directory.path().display(),
                    %error,
                    "A SNAPSHOT COULD NOT BE WRITTEN; the one before stays"
                );
                None
            }
        }
    }
}
