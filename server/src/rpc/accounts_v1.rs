//! `larder.accounts.v1.AccountService`, over the accounts of this process.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use buffa::{MessageField, ViewEncode as _};
use connectrpc::{RequestContext, ServiceRequest, ServiceResult};
use larder_accounts::{
    Account, AccountError, AccountSettings, AccountUpdate, Accounts, Action, Actions,
    DatabaseError, Effect, FieldError, Made, NewToken, PageRequest, Secret, Token, TokenError,
    TokenName, UnixMillis, parse_account_resource,
};
use larder_api::accounts_v1::{self as wire, AccountService};
use larder_api::errors::Reason;
use larder_api::protobuf;
use larder_model::{AccountName, AtLimit, Mode, Store};

use super::control::{Answer, Asked, Control, Work};
use super::fields::bad_field;
use super::request_id::Repeat;
use super::{answer, call_of, reply};
use crate::call::Call;
use crate::clock;
use crate::core::Core;
use crate::failure::{Detail, Failure};
use crate::layers::attempt::Attempt;

/// How long a cache server may use an answer of `VerifyToken` without asking
/// again: so long does a revoked token live there.
const MAX_AGE: Duration = Duration::from_secs(10);

/// The service.
pub(super) struct AccountsV1<S: Store> {
    core: Arc<Core<S>>,
    control: Control,
}

impl<S: Store> AccountsV1<S> {
    pub(super) fn new(core: Arc<Core<S>>, accounts: &Arc<Accounts>) -> Self {
        Self {
            control: Control::new(accounts, &core.clock),
            core,
        }
    }

    /// Makes a change, once if it has a request id.
    async fn change<T: Answer>(
        &self,
        call: &Call<S>,
        asked: Asked<'_>,
        kept: fn(Made<'_>) -> T,
        make: impl FnOnce(&Accounts, Effect<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let work = Work { make, kept };
        self.control.change(&self.core, call, asked, work).await
    }

    async fn create_account(
        &self,
        call: &Call<S>,
        request: &wire::CreateAccountRequestView<'_>,
    ) -> Result<wire::CreateAccountResponse, Failure> {
        let name = AccountName::parse(request.account_id)
            .map_err(|error| bad_field("account_id", &error.to_string()))?;
        let settings = match request.account.as_option() {
            None => AccountSettings::default(),
            Some(account) => AccountSettings {
                display_name: account.display_name.into(),
                max_keys: account.max_keys,
                max_bytes: account.max_bytes,
                max_requests_per_second: account.max_requests_per_second,
                at_limit: at_limit(account.at_limit.as_known()),
            },
        };
        let mode = call.mode(request.validate_only);
        call.concerns(format_args!("accounts/{name}"), mode);
        let asked = Asked {
            id: request.request_id,
            body: body!(CreateAccountRequestView, request)(),
            repeat: Repeat::Counts,
            mode,
        };
        let create = move |accounts: &Accounts, effect: Effect<'_>| {
            let made = accounts
                .create_account(name, settings, effect)
                .map_err(account_failure)?;
            Ok(wire::CreateAccountResponse {
                account: Some(account(&made)).into(),
                validated_only: mode == Mode::DryRun,
                ..Default::default()
            })
        };
        self.change(
            call,
            asked,
            |made| wire::CreateAccountResponse {
                account: account_of(made).into(),
                ..Default::default()
            },
            create,
        )
        .await
    }

    #[expect(clippy::unused_async, reason = "handlers are alike")]
    async fn get_account(
        &self,
        _: &Call<S>,
        request: &wire::GetAccountRequestView<'_>,
    ) -> Result<wire::GetAccountResponse, Failure> {
        let name = parse_account_resource("name", request.name).map_err(field_failure)?;
        let found = self.control.accounts().account(&name);
        let found = found.ok_or_else(|| account_failure(AccountError::NotFound))?;
        Ok(wire::GetAccountResponse {
            account: Some(account(&found)).into(),
            ..Default::default()
        })
    }

    #[expect(clippy::unused_async, reason = "handlers are alike")]
    async fn list_accounts(
        &self,
        _: &Call<S>,
        request: &wire::ListAccountsRequestView<'_>,
    ) -> Result<wire::ListAccountsResponse, Failure> {
        let page = PageRequest {
            page_size: request.page_size,
            page_token: request.page_token,
        };
        let page = self
            .control
            .accounts()
            .list_accounts(page)
            .map_err(field_failure)?;
        Ok(wire::ListAccountsResponse {
            accounts: page.items.iter().map(|one| account(one)).collect(),
            next_page_token: page.next_page_token,
            ..Default::default()
        })
    }

    async fn update_account(
        &self,
        call: &Call<S>,
        request: &wire::UpdateAccountRequestView<'_>,
    ) -> Result<wire::UpdateAccountResponse, Failure> {
        let given = request.account.as_option();
        let given = given.ok_or_else(|| bad_field("account", "is missing"))?;
        let name = parse_account_resource("account.name", given.name).map_err(field_failure)?;
        let paths = request
            .update_mask
            .as_option()
            .map(|mask| mask.paths.iter());
        let update = match paths {
            None => all_set(given),
            Some(paths) => masked(given, paths.copied())?,
        };
        let etag = given.etag.to_owned();
        let mode = call.mode(request.validate_only);
        call.concerns(format_args!("accounts/{name}"), mode);
        let repeat = match etag.is_empty() {
            true => Repeat::Harmless,
            false => Repeat::Counts,
        };
        let asked = Asked {
            id: request.request_id,
            body: body!(UpdateAccountRequestView, request)(),
            repeat,
            mode,
        };
        let change = move |accounts: &Accounts, effect: Effect<'_>| {
            let updated = accounts
                .update_account(&name, update, &etag, effect)
                .map_err(account_failure)?;
            Ok(wire::UpdateAccountResponse {
                account: Some(account(&updated)).into(),
                validated_only: mode == Mode::DryRun,
                ..Default::default()
            })
        };
        self.change(
            call,
            asked,
            |made| wire::UpdateAccountResponse {
                account: account_of(made).into(),
                ..Default::default()
            },
            change,
        )
        .await
    }

    async fn delete_account(
        &self,
        call: &Call<S>,
        request: &wire::DeleteAccountRequestView<'_>,
    ) -> Result<wire::DeleteAccountResponse, Failure> {
        let name = parse_account_resource("name", request.name).map_err(field_failure)?;
        let mode = call.mode(request.validate_only);
        call.concerns(format_args!("accounts/{name}"), mode);
        let asked = Asked {
            id: request.request_id,
            body: body!(DeleteAccountRequestView, request)(),
            repeat: Repeat::Harmless,
            mode,
        };
        let core = Arc::clone(&self.core);
        let may_be_done = may_be_done(call, &asked);
        let delete = move |accounts: &Accounts, effect: Effect<'_>| {
            match accounts.delete_account(&name, effect) {
                Err(AccountError::NotFound) if may_be_done => {}
                deleted => drop(deleted.map_err(account_failure)?),
            }
            if mode == Mode::Apply {
                core.tenants.close(&name);
            }
            Ok(wire::DeleteAccountResponse {
                validated_only: mode == Mode::DryRun,
                ..Default::default()
            })
        };
        self.change(
            call,
            asked,
            |_| wire::DeleteAccountResponse::default(),
            delete,
        )
        .await
    }

    async fn create_token(
        &self,
        call: &Call<S>,
        request: &wire::CreateTokenRequestView<'_>,
    ) -> Result<wire::CreateTokenResponse, Failure> {
        let parent = parse_account_resource("parent", request.parent).map_err(field_failure)?;
        let new = new_token(request)?;
        let at = parent.clone();
        let mode = call.mode(request.validate_only);
        let now = UnixMillis::new(clock::unix_millis());
        let asked = Asked {
            id: request.request_id,
            body: body!(CreateTokenRequestView, request)(),
            repeat: Repeat::Counts,
            mode,
        };
        let create = move |accounts: &Accounts, effect: Effect<'_>| {
            let created = accounts
                .create_token(&parent, new, now, effect)
                .map_err(token_failure)?;
            Ok(wire::CreateTokenResponse {
                token: Some(token(&created.token)).into(),
                secret: created.secret.expose().into(),
                validated_only: mode == Mode::DryRun,
                ..Default::default()
            })
        };
        let kept = |made: Made<'_>| wire::CreateTokenResponse {
            token: token_of(made).into(),
            ..Default::default()
        };
        let made = self.change(call, asked, kept, create).await;
        match made.as_ref().ok().and_then(|made| made.token.as_option()) {
            Some(created) => call.concerns(&created.name, mode),
            None => call.concerns(format_args!("accounts/{at}/tokens"), mode),
        }
        made
    }

    #[expect(clippy::unused_async, reason = "handlers are alike")]
    async fn list_tokens(
        &self,
        _: &Call<S>,
        request: &wire::ListTokensRequestView<'_>,
    ) -> Result<wire::ListTokensResponse, Failure> {
        let parent = parse_account_resource("parent", request.parent).map_err(field_failure)?;
        let page = PageRequest {
            page_size: request.page_size,
            page_token: request.page_token,
        };
        let page = self
            .control
            .accounts()
            .list_tokens(&parent, page)
            .map_err(token_failure)?;
        Ok(wire::ListTokensResponse {
            tokens: page.items.iter().map(|one| token(one)).collect(),
            next_page_token: page.next_page_token,
            ..Default::default()
        })
    }

    async fn revoke_token(
        &self,
        call: &Call<S>,
        request: &wire::RevokeTokenRequestView<'_>,
    ) -> Result<wire::RevokeTokenResponse, Failure> {
        let name = TokenName::parse("name", request.name).map_err(field_failure)?;
        let mode = call.mode(request.validate_only);
        call.concerns(&name, mode);
        let asked = Asked {
            id: request.request_id,
            body: body!(RevokeTokenRequestView, request)(),
            repeat: Repeat::Harmless,
            mode,
        };
        let may_be_done = may_be_done(call, &asked);
        let revoke = move |accounts: &Accounts, effect: Effect<'_>| {
            match accounts.revoke_token(&name, effect) {
                Err(TokenError::NotFound) if may_be_done => {}
                revoked => drop(revoked.map_err(token_failure)?),
            }
            Ok(wire::RevokeTokenResponse {
                validated_only: mode == Mode::DryRun,
                ..Default::default()
            })
        };
        self.change(
            call,
            asked,
            |_| wire::RevokeTokenResponse::default(),
            revoke,
        )
        .await
    }

    #[expect(clippy::unused_async, reason = "handlers are alike")]
    async fn verify_token(
        &self,
        _: &Call<S>,
        request: &wire::VerifyTokenRequestView<'_>,
    ) -> Result<wire::VerifyTokenResponse, Failure> {
        let now = clock::unix_millis();
        let verified = self
            .control
            .accounts()
            .verify(request.secret, UnixMillis::new(now))
            .map_err(|_| token_failure(TokenError::NotFound))?;
        // Never past the end of the token itself.
        let left = verified.token.expire_time.map_or(MAX_AGE, |end| {
            Duration::from_millis(end.get().saturating_sub(now)).min(MAX_AGE)
        });
        Ok(wire::VerifyTokenResponse {
            account: Some(account(&verified.account)).into(),
            token: Some(token(&verified.token)).into(),
            max_age: MessageField::some(protobuf::Duration::from(left)),
            ..Default::default()
        })
    }
}

#[allow(
    refining_impl_trait,
    reason = "the concrete message says more than `impl Encodable`"
)]
impl<S: Store> AccountService for AccountsV1<S> {
    unary! {
        create_account: CreateAccountRequest => CreateAccountResponse;
        get_account: GetAccountRequest => GetAccountResponse;
        list_accounts: ListAccountsRequest => ListAccountsResponse;
        update_account: UpdateAccountRequest => UpdateAccountResponse;
        delete_account: DeleteAccountRequest => DeleteAccountResponse;
        create_token: CreateTokenRequest => CreateTokenResponse;
        list_tokens: ListTokensRequest => ListTokensResponse;
        revoke_token: RevokeTokenRequest => RevokeTokenResponse;
        verify_token: VerifyTokenRequest => VerifyTokenResponse;
    }
}

/// True if an earlier attempt of a removal may have made it: that there is nothing left is then
/// what was asked for. With an id the record of that attempt says so; a dry one removed nothing.
fn may_be_done<S: Store>(call: &Call<S>, asked: &Asked<'_>) -> bool {
    call.attempt == Attempt::Repeat && asked.id.is_empty() && asked.mode == Mode::Apply
}

/// The action of its number on the wire; `None` for one that is not known.
pub(crate) fn action(wire: wire::Action) -> Option<Action> {
    match wire {
        wire::Action::ACTION_READ => Some(Action::Read),
        wire::Action::ACTION_WRITE => Some(Action::Write),
        wire::Action::ACTION_ADMIN => Some(Action::Admin),
        wire::Action::ACTION_VERIFY => Some(Action::Verify),
        _ => None,
    }
}

/// Unset and unknown mean "refuse".
pub(crate) fn at_limit(wire: Option<wire::AtLimit>) -> AtLimit {
    match wire {
        Some(wire::AtLimit::AT_LIMIT_EVICT) => AtLimit::Evict,
        _ => AtLimit::Refuse,
    }
}

fn account(account: &Account) -> wire::Account {
    let settings = &account.settings;
    wire::Account {
        name: account.resource_name(),
        display_name: settings.display_name.clone(),
        max_keys: settings.max_keys,
        max_bytes: settings.max_bytes,
        max_requests_per_second: settings.max_requests_per_second,
        etag: account.etag.clone(),
        at_limit: match settings.at_limit {
            AtLimit::Refuse => wire::AtLimit::AT_LIMIT_REFUSE,
            AtLimit::Evict => wire::AtLimit::AT_LIMIT_EVICT,
        }
        .into(),
        uid: account.uid.as_str().into(),
        ..Default::default()
    }
}

fn token(token: &Token) -> wire::Token {
    let mut prefixes = token.rights.key_prefixes.iter().map(|own| own.to_vec());
    let number = |action| match action {
        Action::Read => wire::Action::ACTION_READ,
        Action::Write => wire::Action::ACTION_WRITE,
        Action::Admin => wire::Action::ACTION_ADMIN,
        Action::Verify => wire::Action::ACTION_VERIFY,
    };
    wire::Token {
        name: token.name.to_string(),
        actions: token
            .rights
            .actions
            .iter()
            .map(|one| number(one).into())
            .collect(),
        namespaces: token
            .rights
            .namespaces
            .iter()
            .map(|ns| String::from(&**ns))
            .collect(),
        key_prefix: prefixes.next().unwrap_or_default(),
        key_prefixes: prefixes.collect(),
        expire_time: token
            .expire_time
            .map(|end| reply::timestamp(reply::signed(end.get())))
            .into(),
        ..Default::default()
    }
}

fn new_token(request: &wire::CreateTokenRequestView<'_>) -> Result<NewToken, Failure> {
    let secret = match request.secret {
        "" => None,
        text => Some(Secret::import(text).map_err(field_failure)?),
    };
    let Some(token) = request.token.as_option() else {
        return Ok(NewToken {
            secret,
            ..NewToken::default()
        });
    };
    let mut actions = Actions::NONE;
    for one in &token.actions {
        let known = one.as_known().and_then(action);
        actions = actions.with(
            known.ok_or_else(|| bad_field("token.actions", "holds an action that is not known"))?,
        );
    }
    let expire_time = match token.expire_time.as_option() {
        None => None,
        Some(t) => {
            let unix_millis = t
                .seconds
                .saturating_mul(1000)
                .saturating_add(i64::from(t.nanos / 1_000_000));
            // Before 1970 is in the past as well.
            Some(UnixMillis::new(u64::try_from(unix_millis).unwrap_or(0)))
        }
    };
    Ok(NewToken {
        actions,
        namespaces: token.namespaces.iter().map(|&ns| ns.into()).collect(),
        key_prefixes: prefixes(token)?,
        expire_time,
        secret,
    })
}

/// `key_prefix` and those beside it; none of either means all keys.
fn prefixes(token: &wire::TokenView<'_>) -> Result<Vec<Vec<u8>>, Failure> {
    match (token.key_prefix, token.key_prefixes.is_empty()) {
        (&[], true) => Ok(Vec::new()),
        (&[], false) => Err(bad_field(
            "token.key_prefix",
            "must not be empty where key_prefixes is set",
        )),
        (first, _) => Ok(std::iter::once(&first)
            .chain(&token.key_prefixes)
            .map(|&prefix| prefix.to_vec())
            .collect()),
    }
}

/// AIP-134: without a mask, the fields that are set are changed.
fn all_set(given: &wire::AccountView<'_>) -> AccountUpdate {
    let number = |given: i64| (given != 0).then_some(given);
    AccountUpdate {
        display_name: (!given.display_name.is_empty()).then(|| given.display_name.into()),
        max_keys: number(given.max_keys),
        max_bytes: number(given.max_bytes),
        max_requests_per_second: number(given.max_requests_per_second),
        at_limit: match given.at_limit.as_known() {
            None | Some(wire::AtLimit::AT_LIMIT_UNSPECIFIED) => None,
            known => Some(at_limit(known)),
        },
    }
}

fn masked<'a>(
    given: &wire::AccountView<'_>,
    paths: impl Iterator<Item = &'a str>,
) -> Result<AccountUpdate, Failure> {
    let mut update = AccountUpdate::default();
    for path in paths {
        match path {
            "display_name" => update.display_name = Some(given.display_name.into()),
            "max_keys" => update.max_keys = Some(given.max_keys),
            "max_bytes" => update.max_bytes = Some(given.max_bytes),
            "max_requests_per_second" => {
                update.max_requests_per_second = Some(given.max_requests_per_second);
            }
            "at_limit" => update.at_limit = Some(at_limit(given.at_limit.as_known())),
            // AIP-134: a full replacement.
            "*" => {
                let every = [
                    "display_name",
                    "max_keys",
                    "max_bytes",
                    "max_requests_per_second",
                    "at_limit",
                ];
                return masked(given, every.into_iter());
            }
            _ => {
                return Err(bad_field(
                    "update_mask",
                    "names a field that cannot be changed",
                ));
            }
        }
    }
    Ok(update)
}

fn field_failure(error: FieldError) -> Failure {
    let reason = match error.field {
        "page_token" => Reason::PageTokenInvalid,
        _ => Reason::FieldInvalid,
    };
    Failure::field(reason, error.field, error.reason)
}

/// The account that a change was made to, for an answer.
fn account_of(made: Made<'_>) -> Option<wire::Account> {
    match made {
        Made::Account(it) => Some(account(it)),
        Made::Token(_) => None,
    }
}

/// The token that a change was made to.
fn token_of(made: Made<'_>) -> Option<wire::Token> {
    match made {
        Made::Token(it) => Some(token(it)),
        Made::Account(_) => None,
    }
}

/// When the disk may have room again.
const DATABASE_DELAY: Duration = Duration::from_secs(1);

/// The change may be on the disk or not: the next one finds out. Who calls is told
/// no path and no cause of the machine's.
pub(super) fn database_failure(error: &DatabaseError) -> Failure {
    let cause = error.source().map(ToString::to_string);
    tracing::error!(
        cause = cause.as_deref().unwrap_or("-"),
        "THE ACCOUNTS DATABASE COULD NOT BE WRITTEN; accounts stay as they were"
    );
    Failure::new(Reason::StoreUnavailable, error.to_string()).retry_after(DATABASE_DELAY)
}

fn account_failure(error: AccountError) -> Failure {
    let reason = match error {
        AccountError::Field(error) => return field_failure(error),
        AccountError::EtagMismatch { .. } => {
            let description = error.to_string();
            return Failure::new(Reason::EtagMismatch, description.clone()).with_detail(
                Detail::Precondition {
                    subject: "account.etag".into(),
                    description,
                },
            );
        }
        AccountError::NotFound => Reason::AccountNotFound,
        AccountError::AlreadyExists => Reason::AccountExists,
        AccountError::Protected => Reason::AccountProtected,
        AccountError::TooMany { .. } => Reason::TooMany,
        AccountError::Database(error) => return database_failure(&error),
    };
    Failure::new(reason, error.to_string())
}

fn token_failure(error: TokenError) -> Failure {
    let reason = match error {
        TokenError::Field(error) => return field_failure(error),
        TokenError::AccountNotFound => Reason::AccountNotFound,
        TokenError::NotFound => Reason::TokenNotFound,
        TokenError::AlreadyExists => Reason::TokenExists,
        TokenError::TooMany { .. } => Reason::TooMany,
        TokenError::Database(error) => return database_failure(&error),
    };
    Failure::new(reason, error.to_string())
}
