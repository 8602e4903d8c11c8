//! The control plane: accounts and their tokens.

use std::time::Duration;

use larder_api::accounts_v1 as wire;
use larder_api::protobuf::FieldMask;

use crate::client::Client;
use crate::config::Token;
use crate::convert;
use crate::error::{Error, Repeat};
use crate::keys::{Next, PageToken};
use crate::method;
use crate::near::Writes;
use crate::options::RequestId;
use crate::types::{
    Account, AccountChange, AccountSettings, CreatedToken, TokenInfo, TokenRights, VerifiedToken,
};

/// Calls of `larder.accounts.v1`, for administrators. Accounts go by the last
/// part of their resource name.
///
/// The attempts of a change share a request id, the caller's or one that is made for the call, so
/// that it may be tried again and takes effect once. Only a token whose secret the server makes
/// up is not tried again without the caller's id: no replay shows that secret.
///
/// Under ring hash every call fails ([`Code::FailedPrecondition`](crate::Code::FailedPrecondition)):
/// accounts are those of one server, or of a server of their own.
#[derive(Debug, Clone)]
pub struct Accounts(Client);

/// One page of accounts, by name.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AccountPage {
    /// The accounts.
    pub accounts: Vec<Account>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<PageToken>,
}

/// One page of an account's tokens.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TokenPage {
    /// The tokens, without their secrets.
    pub tokens: Vec<TokenInfo>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<PageToken>,
}

/// All accounts, page by page.
#[derive(Debug)]
pub struct AccountPages {
    accounts: Accounts,
    next: Next,
}

/// All tokens of an account, page by page.
#[derive(Debug)]
pub struct TokenPages {
    accounts: Accounts,
    account: String,
    next: Next,
}

impl Accounts {
    pub(crate) fn new(client: Client) -> Self {
        Self(client)
    }

    fn client(&self) -> Result<&Client, Error> {
        self.0.is_of_one_server("the control plane")?;
        Ok(&self.0)
    }

    /// Creates an account. With a request id it is safe to repeat by the caller, who gives the
    /// same again.
    ///
    /// # Errors
    ///
    /// As [`Client::get`], and if an account of this name exists. So with
    /// every other call here, which are for tokens with the right `admin`.
    pub async fn create(
        &self,
        name: &str,
        settings: &AccountSettings,
        request_id: Option<RequestId>,
    ) -> Result<Account, Error> {
        let (request_id, repeat) = identified(request_id)?;
        let request = wire::CreateAccountRequest {
            account_id: name.into(),
            account: convert::wire_account(String::new(), settings)?.into(),
            request_id,
            validate_only: self.0.is_dry_run(),
            ..wire::CreateAccountRequest::default()
        };
        let reply = self
            .client()?
            .call(
                method::CREATE_ACCOUNT,
                &request,
                repeat.over(Writes::Nothing),
            )
            .await?;
        self.0.confirm(reply.validated_only)?;
        convert::account(reply.account.into_option().unwrap_or_default())
    }

    /// Reads an account.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create); [`Reason::AccountNotFound`](crate::Reason::AccountNotFound).
    pub async fn get(&self, name: &str) -> Result<Account, Error> {
        let request = wire::GetAccountRequest {
            name: account_path(name),
            ..wire::GetAccountRequest::default()
        };
        let reply = self
            .client()?
            .call(method::GET_ACCOUNT, &request, Repeat::Read)
            .await?;
        convert::account(reply.account.into_option().unwrap_or_default())
    }

    /// One page of accounts. `page_size` 0 leaves its size to the server.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub async fn list(
        &self,
        page_size: u32,
        from: Option<&PageToken>,
    ) -> Result<AccountPage, Error> {
        let request = wire::ListAccountsRequest {
            page_size: i32::try_from(page_size).unwrap_or(i32::MAX),
            page_token: from.map_or_else(String::new, |token| token.0.clone()),
            ..wire::ListAccountsRequest::default()
        };
        let reply = self
            .client()?
            .call(method::LIST_ACCOUNTS, &request, Repeat::Read)
            .await?;
        Ok(AccountPage {
            accounts: reply
                .accounts
                .into_iter()
                .map(convert::account)
                .collect::<Result<_, _>>()?,
            next: PageToken::from_wire(reply.next_page_token),
        })
    }

    /// All accounts, page by page.
    pub fn pages(&self) -> AccountPages {
        AccountPages {
            accounts: self.clone(),
            next: Next::First,
        }
    }

    /// Changes the fields that `change` names; the account after it.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get); [`Reason::EtagMismatch`](crate::Reason::EtagMismatch).
    pub async fn update(&self, name: &str, change: &AccountChange) -> Result<Account, Error> {
        let mut paths = Vec::new();
        let mut changed = wire::Account {
            name: account_path(name),
            etag: change.etag.clone().unwrap_or_default(),
            ..wire::Account::default()
        };
        if let Some(display_name) = &change.display_name {
            paths.push("display_name");
            changed.display_name.clone_from(display_name);
        }
        if let Some(limit) = change.max_keys {
            paths.push("max_keys");
            changed.max_keys = convert::wire_limit(limit)?;
        }
        if let Some(limit) = change.max_bytes {
            paths.push("max_bytes");
            changed.max_bytes = convert::wire_limit(limit)?;
        }
        if let Some(limit) = change.max_requests_per_second {
            paths.push("max_requests_per_second");
            changed.max_requests_per_second = convert::wire_limit(limit)?;
        }
        if let Some(at_limit) = change.at_limit {
            paths.push("at_limit");
            changed.at_limit = convert::wire_at_limit(at_limit).into();
        }
        if paths.is_empty() {
            return Err(Error::configuration("the change names no field"));
        }
        let (request_id, repeat) = identified(None)?;
        let request = wire::UpdateAccountRequest {
            request_id,
            account: changed.into(),
            update_mask: FieldMask {
                paths: paths.into_iter().map(String::from).collect(),
                ..FieldMask::default()
            }
            .into(),
            validate_only: self.0.is_dry_run(),
            ..wire::UpdateAccountRequest::default()
        };
        let reply = self
            .client()?
            .call(method::UPDATE_ACCOUNT, &request, repeat)
            .await?;
        self.0.confirm(reply.validated_only)?;
        convert::account(reply.account.into_option().unwrap_or_default())
    }

    /// Deletes an account, its tokens and its entries.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        let (request_id, repeat) = identified(None)?;
        let request = wire::DeleteAccountRequest {
            request_id,
            name: account_path(name),
            validate_only: self.0.is_dry_run(),
            ..wire::DeleteAccountRequest::default()
        };
        let reply = self
            .client()?
            .call(method::DELETE_ACCOUNT, &request, repeat)
            .await?;
        self.0.confirm(reply.validated_only)
    }

    /// Makes a token with a fresh secret, or with `secret` to import one.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get); [`Reason::TokenExists`](crate::Reason::TokenExists).
    pub async fn create_token(
        &self,
        name: &str,
        rights: &TokenRights,
        secret: Option<&Token>,
        request_id: Option<RequestId>,
    ) -> Result<CreatedToken, Error> {
        let (request_id, repeat) = match (request_id, secret) {
            // Its replay would show no secret: what it made would be of no use, and stay.
            (None, None) => (String::new(), Repeat::Effect),
            (request_id, _) => identified(request_id)?,
        };
        let request = wire::CreateTokenRequest {
            parent: account_path(name),
            token: convert::wire_token(rights).into(),
            secret: secret.map_or_else(String::new, |secret| secret.expose().into()),
            request_id,
            validate_only: self.0.is_dry_run(),
            ..wire::CreateTokenRequest::default()
        };
        let reply = self
            .client()?
            .call(method::CREATE_TOKEN, &request, repeat.over(Writes::Nothing))
            .await?;
        self.0.confirm(reply.validated_only)?;
        let secret = match reply.secret.is_empty() {
            true => None,
            false => Some(Token::new(reply.secret)?),
        };
        Ok(CreatedToken {
            token: convert::token(reply.token.into_option().unwrap_or_default())?,
            secret,
            replayed: reply.replayed,
        })
    }

    /// One page of the tokens of an account, without their secrets.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn list_tokens(
        &self,
        name: &str,
        page_size: u32,
        from: Option<&PageToken>,
    ) -> Result<TokenPage, Error> {
        let request = wire::ListTokensRequest {
            parent: account_path(name),
            page_size: i32::try_from(page_size).unwrap_or(i32::MAX),
            page_token: from.map_or_else(String::new, |token| token.0.clone()),
            ..wire::ListTokensRequest::default()
        };
        let reply = self
            .client()?
            .call(method::LIST_TOKENS, &request, Repeat::Read)
            .await?;
        Ok(TokenPage {
            tokens: reply
                .tokens
                .into_iter()
                .map(convert::token)
                .collect::<Result<_, _>>()?,
            next: PageToken::from_wire(reply.next_page_token),
        })
    }

    /// All tokens of an account, page by page.
    pub fn token_pages(&self, name: &str) -> TokenPages {
        TokenPages {
            accounts: self.clone(),
            account: name.into(),
            next: Next::First,
        }
    }

    /// Makes a token useless, by its resource name
    /// `accounts/{account}/tokens/{token}`.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create); [`Reason::TokenNotFound`](crate::Reason::TokenNotFound).
    pub async fn revoke_token(&self, name: &str) -> Result<(), Error> {
        let (request_id, repeat) = identified(None)?;
        let request = wire::RevokeTokenRequest {
            request_id,
            name: name.into(),
            validate_only: self.0.is_dry_run(),
            ..wire::RevokeTokenRequest::default()
        };
        let reply = self
            .client()?
            .call(method::REVOKE_TOKEN, &request, repeat.over(Writes::Nothing))
            .await?;
        self.0.confirm(reply.validated_only)
    }

    /// Reads the account and the rights of a client's credential. For cache
    /// servers, whose token has the right `verify`.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create); [`Reason::TokenInvalid`](crate::Reason::TokenInvalid)
    /// for a secret that is no token.
    pub async fn verify_token(&self, secret: &Token) -> Result<VerifiedToken, Error> {
        let request = wire::VerifyTokenRequest {
            secret: secret.expose().into(),
            ..wire::VerifyTokenRequest::default()
        };
        let reply = self
            .client()?
            .call(method::VERIFY_TOKEN, &request, Repeat::Read)
            .await?;
        let max_age = reply.max_age.into_option().map(Duration::try_from);
        Ok(VerifiedToken {
            account: convert::account(reply.account.into_option().unwrap_or_default())?,
            token: convert::token(reply.token.into_option().unwrap_or_default())?,
            max_age: max_age
                .transpose()
                .map_err(|_| Error::protocol("the server sent a negative max_age"))?
                .unwrap_or_default(),
        })
    }
}

impl AccountPages {
    /// The next page; `None` at the end.
    ///
    /// # Errors
    ///
    /// As [`Accounts::list`].
    pub async fn next_page(&mut self) -> Result<Option<Vec<Account>>, Error> {
        let Some(from) = self.next.token() else {
            return Ok(None);
        };
        let page = self.accounts.list(0, from).await?;
        self.next.advance(page.next)?;
        Ok(Some(page.accounts))
    }
}

impl TokenPages {
    /// The next page; `None` at the end.
    ///
    /// # Errors
    ///
    /// As [`Accounts::list_tokens`].
    pub async fn next_page(&mut self) -> Result<Option<Vec<TokenInfo>>, Error> {
        let Some(from) = self.next.token() else {
            return Ok(None);
        };
        let page = self.accounts.list_tokens(&self.account, 0, from).await?;
        self.next.advance(page.next)?;
        Ok(Some(page.tokens))
    }
}

/// The id that a change is sent with, on each of its attempts: an attempt that is answered from
/// the record of one before says what that one did, and not that what it deleted is not there.
fn identified(own: Option<RequestId>) -> Result<(String, Repeat), Error> {
    let (id, repeat) = match own {
        Some(id) => (id, Repeat::Once),
        None => (RequestId::generate()?, Repeat::OnceEach),
    };
    Ok((id.as_str().to_owned(), repeat))
}

fn account_path(name: &str) -> String {
    format!("accounts/{name}")
}
