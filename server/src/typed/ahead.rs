//! Calls that have come and are not answered yet: the store is told their keys, so that it fetches
//! what they need together.

use larder_model::{EntryKey, Key, Limits, Namespace};

use crate::methods::Typed;

/// Looks that are left out after calls of different accounts came one after the other: whose the
/// next ones are is in their heads, which are not read ahead.
const LEFT_OUT: u32 = 64;

/// After so many calls in a row that are none of those that [`entry`] goes by, the account of the
/// last such call says nothing of the next ones.
const MAX_OTHERS: u32 = 16;

/// Whether looks ahead are of use on a connection.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    left_out: u32,
    others: u32,
}

impl Ahead {
    /// A get or set.
    pub(super) const fn entry_called(&mut self) {
        self.others = 0;
    }

    /// Another call, whose account may be any.
    pub(super) const fn other_called(&mut self) {
        self.others = self.others.saturating_add(1);
    }

    /// A get or set was of another account than the one before.
    pub(super) const fn account_changed(&mut self) {
        self.left_out = LEFT_OUT;
    }

    /// Asked once for each look.
    pub(super) const fn is_of_use(&mut self) -> bool {
        if self.left_out > 0 {
            self.left_out -= 1;
            return false;
        }
        self.others < MAX_OTHERS
    }
}

/// The entry that a request names, if it is one of a single entry and written as all encoders do,
/// and of the same service as the last get or set.
pub(super) fn entry<'m>(limits: &Limits, last: Typed, message: &'m [u8]) -> Option<EntryKey<'m>> {
    let (namespace, key) = match last {
        Typed::TalkGet | Typed::TalkStore => (None, field(message, 1)?.0),
        Typed::Get | Typed::Set => match field(message, 1) {
            Some((namespace, rest)) => (Some(namespace), field(rest, 2)?.0),
            None => (None, field(message, 2)?.0),
        },
        _ => return None,
    };
    let namespace = match namespace {
        Some(name) => Namespace::parse(std::str::from_utf8(name).ok()?).ok()?,
        None => Namespace::DEFAULT,
    };
    let key = Key::parse(key, limits).ok()?;
    Some(EntryKey { namespace, key })
}

/// The content of a length-delimited field that a message begins with, and what comes after.
fn field(message: &[u8], number: u8) -> Option<(&[u8], &[u8])> {
    let (&[tag, length], rest) = message.split_first_chunk()?;
    let (low, rest) = (usize::from(length & 0x7f), rest);
    let (length, rest) = match length {
        0..0x80 => (low, rest),
        _ => match rest.split_first()? {
            (&high @ 0..0x80, rest) => (low | usize::from(high) << 7, rest),
            // Longer than any key.
            _ => return None,
        },
    };
    (tag == number << 3 | 2)
        .then(|| rest.split_at_checked(length))
        .flatten()
}

#[cfg(test)]
mod tests {
    use buffa::Message;
    use larder_api::{cache_v1 as v1, talk};

    use super::*;

    fn check(last: Typed, message: &[u8], expected: Option<(&str, &[u8])>) {
        let limits = Limits::default();
        let found = entry(&limits, last, message);
        let found = found.map(|at| (at.namespace.as_str(), at.key.as_bytes()));
        assert_eq!(found, expected, "{last:?} {message:?}");
    }

    #[test]
    fn it_finds_the_entries_that_requests_name() {
        for key in [vec![1], vec![7; 127], vec![8; 128], vec![9; 1024]] {
            let get = |namespace: &str| {
                v1::GetRequest {
                    namespace: namespace.into(),
                    key: key.clone(),
                    no_touch: true,
                    ..Default::default()
                }
                .encode_to_vec()
            };
            let set = v1::SetRequest {
                key: key.clone(),
                value: vec![2; 300],
                ..Default::default()
            };
            for method in [Typed::Get, Typed::Set] {
                check(method, &get("deep"), Some(("deep", &key)));
                check(method, &get(""), Some(("default", &key)));
                check(method, &set.encode_to_vec(), Some(("default", &key)));
            }
        }
        let store = talk::StoreReq {
            key: "talk".into(),
            val: vec![3; 3],
            ..Default::default()
        };
        for method in [Typed::TalkGet, Typed::TalkStore] {
            check(method, &store.encode_to_vec(), Some(("default", b"talk")));
        }
    }

    #[test]
    fn it_finds_nothing_in_what_is_none() {
        let batch = v1::BatchGetRequest {
            keys: vec![b"a".to_vec()],
            ..Default::default()
        };
        check(Typed::BatchGet, &batch.encode_to_vec(), None);
        let too_long = [&[0x12, 0x81, 0x08][..], &[0; 1025]].concat();
        for message in [
            &b""[..],
            b"\x12",
            b"\x12\x00",
            b"\x12\x05abc",
            b"\x12\xff",
            b"\x12\xff\xff\x01abc",
            b"\x0a\x03Bad\x12\x01k",
            b"\x0a\x02\xff\xff\x12\x01k",
            b"\x18\x01\x12\x01k",
            &too_long,
        ] {
            check(Typed::Get, message, None);
        }
    }

    #[test]
    fn looks_are_left_out_where_the_account_of_the_next_calls_is_not_known() {
        let mut ahead = Ahead::default();
        assert!(ahead.is_of_use());
        ahead.account_changed();
        let rest = (0..).take_while(|_| !ahead.is_of_use()).count();
        assert_eq!(rest, 64);
        assert!(ahead.is_of_use());
        for _ in 0..15 {
            ahead.other_called();
        }
        assert!(ahead.is_of_use(), "gets among other calls");
        ahead.other_called();
        assert!(!ahead.is_of_use(), "other calls alone");
        ahead.entry_called();
        assert!(ahead.is_of_use());
    }
}
