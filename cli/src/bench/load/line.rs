//! One connection of a load, with its socket: calls begin as slots become free.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mio::{Registry, Token};
use tokio::time::Instant;

use super::super::mix::Operation;
use super::super::random::Random;
use super::super::stats::{ErrorKind, Stats};
use super::super::wire::{Address, Broken, Calls, Ended, Request, Session, Socket};
use super::pace::Pace;
use super::plan::Plan;
use super::run::{SharedRun, Work};

/// A connection that was lost, or could not be made, is made again after this:
/// failing is quick, and would fill the measurement with nothing else.
const PAUSE_WITHOUT_SERVER: Duration = Duration::from_millis(100);

/// Bytes that wait to be written, above which no call begins.
const MAX_OUT_BYTES: usize = 256 << 10;

/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;

/// How much later than it was due a call may begin without that counting as
/// latency: timers count in milliseconds, and that is not the server's doing.
const TIMER_SLACK: Duration = Duration::from_millis(2);

/// What the connections of a thread share.
pub(super) struct Surroundings<'a> {
    pub(super) plan: &'a Plan,
    pub(super) calls: &'a Arc<Calls>,
    pub(super) address: &'a Address,
    pub(super) registry: &'a Registry,
    pub(super) run: &'a SharedRun,
    /// After this a call is given up.
    pub(super) timeout: Duration,
    /// Room to read into, write keys in and note ends in.
    pub(super) scratch: &'a mut Scratch,
    pub(super) stats: &'a mut Stats,
}

/// Memory that is used again and again.
#[derive(Default)]
pub(super) struct Scratch {
    input: Vec<u8>,
    key: Vec<u8>,
    ended: Vec<Ended>,
}

/// A connection.
pub(super) struct Line {
    token: Token,
    /// Its place among all connections, and their number.
    index: u64,
    all: u64,
    state: State,
    session: Session,
    /// What was read and not used, as it is no whole answer.
    rest: Vec<u8>,
    /// Bytes of the session's output that are written.
    sent: usize,
    /// The socket took less than there is to write.
    is_stuck: bool,
    slots: Vec<Slot>,
    free: Vec<usize>,
    pace: Option<Pace>,
    /// When the next call is due, at a rate.
    due: Option<Instant>,
    trouble: Option<String>,
}

enum State {
    /// There is no connection; another try comes then.
    Away(Instant),
    Connecting(Socket),
    Up(Socket),
}

struct Slot {
    random: Random,
    /// From when the latency counts.
    began: Instant,
    /// When the call was made; `None` if there is none.
    made: Option<Instant>,
}

impl Line {
    /// A connection that is not made yet.
    pub(super) fn new(
        token: Token,
        index: u64,
        all: u64,
        slots: usize,
        calls: &Arc<Calls>,
        now: Instant,
    ) -> Self {
        Self {
            token,
            index,
            all,
            state: State::Away(now),
            session: Session::new(calls, slots, index),
            rest: Vec::new(),
            sent: 0,
            is_stuck: false,
            slots: (0..slots)
                .map(|_| Slot {
                    random: Random::new(0),
                    began: now,
                    made: None,
                })
                .collect(),
            free: (0..slots).rev().collect(),
            pace: None,
            due: None,
            trouble: None,
        }
    }

    /// Prepares for a run: every slot has its own sequence of calls.
    pub(super) fn prepare(&mut self, run: &SharedRun, rate: Option<u64>) {
        for (slot, each) in self.slots.iter_mut().enumerate() {
            let slot = u64::try_from(slot).unwrap_or(u64::MAX);
            each.random = Random::split(run.seed, slot * self.all + self.index);
        }
        self.pace = rate.map(|rate| Pace::new(self.index, self.all, rate));
        self.due = None;
        self.next_due(run);
    }

    fn next_due(&mut self, run: &SharedRun) {
        let due = self.pace.as_mut().map(Pace::next_due);
        self.due = due.and_then(|due| run.start.checked_add(due));
    }

    /// True once calls can be made.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.state, State::Up(_)) && self.session.is_ready()
    }

    /// Why it was last lost.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// True if no call is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// When this connection is next to be looked at, whatever its socket says.
    pub(super) fn wakes(&self) -> Option<Instant> {
        match self.state {
            State::Away(again) => Some(again),
            State::Connecting(_) => None,
            // Without a free slot the next answer is what is waited for, and with
            // a full socket its room.
            State::Up(_) => {
                let can = !self.free.is_empty() && !self.is_stuck && self.session.may_begin();
                self.due.filter(|_| can)
            }
        }
    }

    /// Its socket has something to say, or is to be looked at.
    pub(super) fn turn(&mut self, now: Instant, around: &mut Surroundings<'_>) {
        let result = match &mut self.state {
            State::Away(again) if now < *again => Ok(()),
            State::Away(_) => self.connect(around),
            State::Connecting(_) => self.connected(now, around),
            State::Up(_) => self.work(now, around),
        };
        if let Err(broken) = result {
            self.lose(broken, now, around);
        } else if self.session.is_over() {
            // The server ends the connection in good order: the next one takes
            // its place at once.
            self.reset(now, around.calls);
        }
    }

    fn connect(&mut self, around: &Surroundings<'_>) -> Result<(), Broken> {
        let socket = Socket::connect(around.address, around.registry, self.token)
            .map_err(|error| unreachable_as(&error))?;
        self.state = State::Connecting(socket);
        Ok(())
    }

    fn connected(&mut self, now: Instant, around: &mut Surroundings<'_>) -> Result<(), Broken> {
        let State::Connecting(socket) = &self.state else {
            return Ok(());
        };
        if !socket
            .is_connected()
            .map_err(|error| unreachable_as(&error))?
        {
            return Ok(());
        }
        let State::Connecting(socket) = std::mem::replace(&mut self.state, State::Away(now)) else {
            return Ok(());
        };
        self.state = State::Up(socket);
        self.work(now, around)
    }

    /// Reads all there is, begins the calls that may, and writes them at once.
    fn work(&mut self, now: Instant, around: &mut Surroundings<'_>) -> Result<(), Broken> {
        let read = self.read(around);
        if read.is_ok() {
            self.begin(now, around);
        }
        self.write()?;
        read
    }

    fn read(&mut self, around: &mut Surroundings<'_>) -> Result<(), Broken> {
        let State::Up(socket) = &mut self.state else {
            return Ok(());
        };
        let input = &mut around.scratch.input;
        loop {
            let held = self.rest.len();
            if input.len() < held + READ_BYTES {
                input.resize(held + READ_BYTES, 0);
            }
            input[..held].copy_from_slice(&self.rest);
            let read = match socket.read(&mut input[held..]) {
                Ok(0) => return Err(self.session.closed()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Err(self.session.closed()),
            };
            let room = input.len() - held;
            let there = held + read;
            let used = self
                .session
                .receive(&input[..there], &mut around.scratch.ended);
            // Also before a fault: what came until then has ended.
            let now = Instant::now();
            for Ended { slot, result } in around.scratch.ended.drain(..) {
                let call = &mut self.slots[slot];
                call.made = None;
                self.free.push(slot);
                match result {
                    Ok(outcome) => {
                        let latency = now.saturating_duration_since(call.began);
                        around.stats.succeed(latency, outcome);
                    }
                    Err(kind) => around.stats.fail(kind),
                }
            }
            let used = used?;
            self.rest.clear();
            self.rest.extend_from_slice(&input[used..there]);
            if read < room && socket.is_drained_by_short_reads() {
                return Ok(());
            }
        }
    }

    fn begin(&mut self, now: Instant, around: &mut Surroundings<'_>) {
        if !self.session.is_ready() || around.run.is_over(now) {
            return;
        }
        while self.session.may_begin() && self.session.out().len() < MAX_OUT_BYTES {
            let Some((slot, began)) = self.turn_of(now) else {
                return;
            };
            let Some(number) = around.run.claim() else {
                return;
            };
            if self.pace.is_some() {
                self.next_due(around.run);
            }
            self.free.pop();
            let call = &mut self.slots[slot];
            let (operation, index) = match around.run.work {
                Work::Mix => around.plan.choose(&mut call.random),
                Work::Preload => (Operation::Set, number),
            };
            call.began = began;
            call.made = Some(now);
            let key = &mut around.scratch.key;
            around.plan.write_key(operation, index, key);
            let request = Request {
                operation,
                key,
                index,
            };
            self.session.begin(slot, request);
        }
    }

    /// A free slot, if it is time for a call, and from when its latency counts.
    ///
    /// At a rate that is when it was due, but for what the timer may be late: a
    /// slow server cannot hide behind the calls that it kept from being made.
    fn turn_of(&self, now: Instant) -> Option<(usize, Instant)> {
        let slot = *self.free.last()?;
        if self.pace.is_none() {
            return Some((slot, now));
        }
        let due = self.due.filter(|due| *due <= now)?;
        let forgiven = now.duration_since(due) <= TIMER_SLACK;
        Some((slot, if forgiven { now } else { due }))
    }

    fn write(&mut self) -> Result<(), Broken> {
        let State::Up(socket) = &mut self.state else {
            return Ok(());
        };
        match socket.flush(self.session.out(), &mut self.sent) {
            Ok(whole) => {
                self.is_stuck = !whole;
                Ok(())
            }
            Err(_) => Err(self.session.closed()),
        }
    }

    /// Gives up the calls that take too long.
    pub(super) fn sweep(&mut self, now: Instant, around: &mut Surroundings<'_>) {
        let late = |slot: &Slot| {
            slot.made
                .is_some_and(|made| now.saturating_duration_since(made) > around.timeout)
        };
        let late: Vec<usize> = (0..self.slots.len())
            .filter(|&slot| late(&self.slots[slot]))
            .collect();
        for slot in late {
            if let Err(broken) = self.session.cancel(slot) {
                return self.lose(broken, now, around);
            }
            self.slots[slot].made = None;
            self.free.push(slot);
            around.stats.fail(("DEADLINE_EXCEEDED", None));
        }
    }

    /// The connection is gone: the calls under way have failed. Where it was never
    /// made, each slot makes one that fails, as it would with any client.
    fn lose(&mut self, broken: Broken, now: Instant, around: &mut Surroundings<'_>) {
        let Broken(kind) = broken;
        self.trouble.clone_from(&kind.1);
        let mut failed = self.slots.iter().filter(|slot| slot.made.is_some()).count();
        if !matches!(self.state, State::Up(_)) && !around.run.is_over(now) {
            let claims = (0..self.slots.len()).map_while(|_| around.run.claim());
            failed = claims.count();
        }
        for _ in 0..failed {
            around.stats.fail(kind.clone());
        }
        self.reset(now + PAUSE_WITHOUT_SERVER, around.calls);
    }

    /// Drops the connection; another try comes then.
    pub(super) fn reset(&mut self, again: Instant, calls: &Arc<Calls>) {
        self.state = State::Away(again);
        self.session = Session::new(calls, self.slots.len(), self.index);
        self.rest.clear();
        self.sent = 0;
        self.is_stuck = false;
        self.free.clear();
        self.free.extend((0..self.slots.len()).rev());
        for slot in &mut self.slots {
            slot.made = None;
        }
    }
}

fn unreachable_as(error: &io::Error) -> Broken {
    let kind: ErrorKind = ("UNAVAILABLE", Some(format!("{:?}", error.kind())));
    Broken(kind)
}
