//! Accounts, and what of them can be set.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use larder_model::{AccountId, AccountName, AccountUid, AtLimit, Quota};
use sha2::{Digest as _, Sha256};

use crate::error::FieldError;
use crate::limits::MAX_DISPLAY_NAME_BYTES;

/// Name of the account that every data directory has, that the
/// administrator's token belongs to, and that cannot be deleted.
pub const DEFAULT_ACCOUNT: &str = "default";

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The last part of its resource name.
    pub name: AccountName,
    /// AIP-148: a random UUID, so that a second account of the same name is
    /// another one. Empty in the answer of a dry run that creates.
    pub uid: AccountUid,
    /// AIP-154: changes with each update. Empty where `uid` is.
    pub etag: String,
    /// The rest.
    pub settings: AccountSettings,
    /// Counts updates; the etag is made from it.
    pub(crate) revision: u64,
}

/// What an administrator can set. Limits are 0 for "no limit", on input and
/// on output; a negative one is refused.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccountSettings {
    /// Name for people: up to
    /// [`MAX_DISPLAY_NAME_BYTES`] of UTF-8 without control characters.
    pub display_name: String,
    /// Keys allowed; 0 means no limit.
    pub max_keys: i64,
    /// Bytes allowed; 0 means no limit.
    pub max_bytes: i64,
    /// Requests allowed a second; 0 means no limit.
    pub max_requests_per_second: i64,
    /// What happens to a new key at the limit.
    pub at_limit: AtLimit,
}

/// The fields that an update changes; `None` leaves one as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccountUpdate {
    /// As [`AccountSettings::display_name`].
    pub display_name: Option<String>,
    /// As [`AccountSettings::max_keys`].
    pub max_keys: Option<i64>,
    /// As [`AccountSettings::max_bytes`].
    pub max_bytes: Option<i64>,
    /// As [`AccountSettings::max_requests_per_second`].
    pub max_requests_per_second: Option<i64>,
    /// As [`AccountSettings::at_limit`].
    pub at_limit: Option<AtLimit>,
}

impl Account {
    pub(crate) fn new(
        name: AccountName,
        uid: AccountUid,
        revision: u64,
        settings: AccountSettings,
    ) -> Self {
        let etag = etag(&uid, revision);
        Self {
            name,
            uid,
            etag,
            settings,
            revision,
        }
    }

    /// Name and uid together, as a store wants them.
    pub fn id(&self) -> AccountId {
        AccountId {
            name: self.name.clone(),
            uid: self.uid.clone(),
        }
    }

    /// What the account may use, as a store wants it.
    pub fn quota(&self) -> Quota {
        Quota {
            max_keys: bound(self.settings.max_keys).unwrap_or(u64::MAX),
            max_bytes: bound(self.settings.max_bytes).unwrap_or(u64::MAX),
            at_limit: self.settings.at_limit,
        }
    }

    /// Requests allowed a second; `None` means no limit.
    pub fn max_requests_per_second(&self) -> Option<u64> {
        bound(self.settings.max_requests_per_second)
    }

    /// The resource name, `accounts/{account}`.
    pub fn resource_name(&self) -> String {
        format!("accounts/{}", self.name)
    }
}

impl AccountSettings {
    /// Checks every field against its bound.
    ///
    /// # Errors
    /// [`FieldError`] on the first field that breaks its rule.
    pub fn check(&self) -> Result<(), FieldError> {
        check_display_name(&self.display_name)?;
        check_bound("account.max_keys", self.max_keys)?;
        check_bound("account.max_bytes", self.max_bytes)?;
        check_bound(
            "account.max_requests_per_second",
            self.max_requests_per_second,
        )
    }

    /// These settings with the fields of `update` in place of their own.
    #[must_use]
    pub fn updated(&self, update: AccountUpdate) -> Self {
        Self {
            display_name: update
                .display_name
                .unwrap_or_else(|| self.display_name.clone()),
            max_keys: update.max_keys.unwrap_or(self.max_keys),
            max_bytes: update.max_bytes.unwrap_or(self.max_bytes),
            max_requests_per_second: update
                .max_requests_per_second
                .unwrap_or(self.max_requests_per_second),
            at_limit: update.at_limit.unwrap_or(self.at_limit),
        }
    }
}

pub(crate) fn default_account() -> AccountName {
    AccountName::parse(DEFAULT_ACCOUNT).expect("it follows the rule of names")
}

/// Parses the resource name `accounts/{account}`. `field` is the request's
/// field that holds it, for the error.
///
/// # Errors
/// [`FieldError`] on `field`.
pub fn parse_account_resource(
    field: &'static str,
    resource: &str,
) -> Result<AccountName, FieldError> {
    let Some(account) = resource.strip_prefix("accounts/") else {
        return Err(FieldError::new(field, "must be accounts/{account}"));
    };
    AccountName::parse(account).map_err(|error| FieldError::name(field, error))
}

fn etag(uid: &AccountUid, revision: u64) -> String {
    let mut hash = Sha256::new();
    hash.update(uid.as_str().as_bytes());
    hash.update(revision.to_be_bytes());
    // 72 bits: 12 characters without padding.
    URL_SAFE_NO_PAD.encode(&hash.finalize()[..9])
}

/// `None` for "no limit".
fn bound(limit: i64) -> Option<u64> {
    u64::try_from(limit).ok().filter(|limit| *limit > 0)
}

fn check_bound(field: &'static str, limit: i64) -> Result<(), FieldError> {
    if limit < 0 {
        return Err(FieldError::new(
            field,
            format!("must be 0, for no limit, or more; it is {limit}"),
        ));
    }
    Ok(())
}

fn check_display_name(name: &str) -> Result<(), FieldError> {
    const FIELD: &str = "account.display_name";
    let bytes = name.len();
    if bytes > MAX_DISPLAY_NAME_BYTES {
        return Err(FieldError::new(
            FIELD,
            format!("has {bytes} bytes, more than the limit of {MAX_DISPLAY_NAME_BYTES}"),
        ));
    }
    // It is printed on terminals, where control characters are commands.
    if name.chars().any(char::is_control) {
        return Err(FieldError::new(FIELD, "must not hold control characters"));
    }
    Ok(())
}
