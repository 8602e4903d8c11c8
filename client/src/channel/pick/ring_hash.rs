//! Ring hash, gRFC A42: the lane whose place on a ring follows the key's, and, if that is asked for,
//! none far above its share ("Consistent Hashing with Bounded Loads", Mirrokni, Thorup and
//! Zadimoghaddam 2016).

use std::sync::Arc;

use twox_hash::XxHash64;

use super::{Lane, Pick, Room};
use crate::channel::subchannel::Id;

/// The places of subchannels. Made anew only when their addresses change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ring {
    /// By hash: the hash, and the index of the subchannel.
    entries: Vec<(u64, usize)>,
    /// By the index of the subchannel.
    names: Vec<Arc<str>>,
}

/// A ring and what is to be known of its subchannels at one moment.
#[derive(Debug)]
pub(crate) struct RingHash<L> {
    ring: Arc<Ring>,
    /// By the ring's index. At least one.
    seats: Vec<Seat<L>>,
    /// Percent of the mean load that a lane may have; 0 for no bound.
    balance_percent: u32,
}

/// One subchannel of a ring.
#[derive(Debug)]
pub(crate) enum Seat<L> {
    Idle(Id),
    Connecting,
    Ready(L),
    /// In backoff, unhealthy or ejected.
    Failing(Arc<str>),
}

impl Ring {
    /// The ring of these names (addresses), all of the same weight: as gRPC's other
    /// implementations make it, so that a key has the same place in all of them.
    pub(crate) fn new(names: &[String], min_size: u32, max_size: u32) -> Self {
        let mut sorted: Vec<(usize, &String)> = names.iter().enumerate().collect();
        sorted.sort_by_key(|(_, name)| *name);
        let count = u32::try_from(sorted.len().max(1)).unwrap_or(u32::MAX);
        // As many for each that there are `min_size` in all, but no more than `max_size`: then
        // some have one more than others.
        let scale = f64::from(min_size.div_ceil(count).saturating_mul(count).min(max_size));
        let each = scale / f64::from(count);
        let mut entries = Vec::new();
        let (mut current, mut target) = (0.0, 0.0);
        for (index, name) in sorted {
            target += each;
            let mut place = 0;
            while current < target {
                let hash = XxHash64::oneshot(0, format!("{name}_{place}").as_bytes());
                entries.push((hash, index));
                place += 1;
                current += 1.0;
            }
        }
        entries.sort_unstable();
        let names = names.iter().map(|name| name.as_str().into()).collect();
        Self { entries, names }
    }

    /// Its servers, by name, each once: two subchannels of one name have the same places, which
    /// are the first one's.
    pub(crate) fn servers(&self) -> Vec<Arc<str>> {
        let mut names = self.names.clone();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The server that a key belongs to, as long as it can be reached.
    pub(crate) fn home(&self, key: &[u8]) -> Option<&Arc<str>> {
        let index = self.from(Self::hash(key)).next()?;
        self.names.get(index)
    }

    /// The hash that a key is looked up by.
    pub(crate) fn hash(key: &[u8]) -> u64 {
        XxHash64::oneshot(0, key)
    }

    /// Indices as they follow a hash, once around, with repeats.
    fn from(&self, hash: u64) -> impl Iterator<Item = usize> {
        let start = self.entries.partition_point(|(at, _)| *at < hash);
        let (before, after) = self.entries.split_at(start);
        after.iter().chain(before).map(|(_, index)| *index)
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> &[(u64, usize)] {
        &self.entries
    }
}

impl<L: Lane> RingHash<L> {
    /// `seats` has one for each name of the ring, in their order.
    pub(crate) fn new(ring: Arc<Ring>, seats: Vec<Seat<L>>, balance_percent: u32) -> Self {
        Self {
            ring,
            seats,
            balance_percent,
        }
    }

    pub(crate) const fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// Whether a key is only ever at the first server that can be reached: without a bound on
    /// how much one of them may have to do.
    pub(crate) const fn keeps_places(&self) -> bool {
        self.balance_percent == 0
    }

    /// One server, whatever the key: no other will do.
    pub(super) fn server(&self, name: &str) -> Pick<'_, L> {
        let index = self.ring.names.iter().position(|known| **known == *name);
        match index.and_then(|index| self.seats.get(index)) {
            Some(Seat::Ready(lane)) => match lane.room() {
                Room::Open => Pick::To(lane),
                Room::Full => Pick::Full(lane),
                Room::Gone => Pick::Wait { connect: None },
            },
            Some(Seat::Idle(id)) => Pick::Wait { connect: Some(*id) },
            Some(Seat::Connecting) => Pick::Wait { connect: None },
            Some(Seat::Failing(why)) => Pick::Fail(why),
            None => Pick::Unknown,
        }
    }

    /// The first that is not failing decides: one that is connecting is waited for, because the
    /// key belongs to it.
    pub(super) fn pick(&self, hash: u64) -> Pick<'_, L> {
        let most = self.most_in_flight();
        // Where the bound leaves none: the first that has room at all.
        let mut above = None;
        let mut full = None;
        let mut why = None;
        for index in self.ring.from(hash) {
            match &self.seats[index] {
                Seat::Ready(lane) => match lane.room() {
                    Room::Open if lane.in_flight() < most => return Pick::To(lane),
                    Room::Open => above = above.or(Some(lane)),
                    // Without a bound the key's place is one, whoever else has room.
                    Room::Full if self.balance_percent == 0 => return Pick::Full(lane),
                    Room::Full => full = full.or(Some(lane)),
                    Room::Gone => return Pick::Wait { connect: None },
                },
                // With a bound, what is reached already may have the call.
                _ if above.is_some() || full.is_some() => {}
                Seat::Idle(id) => return Pick::Wait { connect: Some(*id) },
                Seat::Connecting => return Pick::Wait { connect: None },
                Seat::Failing(failure) => why = why.or(Some(failure)),
            }
        }
        match (above, full, why) {
            (Some(lane), _, _) => Pick::To(lane),
            (None, Some(lane), _) => Pick::Full(lane),
            (None, None, Some(why)) => Pick::Fail(why),
            (None, None, None) => Pick::Wait { connect: None },
        }
    }

    /// Calls that a lane may have before one more: its share of those of all and this one, and
    /// the percentage of that, rounded up.
    fn most_in_flight(&self) -> u32 {
        if self.balance_percent == 0 {
            return u32::MAX;
        }
        let ready = self.seats.iter().filter_map(|seat| match seat {
            Seat::Ready(lane) => Some(u64::from(lane.in_flight())),
            _ => None,
        });
        let (count, sum) = ready.fold((0u64, 0u64), |(count, sum), load| (count + 1, sum + load));
        let share = (sum + 1) * u64::from(self.balance_percent);
        u32::try_from(share.div_ceil(100 * count.max(1))).unwrap_or(u32::MAX)
    }
}
