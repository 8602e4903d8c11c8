//! The account that a replay runs in: one of its own, or one that exists.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};

use larder_client::{Account, AccountSettings, Action, AtLimit, Error, Token, TokenRights, Usage};

use crate::args::{Connection, Secret};
use crate::connect::Caller;
use crate::failure::Failure;

/// An account that is there for one replay only. [`delete`](Self::delete) has
/// to be called: dropping it leaves the account behind.
#[must_use = "the account stays until `delete`"]
pub(super) struct TemporaryAccount<'a> {
    administrator: &'a Caller,
    name: String,
}

impl<'a> TemporaryAccount<'a> {
    /// Makes an account that holds `capacity` keys and evicts for new ones.
    pub(super) async fn create(administrator: &'a Caller, capacity: u64) -> Result<Self, Failure> {
        let account = Self {
            administrator,
            name: format!("bench-{:016x}", RandomState::new().build_hasher().finish()),
        };
        let settings = AccountSettings {
            display_name: "larder bench replay: may be deleted".into(),
            max_keys: Some(capacity),
            at_limit: AtLimit::Evict,
            ..AccountSettings::default()
        };
        match account.make(&settings).await {
            Ok(_) => Ok(account),
            Err(error) => {
                // The answer may be all that was lost. Whether there was an
                // account to delete does not matter to what is reported.
                if error.may_have_applied() {
                    let _ = account.delete().await;
                }
                Err(administrator.failed(error))
            }
        }
    }

    async fn make(&self, settings: &AccountSettings) -> Result<Account, Error> {
        let accounts = self.administrator.client.accounts();
        accounts.create(&self.name, settings, None).await
    }

    /// A token that reads and writes in it.
    pub(super) async fn token(&self) -> Result<Token, Failure> {
        let rights = TokenRights {
            actions: vec![Action::Read, Action::Write],
            ..TokenRights::default()
        };
        let created = self
            .administrator
            .client
            .accounts()
            .create_token(&self.name, &rights, None, None)
            .await
            .map_err(|error| self.administrator.failed(error))?;
        created
            .secret
            .ok_or_else(|| Failure::Failed("the server made a token and kept its secret".into()))
    }

    /// Deletes the account with its token and its entries.
    pub(super) async fn delete(self) -> Result<(), Failure> {
        let Self {
            administrator,
            name,
        } = self;
        administrator
            .client
            .accounts()
            .delete(&name)
            .await
            .map_err(|error| {
                Failure::Failed(format!(
                    "the temporary account {name} is still there: {error}"
                ))
            })
    }
}

/// Refuses an account whose limit is not the capacity that was asked for.
pub(super) fn check_existing(usage: &Usage, capacity: u64) -> Result<(), Failure> {
    let problem = match usage.quota.max_keys {
        Some(max_keys) if max_keys == capacity => return Ok(()),
        Some(max_keys) => format!("holds at most {max_keys} keys"),
        None => "has no limit on its keys".into(),
    };
    Err(Failure::Usage(format!(
        "the account of this token {problem}, and --capacity is {capacity}; make another with \
         `larder account create NAME --max-keys {capacity} --at-limit evict`"
    )))
}

/// The same server, with another token.
pub(super) fn with_token(connection: &Connection, token: &Token) -> Connection {
    Connection {
        bearer: Some(Secret(token.expose().to_owned())),
        ..copy(connection)
    }
}

/// The same server and credential, in `namespace` unless one was asked for.
pub(super) fn with_default_namespace(connection: &Connection, namespace: &str) -> Connection {
    let namespace = connection.namespace.as_deref().unwrap_or(namespace);
    Connection {
        namespace: Some(namespace.to_owned()),
        ..copy(connection)
    }
}

fn copy(connection: &Connection) -> Connection {
    Connection {
        server: connection.server.clone(),
        ca_file: connection.ca_file.clone(),
        cert_file: connection.cert_file.clone(),
        key_file: connection.key_file.clone(),
        insecure: connection.insecure,
        bearer: connection.bearer.clone(),
        token_file: connection.token_file.clone(),
        timeout: connection.timeout,
        namespace: connection.namespace.clone(),
        json: connection.json,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_existing_account_must_have_the_capacity() {
        for (max_keys, good) in [(Some(2000), true), (Some(1999), false), (None, false)] {
            let mut usage = Usage::default();
            usage.quota.max_keys = max_keys;
            assert_eq!(check_existing(&usage, 2000).is_ok(), good, "{max_keys:?}");
        }
    }
}
