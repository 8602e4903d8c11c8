//! Which connection a call goes to: what a policy comes to at one moment. A picker does not change
//! (but for the turn of round robin), takes no lock and allocates nothing; a change makes another.

mod least_request;
mod ring_hash;
mod round_robin;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::subchannel::Id;
pub(crate) use least_request::LeastRequest;
pub(crate) use ring_hash::{Ring, RingHash, Seat};
pub(crate) use round_robin::RoundRobin;

/// A subchannel that calls can go to.
pub(crate) trait Lane {
    fn id(&self) -> Id;
    /// Calls under way.
    fn in_flight(&self) -> u32;
    fn room(&self) -> Room;
}

/// Whether a lane takes a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Open,
    /// Not now: the server allows no more streams at a time.
    Full,
    /// No more; the policy is about to hear of it.
    Gone,
}

/// Where a call is to go.
#[derive(Debug)]
pub(crate) enum Pick<'a, L> {
    To(&'a L),
    /// Wait for the next picker. `connect`: this subchannel has to be connected to first.
    Wait {
        connect: Option<Id>,
    },
    /// Every lane that would do is full: wait for room in this one, or for another connection to
    /// it.
    Full(&'a L),
    /// The call fails, unless it waits for a server to be ready.
    Fail(&'a Arc<str>),
    /// The server that the call is for is none of the channel's any more.
    Unknown,
}

/// Which server a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To<'a> {
    /// As the policy says.
    Any,
    /// The one that the key with this hash belongs to, where keys belong to servers.
    Key(u64),
    /// This one of a ring, by its address, and no other.
    Server(&'a str),
}

/// What a policy comes to at one moment.
#[derive(Debug)]
pub(crate) enum Picker<L> {
    /// Nothing is connected because nobody asked: a call has to.
    Idle,
    Connecting,
    Failing(Arc<str>),
    One(L),
    RoundRobin(RoundRobin<L>),
    LeastRequest(LeastRequest<L>),
    RingHash(RingHash<L>),
}

impl<L: Lane> Picker<L> {
    /// `draw` is any number, of which every bit is random.
    pub(crate) fn pick(&self, draw: u64, to: To<'_>) -> Pick<'_, L> {
        match self {
            Self::Idle | Self::Connecting => Pick::Wait { connect: None },
            Self::Failing(why) => Pick::Fail(why),
            Self::One(lane) => one(lane),
            Self::RoundRobin(lanes) => lanes.pick(),
            Self::LeastRequest(lanes) => lanes.pick(draw),
            Self::RingHash(ring) => match to {
                To::Any => ring.pick(draw),
                To::Key(hash) => ring.pick(hash),
                To::Server(name) => ring.server(name),
            },
        }
    }
}

fn one<L: Lane>(lane: &L) -> Pick<'_, L> {
    match lane.room() {
        Room::Open => Pick::To(lane),
        Room::Full => Pick::Full(lane),
        Room::Gone => Pick::Wait { connect: None },
    }
}

/// The first of `lanes` that takes a call, beginning at `start`.
fn first_open<L: Lane>(lanes: &[L], start: usize) -> Pick<'_, L> {
    let mut full = None;
    for lane in lanes[start..].iter().chain(&lanes[..start]) {
        match lane.room() {
            Room::Open => return Pick::To(lane),
            Room::Full => full = full.or(Some(lane)),
            Room::Gone => {}
        }
    }
    full.map_or(Pick::Wait { connect: None }, Pick::Full)
}

/// A number below `count`, which is at least 1, of the high bits of `draw` ("Fast Random Integer
/// Generation in an Interval", Lemire 2019, without its correction: the bias is below 2^-32).
fn below(draw: u64, count: usize) -> usize {
    let product = u128::from(draw) * (count as u128);
    usize::try_from(product >> 64).expect("it is less than count")
}

/// The next of a series of draws (SplitMix64, Steele, Lea and Flood 2014).
const fn next_draw(draw: u64) -> u64 {
    let mut z = draw.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
