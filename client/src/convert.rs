//! Between wire types and the types of this crate.

use std::time::SystemTime;

use bytes::Bytes;
use larder_api::accounts_v1 as control;
use larder_api::cache_v1::{self as wire, precondition, set_request};
use larder_api::protobuf::Timestamp;

use crate::error::Error;
use crate::options::{Condition, Expiry, SetExpiry, SetOptions};
use crate::types::{
    Account, AccountSettings, Action, AtLimit, Entry, QuotaUsage, TokenInfo, TokenRights,
};

pub(crate) fn entry(entry: wire::Entry) -> Result<Entry, Error> {
    Ok(Entry {
        key: Bytes::from(entry.key),
        value: Bytes::from(entry.value),
        expire_time: time(entry.expire_time.into_option())?,
        version: entry.version,
        size_bytes: count(entry.size_bytes),
        flags: entry.flags,
    })
}

pub(crate) fn optional_entry(entry: Option<wire::Entry>) -> Result<Option<Entry>, Error> {
    entry.map(self::entry).transpose()
}

pub(crate) fn entries(entries: Vec<wire::Entry>) -> Result<Vec<Entry>, Error> {
    entries.into_iter().map(entry).collect()
}

/// For a load: only what a server takes.
pub(crate) fn wire_entry(entry: &Entry) -> wire::Entry {
    wire::Entry {
        key: entry.key.to_vec(),
        value: entry.value.to_vec(),
        expire_time: entry.expire_time.map(Timestamp::from).into(),
        flags: entry.flags,
        ..wire::Entry::default()
    }
}

pub(crate) fn time(time: Option<Timestamp>) -> Result<Option<SystemTime>, Error> {
    time.map(SystemTime::try_from)
        .transpose()
        .map_err(|_| Error::protocol("the server sent a time that does not exist"))
}

/// A count of the wire is never negative; one that is says nothing.
pub(crate) fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A limit of the wire: 0, and the largest number, mean none.
pub(crate) fn limit(number: i64) -> Option<u64> {
    u64::try_from(number)
        .ok()
        .filter(|&limit| limit != 0 && number != i64::MAX)
}

pub(crate) fn wire_limit(limit: Option<u64>) -> Result<i64, Error> {
    match limit {
        None => Ok(0),
        // On the wire 0 means no limit, the opposite of what it says.
        Some(0) => Err(Error::configuration("a limit must be at least 1")),
        Some(limit) => {
            i64::try_from(limit).map_err(|_| Error::configuration("a limit must be below 2^63"))
        }
    }
}

pub(crate) fn quota_usage(usage: &wire::QuotaUsage) -> QuotaUsage {
    QuotaUsage {
        key_count: count(usage.key_count),
        max_keys: limit(usage.max_keys),
        bytes: count(usage.bytes),
        max_bytes: limit(usage.max_bytes),
    }
}

pub(crate) fn condition(condition: Condition) -> Option<wire::Precondition> {
    let condition = match condition {
        Condition::Always => return None,
        Condition::IfAbsent => precondition::Condition::IfAbsent(true),
        Condition::IfPresent => precondition::Condition::IfPresent(true),
        Condition::IfVersion(version) => precondition::Condition::IfVersion(version),
    };
    Some(wire::Precondition {
        condition: Some(condition),
        ..wire::Precondition::default()
    })
}

pub(crate) fn set_request(
    namespace: String,
    key: &[u8],
    value: Bytes,
    options: SetOptions,
) -> wire::SetRequest {
    use set_request::Expiration;
    let expiration = match options.expiry {
        SetExpiry::Never => None,
        SetExpiry::At(time) => Some(Expiration::ExpireTime(Box::new(time.into()))),
        SetExpiry::After(ttl) => Some(Expiration::Ttl(Box::new(ttl.into()))),
        SetExpiry::Keep => Some(Expiration::KeepExpireTime(true)),
    };
    wire::SetRequest {
        namespace,
        key: key.to_vec(),
        // No copy if nobody else holds the value.
        value: Vec::from(value),
        expiration,
        precondition: condition(options.condition).into(),
        request_id: options
            .request_id
            .map_or_else(String::new, |id| id.as_str().into()),
        flags: options.flags,
        ..wire::SetRequest::default()
    }
}

/// The `expiration` of the two requests that change an expiry: the same oneof,
/// generated twice.
macro_rules! expiration {
    ($module:ident, $expiry:expr) => {{
        use larder_api::cache_v1::$module::Expiration;
        Some(match $expiry {
            Expiry::Never => Expiration::Never(true),
            Expiry::At(time) => Expiration::ExpireTime(Box::new(time.into())),
            Expiry::After(ttl) => Expiration::Ttl(Box::new(ttl.into())),
        })
    }};
}

pub(crate) fn touch_request(namespace: String, key: &[u8], expiry: Expiry) -> wire::TouchRequest {
    wire::TouchRequest {
        namespace,
        key: key.to_vec(),
        expiration: expiration!(touch_request, expiry),
        ..wire::TouchRequest::default()
    }
}

pub(crate) fn get_and_touch_request(
    namespace: String,
    key: &[u8],
    expiry: Expiry,
) -> wire::GetAndTouchRequest {
    wire::GetAndTouchRequest {
        namespace,
        key: key.to_vec(),
        expiration: expiration!(get_and_touch_request, expiry),
        ..wire::GetAndTouchRequest::default()
    }
}

pub(crate) fn account(account: control::Account) -> Result<Account, Error> {
    let name = account
        .name
        .strip_prefix("accounts/")
        .ok_or_else(|| Error::protocol("an account's name is not accounts/…"))?;
    Ok(Account {
        name: name.into(),
        settings: AccountSettings {
            display_name: account.display_name,
            max_keys: limit(account.max_keys),
            max_bytes: limit(account.max_bytes),
            max_requests_per_second: limit(account.max_requests_per_second),
            at_limit: match account.at_limit.as_known() {
                Some(control::AtLimit::AT_LIMIT_EVICT) => AtLimit::Evict,
                _ => AtLimit::Refuse,
            },
        },
        etag: account.etag,
        uid: account.uid,
    })
}

pub(crate) fn wire_account(
    name: String,
    settings: &AccountSettings,
) -> Result<control::Account, Error> {
    Ok(control::Account {
        name,
        display_name: settings.display_name.clone(),
        max_keys: wire_limit(settings.max_keys)?,
        max_bytes: wire_limit(settings.max_bytes)?,
        max_requests_per_second: wire_limit(settings.max_requests_per_second)?,
        at_limit: wire_at_limit(settings.at_limit).into(),
        ..control::Account::default()
    })
}

pub(crate) fn wire_at_limit(at_limit: AtLimit) -> control::AtLimit {
    match at_limit {
        AtLimit::Refuse => control::AtLimit::AT_LIMIT_REFUSE,
        AtLimit::Evict => control::AtLimit::AT_LIMIT_EVICT,
    }
}

pub(crate) fn token(token: control::Token) -> Result<TokenInfo, Error> {
    // An action that this client does not know is left out: it is of no use
    // here, and a newer server must not break older tools.
    let actions = token
        .actions
        .iter()
        .filter_map(|action| match action.as_known()? {
            control::Action::ACTION_READ => Some(Action::Read),
            control::Action::ACTION_WRITE => Some(Action::Write),
            control::Action::ACTION_ADMIN => Some(Action::Admin),
            control::Action::ACTION_VERIFY => Some(Action::Verify),
            control::Action::ACTION_UNSPECIFIED => None,
        });
    Ok(TokenInfo {
        rights: TokenRights {
            actions: actions.collect(),
            namespaces: token.namespaces,
            key_prefixes: std::iter::once(token.key_prefix)
                .filter(|first| !first.is_empty())
                .chain(token.key_prefixes)
                .map(Bytes::from)
                .collect(),
            expire_time: time(token.expire_time.into_option())?,
        },
        name: token.name,
    })
}

pub(crate) fn wire_token(rights: &TokenRights) -> control::Token {
    let actions = rights.actions.iter().map(|action| {
        match action {
            Action::Read => control::Action::ACTION_READ,
            Action::Write => control::Action::ACTION_WRITE,
            Action::Admin => control::Action::ACTION_ADMIN,
            Action::Verify => control::Action::ACTION_VERIFY,
        }
        .into()
    });
    let mut prefixes = rights.key_prefixes.iter().map(|own| own.to_vec());
    control::Token {
        actions: actions.collect(),
        namespaces: rights.namespaces.clone(),
        key_prefix: prefixes.next().unwrap_or_default(),
        key_prefixes: prefixes.collect(),
        expire_time: rights.expire_time.map(Timestamp::from).into(),
        ..control::Token::default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn entries_keep_everything() {
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_900_000_000, 123_456_789);
        let ours = Entry::new(&b"k\0\xff"[..], &b"v"[..])
            .with_expire_time(Some(time))
            .with_flags(7);
        assert_eq!(entry(wire_entry(&ours)).unwrap(), ours);
    }

    #[test]
    fn limits() {
        for (wire, ours) in [
            (0, None),
            (-5, None),
            (i64::MAX, None),
            (1, Some(1)),
            (9, Some(9)),
        ] {
            assert_eq!(limit(wire), ours);
        }
        assert_eq!(wire_limit(None).unwrap(), 0);
        assert_eq!(wire_limit(Some(7)).unwrap(), 7);
        assert!(wire_limit(Some(0)).is_err());
        assert!(wire_limit(Some(u64::MAX)).is_err());
    }

    #[test]
    fn impossible_times_are_refused() {
        let never = Timestamp {
            seconds: i64::MAX,
            nanos: 2_000_000_000,
            ..Timestamp::default()
        };
        assert!(time(Some(never)).is_err());
        assert_eq!(time(None).unwrap(), None);
    }
}
