//! `larder.cache.v1.CacheService`.
//!
//! This file is the adapter to connectrpc; the work is in [`read`], [`write`]
//! and [`walk`].

mod once;
mod read;
mod walk;
mod write;

use std::sync::Arc;

use connectrpc::{
    InboundStream, RequestContext, Response, ServiceRequest, ServiceResult, ServiceStream,
};
use larder_api::cache_v1::{self as wire, CacheService};
use larder_model::{EntryKey, Limits, MAX_EXPECTED, Store};

use crate::call::Call;
use crate::core::Core;

use super::{answer, call_of, failed, served};

/// The service over a store.
pub(crate) struct CacheV1<S: Store> {
    core: Arc<Core<S>>,
}

impl<S: Store> CacheV1<S> {
    pub(crate) fn new(core: Arc<Core<S>>) -> Self {
        Self { core }
    }

    fn limits(&self) -> &Limits {
        &self.core.limits
    }

    /// Before the entry of a batch with this number: tells the store which come next, some at a
    /// time. `coming` begins with that entry.
    fn expect<'k>(
        &self,
        call: &Call<S>,
        index: usize,
        coming: impl Iterator<Item = Option<EntryKey<'k>>>,
    ) {
        if index.is_multiple_of(MAX_EXPECTED)
            && let Ok(known) = call.known()
        {
            let coming = coming.take(MAX_EXPECTED).flatten();
            self.core.store.expect(&known.tenant.handle, coming);
        }
    }
}

#[allow(
    refining_impl_trait,
    reason = "the concrete message says more than `impl Encodable`"
)]
impl<S: Store> CacheService for CacheV1<S> {
    unary! {
        get_and_touch: GetAndTouchRequest => GetAndTouchResponse;
        batch_get: BatchGetRequest => BatchGetResponse;
        set: SetRequest => SetResponse;
        delete: DeleteRequest => DeleteResponse;
        batch_set: BatchSetRequest => BatchSetResponse;
        batch_delete: BatchDeleteRequest => BatchDeleteResponse;
        touch: TouchRequest => TouchResponse;
        delete_prefix: DeletePrefixRequest => DeletePrefixResponse;
        increment: IncrementRequest => IncrementResponse;
        list_keys: ListKeysRequest => ListKeysResponse;
        get_usage: GetUsageRequest => GetUsageResponse;
        get_server_info: GetServerInfoRequest => GetServerInfoResponse;
    }

    async fn get(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, wire::GetRequest>,
    ) -> ServiceResult<wire::GetResponse> {
        let call: Arc<Call<S>> = call_of(&context)?;
        let mut reply = None;
        let got = self.get(&call, request.view(), &mut reply).await;
        answer(&self.core, &call, got.map(|()| reply.unwrap_or_default()))
    }

    async fn dump(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, wire::DumpRequest>,
    ) -> ServiceResult<ServiceStream<wire::DumpResponse>> {
        let call: Arc<Call<S>> = call_of(&context)?;
        let parts = self
            .dump(&call, request.view())
            .map_err(|failure| failed(&call, failure))?;
        Ok(Response::new(served(&call, &self.core.stop, parts)))
    }

    async fn load(
        &self,
        context: RequestContext,
        requests: InboundStream<wire::LoadRequest>,
    ) -> ServiceResult<ServiceStream<wire::LoadResponse>> {
        let call: Arc<Call<S>> = call_of(&context)?;
        let acknowledgements = self.load(&call, requests);
        Ok(Response::new(served(
            &call,
            &self.core.stop,
            acknowledgements,
        )))
    }
}
