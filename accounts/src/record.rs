//! The form in which accounts and tokens lie in the database: JSON, checked
//! again by the rules of the API when it is read.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use larder_model::{AccountName, AccountUid, AtLimit};
use serde::{Deserialize, Serialize};

use crate::account::{Account, AccountSettings};
use crate::secret::SecretDigest;
use crate::time::UnixMillis;
use crate::token::{Actions, StoredToken, Token, TokenName, check_rights};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountRecord {
    uid: String,
    revision: u64,
    display_name: String,
    max_keys: i64,
    max_bytes: i64,
    max_requests_per_second: i64,
    at_limit: AtLimitRecord,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum AtLimitRecord {
    Refuse,
    Evict,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenRecord {
    digest: String,
    actions: u8,
    namespaces: Vec<String>,
    /// The first of them; empty if there is none.
    key_prefix: String,
    /// The others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    key_prefixes: Vec<String>,
    expire_time_ms: Option<u64>,
}

pub(crate) fn encode_account(account: &Account) -> Result<Vec<u8>, serde_json::Error> {
    let settings = &account.settings;
    serde_json::to_vec(&AccountRecord {
        uid: account.uid.as_str().to_owned(),
        revision: account.revision,
        display_name: settings.display_name.clone(),
        max_keys: settings.max_keys,
        max_bytes: settings.max_bytes,
        max_requests_per_second: settings.max_requests_per_second,
        at_limit: match settings.at_limit {
            AtLimit::Refuse => AtLimitRecord::Refuse,
            AtLimit::Evict => AtLimitRecord::Evict,
        },
    })
}

/// The account under the row's key, or what is wrong with the row.
pub(crate) fn decode_account(key: &str, value: &[u8]) -> Result<Account, String> {
    let name = AccountName::parse(key).map_err(|error| format!("a name {error}"))?;
    let record: AccountRecord = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    if record.uid.is_empty() {
        return Err("the uid is missing".to_owned());
    }
    let settings = AccountSettings {
        display_name: record.display_name,
        max_keys: record.max_keys,
        max_bytes: record.max_bytes,
        max_requests_per_second: record.max_requests_per_second,
        at_limit: match record.at_limit {
            AtLimitRecord::Refuse => AtLimit::Refuse,
            AtLimitRecord::Evict => AtLimit::Evict,
        },
    };
    settings.check().map_err(|error| error.to_string())?;
    let uid = AccountUid::new(&record.uid);
    Ok(Account::new(name, uid, record.revision, settings))
}

/// Key of a token's row: no account name holds a slash.
pub(crate) fn token_key(name: &TokenName) -> String {
    format!("{}/{}", name.account(), name.id())
}

pub(crate) fn encode_token(stored: &StoredToken) -> Result<Vec<u8>, serde_json::Error> {
    let rights = &stored.token.rights;
    let mut prefixes = rights
        .key_prefixes
        .iter()
        .map(|prefix| URL_SAFE_NO_PAD.encode(prefix));
    serde_json::to_vec(&TokenRecord {
        digest: stored.digest.encode(),
        actions: rights.actions.bits(),
        namespaces: rights.namespaces.iter().map(ToString::to_string).collect(),
        key_prefix: prefixes.next().unwrap_or_default(),
        key_prefixes: prefixes.collect(),
        expire_time_ms: stored.token.expire_time.map(UnixMillis::get),
    })
}

/// The name in a row's key.
pub(crate) fn decode_token_key(key: &str) -> Result<TokenName, String> {
    let (account, id) = key.split_once('/').ok_or("a token's name has no slash")?;
    let account = AccountName::parse(account).map_err(|error| format!("a name {error}"))?;
    TokenName::in_account(account, id).map_err(|error| format!("a token's name {error}"))
}

/// The token under the row's key, or what is wrong with the row.
pub(crate) fn decode_token(key: &str, value: &[u8]) -> Result<StoredToken, String> {
    let name = decode_token_key(key)?;
    let record: TokenRecord = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    let digest = SecretDigest::decode(&record.digest).ok_or("a digest is malformed")?;
    let actions = Actions::from_bits(record.actions)
        .filter(|actions| !actions.is_empty())
        .ok_or("actions are unknown")?;
    let prefixes = std::iter::once(&record.key_prefix)
        .filter(|first| !first.is_empty())
        .chain(&record.key_prefixes)
        .map(|prefix| URL_SAFE_NO_PAD.decode(prefix))
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())?;
    let rights =
        check_rights(actions, &record.namespaces, prefixes).map_err(|error| error.to_string())?;
    let token = Arc::new(Token {
        name,
        rights,
        expire_time: record.expire_time_ms.map(UnixMillis::new),
    });
    Ok(StoredToken { token, digest })
}
