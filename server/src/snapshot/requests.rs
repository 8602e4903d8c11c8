//! The bytes of what is remembered of a request with an id, in a block.

use larder_model::{
    Deleted, EntryMeta, Expiry, Fingerprint, Incremented, Outcome, Remembered, Request, RequestId,
    Time, Version, Written,
};

use super::format::{u32_at, u64_at};

/// Bytes of a request before its id.
const HEAD_BYTES: usize = 33;
/// Bytes of the entry that an outcome tells of.
const META_BYTES: usize = 28;
/// Bytes of the two numbers of an increment.
const SUM_BYTES: usize = 16;

/// What an outcome is, by its first byte.
mod tag {
    pub(super) const SET: u8 = 0;
    pub(super) const NOT_SET: u8 = 1;
    pub(super) const NOT_SET_FOR: u8 = 2;
    pub(super) const DELETED: u8 = 3;
    pub(super) const NOT_DELETED: u8 = 4;
    pub(super) const NOT_DELETED_FOR: u8 = 5;
    pub(super) const INCREMENTED: u8 = 6;
}

/// A time of the store and the wall clock's beside it: a file has the latter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offset {
    /// Milliseconds since 1970 at the store's origin.
    pub(super) unix_ms: i64,
}

impl Offset {
    /// The wall clock's; never 0, which says never.
    pub(super) fn to_unix_ms(self, time: Time) -> u64 {
        let time_ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        u64::try_from(time_ms.saturating_add(self.unix_ms)).map_or(1, |ms| ms.max(1))
    }

    /// The store's; what was before its origin is at its origin.
    pub(super) fn of_unix_ms(self, unix_ms: u64) -> Time {
        let unix_ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
        let ms = unix_ms.saturating_sub(self.unix_ms).max(0);
        Time::from_millis(u64::try_from(ms).unwrap_or(0))
    }

    /// An end by the wall clock; 0 is never.
    pub(super) fn end_unix_ms(self, expiry: Expiry) -> u64 {
        match expiry {
            Expiry::Never => 0,
            Expiry::At(end) => self.to_unix_ms(end),
        }
    }

    const fn is_never(unix_ms: u64) -> bool {
        unix_ms == 0
    }
}

/// An outcome, as it stands in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Recorded<'a> {
    /// Place of its account in the blocks of accounts.
    pub(super) account: u32,
    pub(super) remembered: Remembered<'a, Outcome>,
}

impl<'a> Recorded<'a> {
    /// Appends it. `None`, and nothing done, if its id is longer than any can be.
    pub(super) fn push(&self, block: &mut Vec<u8>, offset: Offset) -> Option<()> {
        let Remembered {
            request,
            until,
            outcome,
        } = &self.remembered;
        let id = request.id.as_str();
        let length = u8::try_from(id.len()).ok()?;
        block.extend_from_slice(&self.account.to_le_bytes());
        block.extend_from_slice(&offset.to_unix_ms(*until).to_le_bytes());
        block.extend_from_slice(&request.fingerprint.0);
        block.extend_from_slice(&request.item.to_le_bytes());
        block.push(length);
        block.extend_from_slice(id.as_bytes());
        push_outcome(outcome, block, offset);
        Some(())
    }

    /// Takes one from the front.
    pub(super) fn take(block: &mut &'a [u8], offset: Offset) -> Option<Self> {
        let (head, rest) = block.split_at_checked(HEAD_BYTES)?;
        let (id, mut rest) = rest.split_at_checked(usize::from(head[32]))?;
        let id = RequestId::parse(std::str::from_utf8(id).ok()?).ok()?;
        let outcome = take_outcome(&mut rest, offset)?;
        *block = rest;
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&head[12..28]);
        Some(Self {
            account: u32_at(head, 0),
            remembered: Remembered {
                request: Request {
                    id,
                    fingerprint: Fingerprint(fingerprint),
                    item: u32_at(head, 28),
                },
                until: offset.of_unix_ms(u64_at(head, 4)),
                outcome,
            },
        })
    }
}

fn push_outcome(outcome: &Outcome, block: &mut Vec<u8>, offset: Offset) {
    let (tag, meta) = match outcome {
        Outcome::Set(Written::Applied(meta)) => (tag::SET, Some(meta)),
        Outcome::Set(Written::NotApplied(None)) => (tag::NOT_SET, None),
        Outcome::Set(Written::NotApplied(Some(meta))) => (tag::NOT_SET_FOR, Some(meta)),
        Outcome::Delete(Deleted::Applied) => (tag::DELETED, None),
        Outcome::Delete(Deleted::NotApplied(None)) => (tag::NOT_DELETED, None),
        Outcome::Delete(Deleted::NotApplied(Some(meta))) => (tag::NOT_DELETED_FOR, Some(meta)),
        Outcome::Increment(_) => (tag::INCREMENTED, None),
    };
    block.push(tag);
    if let Some(meta) = meta {
        block.extend_from_slice(&meta.version.get().to_le_bytes());
        block.extend_from_slice(&offset.end_unix_ms(meta.expiry).to_le_bytes());
        block.extend_from_slice(&meta.size_bytes.to_le_bytes());
        block.extend_from_slice(&meta.flags.to_le_bytes());
    }
    if let Outcome::Increment(sum) = outcome {
        block.extend_from_slice(&sum.value.to_le_bytes());
        block.extend_from_slice(&sum.applied_delta.to_le_bytes());
    }
}

fn take_outcome(block: &mut &[u8], offset: Offset) -> Option<Outcome> {
    let (tag, rest) = block.split_first()?;
    *block = rest;
    let mut meta = || take_meta(block, offset);
    Some(match *tag {
        tag::SET => Outcome::Set(Written::Applied(meta()?)),
        tag::NOT_SET => Outcome::Set(Written::NotApplied(None)),
        tag::NOT_SET_FOR => Outcome::Set(Written::NotApplied(Some(meta()?))),
        tag::DELETED => Outcome::Delete(Deleted::Applied),
        tag::NOT_DELETED => Outcome::Delete(Deleted::NotApplied(None)),
        tag::NOT_DELETED_FOR => Outcome::Delete(Deleted::NotApplied(Some(meta()?))),
        tag::INCREMENTED => {
            let (sum, rest) = block.split_at_checked(SUM_BYTES)?;
            *block = rest;
            Outcome::Increment(Incremented {
                value: u64_at(sum, 0).cast_signed(),
                applied_delta: u64_at(sum, 8).cast_signed(),
            })
        }
        _ => return None,
    })
}

fn take_meta(block: &mut &[u8], offset: Offset) -> Option<EntryMeta> {
    let (meta, rest) = block.split_at_checked(META_BYTES)?;
    *block = rest;
    let end_unix_ms = u64_at(meta, 8);
    Some(EntryMeta {
        version: Version::new(u64_at(meta, 0)),
        expiry: if Offset::is_never(end_unix_ms) {
            Expiry::Never
        } else {
            Expiry::At(offset.of_unix_ms(end_unix_ms))
        },
        size_bytes: u64_at(meta, 16),
        flags: u32_at(meta, 24),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFSET: Offset = Offset {
        unix_ms: 1_700_000_000_000,
    };

    #[test]
    fn outcomes_of_every_kind_are_read_as_they_were_written() {
        let meta = EntryMeta {
            version: Version::new(u64::MAX),
            expiry: Expiry::At(Time::from_millis(77)),
            size_bytes: 123,
            flags: 9,
        };
        let endless = EntryMeta {
            expiry: Expiry::Never,
            ..meta
        };
        for outcome in [
            Outcome::Set(Written::Applied(meta)),
            Outcome::Set(Written::NotApplied(None)),
            Outcome::Set(Written::NotApplied(Some(endless))),
            Outcome::Delete(Deleted::Applied),
            Outcome::Delete(Deleted::NotApplied(None)),
            Outcome::Delete(Deleted::NotApplied(Some(meta))),
            Outcome::Increment(Incremented {
                value: i64::MIN,
                applied_delta: -1,
            }),
        ] {
            let recorded = Recorded {
                account: 3,
                remembered: Remembered {
                    request: Request {
                        id: RequestId::parse("an-id").expect("an id"),
                        fingerprint: Fingerprint([7; 16]),
                        item: 41,
                    },
                    until: Time::from_millis(600_000),
                    outcome,
                },
            };
            let mut block = Vec::new();
            recorded.push(&mut block, OFFSET).expect("it is short");
            for length in 0..block.len() {
                let mut part = &block[..length];
                assert_eq!(Recorded::take(&mut part, OFFSET), None, "{length}");
            }
            let mut rest = &block[..];
            assert_eq!(Recorded::take(&mut rest, OFFSET), Some(recorded));
            assert!(rest.is_empty());
            // A server that began later, when some of it was over.
            let later = Offset {
                unix_ms: OFFSET.unix_ms + 1_000,
            };
            let read = Recorded::take(&mut &block[..], later).expect("it is whole");
            assert_eq!(read.remembered.until, Time::from_millis(599_000));
        }
    }

    #[test]
    fn an_unknown_outcome_and_a_bad_id_are_not_read() {
        let check = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut block = vec![0; HEAD_BYTES];
            block[32] = 1;
            block.extend_from_slice(b"i\x03");
            let whole = Recorded::take(&mut &block[..], OFFSET);
            assert!(whole.is_some(), "before the change");
            change(&mut block);
            assert_eq!(Recorded::take(&mut &block[..], OFFSET), None);
        };
        check(&|block| block[34] = 7);
        check(&|block| block[33] = b'/');
        check(&|block| block[33] = 0xff);
        check(&|block| block[32] = 0);
        check(&|block| block[32] = 65);
    }
}
