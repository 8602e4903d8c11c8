//! Which calls a load makes, and how often each.

use std::fmt;
use std::str::FromStr;

use super::random::Random;

/// Largest weight of a call: sums stay far from overflow.
const MAX_WEIGHT: u32 = 1_000_000;

/// A call that a load makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Get,
    Set,
    Del,
    /// On counters of their own: other values are no numbers.
    Incr,
}

/// Calls with their weights, such as `get:90,set:10`; no call twice, and at
/// least one with a weight above zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mix(Vec<(Operation, u32)>);

impl Operation {
    const ALL: [Self; Self::COUNT] = [Self::Get, Self::Set, Self::Del, Self::Incr];

    /// How many kinds of calls there are.
    pub(super) const COUNT: usize = 4;

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Set => "set",
            Self::Del => "del",
            Self::Incr => "incr",
        }
    }
}

impl Mix {
    /// The calls that it has.
    pub(super) fn operations(&self) -> impl Iterator<Item = Operation> {
        let weighty = self.0.iter().filter(|&&(_, weight)| weight > 0);
        weighty.map(|&(operation, _)| operation)
    }

    /// The next call.
    pub(super) fn choose(&self, random: &mut Random) -> Operation {
        let total = self.0.iter().map(|&(_, weight)| u64::from(weight)).sum();
        let mut at = random.below(total);
        for &(operation, weight) in &self.0 {
            match at.checked_sub(weight.into()) {
                None => return operation,
                Some(rest) => at = rest,
            }
        }
        Operation::Get
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut weights: Vec<(Operation, u32)> = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part
                .trim()
                .split_once(':')
                .ok_or_else(|| format!("`{part}` is no call and weight, such as get:90"))?;
            let operation = Operation::ALL
                .into_iter()
                .find(|operation| operation.name() == name)
                .ok_or_else(|| format!("`{name}` is none of get, set, del and incr"))?;
            let weight = weight
                .parse()
                .ok()
                .filter(|&weight| weight <= MAX_WEIGHT)
                .ok_or_else(|| format!("`{weight}` is no weight; write 0 to {MAX_WEIGHT}"))?;
            if weights.iter().any(|&(other, _)| other == operation) {
                return Err(format!("{name} stands there twice"));
            }
            weights.push((operation, weight));
        }
        if weights.iter().all(|&(_, weight)| weight == 0) {
            return Err("all weights are zero".into());
        }
        Ok(Self(weights))
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (operation, weight)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}:{weight}", operation.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        for (text, shown) in [
            ("get:90,set:10", Some("get:90,set:10")),
            ("set:1", Some("set:1")),
            ("get:0, incr:5", Some("get:0,incr:5")),
            (
                "get:50,set:30,del:15,incr:5",
                Some("get:50,set:30,del:15,incr:5"),
            ),
            ("", None),
            ("get", None),
            ("get:", None),
            ("get:-1", None),
            ("get:1000001", None),
            ("get:0,set:0", None),
            ("get:1,get:1", None),
            ("put:1", None),
            ("get:1,", None),
        ] {
            let parsed: Result<Mix, _> = text.parse();
            assert_eq!(
                parsed.ok().map(|mix| mix.to_string()).as_deref(),
                shown,
                "{text}"
            );
        }
    }

    #[test]
    fn calls_come_as_often_as_they_weigh() {
        let mix: Mix = "get:90,set:9,del:0,incr:1".parse().unwrap();
        let mut random = Random::new(42);
        let mut counts = [0u32; 4];
        for _ in 0..100_000 {
            counts[mix.choose(&mut random) as usize] += 1;
        }
        assert!((89_500..90_500).contains(&counts[0]), "{counts:?}");
        assert!((8_700..9_300).contains(&counts[1]), "{counts:?}");
        assert_eq!(counts[2], 0);
        assert!((900..1_100).contains(&counts[3]), "{counts:?}");
    }
}
