//! The threads that make the calls of a load, and what they have measured.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use crate::failure::Failure;
use crate::output::Format;

use super::super::interrupt::Interrupt;
use super::super::progress::{Progress, TICK};
use super::super::random::Random;
use super::super::stats::{Stats, whole_per_second};
use super::super::watch::Sample;
use super::run::{Budget, SharedRun, Stop, Work};
use super::worker::{Setting, Worker};

/// All connections of a load.
pub(super) struct Crew {
    workers: Vec<Worker>,
    seed: u64,
    /// Runs so far.
    runs: Cell<u64>,
}

/// What a run has measured.
pub(in crate::bench) struct Run {
    pub(in crate::bench) stats: Stats,
    pub(in crate::bench) elapsed: Duration,
    pub(in crate::bench) interrupted: bool,
    /// Time of the processor that this process used.
    pub(in crate::bench) own_cpu: Option<Duration>,
}

impl Crew {
    /// Shares the connections out among `threads` threads, and makes them.
    pub(super) async fn connect(
        setting: &Setting,
        threads: usize,
        seed: u64,
        timeout: Duration,
    ) -> Result<Self, Failure> {
        let mut connecting = JoinSet::new();
        for (first, _) in (0..setting.connections).zip(0..threads) {
            let mut worker = Worker::new(setting, first, threads)
                .map_err(|error| Failure::file("cannot start", &error))?;
            connecting.spawn_blocking(move || worker.connect(timeout).map(|()| worker));
        }
        let mut workers = Vec::new();
        while let Some(connected) = connecting.join_next().await {
            let worker = connected
                .map_err(|error| broken(&error))?
                .map_err(|error| Failure::file("cannot connect", &error))?;
            workers.push(worker);
        }
        Ok(Self {
            workers,
            seed,
            runs: Cell::new(0),
        })
    }

    /// Lets all threads work until the budget is used up. Told to stop, they end
    /// the calls that they have begun; told twice, they drop them.
    pub(super) async fn run(
        &mut self,
        (budget, work): (Budget, Work),
        what: &str,
        interrupt: &mut Interrupt,
        format: Format,
    ) -> Result<Run, Failure> {
        let seed = Random::split(self.seed, self.runs.get()).next();
        self.runs.set(self.runs.get() + 1);
        let own = Sample::take(std::process::id()).ok();
        let run = Arc::new(SharedRun::new(budget, work, seed));
        let mut working = JoinSet::new();
        for mut worker in self.workers.drain(..) {
            let run = Arc::clone(&run);
            working.spawn_blocking(move || {
                let stats = worker.run(&run);
                (worker, stats)
            });
        }
        let progress = Progress::new(budget.total(), format);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stats = Stats::default();
        loop {
            tokio::select! {
                ended = working.join_next() => match ended {
                    None => break,
                    Some(ended) => {
                        // Nothing is measured without one of them.
                        let stop_all = || run.stop(Stop::Drop);
                        let (worker, part) = ended
                            .inspect_err(|_| stop_all())
                            .map_err(|error| broken(&error))?;
                        let part = part
                            .inspect_err(|_| stop_all())
                            .map_err(|error| Failure::file("the load broke", &error))?;
                        stats.add(part);
                        self.workers.push(worker);
                    }
                },
                () = interrupt.wait() => run.stop(match run.stopped() {
                    Stop::GoOn => Stop::Finish,
                    Stop::Finish | Stop::Drop => Stop::Drop,
                }),
                _ = tick.tick(), if !progress.is_hidden() => show(&run, budget, what, &progress),
            }
        }
        let used = |before: &Sample| {
            let after = Sample::take(std::process::id()).ok()?;
            Some(after.cpu_since(before))
        };
        Ok(Run {
            elapsed: run.start.elapsed(),
            stats,
            interrupted: run.stopped() > Stop::GoOn,
            own_cpu: own.as_ref().and_then(used),
        })
    }
}

impl Budget {
    /// How much there is to do: milliseconds, or calls.
    fn total(self) -> Option<u64> {
        match self {
            Self::Time(time) => u64::try_from(time.as_millis()).ok(),
            Self::Requests(requests) => Some(requests),
        }
    }
}

fn show(run: &SharedRun, budget: Budget, what: &str, progress: &Progress) {
    let (requests, failed) = run.counted();
    let elapsed = run.start.elapsed();
    let done = match budget {
        Budget::Time(_) => u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        Budget::Requests(_) => requests,
    };
    let rate = whole_per_second(requests, elapsed);
    progress.show(
        done,
        format!("{what}: {requests} requests, {rate}/s, {failed} failed"),
    );
}

fn broken(error: &JoinError) -> Failure {
    Failure::Failed(format!("a thread of the load broke: {error}"))
}
