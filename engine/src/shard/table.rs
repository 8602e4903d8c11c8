//! A table of slot numbers by hash, made of cache lines: a look-up that is found touches one line
//! of the table, where a table with its tags apart from its entries touches two.
//!
//! A line holds twelve entries, each a byte of its hash and a slot number, and counts the entries
//! that it had no place for and that went on to the next line: a look-up goes on for as long as
//! that count is not zero, so there are no tombstones. (F14, Bronson and Shi, 2019, has the same
//! count.)
//!
//! An entry that went on does not come back when its first line gets room, so a table ages as its
//! entries turn over, until in the end as many go on as would come back. Filled to seven tenths, one
//! entry in fifty is in another line than its first when the table is new, and one in ten when it is
//! old; a look-up that finds nothing then comes to two lines. Filled to eight tenths it would come to
//! ten.
//!
//! Lines are allocated a segment at a time, when the first entry comes to it: making a large table
//! writes nothing, so that no lock waits for megabytes to be cleared.

use prefetch_index::prefetch_index;
use smallvec::SmallVec;

/// Entries of a line.
const PLACES: usize = 12;

/// How full a table of more than one line may be, as a fraction; see the module's text.
const FILL: (usize, usize) = (7, 10);

/// Lines of a segment; 64 KiB.
const SEGMENT_LINES: usize = 1024;

/// Bytes 0 to 11 are the entries' tags, byte 12 is the count of those that went on; one that has
/// reached its end stays there.
type Tags = [u8; 16];

/// Where [`Tags`] has the count.
const PASSED: usize = PLACES;

/// What a free place has for a tag.
const FREE: u8 = 0;

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line {
    tags: Tags,
    slots: [u32; PLACES],
}

const _: () = assert!(size_of::<Line>() == 64, "a line is a cache line");

/// See the module's text. The caller keeps [`len`](Self::len) below or at
/// [`capacity`](Self::capacity).
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Empty where no entry came to. A small table has one, which is found without one step more.
    segments: SmallVec<[Box<[Line]>; 1]>,
    lines: usize,
    len: usize,
}

/// Places of a line whose tag is the one that was asked for, and now and then one more above it.
struct Matches([u64; 2]);

impl Line {
    const EMPTY: Self = Self {
        tags: [FREE; 16],
        slots: [0; PLACES],
    };

    /// Eight tags at a time: "Determine if a word has a byte equal to n", Anderson's Bit Twiddling
    /// Hacks. A borrow can show a place above one that is right, never below.
    fn places(&self, tag: u8) -> Matches {
        const ONES: u64 = 0x0101_0101_0101_0101;
        let [a, b, c, d, e, f, g, h, rest @ ..] = self.tags;
        let halves = [[a, b, c, d, e, f, g, h], rest].map(|half| {
            let differ = u64::from_le_bytes(half) ^ (ONES * u64::from(tag));
            differ.wrapping_sub(ONES) & !differ & (ONES << 7)
        });
        // The second half has four tags.
        Matches([halves[0], halves[1] & 0x8080_8080])
    }

    fn free_place(&self) -> Option<usize> {
        self.places(FREE).next()
    }

    fn place_of(&self, tag: u8, slot: u32) -> Option<usize> {
        self.places(tag)
            .find(|&place| self.slots[place] == slot && self.tags[place] == tag)
    }
}

impl Iterator for Matches {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        for (half, base) in self.0.iter_mut().zip([0, 8]) {
            if *half != 0 {
                let place = base + half.trailing_zeros() as usize / 8;
                *half &= *half - 1;
                return Some(place);
            }
        }
        None
    }
}

impl Table {
    /// A table with room for `entries`, of which it allocates nothing but a list of segments.
    pub(super) fn with_capacity(entries: usize) -> Self {
        let lines = match entries {
            0 => 0,
            1..=PLACES => 1,
            _ => (entries * FILL.1).div_ceil(PLACES * FILL.0),
        };
        let segments = lines.div_ceil(SEGMENT_LINES);
        Self {
            segments: (0..segments).map(|_| Box::default()).collect(),
            lines,
            len: 0,
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) const fn capacity(&self) -> usize {
        match self.lines {
            0 => 0,
            1 => PLACES,
            lines => lines * PLACES * FILL.0 / FILL.1,
        }
    }

    /// The slot with this hash for which `is_it` holds.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let tag = tag(hash);
        let mut at = self.first(hash);
        for _ in 0..self.lines {
            let line = self.line(at)?;
            for place in line.places(tag) {
                let slot = line.slots[place];
                // A place that only looks alike may be free.
                if line.tags[place] == tag && is_it(slot) {
                    return Some(slot);
                }
            }
            if line.tags[PASSED] == 0 {
                return None;
            }
            at = self.after(at);
        }
        None
    }

    /// Adds a slot; there must be room.
    pub(super) fn insert(&mut self, hash: u64, slot: u32) {
        debug_assert!(self.len < self.capacity(), "the caller makes room");
        let mut at = self.first(hash);
        loop {
            let line = self.line_mut(at);
            if let Some(place) = line.free_place() {
                line.tags[place] = tag(hash);
                line.slots[place] = slot;
                self.len += 1;
                return;
            }
            line.tags[PASSED] = line.tags[PASSED].saturating_add(1);
            at = self.after(at);
        }
    }

    /// Takes a slot out; false if it is not there.
    pub(super) fn remove(&mut self, hash: u64, slot: u32) -> bool {
        let tag = tag(hash);
        let first = self.first(hash);
        let mut at = first;
        for _ in 0..self.lines {
            let Some(line) = self.line(at) else {
                return false;
            };
            if let Some(place) = line.place_of(tag, slot) {
                self.line_mut(at).tags[place] = FREE;
                self.len -= 1;
                self.unpass(first, at);
                return true;
            }
            if line.tags[PASSED] == 0 {
                return false;
            }
            at = self.after(at);
        }
        false
    }

    /// Has the processor fetch the line that a look-up begins with.
    pub(super) fn prefetch(&self, hash: u64) {
        let at = self.first(hash);
        if let Some(segment) = self.segments.get(at / SEGMENT_LINES) {
            prefetch_index(segment, at % SEGMENT_LINES);
        }
    }

    /// The slot that a look-up will most likely look at first.
    pub(super) fn likely(&self, hash: u64) -> Option<u32> {
        let line = self.line(self.first(hash))?;
        let place = line.places(tag(hash)).next()?;
        Some(line.slots[place])
    }

    /// An entry that had gone on from `first` to `last` is no more.
    fn unpass(&mut self, first: usize, last: usize) {
        let mut at = first;
        while at != last {
            let passed = &mut self.line_mut(at).tags[PASSED];
            if *passed < u8::MAX {
                *passed -= 1;
            }
            at = self.after(at);
        }
    }

    /// The line that an entry is put in if it has a place ("Fast Random Integer Generation in an
    /// Interval", Lemire 2019: any number of lines, not only powers of two).
    #[inline]
    fn first(&self, hash: u64) -> usize {
        let low = hash & u64::from(u32::MAX);
        usize::try_from((low * self.lines as u64) >> 32).expect("it is below the number of lines")
    }

    #[inline]
    const fn after(&self, at: usize) -> usize {
        if at + 1 == self.lines { 0 } else { at + 1 }
    }

    #[inline]
    fn line(&self, at: usize) -> Option<&Line> {
        self.segments
            .get(at / SEGMENT_LINES)?
            .get(at % SEGMENT_LINES)
    }

    fn line_mut(&mut self, at: usize) -> &mut Line {
        let number = at / SEGMENT_LINES;
        let lines = (self.lines - number * SEGMENT_LINES).min(SEGMENT_LINES);
        let segment = &mut self.segments[number];
        if segment.is_empty() {
            *segment = vec![Line::EMPTY; lines].into_boxed_slice();
        }
        &mut segment[at % SEGMENT_LINES]
    }
}

/// Of a hash, a byte that neither the line nor the shard is chosen by.
#[inline]
fn tag(hash: u64) -> u8 {
    hash.to_le_bytes()[7].max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use larder_model::suite::Random;

    use super::*;

    /// Hashes that crowd a few lines and tags, or none.
    fn hash(number: u64, spread: u64) -> u64 {
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        let mixed = mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ number;
        match spread {
            0 => 0,
            1 => mixed & 0x0300_0000_0000_000f,
            _ => mixed,
        }
    }

    /// Does at random what a map does, and compares.
    fn check(capacity: usize, spread: u64, seed: u64) {
        let mut random = Random::new(seed);
        let mut table = Table::with_capacity(capacity);
        assert!(table.capacity() >= capacity);
        let mut model: BTreeMap<u32, u64> = BTreeMap::new();
        let steps = 20 * capacity.clamp(100, 1_000) as u64;
        for step in 0..steps {
            let slot = u32::try_from(random.below(2 * capacity as u64 + 1)).unwrap();
            let hash = hash(u64::from(slot), spread);
            let is_known = model.contains_key(&slot);
            assert_eq!(table.find(hash, |it| it == slot).is_some(), is_known);
            // Fuller and emptier, in turns.
            let grows = random.below(4)
                < if (step / (steps / 8)).is_multiple_of(2) {
                    3
                } else {
                    1
                };
            if grows && !is_known && table.len() < table.capacity() {
                table.insert(hash, slot);
                model.insert(slot, hash);
            } else if !grows {
                assert_eq!(table.remove(hash, slot), is_known);
                model.remove(&slot);
            }
            assert_eq!(table.len(), model.len());
        }
        let mut likely = 0;
        for (slot, hash) in &model {
            assert_eq!(table.find(*hash, |it| it == *slot), Some(*slot));
            table.prefetch(*hash);
            likely += usize::from(table.likely(*hash) == Some(*slot));
        }
        assert!(
            spread < 2 || likely * 4 >= model.len() * 3,
            "{likely} of {}",
            model.len()
        );
        for (slot, hash) in &model {
            assert!(table.remove(*hash, *slot));
        }
        assert!(table.is_empty());
        // Nothing is left that would make a look-up go on, unless a count had reached its end.
        let lines = table.segments.iter().flat_map(|lines| lines.iter());
        for line in lines {
            assert_eq!(line.tags[..PASSED], [FREE; PASSED]);
            assert!(line.tags[PASSED] == 0 || spread < 2);
        }
    }

    #[test]
    fn it_holds_what_a_map_holds() {
        for (number, capacity) in [1, 5, 12, 13, 100, 1_000, 30_000].into_iter().enumerate() {
            for spread in 0..3 {
                // Where hashes crowd, each look-up looks at many.
                if spread > 1 || capacity <= 1_000 {
                    check(capacity, spread, number as u64 + 10 * spread);
                }
            }
        }
    }

    /// Lines that a look-up for each of `hashes` comes to, on the average in hundredths.
    fn lines_of(table: &Table, hashes: impl Iterator<Item = u64>) -> usize {
        let (mut lines, mut count) = (0, 0);
        for hash in hashes {
            count += 1;
            let mut at = table.first(hash);
            loop {
                lines += 1;
                match table.line(at) {
                    Some(line) if line.tags[PASSED] > 0 => at = table.after(at),
                    _ => break,
                }
            }
        }
        100 * lines / count
    }

    #[test]
    fn one_that_turned_over_many_times_is_still_looked_up_in_a_few_lines() {
        let mut table = Table::with_capacity(20_000);
        let full = u32::try_from(table.capacity()).unwrap();
        for slot in 0..full {
            table.insert(hash(u64::from(slot), 2), slot);
        }
        let absent = |from: u64| (from..from + 10_000).map(|number| hash(number, 2));
        assert!(lines_of(&table, absent(1 << 40)) < 130);
        // The oldest goes, another comes, as in an account that evicts.
        for slot in full..20 * full {
            assert!(table.remove(hash(u64::from(slot - full), 2), slot - full));
            table.insert(hash(u64::from(slot), 2), slot);
        }
        let lines = lines_of(&table, absent(1 << 41));
        assert!(lines < 300, "{lines} hundredths of a line");
    }

    #[test]
    fn one_without_room_holds_nothing() {
        let mut table = Table::default();
        assert_eq!((table.capacity(), table.len()), (0, 0));
        assert_eq!(table.find(7, |_| true), None);
        assert_eq!(table.likely(7), None);
        assert!(!table.remove(7, 7));
        table.prefetch(7);
    }

    #[test]
    fn a_large_one_is_cleared_a_segment_at_a_time() {
        let mut table = Table::with_capacity(1_000_000);
        let cleared = |table: &Table| table.segments.iter().filter(|it| !it.is_empty()).count();
        assert_eq!(cleared(&table), 0);
        table.insert(hash(1, 2), 1);
        assert_eq!(cleared(&table), 1);
        assert_eq!(table.find(hash(2, 2), |_| true), None);
        assert_eq!(cleared(&table), 1);
    }
}
