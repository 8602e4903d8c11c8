//! What each call of a load is.

use bytes::Bytes;
use larder_client::{Client, DeleteOptions, Error, IncrementOptions, SetOptions};

use crate::failure::Failure;

use super::super::key_choice::KeyChoice;
use super::super::mix::{Mix, Operation};
use super::super::random::Random;
use super::super::stats::Outcome;
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
    pub(super) seed: u64,
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
        Ok(Self {
            keys,
            value: Random::new(args.seed).bytes(args.value_bytes).into(),
            seed: args.seed,
            mix: args.mix.clone(),
            choice: KeyChoice::new(keys, args.zipf),
            key_bytes,
        })
    }

    /// The key of an entry.
    pub(super) fn key(&self, index: u64) -> Vec<u8> {
        self.marked(ENTRY_MARK, index)
    }

    /// One byte, and the number with zeros in front of it.
    fn marked(&self, mark: u8, index: u64) -> Vec<u8> {
        let digits = index.to_string();
        let mut key = vec![b'0'; self.key_bytes - digits.len()];
        key[0] = mark;
        key.extend_from_slice(digits.as_bytes());
        key
    }

    /// Decides on the next call.
    pub(super) fn choose(&self, random: &mut Random) -> (Operation, Vec<u8>) {
        let operation = self.mix.choose(random);
        let mark = if operation == Operation::Incr {
            COUNTER_MARK
        } else {
            ENTRY_MARK
        };
        (operation, self.marked(mark, self.choice.choose(random)))
    }
}

/// Makes a call; `value` is what it writes, if it does.
pub(super) async fn call(
    client: Client,
    operation: Operation,
    key: Vec<u8>,
    value: Bytes,
) -> Result<Outcome, Error> {
    Ok(match operation {
        Operation::Get => match client.get(key).await? {
            Some(entry) => Outcome::Hit(entry.value.len()),
            None => Outcome::Miss,
        },
        Operation::Set => {
            let bytes = key.len() + value.len();
            client.set(key, value, SetOptions::new()).await?;
            Outcome::Written(bytes)
        }
        Operation::Del => {
            client.delete(key, DeleteOptions::new()).await?;
            Outcome::Done
        }
        Operation::Incr => {
            client.increment(key, 1, IncrementOptions::new()).await?;
            Outcome::Done
        }
    })
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
        assert_eq!(plan.marked(COUNTER_MARK, 7), b"c007");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (arguments, good) in [
            (&["--keys", "1001", "--key-bytes", "4"][..], false),
            (&["--keys", "1", "--key-bytes", "2"], true),
            (&["--connections", "1000", "--streams", "100"], true),
            (&["--connections", "1000", "--streams", "101"], false),
            (&["--value-bytes", "0"], true),
        ] {
            assert_eq!(plan(arguments).is_ok(), good, "{arguments:?}");
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_calls() {
        let plan = plan(&["--mix", "get:5,set:3,incr:2", "--zipf", "0.99"]).unwrap();
        let take = |stream| {
            let mut random = Random::split(plan.seed, stream);
            (0..100)
                .map(|_| plan.choose(&mut random))
                .collect::<Vec<_>>()
        };
        assert_eq!(take(0), take(0));
        assert_ne!(take(0), take(1));
        for (operation, key) in take(0) {
            let mark = if operation == Operation::Incr {
                COUNTER_MARK
            } else {
                ENTRY_MARK
            };
            assert_eq!((key[0], key.len()), (mark, 16));
        }
    }
}
