//! What each call of a load is.

use crate::failure::Failure;
use bytes::Bytes;

use super::super::key_choice::KeyChoice;
use super::super::mix::{Mix, Operation};
use super::super::random::Random;
use super::super::wire::write_decimal;
use super::{LoadArgs, MAX_IN_FLIGHT};

/// First byte of the keys of entries. It shows where a load has been.
const ENTRY_MARK: u8 = b'k';

/// First byte of the keys of counters.
const COUNTER_MARK: u8 = b'c';

/// What a load does, decided before it begins.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) keys: u64,
    /// The value of every write: bytes that do not compress.
    pub(super) value: Bytes,
    mix: Mix,
    choice: KeyChoice,
    key_bytes: usize,
}

impl Plan {
    pub(super) fn new(args: &LoadArgs) -> Result<Self, Failure> {
        let keys = args.keys.get();
        let key_bytes = usize::try_from(args.key_bytes).unwrap_or(usize::MAX);
        let needed = 1 + (keys - 1).to_string().len();
        if key_bytes < needed {
            return Err(Failure::Usage(format!(
                "{keys} keys need {needed} bytes each to differ, and --key-bytes is {key_bytes}"
            )));
        }
        let in_flight = args.connections.saturating_mul(args.streams);
        if usize::try_from(in_flight).map_or(true, |in_flight| in_flight > MAX_IN_FLIGHT) {
            return Err(Failure::Usage(format!(
                "{in_flight} calls in flight are more than {MAX_IN_FLIGHT}; use fewer connections or streams"
            )));
        }
        if let Some(operation) = args.mix.operations().find(|&each| !args.api.has(each)) {
            return Err(Failure::Usage(format!(
                "rpc.Cache has no {}; use --mix with get and set",
                operation.name()
            )));
        }
        Ok(Self {
            keys,
            value: Random::new(args.seed).bytes(args.value_bytes).into(),
            mix: args.mix.clone(),
            choice: KeyChoice::new(keys, args.zipf),
            key_bytes,
        })
    }

    /// The key of an entry.
    pub(super) fn key(&self, index: u64) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.key_bytes);
        self.write_key(Operation::Set, index, &mut key);
        key
    }

    /// The key of that number for a call, in place of what is in `key`: one byte,
    /// and the number with zeros in front of it.
    pub(super) fn write_key(&self, operation: Operation, index: u64, key: &mut Vec<u8>) {
        key.clear();
        write_decimal(index, key);
        let digits = key.len();
        key.resize(self.key_bytes, b'0');
        key.rotate_left(digits);
        key[0] = match operation {
            Operation::Incr => COUNTER_MARK,
            Operation::Get | Operation::Set | Operation::Del => ENTRY_MARK,
        };
    }

    /// Decides on the next call: what it is, and the number of its key.
    pub(super) fn choose(&self, random: &mut Random) -> (Operation, u64) {
        (self.mix.choose(random), self.choice.choose(random))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::LoadAlone;
    use clap::Parser as _;

    fn plan(arguments: &[&str]) -> Result<Plan, Failure> {
        let alone = LoadAlone::try_parse_from([&["bench"], arguments].concat()).unwrap();
        Plan::new(&alone.load)
    }

    #[test]
    fn keys_have_their_length_and_differ() {
        let plan = plan(&["--keys", "1000", "--key-bytes", "4"]).unwrap();
        assert_eq!(plan.key(0), b"k000");
        assert_eq!(plan.key(999), b"k999");
        let mut key = b"before".to_vec();
        plan.write_key(Operation::Incr, 7, &mut key);
        assert_eq!(key, b"c007");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (arguments, good) in [
            (&["--keys", "1001", "--key-bytes", "4"][..], false),
            (&["--keys", "1", "--key-bytes", "2"], true),
            (&["--connections", "1000", "--streams", "100"], true),
            (&["--connections", "1000", "--streams", "101"], false),
            (&["--value-bytes", "0"], true),
            (&["--api", "rpc"], true),
            (&["--api", "rpc", "--mix", "get:1,incr:0"], true),
            (&["--api", "rpc", "--mix", "incr:1"], false),
            (&["--api", "redis", "--mix", "incr:1"], true),
        ] {
            assert_eq!(plan(arguments).is_ok(), good, "{arguments:?}");
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_calls() {
        let plan = plan(&["--mix", "get:5,set:3,incr:2", "--zipf", "0.99"]).unwrap();
        let take = |stream| {
            let mut random = Random::split(1, stream);
            (0..100)
                .map(|_| plan.choose(&mut random))
                .collect::<Vec<_>>()
        };
        assert_eq!(take(0), take(0));
        assert_ne!(take(0), take(1));
        assert!(take(0).iter().all(|&(_, index)| index < plan.keys));
    }
}
