//! The nouns of the model, as messages.

use buffa::{Message, MessageField, MessageFieldView, MessageView, ViewEncode};
use larder_api::{cache_v1 as wire, protobuf};
use larder_model::{EntryMeta, EntryRef, Expiry, Usage};

use crate::clock::Clock;

/// Takes the one message of a reply, which may borrow from the store: it is then
/// called under a lock, and should only copy or encode.
pub(crate) trait ReplyTo<M>: Send {
    fn put<'v, V>(self, message: &V)
    where
        V: ViewEncode<'v> + MessageView<'v, Owned = M>;
}

/// A reply that is kept.
impl<M: Message> ReplyTo<M> for &mut Option<M> {
    fn put<'v, V>(self, message: &V)
    where
        V: ViewEncode<'v> + MessageView<'v, Owned = M>,
    {
        *self = message.to_owned_message().ok();
    }
}

/// Whether a reply holds the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value {
    Shown,
    Omitted,
}

pub(crate) fn entry(clock: &Clock, entry: EntryRef<'_>, value: Value) -> wire::Entry {
    wire::Entry {
        value: match value {
            Value::Shown => entry.value.into(),
            Value::Omitted => Vec::new(),
        },
        ..metadata(clock, entry.key, &entry.meta)
    }
}

/// As [`entry`], borrowed.
pub(crate) fn entry_view<'e>(
    clock: &Clock,
    entry: EntryRef<'e>,
    value: Value,
) -> wire::EntryView<'e> {
    wire::EntryView {
        key: entry.key,
        value: match value {
            Value::Shown => entry.value,
            Value::Omitted => &[],
        },
        expire_time: match entry.meta.expiry {
            Expiry::Never => MessageFieldView::unset(),
            Expiry::At(end) => {
                let end = timestamp(clock.unix_millis_of(end));
                MessageFieldView::set(protobuf::TimestampView {
                    seconds: end.seconds,
                    nanos: end.nanos,
                    ..Default::default()
                })
            }
        },
        version: entry.meta.version.get(),
        size_bytes: signed(entry.meta.size_bytes),
        flags: entry.meta.flags,
        ..Default::default()
    }
}

/// An entry without its value.
pub(crate) fn metadata(clock: &Clock, key: &[u8], meta: &EntryMeta) -> wire::Entry {
    wire::Entry {
        key: key.into(),
        expire_time: expire_time(clock, meta.expiry),
        version: meta.version.get(),
        size_bytes: signed(meta.size_bytes),
        flags: meta.flags,
        ..Default::default()
    }
}

type TimestampField = MessageField<protobuf::Timestamp, buffa::Inline<protobuf::Timestamp>>;

fn expire_time(clock: &Clock, expiry: Expiry) -> TimestampField {
    match expiry {
        Expiry::Never => MessageField::none(),
        Expiry::At(end) => MessageField::some(timestamp(clock.unix_millis_of(end))),
    }
}

pub(crate) fn timestamp(unix_millis: i64) -> protobuf::Timestamp {
    // The remainder is under a second's worth of nanoseconds.
    let nanos = i32::try_from(unix_millis.rem_euclid(1000) * 1_000_000).unwrap_or(0);
    protobuf::Timestamp::from_unix(unix_millis.div_euclid(1000), nanos)
}

/// Limits and counts are unsigned inside; "no limit" is the largest number.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn quota_usage(usage: &Usage) -> wire::QuotaUsage {
    wire::QuotaUsage {
        key_count: signed(usage.keys),
        max_keys: signed(usage.quota.max_keys),
        bytes: signed(usage.bytes),
        max_bytes: signed(usage.quota.max_bytes),
        ..Default::default()
    }
}
