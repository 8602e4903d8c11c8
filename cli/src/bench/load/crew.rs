//! The streams that make the calls of a load, side by side on one thread.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use larder_client::{Client, Error};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use crate::connect::Caller;
use crate::failure::Failure;
use crate::output::Format;

use super::super::interrupt::Interrupt;
use super::super::progress::{Progress, TICK};
use super::super::random::Random;
use super::super::stats::{Stats, whole_per_second};
use super::LoadArgs;
use super::pace::Pace;
use super::plan::{Plan, call};

/// A stream that could not reach the server waits this long: failing is quick,
/// and would fill the measurement with nothing else.
const PAUSE_WITHOUT_SERVER: Duration = Duration::from_millis(100);

/// When a run is over.
#[derive(Debug, Clone, Copy)]
pub(super) enum Budget {
    /// After this time.
    Time(Duration),
    /// After so many calls.
    Requests(u64),
}

/// All streams of a load.
pub(super) struct Crew {
    plan: Rc<Plan>,
    clients: Vec<Client>,
    streams_per_connection: u64,
    rate: Option<u64>,
    /// Runs so far: each makes other calls than the one before.
    runs: Cell<u64>,
}

/// What a run has measured.
pub(in crate::bench) struct Run {
    pub(in crate::bench) stats: Stats,
    pub(in crate::bench) elapsed: Duration,
    pub(in crate::bench) interrupted: bool,
}

/// What the streams of a run share.
struct Shared {
    plan: Rc<Plan>,
    start: Instant,
    deadline: Option<Instant>,
    requests: u64,
    begun: Cell<u64>,
    stats: RefCell<Stats>,
    stop: watch::Sender<bool>,
}

/// One stream: one call at a time.
struct Stream {
    shared: Rc<Shared>,
    client: Client,
    random: Random,
    pace: Option<Pace>,
    stopped: watch::Receiver<bool>,
}

impl Crew {
    pub(super) fn new(plan: Rc<Plan>, callers: &[Caller], args: &LoadArgs) -> Self {
        Self {
            plan,
            clients: callers.iter().map(|caller| caller.client.clone()).collect(),
            streams_per_connection: args.streams,
            rate: args.rate.map(Into::into),
            runs: Cell::new(0),
        }
    }

    /// Lets all streams work until the budget is used up. Told to stop, they
    /// end the calls that they have begun; told twice, they drop them.
    pub(super) async fn run(
        &self,
        budget: Budget,
        what: &str,
        interrupt: &mut Interrupt,
        format: Format,
    ) -> Result<Run, Failure> {
        let shared = Rc::new(self.share(budget));
        let mut streams = self.start(&shared);
        let progress = Progress::new(budget.total(), format);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut interrupted = false;
        loop {
            tokio::select! {
                ended = streams.join_next() => match ended {
                    None => break,
                    Some(Err(error)) if error.is_panic() => {
                        return Err(Failure::Failed(format!("a stream of the load broke: {error}")));
                    }
                    Some(_) => {}
                },
                () = interrupt.wait() => {
                    if interrupted {
                        streams.abort_all();
                    }
                    interrupted = true;
                    shared.stop.send_replace(true);
                }
                _ = tick.tick(), if !progress.is_hidden() => shared.show(budget, what, &progress),
            }
        }
        Ok(Run {
            elapsed: shared.start.elapsed(),
            stats: shared.stats.take(),
            interrupted,
        })
    }

    fn share(&self, budget: Budget) -> Shared {
        let start = Instant::now();
        let (deadline, requests) = match budget {
            Budget::Time(time) => (start.checked_add(time), u64::MAX),
            Budget::Requests(requests) => (None, requests),
        };
        Shared {
            plan: Rc::clone(&self.plan),
            start,
            deadline,
            requests,
            begun: Cell::new(0),
            stats: RefCell::default(),
            stop: watch::Sender::new(false),
        }
    }

    fn start(&self, shared: &Rc<Shared>) -> JoinSet<()> {
        let seed = Random::split(self.plan.seed, self.runs.get()).next();
        self.runs.set(self.runs.get() + 1);
        let connections = u64::try_from(self.clients.len()).unwrap_or(u64::MAX);
        let all = connections.saturating_mul(self.streams_per_connection);
        let mut streams = JoinSet::new();
        let mut index = 0;
        for _ in 0..self.streams_per_connection {
            for client in &self.clients {
                let stream = Stream {
                    shared: Rc::clone(shared),
                    client: client.clone(),
                    random: Random::split(seed, index),
                    pace: self.rate.map(|rate| Pace::new(index, all, rate)),
                    stopped: shared.stop.subscribe(),
                };
                streams.spawn_local(stream.work());
                index += 1;
            }
        }
        streams
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

impl Shared {
    fn show(&self, budget: Budget, what: &str, progress: &Progress) {
        let (requests, failed) = {
            let stats = self.stats.borrow();
            (stats.requests(), stats.failed())
        };
        let elapsed = self.start.elapsed();
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

    /// Claims one of the calls that there are to make.
    fn claim(&self) -> bool {
        let is_left = self.begun.get() < self.requests;
        self.begun.set(self.begun.get() + u64::from(is_left));
        is_left
    }
}

impl Stream {
    async fn work(mut self) {
        while let Some(began) = self.turn().await {
            let (operation, key) = self.shared.plan.choose(&mut self.random);
            let value = self.shared.plan.value.clone();
            let outcome = call(self.client.clone(), operation, key, value).await;
            let latency = began.elapsed();
            match outcome {
                Ok(outcome) => self.shared.stats.borrow_mut().succeed(latency, outcome),
                Err(error) => self.fail(&error).await,
            }
        }
    }

    async fn fail(&mut self, error: &Error) {
        self.shared.stats.borrow_mut().fail(error);
        if error.is_connect() {
            tokio::select! {
                () = sleep(PAUSE_WITHOUT_SERVER) => {}
                _ = self.stopped.wait_for(|stop| *stop) => {}
            }
        }
    }

    /// Waits until it is time for the next call; from when its latency counts.
    /// `None` if there is none to make.
    ///
    /// A call that is due while the one before it is still under way counts
    /// from when it was due: a slow server cannot hide behind the calls that it
    /// kept from being made. One that the stream waited for counts from when
    /// the timer, which is not the server's, let it go.
    async fn turn(&mut self) -> Option<Instant> {
        let mut began = Instant::now();
        if let Some(pace) = &mut self.pace {
            let due = self.shared.start.checked_add(pace.next_due())?;
            if due > began {
                tokio::select! {
                    () = sleep_until(due) => {}
                    () = passed(self.shared.deadline) => {}
                    _ = self.stopped.wait_for(|stop| *stop) => {}
                }
                began = Instant::now();
            } else {
                began = due;
            }
        }
        let over = self
            .shared
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline);
        let stopped = *self.stopped.borrow();
        (!over && !stopped && self.shared.claim()).then_some(began)
    }
}

async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}
