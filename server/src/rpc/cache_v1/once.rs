//! Writes that a client may send more than once.

use larder_api::errors::Reason;
use larder_model::{Condition, Outcome, Request, Store, Write};

use super::CacheV1;
use crate::call::Call;
use crate::failure::Failure;
use crate::rpc::request_id::{self, Repeat, check_attempt};

/// How a write is carried out.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way<'a> {
    /// As often as it is sent.
    Plain,
    /// The same, if its id is known for no other request.
    Vetted(Request<'a>),
    /// Once.
    Once(Request<'a>),
}

impl<'a> Way<'a> {
    /// The way of a write that belongs to `request`, if it has an id.
    pub(super) fn of<S: Store>(
        call: &Call<S>,
        request: Option<Request<'a>>,
        repeat: Repeat,
    ) -> Result<Self, Failure> {
        match (request, repeat) {
            (None, _) => check_attempt(call, repeat).map(|()| Self::Plain),
            (Some(request), Repeat::Harmless) => Ok(Self::Vetted(request)),
            (Some(request), Repeat::Counts) => Ok(Self::Once(request)),
        }
    }
}

/// What repeating a write under this condition would do.
pub(super) const fn repeat_under(condition: Condition) -> Repeat {
    match condition {
        Condition::Always => Repeat::Harmless,
        _ => Repeat::Counts,
    }
}

impl<S: Store> CacheV1<S> {
    /// The request of a call, if it has an id. `body` is all of it but the id, and
    /// whether it takes effect.
    ///
    /// A call that is answered where it was read is given up here, to be begun
    /// again with time to wait: so nothing is claimed for it twice.
    pub(super) async fn request<'a>(
        &self,
        call: &Call<S>,
        id: &'a str,
        body: impl FnOnce() -> Vec<u8>,
    ) -> Result<Option<Request<'a>>, Failure> {
        if id.is_empty() {
            return Ok(None);
        }
        if call.moment.is_some() {
            std::future::pending::<()>().await;
        }
        Ok(Some(Request {
            id: request_id::parse(id)?,
            fingerprint: request_id::fingerprint(call, &body()),
            item: 0,
        }))
    }

    /// What is known of a write; refuses a request whose id is known for another one.
    pub(super) async fn recall(
        &self,
        call: &Call<S>,
        account: &S::Account,
        request: Request<'_>,
    ) -> Result<Option<Outcome>, Failure> {
        let store_call = call.store_call(false);
        let known = Box::pin(self.core.store.recall(account, store_call, request));
        known
            .await
            .map_err(|error| request_id::failure(call, &error))
    }

    /// Carries a write out once; `of_kind` takes the outcome of its kind. True
    /// beside it if that is from before.
    pub(super) async fn once<T>(
        &self,
        call: &Call<S>,
        account: &S::Account,
        store_call: larder_model::Call,
        request: Request<'_>,
        (write, of_kind): (Write<'_>, fn(Outcome) -> Option<T>),
    ) -> Result<(T, bool), Failure> {
        // In a box: most writes have no id, and should not make room for this.
        let done = Box::pin(self.core.store.once(account, store_call, request, write));
        let done = done
            .await
            .map_err(|error| request_id::failure(call, &error))?;
        // The fingerprint holds the method, so the kinds are the same.
        let other = || Failure::new(Reason::Internal, "the outcome is of another write");
        Ok((of_kind(done.outcome).ok_or_else(other)?, done.replayed))
    }
}
