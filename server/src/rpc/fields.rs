//! Fields of requests, parsed into the nouns of the model. Every refusal names
//! the field and the rule.

use std::time::Duration;

use larder_api::cache_v1 as wire;
use larder_api::errors::Reason;
use larder_model::{
    Condition, EntryKey, Expiry, ExpiryChange, Key, Limits, NameError, Namespace, Selection, Time,
    Ttl, TtlError, Version,
};

use crate::clock::Clock;
use crate::failure::Failure;

pub(crate) fn entry_key<'a>(
    limits: &Limits,
    namespace: &'a str,
    key: &'a [u8],
) -> Result<EntryKey<'a>, Failure> {
    Ok(EntryKey {
        namespace: self::namespace(namespace)?,
        key: Key::parse(key, limits).map_err(|error| Failure::key("key", error))?,
    })
}

/// A key of a batch whose keys share a namespace; a bad one is named by its
/// place, `keys[3]`.
pub(crate) fn key_in_batch<'a>(
    limits: &Limits,
    namespace: Namespace<'a>,
    index: usize,
    key: &'a [u8],
) -> Result<EntryKey<'a>, Failure> {
    let field = || format!("keys[{index}]");
    let key = Key::parse(key, limits).map_err(|error| Failure::key(field(), error))?;
    Ok(EntryKey { namespace, key })
}

/// The same, of one that may be bad.
pub(crate) fn entry_in<'a>(
    limits: &Limits,
    namespace: Namespace<'a>,
    key: &'a [u8],
) -> Option<EntryKey<'a>> {
    let key = Key::parse(key, limits).ok()?;
    Some(EntryKey { namespace, key })
}

pub(crate) fn namespace(text: &str) -> Result<Namespace<'_>, Failure> {
    Namespace::parse(text).map_err(Failure::namespace)
}

/// What a list, a dump or a delete by prefix selects.
pub(crate) fn selection<'a>(
    limits: &Limits,
    namespace: &'a str,
    prefix: &'a [u8],
) -> Result<Selection<'a>, Failure> {
    let namespace = self::namespace(namespace)?;
    let (limit, actual) = (limits.max_key_bytes, prefix.len());
    if actual > limit {
        return Err(Failure::key("prefix", NameError::TooLong { limit, actual }));
    }
    Ok(Selection { namespace, prefix })
}

pub(crate) fn value_fits(
    limits: &Limits,
    field: &'static str,
    value: &[u8],
) -> Result<(), Failure> {
    let (limit, actual) = (limits.max_value_bytes, value.len());
    if actual <= limit {
        return Ok(());
    }
    let description = format!("has {actual} bytes, more than the limit of {limit}");
    Err(Failure::field(Reason::ValueTooLarge, field, description))
}

pub(crate) fn batch_fits(
    limits: &Limits,
    field: &'static str,
    items: usize,
) -> Result<(), Failure> {
    let limit = limits.max_batch_keys;
    if items <= limit {
        return Ok(());
    }
    let description = format!("has {items} entries, more than the limit of {limit}");
    Err(Failure::field(Reason::BatchTooLarge, field, description))
}

pub(crate) fn bad_field(field: &'static str, description: &str) -> Failure {
    Failure::field(Reason::FieldInvalid, field, description)
}

fn must_be_true(field: &'static str, given: bool) -> Result<(), Failure> {
    if given {
        Ok(())
    } else {
        Err(bad_field(field, "must be true where it is set"))
    }
}

const MAX_NANOS: i32 = 999_999_999;

/// A time to live, as a `google.protobuf.Duration`, from `now` on.
pub(crate) fn ttl(
    now: Time,
    field: &'static str,
    seconds: i64,
    nanos: i32,
) -> Result<Expiry, Failure> {
    let failed = |error| Failure::ttl(field, error);
    if !(-MAX_NANOS..=MAX_NANOS).contains(&nanos) {
        return Err(bad_field(field, "has nanos beyond a second"));
    }
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(seconds), u32::try_from(nanos)) else {
        return Err(failed(TtlError::TooShort));
    };
    let ttl = Ttl::parse(Duration::new(seconds, nanos)).map_err(failed)?;
    Ok(Expiry::At(now.after(ttl)))
}

/// Milliseconds from `now` to a `google.protobuf.Timestamp`; not positive when
/// it has passed.
pub(crate) fn millis_until(clock: &Clock, now: Time, seconds: i64, nanos: i32) -> i64 {
    seconds
        .saturating_mul(1000)
        .saturating_add(i64::from(nanos / 1_000_000))
        .saturating_sub(clock.unix_millis_of(now))
}

/// A point in time, as a `google.protobuf.Timestamp`; it must be in the future.
pub(crate) fn expire_time(
    clock: &Clock,
    now: Time,
    field: &'static str,
    seconds: i64,
    nanos: i32,
) -> Result<Expiry, Failure> {
    if !(0..=MAX_NANOS).contains(&nanos) {
        return Err(bad_field(field, "has nanos beyond a second"));
    }
    match u64::try_from(millis_until(clock, now, seconds, nanos)) {
        Ok(left @ 1..) => {
            let ttl = Ttl::from_millis(left).map_err(|error| Failure::ttl(field, error))?;
            Ok(Expiry::At(now.after(ttl)))
        }
        _ => Err(Failure::field(
            Reason::TtlOutOfRange,
            field,
            "must be in the future",
        )),
    }
}

pub(crate) fn set_expiry(
    clock: &Clock,
    now: Time,
    expiration: Option<&wire::set_request::ExpirationView<'_>>,
) -> Result<ExpiryChange, Failure> {
    use wire::set_request::ExpirationView as Given;
    Ok(ExpiryChange::To(match expiration {
        None => Expiry::Never,
        Some(Given::ExpireTime(t)) => expire_time(clock, now, "expire_time", t.seconds, t.nanos)?,
        Some(Given::Ttl(d)) => ttl(now, "ttl", d.seconds, d.nanos)?,
        Some(Given::KeepExpireTime(keep)) => {
            must_be_true("keep_expire_time", *keep)?;
            return Ok(ExpiryChange::Keep);
        }
    }))
}

fn expiration_missing() -> Failure {
    bad_field(
        "expiration",
        "is missing: set one of expire_time, ttl, never",
    )
}

pub(crate) fn touch_expiry(
    clock: &Clock,
    now: Time,
    expiration: Option<&wire::touch_request::ExpirationView<'_>>,
) -> Result<Expiry, Failure> {
    use wire::touch_request::ExpirationView as Given;
    match expiration.ok_or_else(expiration_missing)? {
        Given::ExpireTime(t) => expire_time(clock, now, "expire_time", t.seconds, t.nanos),
        Given::Ttl(d) => ttl(now, "ttl", d.seconds, d.nanos),
        Given::Never(never) => must_be_true("never", *never).map(|()| Expiry::Never),
    }
}

pub(crate) fn get_and_touch_expiry(
    clock: &Clock,
    now: Time,
    expiration: Option<&wire::get_and_touch_request::ExpirationView<'_>>,
) -> Result<Expiry, Failure> {
    use wire::get_and_touch_request::ExpirationView as Given;
    match expiration.ok_or_else(expiration_missing)? {
        Given::ExpireTime(t) => expire_time(clock, now, "expire_time", t.seconds, t.nanos),
        Given::Ttl(d) => ttl(now, "ttl", d.seconds, d.nanos),
        Given::Never(never) => must_be_true("never", *never).map(|()| Expiry::Never),
    }
}

pub(crate) fn condition(
    precondition: Option<&wire::PreconditionView<'_>>,
) -> Result<Condition, Failure> {
    use wire::precondition::ConditionView as Given;
    let Some(precondition) = precondition else {
        return Ok(Condition::Always);
    };
    match &precondition.condition {
        None => Err(bad_field(
            "precondition",
            "has no condition: set one of its fields",
        )),
        Some(Given::IfAbsent(set)) => {
            must_be_true("precondition.if_absent", *set).map(|()| Condition::IfAbsent)
        }
        Some(Given::IfPresent(set)) => {
            must_be_true("precondition.if_present", *set).map(|()| Condition::IfPresent)
        }
        Some(Given::IfVersion(number)) => Ok(Condition::IfVersion(Version::new(*number))),
    }
}
