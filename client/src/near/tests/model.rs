//! A near cache before a server that is simulated, beside a source that is late and breaks: whatever
//! a get gives out is compared with the server's whole history.
//!
//! Time is a number that the test counts up. Each get, write and event has its parts — sent, read or
//! applied by the server, answered — at times that the seed decides, and others in between.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::seq::{IndexedMutRandom as _, IndexedRandom as _};
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::watch;

use super::simulated::{Change, Event, KEYS, Server, State};
use crate::near::config::NearConfig;
use crate::near::core::{Boarded, Core, Found, Nanos, Settled, Ticket, nanos};
use crate::types::Entry;

const MAX_STALENESS: Nanos = 1000;
const CLOCK_SKEW: Nanos = 40;
/// How long a write that ended without an answer may take all the same.
const DOUBT: Nanos = 300;
const STEPS: usize = 4000;

struct Sim {
    random: StdRng,
    now: Nanos,
    /// How far this machine's clock is behind the server's.
    behind: Nanos,
    max_miss_staleness: Option<Nanos>,
    /// Of the writes that there could be.
    writes_share: f64,
    core: Arc<Core>,
    server: Server,
    /// By key: a get that begins now must see what was so then, or later.
    floors: [Nanos; 4],
    /// The same for what is kept: writes that were carried out after their end.
    kept_floors: [Nanos; 4],
    flights: Vec<Flying>,
    followers: Vec<Follower>,
    writes: Vec<Write>,
    source: Source,
    hits: [usize; 3],
}

struct Flying {
    ticket: Ticket,
    key: usize,
    read: Option<State>,
}

struct Follower {
    answer: watch::Receiver<Option<Found>>,
    key: usize,
    floor: Nanos,
}

/// One of the client's own.
struct Write {
    keys: Vec<usize>,
    change: Change,
    applied: Option<Nanos>,
    /// When it ended without an answer.
    given_up: Option<Nanos>,
}

struct Source {
    number: u64,
    is_connected: bool,
    /// It may have missed something, and has not said so.
    has_gap: bool,
}

impl Sim {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let misses = [None, Some(300), Some(MAX_STALENESS)];
        let max_miss_staleness = *misses.choose(&mut random).expect("there are three");
        let mut config = NearConfig::new(Duration::from_nanos(MAX_STALENESS), 1 << 20)
            .with_clock_skew(Duration::from_nanos(CLOCK_SKEW));
        if let Some(misses) = max_miss_staleness {
            config = config.with_misses(Duration::from_nanos(misses));
        }
        let core = Arc::new(Core::new(&config, "default".into()));
        let source = Source {
            number: core.new_source(),
            is_connected: false,
            has_gap: true,
        };
        Self {
            behind: random.random_range(0..=CLOCK_SKEW),
            writes_share: *[0.05, 0.3, 1.0]
                .choose(&mut random)
                .expect("there are three"),
            random,
            now: 10_000,
            max_miss_staleness,
            core,
            server: Server::new(),
            floors: [0; 4],
            kept_floors: [0; 4],
            flights: Vec::new(),
            followers: Vec::new(),
            writes: Vec::new(),
            source,
            hits: [0; 3],
        }
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            self.now += match self.random.random_range(0..20) {
                0 => self.random.random_range(1..600),
                _ => self.random.random_range(1..20),
            };
            self.server.expire(self.now);
            match self.random.random_range(0..100) {
                0..30 => self.get(),
                30..50 => self.read(),
                50..70 => self.land(),
                70..72 if self.is_written() => self.begin_write(),
                72..79 => self.advance_write(),
                79..83 if self.is_written() => self.other_writes(),
                83..91 => self.deliver(),
                91..97 => self.heartbeat(),
                97.. => self.break_source(),
                _ => {}
            }
            if self.flights.len() > 12 {
                // Given up: those who wait are let go.
                self.flights.swap_remove(0);
            }
        }
    }

    fn is_written(&mut self) -> bool {
        let share = self.writes_share;
        self.random.random_bool(share)
    }

    fn key(&mut self) -> usize {
        self.random.random_range(0..KEYS.len())
    }

    fn expiry(&mut self) -> Option<Nanos> {
        let ttl = self.random.random_range(1..4000);
        self.random.random_bool(0.3).then_some(self.now + ttl)
    }

    fn wall(&self, time: Nanos) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(1_000_000 + time)
    }

    /// As the client sees a state.
    fn found(&self, key: usize, state: State) -> Found {
        state.map(|(version, expires)| Entry {
            key: Bytes::from_static(KEYS[key]),
            version,
            expire_time: expires.map(|time| self.wall(time)),
            ..Entry::default()
        })
    }

    fn state(found: &Found) -> State {
        let epoch = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_000_000);
        let nanos = |time: SystemTime| nanos(time.duration_since(epoch).unwrap());
        let entry = found.as_ref()?;
        Some((entry.version, entry.expire_time.map(nanos)))
    }

    fn get(&mut self) {
        let (key, now) = (self.key(), self.now);
        if let Some(found) = self.core.look(KEYS[key], now) {
            let state = Self::state(&found);
            let bound = match state {
                Some(_) => MAX_STALENESS,
                None => self.max_miss_staleness.expect("a miss that is kept"),
            };
            let floor = self.floors[key].max(self.kept_floors[key]);
            let floor = floor.max(now - bound);
            assert!(self.server.was(key, state, floor), "a hit is too old");
            if let Some((_, Some(time))) = state {
                assert!(now < time, "a hit is past its TTL");
            }
            let is_old = self.server.history[key].last().unwrap().1 != state;
            self.hits[usize::from(is_old)] += 1;
            return;
        }
        match self.core.board(Bytes::from_static(KEYS[key]), now) {
            Boarded::Leads(ticket) => self.flights.push(Flying {
                ticket,
                key,
                read: None,
            }),
            Boarded::Follows(answer) => self.followers.push(Follower {
                answer,
                key,
                floor: self.floors[key].max(now - MAX_STALENESS),
            }),
        }
    }

    /// The server reads for a get that is under way.
    fn read(&mut self) {
        if let Some(flight) = self.flights.choose_mut(&mut self.random) {
            flight.read = flight.read.or(Some(self.server.state(flight.key)));
        }
    }

    fn land(&mut self) {
        let is_read = |flight: &Flying| flight.read.is_some();
        let Some(at) = self.flights.iter().position(is_read) else {
            return;
        };
        let Flying { ticket, key, read } = self.flights.swap_remove(at);
        let read = read.expect("it was read");
        let found = self.found(key, read);
        let wall = self.wall(self.now) - Duration::from_nanos(self.behind);
        ticket.land(&found, self.now, wall);
        // Those whose flight was given up go too.
        let is_over = |it: &mut Follower| it.answer.has_changed().unwrap_or(true);
        for it in self.followers.extract_if(.., is_over) {
            if let Some(found) = it.answer.borrow().as_ref() {
                let was = self.server.was(it.key, Self::state(found), it.floor);
                assert!(was, "an answer that was shared is too old");
                self.hits[2] += 1;
            }
        }
    }

    fn begin_write(&mut self) {
        let keys = match self.random.random_range(0..8) {
            0 => vec![0, 1],
            1 => vec![2, 3],
            _ => vec![self.key()],
        };
        let changes = [Change::Set, Change::Set, Change::Delete, Change::Touch];
        let change = *changes.choose(&mut self.random).expect("there are some");
        self.writes.push(Write {
            keys,
            change,
            applied: None,
            given_up: None,
        });
    }

    /// A write is applied, answered or given up.
    fn advance_write(&mut self) {
        if self.writes.is_empty() {
            return;
        }
        let at = self.random.random_range(0..self.writes.len());
        let mut write = self.writes.swap_remove(at);
        let action = self.random.random_range(0..4);
        match (write.applied, write.given_up) {
            (None, Some(end)) => {
                if self.now < end + DOUBT {
                    self.apply(&mut write);
                    for &key in &write.keys {
                        self.kept_floors[key] = self.now;
                    }
                }
            }
            (None, None) if action == 0 => {} // It never left: there is nothing to tell.
            (None, None) if action == 1 => {
                self.end(&write, Settled::NotBefore(self.now + DOUBT));
                write.given_up = Some(self.now);
                self.writes.push(write);
            }
            (None, None) => {
                self.apply(&mut write);
                self.writes.push(write);
            }
            (Some(applied), _) => {
                let settled = match action {
                    0 => Settled::NotBefore(self.now + DOUBT),
                    _ => Settled::Yes,
                };
                self.end(&write, settled);
                for &key in &write.keys {
                    self.floors[key] = self.floors[key].max(applied);
                }
            }
        }
    }

    fn apply(&mut self, write: &mut Write) {
        for &key in &write.keys {
            let expires = self.expiry();
            self.server.apply(key, write.change, expires, self.now);
        }
        write.applied = Some(self.now);
    }

    fn end(&self, write: &Write, settled: Settled) {
        match write.keys[..] {
            [key] => self.core.forget(KEYS[key], settled, self.now),
            _ => self.core.forget_prefix(&KEYS[write.keys[0]][..1], settled),
        }
    }

    fn other_writes(&mut self) {
        let (key, expires) = (self.key(), self.expiry());
        let changes = [Change::Set, Change::Set, Change::Delete, Change::Touch];
        let change = *changes.choose(&mut self.random).expect("there are some");
        self.server.apply(key, change, expires, self.now);
    }

    fn deliver(&mut self) {
        if !self.source.is_connected {
            self.server.events.clear();
            return;
        }
        let Some((time, key, event)) = self.server.events.pop_front() else {
            return;
        };
        match event {
            Event::Written(version) => self.core.forget_below(KEYS[key], version),
            Event::Removed(version) => self.core.forget_below(KEYS[key], version + 1),
            Event::Changed => self.core.forget(KEYS[key], Settled::Yes, self.now),
        }
        self.floors[key] = self.floors[key].max(time);
    }

    fn heartbeat(&mut self) {
        if !self.source.is_connected || self.source.has_gap {
            return;
        }
        let first = self.server.events.front();
        let told = first.map_or(self.now, |(time, _, _)| time - 1);
        self.core.in_touch(self.source.number, told, self.now);
    }

    fn break_source(&mut self) {
        match self.random.random_range(0..6) {
            0 => {
                self.source.is_connected = false;
                self.source.has_gap = true;
            }
            1 => {
                // What was there before has its age; of what comes nothing is missed.
                self.source.number = self.core.new_source();
                self.connect();
                self.source.has_gap = false;
            }
            2..4 => self.connect(),
            _ => {
                self.core.lost_track(self.source.number);
                self.source.has_gap = false;
                self.floors = [self.now; 4];
            }
        }
    }

    fn connect(&mut self) {
        if !self.source.is_connected {
            self.server.events.clear();
            self.source.is_connected = true;
        }
    }
}

#[test]
fn no_get_is_staler_than_its_bound_outlives_its_ttl_or_hides_a_write() {
    let mut hits = [0; 3];
    for seed in 0..400 {
        let mut sim = Sim::new(seed);
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sim.run()));
        assert!(ran.is_ok(), "seed {seed}");
        assert!(sim.core.stats().bytes <= 1 << 20);
        for (sum, hits) in hits.iter_mut().zip(sim.hits) {
            *sum += hits;
        }
    }
    // It gives out what is new, what is old within its bounds, and what others asked for.
    assert!(hits.iter().all(|&hits| hits > 1000), "{hits:?}");
}
