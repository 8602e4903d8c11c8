//! Before a byte of the body is read: who calls, what, until when, and may they.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use larder_accounts::Action;
use larder_api::errors::Reason;
use larder_api::wire::DRY_RUN;
use larder_model::{Mode, Store};
use larder_transport::rpc::{Trust, grpc_timeout};

use crate::authority::{Holder, Vouched, token_invalid};
use crate::call::Call;
use crate::callers::{Given, Verified};
use crate::clock;
use crate::connection::Identity;
use crate::core::Epoch;
use crate::failure::Failure;
use crate::layers::attempt::Attempt;
use crate::methods::Access;

/// The fields of a request's head.
pub(crate) trait Fields {
    /// The values of a field, in their order. `name` is in lower case.
    fn values<'a>(&'a self, name: &'static str) -> impl Iterator<Item = &'a [u8]>;
}

impl Fields for HeaderMap {
    fn values<'a>(&'a self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        self.get_all(name).iter().map(http::HeaderValue::as_bytes)
    }
}

/// What the head of a request says of a call, beside how long it may take.
#[derive(Debug)]
pub(crate) struct CallHead {
    credential: Result<Option<Box<str>>, Failure>,
    dry_run: Result<Mode, Failure>,
    attempt: Result<Attempt, Failure>,
}

impl CallHead {
    pub(crate) fn read(fields: &impl Fields) -> Self {
        Self {
            credential: bearer(fields),
            dry_run: dry_run(fields),
            attempt: Attempt::of(fields),
        }
    }

    /// The same of a head that differs in its one `authorization`.
    pub(crate) fn with_authorization(&self, value: Option<&[u8]>) -> Self {
        Self {
            credential: value.map(token).transpose(),
            dry_run: self.dry_run.clone(),
            attempt: self.attempt.clone(),
        }
    }

    /// The token, if it is one.
    pub(crate) fn token(&self) -> Option<&str> {
        self.credential.as_ref().ok()?.as_deref()
    }

    /// True if the head asks for nothing that a refusal must repeat.
    pub(crate) fn is_plain(&self) -> bool {
        self.dry_run == Ok(Mode::Apply)
    }

    /// Tells the call.
    ///
    /// # Errors
    /// The first field that is not as it must be, but for the credential: not
    /// every method needs one.
    pub(crate) fn tell<S: Store>(&self, call: &mut Call<S>) -> Result<(), Failure> {
        match &self.dry_run {
            Ok(mode) => call.dry_run = *mode,
            Err(failure) => return Err(failure.clone()),
        }
        match &self.attempt {
            Ok(attempt) => call.attempt = *attempt,
            Err(failure) => return Err(failure.clone()),
        }
        Ok(())
    }
}

/// Refuses a call that there is no room for, or that its caller may not make.
///
/// The order matters: what is cheapest comes first, and a caller is told that
/// its credential is bad before it is told what it may not do with it.
pub(crate) async fn admit<S: Store>(call: &Call<S>, head: &CallHead) -> Result<(), Failure> {
    take_place(call, head)?;
    authorize(call, head).await?;
    match call.identity() {
        Some(identity) => call.hold_of_account(identity),
        None => Ok(()),
    }
}

/// Takes a place among the calls in flight. A call that is answered where it
/// was read needs none: it is never beside another of its thread.
fn take_place<S: Store>(call: &Call<S>, head: &CallHead) -> Result<(), Failure> {
    let stranger = match call.method.access {
        Access::Open => true,
        Access::TalkAccount(_) => {
            matches!(head.credential, Ok(None)) && call.connection.certificate.is_none()
        }
        _ => false,
    };
    let core = call.core();
    let places = if stranger {
        &core.strangers
    } else {
        &core.calls
    };
    let full = |_| overloaded("the server has as many calls in flight as it accepts");
    call.hold(Arc::clone(places).try_acquire_owned().map_err(full)?);
    Ok(())
}

/// Finds out who calls, and refuses what they may not do.
pub(crate) async fn authorize<S: Store>(call: &Call<S>, head: &CallHead) -> Result<(), Failure> {
    let (action, anybody) = match call.method.access {
        Access::Open => return Ok(()),
        Access::Account(action) | Access::TalkAccount(action) => (Some(action), true),
        Access::AnyAccount => (None, true),
        Access::Control(action) => (Some(action), false),
    };
    match &head.credential {
        // Found out before: an answer at once was tried, and could not be had.
        _ if call.identity().is_some() => {}
        Err(failure) => return Err(failure.clone()),
        Ok(Some(token)) => {
            let identity = ask(call, token).await?;
            settle(call, identity)?;
        }
        // The token may stand in the request: `identify` goes on.
        Ok(None) if matches!(call.method.access, Access::TalkAccount(_)) => return Ok(()),
        Ok(None) => {
            let identity = without_token(call)?;
            // Nobody administers namelessly.
            if !anybody && identity.grant.holder == Holder::Anonymous {
                return Err(token_missing());
            }
            settle(call, identity)?;
        }
    }
    action.map_or(Ok(()), |action| check_action(call, action))
}

/// Whether a head says who calls, before its request has come; takes nothing from
/// the account's rate.
///
/// # Errors
/// The credential is bad, or there must be one and is none.
pub(crate) async fn is_known<S: Store>(call: &Call<S>, head: &CallHead) -> Result<Trust, Failure> {
    match &head.credential {
        Err(failure) => Err(failure.clone()),
        Ok(Some(token)) => ask(call, token).await.map(|_| Trust::Known),
        // The token may stand in the request.
        Ok(None) if matches!(call.method.access, Access::TalkAccount(_)) => Ok(Trust::Unknown),
        Ok(None) => without_token(call).map(|identity| match identity.grant.holder {
            Holder::Anonymous => Trust::Unknown,
            _ => Trust::Known,
        }),
    }
}

/// As [`authorize`], for a caller who was settled on this connection before.
pub(crate) fn authorize_known<S: Store>(call: &Call<S>) -> Result<(), Failure> {
    within_rate(call, call.known()?)?;
    match call.method.access {
        Access::Account(action) | Access::TalkAccount(action) => check_action(call, action),
        _ => Ok(()),
    }
}

/// Settles whose call of the talk's contract it is, once its request is read:
/// the credential in the metadata, else the request's token, else the client's
/// certificate, else the anonymous account. The same limits hold as in [`admit`].
#[inline]
pub(crate) async fn identify<S: Store>(call: &Call<S>, account_token: &str) -> Result<(), Failure> {
    if call.identity().is_some() {
        return Ok(());
    }
    identify_by(call, account_token).await
}

async fn identify_by<S: Store>(call: &Call<S>, account_token: &str) -> Result<(), Failure> {
    let identity = if account_token.is_empty() {
        without_token(call)?
    } else {
        ask(call, account_token).await?
    };
    settle(call, Arc::clone(&identity))?;
    call.hold_of_account(&identity)?;
    match call.method.access {
        Access::TalkAccount(action) => check_action(call, action),
        _ => Ok(()),
    }
}

/// Asks again about the credential of a stream, before each of its parts: a
/// token that was revoked, or an account that was deleted, ends it. Costs as
/// little as nothing while no account changes, else a look-up in memory, or with
/// another Accounts server one in the answers kept.
pub(crate) async fn still_good<S: Store>(call: &Call<S>) -> Result<(), Failure> {
    let known = call.known()?;
    let again = match call.secret() {
        Some(secret) => ask(call, secret).await?,
        None if call.connection.certificate.is_some() => without_token(call)?,
        None => return Ok(()),
    };
    if again.tenant.id() == known.tenant.id() {
        return Ok(());
    }
    Err(token_invalid())
}

async fn ask<S: Store>(call: &Call<S>, token: &str) -> Result<Arc<Identity<S>>, Failure> {
    call.keep_secret(token);
    let asked = call.now();
    let given = call.connection.given(Some(token));
    if let Some(identity) = call.connection.recall(given, asked) {
        return Ok(identity);
    }
    let core = call.core();
    let epoch = core.epoch();
    let vouched = core
        .authority
        .verify(token, call.deadline, call.trace_out())
        .await;
    call.add_accounts_wait(clock::instant().saturating_duration_since(asked));
    identity(call, given, epoch, &vouched?)
}

/// Whom the certificate of a caller without a token stands for, else the anonymous
/// account. A certificate that is no longer good is no reason to be served as
/// somebody else.
fn without_token<S: Store>(call: &Call<S>) -> Result<Arc<Identity<S>>, Failure> {
    let core = call.core();
    let given = call.connection.given(None);
    if let Some(identity) = call.connection.recall(given, call.now()) {
        return Ok(identity);
    }
    let epoch = core.epoch();
    let vouched = match (&call.connection.certificate, &core.anonymous) {
        (Some(certificate), _) => certificate.vouch(core)?,
        (None, Some(anonymous)) => anonymous.grant(&core.authority)?,
        (None, None) => return Err(token_missing()),
    };
    identity(call, given, epoch, &vouched)
}

fn identity<S: Store>(
    call: &Call<S>,
    given: Given<'_>,
    epoch: Epoch,
    vouched: &Vouched,
) -> Result<Arc<Identity<S>>, Failure> {
    let verified = Verified {
        tenant: call.core().tenants.of(&vouched.grant)?,
        grant: Arc::clone(&vouched.grant),
        epoch,
        until: vouched.until,
        proof: given.into(),
    };
    Ok(call.connection.remember(given, verified))
}

fn settle<S: Store>(call: &Call<S>, identity: Arc<Identity<S>>) -> Result<(), Failure> {
    let settled = within_rate(call, &identity);
    // Also for a refused call, so that its line in the log names the account.
    call.set_identity(identity);
    settled
}

fn within_rate<S: Store>(call: &Call<S>, identity: &Identity<S>) -> Result<(), Failure> {
    let refused = |wait| {
        let limit = identity.grant.account.max_requests_per_second.unwrap_or(0);
        let name = identity.tenant.name();
        let message = format!("account {name} is limited to {limit} requests a second");
        // Rounded up: a client that waits as told gets through.
        Failure::new(Reason::RateLimited, message).retry_after(wait + Duration::from_millis(1))
    };
    identity.tenant.take(call.now()).map_err(refused)
}

fn check_action<S: Store>(call: &Call<S>, action: Action) -> Result<(), Failure> {
    if call.known()?.rights().allows(action) {
        return Ok(());
    }
    let name = match action {
        Action::Read => "read",
        Action::Write => "write",
        Action::Admin => "administer accounts",
        Action::Verify => "verify tokens",
    };
    let message = format!("the token does not give the right to {name}");
    Err(Failure::new(Reason::ScopeDenied, message))
}

/// How long a refused caller stays away: most calls end far sooner.
const OVERLOAD_DELAY: Duration = Duration::from_millis(100);

pub(crate) fn overloaded(message: &str) -> Failure {
    Failure::new(Reason::Overloaded, message).retry_after(OVERLOAD_DELAY)
}

fn token_missing() -> Failure {
    let message = "send `authorization: Bearer TOKEN`; this server serves no anonymous calls here";
    Failure::new(Reason::TokenMissing, message)
}

fn metadata(name: &'static str, description: &str) -> Failure {
    Failure::field(Reason::MetadataInvalid, name, description)
}

/// The token of `authorization: Bearer TOKEN` (RFC 6750, section 2.1).
fn bearer(fields: &impl Fields) -> Result<Option<Box<str>>, Failure> {
    let mut values = fields.values("authorization");
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => token(value).map(Some),
        (Some(_), Some(_)) => Err(not_bearer()),
    }
}

fn token(value: &[u8]) -> Result<Box<str>, Failure> {
    let (scheme, token) = value
        .iter()
        .position(|&byte| byte == b' ')
        .map(|end| value.split_at(end))
        .ok_or_else(not_bearer)?;
    let token = token.trim_ascii();
    // No short cut: the loop without one is several octets at a time.
    let is_plain = token
        .iter()
        .fold(true, |plain, byte| plain & (b'!'..=b'~').contains(byte));
    if !scheme.eq_ignore_ascii_case(b"bearer") || token.is_empty() || !is_plain {
        return Err(not_bearer());
    }
    let token = std::str::from_utf8(token).map_err(|_| not_bearer())?;
    Ok(token.into())
}

fn not_bearer() -> Failure {
    metadata("authorization", "must be one `Bearer TOKEN`")
}

/// `dry-run` metadata. A typing error must never write.
fn dry_run(fields: &impl Fields) -> Result<Mode, Failure> {
    let mut mode = Mode::Apply;
    for value in fields.values(DRY_RUN) {
        match value {
            b"1" | b"true" => mode = Mode::DryRun,
            b"0" | b"false" => {}
            _ => return Err(metadata(DRY_RUN, "must be 1, true, 0 or false")),
        }
    }
    Ok(mode)
}

const GRPC_TIMEOUT: &str = "grpc-timeout";
const CONNECT_TIMEOUT: &str = "connect-timeout-ms";

/// Takes the timeouts out of a head, so that no other layer acts on them.
pub(crate) fn remove_timeouts(head: &mut HeaderMap) {
    head.remove(GRPC_TIMEOUT);
    head.remove(CONNECT_TIMEOUT);
}

/// The time that a caller gives: `grpc-timeout` (gRPC over HTTP/2, "Requests")
/// or `connect-timeout-ms` (Connect protocol, "Unary-Request").
pub(crate) fn timeout(head: &HeaderMap) -> Result<Option<Duration>, Failure> {
    if let Some(value) = head.get(GRPC_TIMEOUT) {
        return grpc_timeout(value.as_bytes()).map(Some).ok_or_else(|| {
            metadata(
                GRPC_TIMEOUT,
                "must be 1 to 8 digits and one of H, M, S, m, u, n",
            )
        });
    }
    if let Some(value) = head.get(CONNECT_TIMEOUT) {
        let millis = digits(value.as_bytes()).map(Duration::from_millis);
        return millis
            .map(Some)
            .ok_or_else(|| metadata(CONNECT_TIMEOUT, "must be 1 to 10 digits"));
    }
    Ok(None)
}

/// One to ten digits.
pub(super) fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 10 {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + u64::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_takes_exactly_one_token() {
        let check = |values: &[&str], expected: Option<Option<&str>>| {
            let mut head = HeaderMap::new();
            for value in values {
                head.append("authorization", value.parse().expect("a header value"));
            }
            let read = bearer(&head).ok();
            let read = read.as_ref().map(|token| token.as_deref());
            assert_eq!(read, expected, "{values:?}");
        };
        check(&[], Some(None));
        check(&["Bearer abc"], Some(Some("abc")));
        check(&["bearer  abc"], Some(Some("abc")));
        for bad in [
            &["Bearer"][..],
            &["Bearer "],
            &["Basic abc"],
            &["abc"],
            &["Bearer a b"],
        ] {
            check(bad, None);
        }
        check(&["Bearer a", "Bearer b"], None);
    }

    #[test]
    fn a_typing_error_in_dry_run_is_refused() {
        let check = |values: &[&str], expected: Option<Mode>| {
            let mut head = HeaderMap::new();
            for value in values {
                head.append(DRY_RUN, value.parse().expect("a header value"));
            }
            assert_eq!(dry_run(&head).ok(), expected, "{values:?}");
        };
        check(&[], Some(Mode::Apply));
        check(&["0"], Some(Mode::Apply));
        check(&["false"], Some(Mode::Apply));
        check(&["1"], Some(Mode::DryRun));
        check(&["true"], Some(Mode::DryRun));
        check(&["0", "1"], Some(Mode::DryRun));
        for bad in [&["yes"][..], &[""], &["True"], &["1", "maybe"]] {
            check(bad, None);
        }
    }
}
