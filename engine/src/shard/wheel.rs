//! A hierarchical timing wheel (Varghese and Lauck, SOSP 1987), as links
//! between slots.
//!
//! Level `n` has 64 places of 64ⁿ ms. An entry stands on the level of the
//! highest six-bit digit in which its end differs from the wheel's time, in
//! the place of that digit; when the wheel's time reaches the place, its
//! entries move to lower levels one by one, and on level 0 they are due.
//! Every step of that is one entry, so a caller bounds the work by counting
//! steps, and a place that is only half moved is just found again.
//!
//! Levels are made as far as ends reach (264 bytes each; three for four
//! minutes, seven for ten years), so an account without expiry pays nothing.

use super::ring::{ByTimer, Ring};
use super::slab::Slab;

const DIGIT_BITS: u32 = 6;
const PLACES: usize = 1 << DIGIT_BITS;
const DIGIT: u64 = PLACES as u64 - 1;

/// The note of an entry that is not in the wheel.
const UNTIMED: u16 = u16::MAX;

#[derive(Debug)]
struct Level {
    /// One bit for each place that has entries.
    occupied: u64,
    places: [Ring<ByTimer>; PLACES],
}

impl Level {
    const EMPTY: Self = Self {
        occupied: 0,
        places: [const { Ring::EMPTY }; PLACES],
    };
}

/// What one step did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// This entry is due, and in the wheel no more.
    Due(u32),
    /// An entry moved to a lower level.
    Moved,
    /// Nothing is due, and the wheel stands at the time given.
    Idle,
}

/// The wheel of a shard.
#[derive(Debug, Default)]
pub(crate) struct Wheel {
    now_ms: u64,
    levels: Vec<Level>,
}

/// A place of a level.
#[derive(Clone, Copy)]
struct Place {
    level: usize,
    digit: usize,
}

impl Place {
    /// Where an entry that ends at `end_ms` stands while the time is `now_ms`.
    fn of(now_ms: u64, end_ms: u64) -> Self {
        let end_ms = end_ms.max(now_ms);
        let level = (63 - ((now_ms ^ end_ms) | 1).leading_zeros()) / DIGIT_BITS;
        Self {
            level: level as usize,
            digit: digit(end_ms, level),
        }
    }

    /// The first millisecond of the place, for a wheel at `now_ms`.
    fn start_ms(self, now_ms: u64) -> u64 {
        let shift = self.level * DIGIT_BITS as usize;
        let above = now_ms >> shift & !DIGIT;
        (above | self.digit as u64) << shift
    }

    fn note(self) -> u16 {
        u16::try_from(self.level * PLACES + self.digit).expect("11 levels of 64 places")
    }

    fn noted(note: u16) -> Self {
        let note = usize::from(note);
        Self {
            level: note / PLACES,
            digit: note % PLACES,
        }
    }
}

fn digit(time_ms: u64, level: u32) -> usize {
    let digit = time_ms >> (level * DIGIT_BITS) & DIGIT;
    usize::try_from(digit).expect("a digit is below 64")
}

impl Wheel {
    /// Adds an entry. One that ends at the wheel's time or before is due at
    /// the next step.
    pub(crate) fn insert(&mut self, slab: &mut Slab, at: u32, end_ms: u64) {
        let place = Place::of(self.now_ms, end_ms);
        while self.levels.len() <= place.level {
            self.levels.push(Level::EMPTY);
        }
        let level = &mut self.levels[place.level];
        level.places[place.digit].push_front(slab, at);
        level.occupied |= 1 << place.digit;
        slab[at].timer_at = place.note();
    }

    /// Removes an entry, if it is in the wheel.
    pub(crate) fn remove(&mut self, slab: &mut Slab, at: u32) {
        let note = slab[at].timer_at;
        if note == UNTIMED {
            return;
        }
        let Place { level, digit } = Place::noted(note);
        let level = &mut self.levels[level];
        level.places[digit].remove(slab, at);
        if level.places[digit].is_empty() {
            level.occupied &= !(1 << digit);
        }
        slab[at].timer_at = UNTIMED;
    }

    /// Does one step towards `now_ms`. Time never goes back: an earlier
    /// `now_ms` counts as the wheel's own.
    pub(crate) fn step(&mut self, slab: &mut Slab, now_ms: u64) -> Step {
        let now_ms = now_ms.max(self.now_ms);
        let Some(place) = self.first_place() else {
            self.now_ms = now_ms;
            return Step::Idle;
        };
        let start_ms = place.start_ms(self.now_ms);
        if start_ms > now_ms {
            self.now_ms = now_ms;
            return Step::Idle;
        }
        self.now_ms = self.now_ms.max(start_ms);
        let head = self.levels[place.level].places[place.digit].head();
        let at = head.expect("an occupied place has an entry");
        self.remove(slab, at);
        if place.level == 0 {
            return Step::Due(at);
        }
        let end_ms = slab[at].expiry_ms.get();
        self.insert(slab, at, end_ms);
        Step::Moved
    }

    /// No entry is due before this; `u64::MAX` if there is none.
    pub(crate) fn due_from_ms(&self) -> u64 {
        self.first_place()
            .map_or(u64::MAX, |place| place.start_ms(self.now_ms))
    }

    /// The first place with entries. One on an upper level whose time has
    /// come is half moved: it may hold what is due before all else.
    fn first_place(&self) -> Option<Place> {
        let mut first = None;
        for (level, it) in self.levels.iter().enumerate() {
            let current = digit(self.now_ms, u32::try_from(level).ok()?);
            if level > 0 && it.occupied >> current & 1 == 1 {
                return Some(Place {
                    level,
                    digit: current,
                });
            }
            let ahead = it.occupied & u64::MAX << current;
            if first.is_none() && ahead != 0 {
                let digit = ahead.trailing_zeros() as usize;
                first = Some(Place { level, digit });
            }
        }
        first
    }

    /// Checks that every entry stands where it should, and returns how many
    /// there are.
    pub(crate) fn check(&self, slab: &Slab) -> Result<u32, String> {
        let mut entries = 0;
        for (level, it) in self.levels.iter().enumerate() {
            for (digit, ring) in it.places.iter().enumerate() {
                let place = Place { level, digit };
                if (it.occupied >> digit & 1 == 1) == ring.is_empty() {
                    return Err(format!("the bit of place {level}/{digit} is wrong"));
                }
                for at in ring.checked(slab)? {
                    let slot = &slab[at];
                    let end_ms = slot.expiry_ms.get();
                    let start_ms = place.start_ms(self.now_ms);
                    let shift = level * DIGIT_BITS as usize;
                    let is_off = end_ms > self.now_ms && start_ms >> shift != end_ms >> shift;
                    let is_past = start_ms < self.now_ms && level == 0;
                    if slot.timer_at != place.note() || is_off || is_past {
                        return Err(format!(
                            "slot {at} ends at {end_ms}, not in {level}/{digit}"
                        ));
                    }
                    entries += 1;
                }
            }
        }
        Ok(entries)
    }
}
