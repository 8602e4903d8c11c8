//! A server for the model test, of which nothing is forgotten.

use std::collections::VecDeque;

use crate::near::core::Nanos;

pub(super) const KEYS: [&[u8]; 4] = [b"a1", b"a2", b"b1", b"b2"];

/// What the server has under a key: version and expiry.
pub(super) type State = Option<(u64, Option<Nanos>)>;

/// By key, what has been so since when.
pub(super) struct Server {
    pub(super) history: [Vec<(Nanos, State)>; 4],
    versions: u64,
    /// What a source that is connected will be told.
    pub(super) events: VecDeque<(Nanos, usize, Event)>,
}

#[derive(Clone, Copy)]
pub(super) enum Event {
    Written(u64),
    Removed(u64),
    Changed,
}

#[derive(Clone, Copy)]
pub(super) enum Change {
    Set,
    Delete,
    Touch,
}

impl Server {
    pub(super) fn new() -> Self {
        Self {
            history: [(); 4].map(|()| vec![(0, None)]),
            versions: 0,
            events: VecDeque::new(),
        }
    }

    pub(super) fn state(&self, key: usize) -> State {
        self.history[key].last().expect("it begins with one").1
    }

    fn put(&mut self, key: usize, now: Nanos, state: State) {
        self.history[key].push((now, state));
    }

    pub(super) fn expire(&mut self, now: Nanos) {
        for key in 0..KEYS.len() {
            if let Some((_, Some(time))) = self.state(key)
                && time <= now
            {
                self.put(key, time, None);
            }
        }
    }

    pub(super) fn apply(&mut self, key: usize, change: Change, expires: Option<Nanos>, now: Nanos) {
        let before = self.state(key);
        let event = match (change, before) {
            (Change::Set, _) => {
                self.versions += 1;
                self.put(key, now, Some((self.versions, expires)));
                Event::Written(self.versions)
            }
            (_, None) => return,
            (Change::Delete, Some((version, _))) => {
                self.put(key, now, None);
                Event::Removed(version)
            }
            (Change::Touch, Some((version, _))) => {
                self.put(key, now, Some((version, expires)));
                Event::Changed
            }
        };
        self.events.push_back((now, key, event));
    }

    /// Whether this was so at some time after `floor`.
    pub(super) fn was(&self, key: usize, state: State, floor: Nanos) -> bool {
        let history = &self.history[key];
        let ends = history.iter().skip(1).map(|(since, _)| *since);
        let mut spans = history.iter().zip(ends.chain([Nanos::MAX]));
        spans.any(|((_, was), end)| *was == state && end > floor)
    }
}
