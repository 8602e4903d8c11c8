//! A thread of a load: some of its connections, and one place to wait for all of
//! them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Poll, Token};
use tokio::time::Instant;

use super::super::stats::Stats;
use super::super::wire::{Address, Calls};
use super::line::{Line, Scratch, Surroundings};
use super::plan::Plan;
use super::run::{Budget, SharedRun, Stop, Work};

/// How often calls that take too long are looked for, and whether the run was
/// told to stop.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// Events that are taken at once.
const EVENTS: usize = 1_024;

/// What all threads of a load have the same.
#[derive(Clone)]
pub(super) struct Setting {
    pub(super) plan: Arc<Plan>,
    pub(super) calls: Arc<Calls>,
    pub(super) address: Address,
    /// Calls in flight on each connection.
    pub(super) slots: usize,
    /// Connections, over all threads.
    pub(super) connections: u64,
    /// Calls a second, over all connections; `None` makes as many as are
    /// answered.
    pub(super) rate: Option<u64>,
    /// After this a call is given up.
    pub(super) timeout: Duration,
}

/// A thread's connections.
pub(super) struct Worker {
    setting: Setting,
    poll: Poll,
    events: Events,
    lines: Vec<Line>,
    scratch: Scratch,
}

impl Worker {
    /// The connections `first`, `first + step` and so on; none is made yet.
    pub(super) fn new(setting: &Setting, first: u64, step: usize) -> io::Result<Self> {
        let now = Instant::now();
        let lines = (first..setting.connections)
            .step_by(step)
            .enumerate()
            .map(|(place, index)| {
                let (all, slots) = (setting.connections, setting.slots);
                Line::new(Token(place), index, all, slots, &setting.calls, now)
            })
            .collect();
        Ok(Self {
            setting: setting.clone(),
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            lines,
            scratch: Scratch::default(),
        })
    }

    /// Makes all connections, within `timeout`.
    ///
    /// # Errors
    /// What went wrong with the first that could not be made.
    pub(super) fn connect(&mut self, timeout: Duration) -> io::Result<()> {
        let run = SharedRun::new(Budget::Time(timeout), Work::Mix, 0);
        // No call is to be made: what is counted are failures to connect.
        run.stop(Stop::Finish);
        let mut stats = Stats::default();
        let end = run.start + timeout;
        let mut now = run.start;
        self.turn_all(now, &run, &mut stats);
        while !self.lines.iter().all(Line::is_ready) {
            let wake = self.wake(now).min(end);
            self.wait(wake, now, &run, &mut stats)?;
            now = Instant::now();
            self.turn_due(now, &run, &mut stats);
            if now >= end {
                let why = self.lines.iter().find_map(Line::trouble);
                let why = why.unwrap_or("the server did not answer in time");
                return Err(io::Error::other(why.to_owned()));
            }
        }
        Ok(())
    }

    /// Makes calls until the run is over and all of them have ended.
    pub(super) fn run(&mut self, run: &SharedRun) -> io::Result<Stats> {
        let mut stats = Stats::default();
        let mut shown = (0, 0);
        for line in &mut self.lines {
            line.prepare(run, self.setting.rate);
        }
        let mut now = Instant::now();
        let mut sweep = now + SWEEP_INTERVAL;
        self.turn_all(now, run, &mut stats);
        loop {
            if run.stopped() == Stop::Drop {
                for line in &mut self.lines {
                    line.reset(now, &self.setting.calls);
                }
            }
            let over = run.is_over(now);
            if over && self.lines.iter().all(Line::is_idle) {
                return Ok(stats);
            }
            // Once it is over, only answers are waited for.
            let wake = match over {
                true => sweep,
                false => self.wake(now).min(run.deadline.unwrap_or(sweep)).min(sweep),
            };
            self.wait(wake, now, run, &mut stats)?;
            now = Instant::now();
            self.turn_due(now, run, &mut stats);
            if now >= sweep {
                sweep = now + SWEEP_INTERVAL;
                self.sweep(now, run, &mut stats);
                let counted = (stats.requests(), stats.failed());
                run.count(counted.0 - shown.0, counted.1 - shown.1);
                shown = counted;
            }
        }
    }

    /// Waits for sockets, at most until `wake`, and lets them have their turn.
    fn wait(
        &mut self,
        wake: Instant,
        now: Instant,
        run: &SharedRun,
        stats: &mut Stats,
    ) -> io::Result<()> {
        let timeout = wake.saturating_duration_since(now);
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        if self.events.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        let mut around = surroundings(&self.setting, &self.poll, &mut self.scratch, run, stats);
        for event in &self.events {
            if let Some(line) = self.lines.get_mut(event.token().0) {
                line.turn(now, &mut around);
            }
        }
        Ok(())
    }

    fn turn_all(&mut self, now: Instant, run: &SharedRun, stats: &mut Stats) {
        let mut around = surroundings(&self.setting, &self.poll, &mut self.scratch, run, stats);
        for line in &mut self.lines {
            line.turn(now, &mut around);
        }
    }

    /// Those whose time has come, as far as they wait for a time.
    fn turn_due(&mut self, now: Instant, run: &SharedRun, stats: &mut Stats) {
        let mut around = surroundings(&self.setting, &self.poll, &mut self.scratch, run, stats);
        for line in &mut self.lines {
            if line.wakes().is_some_and(|wakes| wakes <= now) {
                line.turn(now, &mut around);
            }
        }
    }

    fn sweep(&mut self, now: Instant, run: &SharedRun, stats: &mut Stats) {
        let mut around = surroundings(&self.setting, &self.poll, &mut self.scratch, run, stats);
        for line in &mut self.lines {
            line.sweep(now, &mut around);
            // Slots that have become free may be used.
            line.turn(now, &mut around);
        }
    }

    /// When a connection is next to be looked at.
    fn wake(&self, now: Instant) -> Instant {
        let wakes = self.lines.iter().filter_map(Line::wakes);
        wakes.min().unwrap_or(now + SWEEP_INTERVAL)
    }
}

fn surroundings<'a>(
    setting: &'a Setting,
    poll: &'a Poll,
    scratch: &'a mut Scratch,
    run: &'a SharedRun,
    stats: &'a mut Stats,
) -> Surroundings<'a> {
    Surroundings {
        plan: &setting.plan,
        calls: &setting.calls,
        address: &setting.address,
        registry: poll.registry(),
        run,
        timeout: setting.timeout,
        scratch,
        stats,
    }
}
