//! Which contract a load calls, and what is the same for all of its calls.

use std::time::Duration;

use bytes::Bytes;
use clap::ValueEnum;

use super::super::mix::Operation;

/// Microseconds by which deadlines of calls differ, as they do where a caller
/// has spent some of its time before.
const DEADLINE_SPREAD_US: u64 = 1_000;

/// Largest number of a `grpc-timeout`: eight digits.
const MAX_TIMEOUT_DIGITS: u128 = 99_999_999;

/// A contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(in crate::bench) enum Api {
    /// larder.cache.v1.CacheService: all calls
    #[default]
    V1,
    /// rpc.Cache: get and set, which is Store there
    Rpc,
    /// Redis' protocol: all calls
    Redis,
}

impl Api {
    /// The path of a call in gRPC; `None` if the contract has no such call.
    pub(in crate::bench) const fn path(self, operation: Operation) -> Option<&'static str> {
        Some(match (self, operation) {
            (Self::V1, Operation::Get) => "/larder.cache.v1.CacheService/Get",
            (Self::V1, Operation::Set) => "/larder.cache.v1.CacheService/Set",
            (Self::V1, Operation::Del) => "/larder.cache.v1.CacheService/Delete",
            (Self::V1, Operation::Incr) => "/larder.cache.v1.CacheService/Increment",
            (Self::Rpc, Operation::Get) => "/rpc.Cache/Get",
            (Self::Rpc, Operation::Set) => "/rpc.Cache/Store",
            (Self::Rpc, Operation::Del | Operation::Incr) | (Self::Redis, _) => return None,
        })
    }

    /// True if the contract has such a call.
    pub(in crate::bench) const fn has(self, operation: Operation) -> bool {
        matches!(self, Self::Redis) || self.path(operation).is_some()
    }
}

/// Who calls.
#[derive(Clone)]
pub(in crate::bench) enum Tokens {
    /// Nobody in particular.
    None,
    /// The same token with every call.
    One(String),
    /// The token at the key's number, modulo their count; never empty. As a
    /// proxy of many callers does, it is sent with every call as it is.
    Many(Vec<String>),
}

/// What is the same for all calls of a load.
pub(in crate::bench) struct Calls {
    pub(in crate::bench) api: Api,
    /// `https` or `http`.
    pub(in crate::bench) scheme: Scheme,
    pub(in crate::bench) authority: String,
    pub(in crate::bench) namespace: String,
    pub(in crate::bench) tokens: Tokens,
    /// What is told with each call; `None` tells nothing.
    pub(in crate::bench) deadline: Option<Duration>,
    /// What every write stores, and every read has to find: as many bytes.
    pub(in crate::bench) value: Bytes,
}

/// Of `:scheme`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bench) enum Scheme {
    Http,
    Https,
}

impl Calls {
    /// The token of a call about the key of that number, if there are many.
    pub(super) fn token_of(&self, index: u64) -> Option<&str> {
        match &self.tokens {
            Tokens::Many(tokens) => {
                let count = u64::try_from(tokens.len()).unwrap_or(u64::MAX).max(1);
                let at = usize::try_from(index % count).unwrap_or_default();
                tokens.get(at).map(String::as_str)
            }
            Tokens::None | Tokens::One(_) => None,
        }
    }

    /// The value of `grpc-timeout` for a call, a little less than the deadline:
    /// `random` decides how much.
    pub(super) fn timeout(&self, random: u64, out: &mut Vec<u8>) {
        let Some(deadline) = self.deadline else {
            return;
        };
        let spent = Duration::from_micros(random % DEADLINE_SPREAD_US);
        let left = deadline.saturating_sub(spent).max(Duration::from_millis(1));
        let units = [
            (left.as_micros(), b'u'),
            (left.as_millis(), b'm'),
            (u128::from(left.as_secs()), b'S'),
        ];
        let (number, unit) = units
            .into_iter()
            .find(|&(number, _)| number <= MAX_TIMEOUT_DIGITS)
            .unwrap_or((MAX_TIMEOUT_DIGITS, b'S'));
        write_decimal(u64::try_from(number).unwrap_or(u64::MAX), out);
        out.push(unit);
    }
}

/// Writes a number in decimal.
pub(in crate::bench) fn write_decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10).to_le_bytes()[0];
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Calls without anything special.
    pub(in crate::bench::wire) fn calls(api: Api) -> Calls {
        Calls {
            api,
            scheme: Scheme::Http,
            authority: "localhost".into(),
            namespace: "bench".into(),
            tokens: Tokens::One("secret".into()),
            deadline: Some(Duration::from_secs(5)),
            value: vec![7; 100].into(),
        }
    }

    #[test]
    fn timeouts_have_eight_digits_at_the_most() {
        for (deadline, spent, shown) in [
            (Duration::from_secs(5), 124, "4999876u"),
            (Duration::from_secs(99), 0, "99000000u"),
            (Duration::from_secs(1_000), 1, "999999m"),
            (Duration::from_secs(1_000_000), 0, "1000000S"),
            (Duration::MAX, 0, "99999999S"),
            (Duration::from_micros(3), 2, "1000u"),
        ] {
            let calls = Calls {
                deadline: Some(deadline),
                ..calls(Api::V1)
            };
            let mut out = Vec::new();
            calls.timeout(spent, &mut out);
            assert_eq!(out, shown.as_bytes());
        }
    }

    #[test]
    fn decimals() {
        for number in [0, 7, 10, 1_234_567_890, u64::MAX] {
            let mut out = Vec::new();
            write_decimal(number, &mut out);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }

    #[test]
    fn a_key_has_its_token() {
        let calls = Calls {
            tokens: Tokens::Many(vec!["a".into(), "b".into(), "c".into()]),
            ..calls(Api::Rpc)
        };
        let tokens: Vec<_> = (2..5).map(|index| calls.token_of(index)).collect();
        assert_eq!(tokens, [Some("c"), Some("a"), Some("b")]);
    }
}
