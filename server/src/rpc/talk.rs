//! The talk's own contract: `rpc.Cache` and `rpc.Accounts`.

use std::sync::Arc;

use connectrpc::{RequestContext, Response, ServiceRequest, ServiceResult, ServiceStream};
use futures::{Stream, StreamExt as _};
use larder_accounts::{Accounts, Action, UnixMillis};
use larder_api::errors::Reason;
use larder_api::talk as wire;
use larder_model::{
    Condition, Cursor, EntryRef, Expiry, ExpiryChange, Namespace, ReadEffect, ScanBudget,
    Selection, Set, Store,
};

use super::fields::{entry_key, value_fits};
use super::reply::{self, ReplyTo};
use super::{answer, call_of, failed, served};
use crate::call::Call;
use crate::clock;
use crate::core::Core;
use crate::failure::Failure;
use crate::layers::admit::{identify, still_good};

/// `rpc.Cache` over a store.
pub(crate) struct TalkCache<S: Store> {
    core: Arc<Core<S>>,
}

impl<S: Store> TalkCache<S> {
    pub(crate) fn new(core: Arc<Core<S>>) -> Self {
        Self { core }
    }

    pub(crate) async fn store(
        &self,
        call: &Call<S>,
        request: &wire::StoreReqView<'_>,
    ) -> Result<wire::StoreResp, Failure> {
        let at = entry_key(&self.core.limits, "", request.key.as_bytes())?;
        value_fits(&self.core.limits, "val", request.val)?;
        identify(call, request.account_token).await?;
        let account = &call.may(Action::Write, at)?.tenant.handle;
        let set = Set {
            at,
            value: request.val,
            flags: 0,
            expiry: ExpiryChange::To(Expiry::Never),
            condition: Condition::Always,
        };
        call.begin_mutation()?;
        let written = call.set(account, call.store_call(false), set).await;
        written
            .map(|_| wire::StoreResp::default())
            .map_err(|error| call.store_failure(&error))
    }

    pub(crate) async fn get(
        &self,
        call: &Call<S>,
        request: &wire::GetReqView<'_>,
        reply: impl ReplyTo<wire::GetResp>,
    ) -> Result<(), Failure> {
        let at = entry_key(&self.core.limits, "", request.key.as_bytes())?;
        identify(call, request.account_token).await?;
        let account = &call.may(Action::Read, at)?.tenant.handle;
        let show = |entry: Option<EntryRef<'_>>| {
            entry.map(|entry| {
                reply.put(&wire::GetRespView {
                    val: entry.value,
                    ..Default::default()
                });
            })
        };
        let found = self
            .core
            .store
            .get(account, call.store_call(false), at, ReadEffect::Use, show)
            .await
            .map_err(|error| call.store_failure(&error))?;
        found.ok_or_else(|| {
            Failure::new(
                Reason::KeyNotFound,
                format!("Key not found {}", request.key),
            )
        })
    }

    /// The items of a dump, once it is settled whose it is.
    pub(crate) async fn dump(
        &self,
        call: &Arc<Call<S>>,
        request: &wire::DumpReqView<'_>,
    ) -> Result<impl Stream<Item = Result<wire::DumpItem, Failure>> + Send + use<S>, Failure> {
        identify(call, request.account_token).await?;
        call.may_all(Action::Read, Namespace::DEFAULT, &[])?;
        Ok(dump(Arc::clone(&self.core), Arc::clone(call)))
    }
}

#[allow(
    refining_impl_trait,
    reason = "the concrete message says more than `impl Encodable`"
)]
impl<S: Store> wire::Cache for TalkCache<S> {
    async fn store(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, wire::StoreReq>,
    ) -> ServiceResult<wire::StoreResp> {
        let call: Arc<Call<S>> = call_of(&context)?;
        answer(&self.core, &call, self.store(&call, request.view()).await)
    }

    async fn get(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, wire::GetReq>,
    ) -> ServiceResult<wire::GetResp> {
        let call: Arc<Call<S>> = call_of(&context)?;
        let mut reply = None;
        let got = self.get(&call, request.view(), &mut reply).await;
        answer(&self.core, &call, got.map(|()| reply.unwrap_or_default()))
    }

    async fn dump(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, wire::DumpReq>,
    ) -> ServiceResult<ServiceStream<wire::DumpItem>> {
        let call: Arc<Call<S>> = call_of(&context)?;
        let items = self.dump(&call, request.view()).await;
        let items = items.map_err(|failure| failed(&call, failure))?;
        Ok(Response::new(served(&call, &self.core.stop, items)))
    }
}

/// Entries that one step looks at.
const STEP_ENTRIES: usize = 4096;
/// One step holds at most this much, bytes, and one entry more: the talk's
/// messages hold one entry each, so they are many and small.
const STEP_BYTES: usize = 64 << 10;

const WHOLE: Selection<'static> = Selection {
    namespace: Namespace::DEFAULT,
    prefix: &[],
};

/// The items of a dump; keys that are no UTF-8 cannot be told in the talk's
/// messages, and are counted instead.
fn dump<S: Store>(
    core: Arc<Core<S>>,
    call: Arc<Call<S>>,
) -> impl Stream<Item = Result<wire::DumpItem, Failure>> + Send {
    let begin = (core, call, Some(Cursor::default()));
    futures::stream::try_unfold(begin, |(core, call, next)| async move {
        let Some(from) = next else { return Ok(None) };
        still_good(&call).await?;
        let budget = ScanBudget {
            bytes: STEP_BYTES,
            entries: STEP_ENTRIES,
        };
        let mut items = Vec::new();
        let mut skipped = 0;
        let account = &call.known()?.tenant.handle;
        let show = |entry: EntryRef<'_>| match std::str::from_utf8(entry.key) {
            Ok(key) => items.push(Ok(wire::DumpItem {
                key: key.into(),
                val: entry.value.into(),
                ..Default::default()
            })),
            Err(_) => skipped += 1,
        };
        let next = core
            .store
            .scan(account, call.store_call(false), WHOLE, from, budget, show)
            .await
            .map_err(|error| call.store_failure(&error))?;
        call.add_skipped(skipped);
        if items.is_empty() {
            tokio::task::yield_now().await;
        }
        Ok(Some((futures::stream::iter(items), (core, call, next))))
    })
    .flat_map(|step| match step {
        Ok(items) => items.left_stream(),
        Err(failure) => futures::stream::iter([Err(failure)]).right_stream(),
    })
}

/// `rpc.Accounts` over the accounts of this process.
pub(super) struct TalkAccounts<S: Store> {
    core: Arc<Core<S>>,
    accounts: Arc<Accounts>,
}

impl<S: Store> TalkAccounts<S> {
    pub(super) fn new(core: Arc<Core<S>>, accounts: &Arc<Accounts>) -> Self {
        Self {
            core,
            accounts: Arc::clone(accounts),
        }
    }
}

#[allow(
    refining_impl_trait,
    reason = "the concrete message says more than `impl Encodable`"
)]
impl<S: Store> wire::Accounts for TalkAccounts<S> {
    async fn get_by_token(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, wire::GetByTokenReq>,
    ) -> ServiceResult<wire::GetByTokenResp> {
        let call: Arc<Call<S>> = call_of(&context)?;
        let now = UnixMillis::new(clock::unix_millis());
        let verified = self.accounts.verify(request.view().token, now).ok();
        // The talk's answer has no scopes: a token that has some is not told.
        let whole = verified.filter(|verified| {
            let rights = &verified.token.rights;
            let all = rights.allows(Action::Read) && rights.allows(Action::Write);
            all && rights.namespaces.is_empty() && rights.key_prefixes.is_empty()
        });
        let response = whole
            .map(|verified| wire::GetByTokenResp {
                account: Some(wire::Account {
                    max_cache_keys: reply::signed(verified.account.quota().max_keys),
                    ..Default::default()
                })
                .into(),
                ..Default::default()
            })
            .ok_or_else(|| Failure::new(Reason::TokenNotFound, "Token not found"));
        answer(&self.core, &call, response)
    }
}
