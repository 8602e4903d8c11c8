//! A subchannel as calls see it: its connections at one moment, and what is counted of its calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use larder_transport::client::{Connection, Readiness};

use super::outlier::Calls;
use super::pick::{self, Room};
use super::subchannel::Id;

/// One subchannel that calls can go to. Made anew when its connections change; the [`Tally`] stays.
#[derive(Debug)]
pub(crate) struct Lane {
    id: Id,
    address: Arc<str>,
    target: usize,
    /// At least one, none of them without hope when it was made.
    connections: Vec<Connection>,
    /// Whether there may be one more.
    may_grow: bool,
    has_asked: AtomicBool,
    tally: Arc<Tally>,
    counts: Counts,
}

/// What a policy needs counted. What none needs is not, for threads share the cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) in_flight: bool,
    pub(crate) outcomes: bool,
}

/// Counts of one subchannel's calls.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    in_flight: AtomicU32,
    succeeded: AtomicU32,
    failed: AtomicU32,
}

/// An attempt under way.
#[derive(Debug)]
#[must_use]
pub(crate) struct UnderWay(Option<Arc<Tally>>);

impl Lane {
    pub(crate) fn new(
        id: Id,
        address: Arc<str>,
        target: usize,
        connections: Vec<Connection>,
        may_grow: bool,
        tally: Arc<Tally>,
        counts: Counts,
    ) -> Self {
        Self {
            id,
            address,
            target,
            connections,
            may_grow,
            has_asked: AtomicBool::new(false),
            tally,
            counts,
        }
    }

    pub(crate) fn address(&self) -> &Arc<str> {
        &self.address
    }

    /// Which of the channel's targets it belongs to.
    pub(crate) const fn target(&self) -> usize {
        self.target
    }

    /// The connection for one more call: the first that has room, for then the others may fall
    /// idle (gRFC A105); else the one on which the fewest are under way or wait for a stream.
    pub(crate) fn connection(&self) -> &Connection {
        let with = |room: Room| {
            let all = self.connections.iter();
            all.filter(move |it| room_of(it) == room)
        };
        with(Room::Open)
            .next()
            .or_else(|| with(Room::Full).min_by_key(|it| it.in_flight()))
            .unwrap_or(&self.connections[0])
    }

    /// True once, if there may be one more connection.
    pub(crate) fn asks_for_more(&self) -> bool {
        self.may_grow && !self.has_asked.swap(true, Ordering::Relaxed)
    }

    /// Whether a call that finds it full does better to wait for another connection.
    pub(crate) const fn may_grow(&self) -> bool {
        self.may_grow
    }

    pub(crate) fn begin(&self) -> UnderWay {
        UnderWay(self.counts.in_flight.then(|| {
            self.tally.in_flight.fetch_add(1, Ordering::Relaxed);
            Arc::clone(&self.tally)
        }))
    }

    /// Counts the end of an attempt that reached the server.
    pub(crate) fn count(&self, is_success: bool) {
        if self.counts.outcomes {
            let cell = match is_success {
                true => &self.tally.succeeded,
                false => &self.tally.failed,
            };
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl pick::Lane for Arc<Lane> {
    fn id(&self) -> Id {
        self.id
    }

    fn in_flight(&self) -> u32 {
        self.tally.in_flight.load(Ordering::Relaxed)
    }

    fn room(&self) -> Room {
        let mut best = Room::Gone;
        for connection in &self.connections {
            match room_of(connection) {
                Room::Open => return Room::Open,
                Room::Full => best = Room::Full,
                Room::Gone => {}
            }
        }
        best
    }
}

impl Tally {
    /// The calls since it was last asked.
    pub(crate) fn take(&self, id: Id) -> Calls {
        Calls {
            id,
            succeeded: self.succeeded.swap(0, Ordering::Relaxed),
            failed: self.failed.swap(0, Ordering::Relaxed),
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(tally) = &self.0 {
            tally.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn room_of(connection: &Connection) -> Room {
    match connection.readiness() {
        Readiness::Connecting | Readiness::Ready => Room::Open,
        Readiness::Full => Room::Full,
        Readiness::Closing | Readiness::Closed => Room::Gone,
    }
}
