//! Pseudo-random numbers: the same for the same seed, on every machine.

/// SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number
/// Generators", OOPSLA 2014). Good enough to choose keys, a few nanoseconds a
/// number; of no use where somebody might want to guess.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

/// The odd number nearest to 2⁶⁴ divided by the golden ratio.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another sequence for each `index`, none of them shifted into another.
    pub(super) fn split(seed: u64, index: u64) -> Self {
        Self(mix(seed ^ mix(index.wrapping_add(GAMMA))))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        mix(self.0)
    }

    /// A number below `bound`, or 0 if that is 0. Multiplies and shifts
    /// (Lemire, "Fast Random Integer Generation in an Interval", 2019) without
    /// the rejection: off by less than `bound` in 2⁶⁴.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.next()) * u128::from(bound);
        u64::try_from(product >> 64).expect("64 of 128 bits are left")
    }

    /// A number in `0.0..1.0`, of 53 bits.
    pub(super) fn unit(&mut self) -> f64 {
        let bits = self.next() >> 11;
        bits as f64 / (1u64 << 53) as f64
    }

    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count.next_multiple_of(8));
        while bytes.len() < count {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_numbers() {
        // The reference implementation's, for the seed 1234567.
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
        assert_eq!(random.next(), 9_817_491_932_198_370_423);
    }

    #[test]
    fn the_same_seed_gives_the_same_sequence_and_another_seed_another() {
        let take = |mut random: Random| (0..8).map(|_| random.next()).collect::<Vec<_>>();
        assert_eq!(take(Random::split(7, 3)), take(Random::split(7, 3)));
        assert_ne!(take(Random::split(7, 3)), take(Random::split(7, 4)));
        assert_ne!(take(Random::split(7, 3)), take(Random::split(8, 3)));
        assert_eq!(Random::new(1).bytes(11), Random::new(1).bytes(11));
        assert_eq!(Random::new(1).bytes(11).len(), 11);
    }

    #[test]
    fn numbers_stay_in_bounds() {
        let mut random = Random::new(0);
        let mut seen = [0u32; 10];
        for _ in 0..10_000 {
            seen[usize::try_from(random.below(10)).unwrap()] += 1;
            assert!((0.0..1.0).contains(&random.unit()));
        }
        assert!(
            seen.iter().all(|&count| (800..1200).contains(&count)),
            "{seen:?}"
        );
        assert_eq!(random.below(0), 0);
        assert_eq!(random.below(1), 0);
    }
}
