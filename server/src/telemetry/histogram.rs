//! Histograms of one thread, with the boundaries of gRFC A66.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread adds to, and others read.
///
/// A change is a load and a store, no locked instruction: two threads that added to the same
/// would lose counts, and nothing else.
#[derive(Debug, Default)]
pub(crate) struct Tally(AtomicU64);

impl Tally {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    #[inline]
    pub(crate) fn add(&self, more: u64) {
        self.set(self.get().wrapping_add(more));
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counted elsewhere.
    #[inline]
    pub(crate) fn set(&self, sum: u64) {
        self.0.store(sum, Ordering::Relaxed);
    }

    /// What was counted; it begins again at 0.
    pub(crate) fn take(&self) -> u64 {
        let sum = self.get();
        self.set(0);
        sum
    }
}

/// What is measured: upper bounds of the buckets, and how they are written.
pub(crate) trait Scale {
    /// Upper bounds, inclusive, ascending, in the unit that is recorded.
    const BOUNDS: &'static [u64];
    /// How many of what is recorded make one of what is written.
    const UNIT: u64;
}

/// Durations: recorded in nanoseconds, written in seconds.
#[derive(Debug)]
pub(crate) struct Seconds;

impl Scale for Seconds {
    const BOUNDS: &'static [u64] = &{
        // gRFC A66, "Latency", in microseconds.
        let mut bounds = [
            0,
            10,
            50,
            100,
            300,
            600,
            800,
            1_000,
            2_000,
            3_000,
            4_000,
            5_000,
            6_000,
            8_000,
            10_000,
            13_000,
            16_000,
            20_000,
            25_000,
            30_000,
            40_000,
            50_000,
            65_000,
            80_000,
            100_000,
            130_000,
            160_000,
            200_000,
            250_000,
            300_000,
            400_000,
            500_000,
            650_000,
            800_000,
            1_000_000,
            2_000_000,
            5_000_000,
            10_000_000,
            20_000_000,
            50_000_000,
            100_000_000,
        ];
        let mut at = 0;
        while at < bounds.len() {
            bounds[at] *= 1_000;
            at += 1;
        }
        bounds
    };
    const UNIT: u64 = 1_000_000_000;
}

/// Sizes, in bytes.
#[derive(Debug)]
pub(crate) struct Bytes;

impl Scale for Bytes {
    /// gRFC A66, "Size".
    const BOUNDS: &'static [u64] = &[
        0,
        1 << 10,
        2 << 10,
        4 << 10,
        16 << 10,
        64 << 10,
        256 << 10,
        1 << 20,
        4 << 20,
        16 << 20,
        64 << 20,
        256 << 20,
        1 << 30,
        4 << 30,
    ];
    const UNIT: u64 = 1;
}

/// A histogram of one thread.
#[derive(Debug)]
pub(crate) struct Histogram<S> {
    /// One for each bound, and one above all.
    buckets: Box<[Tally]>,
    sum: Tally,
    scale: std::marker::PhantomData<S>,
}

impl<S: Scale> Default for Histogram<S> {
    fn default() -> Self {
        Self {
            buckets: (0..=S::BOUNDS.len()).map(|_| Tally::default()).collect(),
            sum: Tally::default(),
            scale: std::marker::PhantomData,
        }
    }
}

impl<S: Scale> Histogram<S> {
    #[inline]
    pub(crate) fn record(&self, value: u64) {
        self.record_times(value, 1);
    }

    /// Records a value `times` times. Small values are found first: a call that is answered at
    /// once is in one of the first buckets.
    #[inline]
    pub(crate) fn record_times(&self, value: u64, times: u64) {
        let below = S::BOUNDS.iter().position(|bound| value <= *bound);
        self.buckets[below.unwrap_or(S::BOUNDS.len())].add(times);
        self.sum.add(value.wrapping_mul(times));
    }

    /// Adds to what other threads recorded.
    pub(crate) fn add_to(&self, total: &mut Total) {
        total.buckets.resize(self.buckets.len(), 0);
        for (sum, bucket) in total.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.get();
        }
        total.sum = total.sum.wrapping_add(self.sum.get());
    }
}

/// What all threads recorded together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Total {
    pub(crate) buckets: Vec<u64>,
    pub(crate) sum: u64,
}

impl Total {
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_first_bucket_that_bounds_it() {
        let check = |value: u64, bucket: usize| {
            let histogram = Histogram::<Bytes>::default();
            histogram.record(value);
            histogram.record_times(value, 2);
            let mut total = Total::default();
            histogram.add_to(&mut total);
            histogram.add_to(&mut total);
            assert_eq!(total.buckets[bucket], 6, "{value}");
            assert_eq!((total.count(), total.sum), (6, value * 6), "{value}");
        };
        check(0, 0);
        check(1, 1);
        check(1024, 1);
        check(1025, 2);
        check(4 << 30, 13);
        check((4 << 30) + 1, 14);
    }

    #[test]
    fn the_boundaries_are_those_of_a66() {
        assert_eq!((Seconds::BOUNDS.len(), Bytes::BOUNDS.len()), (41, 14));
        assert_eq!(Seconds::BOUNDS[1], 10_000);
        assert_eq!(Seconds::BOUNDS[40], 100 * Seconds::UNIT);
        assert!(Seconds::BOUNDS.is_sorted() && Bytes::BOUNDS.is_sorted());
    }
}
