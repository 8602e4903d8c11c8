//! What is to happen to a connection.

use std::str::FromStr;
use std::time::Duration;

/// What happens to the bytes of one direction. Counts are of bytes that were passed
/// on before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Each piece is held for so long: `delay=5ms`.
    Delay(Duration),
    /// At most so many bytes a second: `rate=1000`.
    Rate(u32),
    /// One byte at a time: `bytewise`.
    Bytewise,
    /// After so many bytes both ends are reset (RST): `reset=200`.
    Reset(u64),
    /// After so many bytes this direction ends as if its sender had closed it (FIN),
    /// and the other goes on: `close=200`.
    HalfClose(u64),
    /// After so many bytes everything is swallowed, and nobody is told:
    /// `blackhole=200`.
    BlackHole(u64),
    /// The byte after so many is another one: `corrupt=200`.
    Corrupt(u64),
}

/// What happens to one connection; nothing, by default.
///
/// As text: faults of each direction, such as `up:delay=5ms,down:reset=200`; `up`
/// is towards the server. The empty text is a connection without faults.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// From the client to the server.
    pub up: Vec<Fault>,
    /// From the server to the client.
    pub down: Vec<Fault>,
}

/// Which plan the n-th connection gets.
#[derive(Debug, Clone)]
pub enum Schedule {
    /// One after the other, and then none.
    Scripted(Vec<Plan>),
    /// By a seed and the connection's number.
    Random {
        /// The seed.
        seed: u64,
        /// Faults are drawn from these, with the counts and times drawn anew.
        kinds: Vec<Fault>,
    },
}

/// Why a text is no [`Plan`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no fault: up: or down:, and delay=, rate=, bytewise, reset=, close=, blackhole= or corrupt="
)]
pub struct PlanError(String);

/// Random faults that end a connection do so within so many bytes: the preface and
/// settings of HTTP/2, and a dozen calls.
const MAX_RANDOM_BYTES: u64 = 4096;
/// Longest random delay of a piece, milliseconds.
const MAX_RANDOM_DELAY_MS: u64 = 8;
/// Rates of random connections, bytes a second: from this, and up to twice of it.
const RANDOM_RATE: u32 = 20_000;

impl Schedule {
    /// Every fault that a client without TLS can recover from by itself: all but
    /// corruption, which would be taken for the truth.
    pub fn random(seed: u64) -> Self {
        let kinds = vec![
            Fault::Delay(Duration::ZERO),
            Fault::Rate(0),
            Fault::Bytewise,
            Fault::Reset(0),
            Fault::HalfClose(0),
            Fault::BlackHole(0),
        ];
        Self::Random { seed, kinds }
    }

    /// The same, with corruption: for connections under TLS, which notices.
    pub fn random_under_tls(seed: u64) -> Self {
        match Self::random(seed) {
            Self::Random { seed, mut kinds } => {
                kinds.push(Fault::Corrupt(0));
                Self::Random { seed, kinds }
            }
            scripted @ Self::Scripted(_) => scripted,
        }
    }

    /// The plan of the connection of this number, from 0 on.
    pub fn plan(&self, connection: u64) -> Plan {
        match self {
            Self::Scripted(plans) => {
                let number = usize::try_from(connection).unwrap_or(usize::MAX);
                plans.get(number).cloned().unwrap_or_default()
            }
            Self::Random { seed, kinds } => {
                let mut random = Random(seed ^ connection.wrapping_mul(0xd6e8_feb8_6659_fd93));
                let mut plan = Plan::default();
                // One connection in four is left alone.
                for _ in 0..random.below(4) {
                    let Some(fault) = random.fault(kinds) else {
                        break;
                    };
                    match random.below(2) {
                        0 => plan.up.push(fault),
                        _ => plan.down.push(fault),
                    }
                }
                plan
            }
        }
    }
}

impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let mut plan = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let wrong = || PlanError(part.to_owned());
            let (direction, fault) = part.split_once(':').ok_or_else(wrong)?;
            let fault = fault_of(fault).ok_or_else(wrong)?;
            match direction {
                "up" => plan.up.push(fault),
                "down" => plan.down.push(fault),
                _ => return Err(wrong()),
            }
        }
        Ok(plan)
    }
}

fn fault_of(text: &str) -> Option<Fault> {
    if text == "bytewise" {
        return Some(Fault::Bytewise);
    }
    let (name, value) = text.split_once('=')?;
    let bytes = || value.parse().ok();
    Some(match name {
        "delay" => Fault::Delay(Duration::from_millis(
            value.strip_suffix("ms")?.parse().ok()?,
        )),
        "rate" => Fault::Rate(value.parse().ok().filter(|rate| *rate > 0)?),
        "reset" => Fault::Reset(bytes()?),
        "close" => Fault::HalfClose(bytes()?),
        "blackhole" => Fault::BlackHole(bytes()?),
        "corrupt" => Fault::Corrupt(bytes()?),
        _ => return None,
    })
}

/// Numbers that are the same for the same seed (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }

    fn fault(&mut self, kinds: &[Fault]) -> Option<Fault> {
        let number = self.below(kinds.len() as u64);
        let kind = kinds.get(usize::try_from(number).ok()?)?;
        let bytes = self.below(MAX_RANDOM_BYTES);
        Some(match kind {
            Fault::Delay(_) => {
                Fault::Delay(Duration::from_millis(1 + self.below(MAX_RANDOM_DELAY_MS)))
            }
            Fault::Rate(_) => {
                let more = u32::try_from(self.below(u64::from(RANDOM_RATE))).unwrap_or(0);
                Fault::Rate(RANDOM_RATE + more)
            }
            Fault::Bytewise => Fault::Bytewise,
            Fault::Reset(_) => Fault::Reset(bytes),
            Fault::HalfClose(_) => Fault::HalfClose(bytes),
            Fault::BlackHole(_) => Fault::BlackHole(bytes),
            Fault::Corrupt(_) => Fault::Corrupt(bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_read_from_text() {
        let check = |text: &str, expected: Option<(&[Fault], &[Fault])>| {
            let plan = text.parse::<Plan>().ok();
            let plan = plan.as_ref().map(|plan| (&plan.up[..], &plan.down[..]));
            assert_eq!(plan, expected, "{text:?}");
        };
        check("", Some((&[], &[])));
        let delay = Fault::Delay(Duration::from_millis(5));
        check(
            "up:delay=5ms,down:reset=200",
            Some((&[delay], &[Fault::Reset(200)])),
        );
        check(
            "down:bytewise,down:rate=9",
            Some((&[], &[Fault::Bytewise, Fault::Rate(9)])),
        );
        for bad in [
            "reset=1",
            "up:reset",
            "up:reset=x",
            "up:delay=5",
            "side:bytewise",
            "up:rate=0",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_faults_and_another_makes_others() {
        let plans = |seed| {
            let schedule = Schedule::random_under_tls(seed);
            (0..200)
                .map(|number| schedule.plan(number))
                .collect::<Vec<_>>()
        };
        assert_eq!(plans(1), plans(1));
        assert_ne!(plans(1), plans(2));
        let all: Vec<_> = plans(1)
            .into_iter()
            .flat_map(|it| [it.up, it.down].concat())
            .collect();
        let kinds: std::collections::HashSet<_> = all.iter().map(std::mem::discriminant).collect();
        assert_eq!(kinds.len(), 7, "every kind comes up");
        let harmless = plans(1).iter().filter(|it| **it == Plan::default()).count();
        assert!(
            (20..80).contains(&harmless),
            "{harmless} of 200 are left alone"
        );
    }
}
