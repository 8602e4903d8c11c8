//! Which key a call of a load is about.

use super::random::Random;

/// Exponents of [`Zipf`] above this leave nothing but the first keys.
pub(super) const MAX_EXPONENT: f64 = 10.0;

/// How often each of `keys` keys is chosen.
#[derive(Debug, Clone)]
pub(super) enum KeyChoice {
    /// All alike.
    Uniform { keys: u64 },
    /// Few often, many seldom.
    Zipf(Zipf),
}

/// Zipf's distribution: the key of rank k, counted from 1, is chosen in
/// proportion to k⁻ˢ. By rejection-inversion (Hörmann and Derflinger,
/// "Rejection-inversion to generate variates from monotone discrete
/// distributions", ACM TOMACS 6(3), 1996): no tables, and constant time for
/// any number of keys.
#[derive(Debug, Clone)]
pub(super) struct Zipf {
    keys: u64,
    exponent: f64,
    /// The integral of the hat from 1 to 3/2, less the weight of rank 1.
    first: f64,
    /// The integral of the hat up to the last rank and a half.
    last: f64,
    /// A rank this near to the point that was drawn needs no second look.
    squeeze: f64,
}

impl KeyChoice {
    /// Uniform without an exponent.
    pub(super) fn new(keys: u64, exponent: Option<f64>) -> Self {
        match exponent {
            None => Self::Uniform { keys },
            Some(exponent) => Self::Zipf(Zipf::new(keys, exponent)),
        }
    }

    /// A key, counted from 0. Under [`Zipf`] the smallest are the hottest.
    pub(super) fn choose(&self, random: &mut Random) -> u64 {
        match self {
            Self::Uniform { keys } => random.below(*keys),
            Self::Zipf(zipf) => zipf.choose(random),
        }
    }
}

impl Zipf {
    fn new(keys: u64, exponent: f64) -> Self {
        let hat = |x: f64| (-exponent * x.ln()).exp();
        Self {
            keys,
            exponent,
            first: integral(1.5, exponent) - 1.0,
            last: integral(keys as f64 + 0.5, exponent),
            squeeze: 2.0 - inverse(integral(2.5, exponent) - hat(2.0), exponent),
        }
    }

    fn choose(&self, random: &mut Random) -> u64 {
        loop {
            let drawn = self.last + random.unit() * (self.first - self.last);
            let x = inverse(drawn, self.exponent);
            let rank = x.round().clamp(1.0, self.keys as f64);
            let weight = (-self.exponent * rank.ln()).exp();
            if rank - x <= self.squeeze || drawn >= integral(rank + 0.5, self.exponent) - weight {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "clamped to ranks just now"
                )]
                return (rank as u64 - 1).min(self.keys - 1);
            }
        }
    }
}

/// The integral of x⁻ˢ from 1 to `x`, also where s is 1.
fn integral(x: f64, exponent: f64) -> f64 {
    let log = x.ln();
    let scaled = (1.0 - exponent) * log;
    if scaled.abs() < 1e-8 {
        log * (1.0 + scaled / 2.0)
    } else {
        scaled.exp_m1() / (1.0 - exponent)
    }
}

/// The `x` at which [`integral`] is `value`.
fn inverse(value: f64, exponent: f64) -> f64 {
    // Below -1 the logarithm has no value; rounding may lead there.
    let scaled = (value * (1.0 - exponent)).max(-1.0);
    let log = if scaled.abs() < 1e-8 {
        value * (1.0 - scaled / 2.0)
    } else {
        scaled.ln_1p() / (1.0 - exponent)
    };
    log.exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: u32 = 200_000;

    fn count(choice: &KeyChoice, keys: usize) -> Vec<u32> {
        let mut random = Random::new(5);
        let mut counts = vec![0; keys];
        for _ in 0..DRAWS {
            counts[usize::try_from(choice.choose(&mut random)).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn zipf_follows_its_law() {
        for exponent in [0.2, 0.8, 0.99, 1.0, 1.2, 2.0] {
            let keys = 100;
            let counts = count(&KeyChoice::new(100, Some(exponent)), keys);
            let weight = |rank: usize| (rank as f64).powf(-exponent);
            let total: f64 = (1..=keys).map(weight).sum();
            for rank in [1, 2, 3, 10, 50, 100] {
                let expected = f64::from(DRAWS) * weight(rank) / total;
                let actual = f64::from(counts[rank - 1]);
                // Five standard deviations.
                let slack = 5.0 * expected.sqrt() + 1.0;
                assert!(
                    (actual - expected).abs() < slack,
                    "exponent {exponent}, rank {rank}: {actual}, not {expected}"
                );
            }
        }
    }

    #[test]
    fn zipf_at_the_edges() {
        for (keys, exponent) in [
            (1, 0.99),
            (1, 1.0),
            (2, MAX_EXPONENT),
            (u64::MAX, 0.01),
            (1 << 40, 3.0),
        ] {
            let choice = KeyChoice::new(keys, Some(exponent));
            let mut random = Random::new(1);
            for _ in 0..1_000 {
                assert!(choice.choose(&mut random) < keys, "{keys} {exponent}");
            }
        }
    }

    #[test]
    fn uniform_is_level() {
        let counts = count(&KeyChoice::new(100, None), 100);
        assert!(
            counts.iter().all(|&count| (1_750..2_250).contains(&count)),
            "{counts:?}"
        );
    }

    #[test]
    fn the_same_seed_chooses_the_same_keys() {
        for exponent in [None, Some(0.99)] {
            let choice = KeyChoice::new(1_000, exponent);
            let take = |seed| {
                let mut random = Random::split(seed, 0);
                (0..50)
                    .map(|_| choice.choose(&mut random))
                    .collect::<Vec<_>>()
            };
            assert_eq!(take(1), take(1));
            assert_ne!(take(1), take(2));
        }
    }
}
