//! The RPC handlers: thin, written once, in terms of a [`Call`], a `Store` and
//! borrowed request views. What knows connectrpc is in `mod.rs` of each
//! contract and in [`status`].

/// One adapter for each unary method: finds the call, runs the handler of the
/// same name, turns its failure into a status.
macro_rules! unary {
    ($($name:ident: $request:ident => $response:ident;)*) => {
        $(async fn $name(
            &self,
            context: RequestContext,
            request: ServiceRequest<'_, wire::$request>,
        ) -> ServiceResult<wire::$response> {
            let call: Arc<Call<S>> = call_of(&context)?;
            answer(&self.core, &call, self.$name(&call, request.view()).await)
        })*
    };
}

/// A request's body for its fingerprint: all of it but its id, and whether it takes
/// effect; as a closure, for most requests have no id.
macro_rules! body {
    ($view:ident, $request:expr) => {
        || {
            let body = wire::$view {
                request_id: "",
                validate_only: false,
                ..$request.clone()
            };
            body.encode_to_vec()
        }
    };
}

pub(crate) mod accounts_v1;
pub(crate) mod cache_v1;
pub(crate) mod channelz_v1;
mod control;
mod fields;
mod health;
mod reflection;
pub(crate) mod reply;
mod request_id;
mod resume;
pub(crate) mod status;
pub(crate) mod talk;

use std::sync::Arc;

use connectrpc::{ConnectError, RequestContext, Response, Router, ServiceResult, ServiceStream};
use connectrpc_health::StaticChecker;
use futures::{Stream, TryStreamExt as _};
use larder_model::Store;
use tokio_util::sync::CancellationToken;

use crate::call::Call;
use crate::config::Role;
use crate::core::Core;
use crate::failure::Failure;
use crate::layers::within::stream_within;

/// Every method of this server, and the handle of its health.
pub(crate) fn router<S: Store>(
    core: &Arc<Core<S>>,
    role: Role,
) -> Result<(Router, Arc<StaticChecker>), connectrpc_reflection::ReflectionError> {
    use larder_api::{accounts_v1 as accounts, cache_v1 as cache, talk as seed};
    larder_api::register_details();
    let mut services = Vec::new();
    let mut router = Router::new();
    if role == Role::Cache {
        services.extend([cache::CACHE_SERVICE_SERVICE_NAME, seed::CACHE_SERVICE_NAME]);
        router = router
            .add_service(Arc::new(cache_v1::CacheV1::new(Arc::clone(core))))
            .add_service(Arc::new(talk::TalkCache::new(Arc::clone(core))));
    }
    if let Some(here) = &core.accounts {
        services.extend([
            accounts::ACCOUNT_SERVICE_SERVICE_NAME,
            seed::ACCOUNTS_SERVICE_NAME,
        ]);
        router = router
            .add_service(Arc::new(accounts_v1::AccountsV1::new(
                Arc::clone(core),
                here,
            )))
            .add_service(Arc::new(talk::TalkAccounts::new(Arc::clone(core), here)));
    }
    let reflector = connectrpc_reflection::Reflector::from_descriptor_set_bytes(
        larder_api::FILE_DESCRIPTOR_SET,
    )?
    .with_services(services.iter().copied());
    let router = reflection::install(router, core, reflector);
    let checker = Arc::new(StaticChecker::with_services(services));
    Ok((health::install(router, core, &checker), checker))
}

/// The call that `admit` let in, taken over by a handler.
fn call_of<S: Store>(context: &RequestContext) -> Result<Arc<Call<S>>, ConnectError> {
    let call = context.extensions().get::<Arc<Call<S>>>().cloned();
    let call = call.ok_or_else(|| ConnectError::internal("no call was admitted"))?;
    call.begin_handling();
    Ok(call)
}

/// A handler's answer, in the form of the protocol layer.
fn answer<S: Store, T: buffa::Message>(
    core: &Core<S>,
    call: &Call<S>,
    result: Result<T, Failure>,
) -> ServiceResult<T> {
    let held = result.and_then(|reply| {
        // A reply over 2 GiB cannot be made of what requests may ask for.
        let bytes = reply
            .try_encoded_len()
            .map_or(usize::MAX, |len| len as usize);
        call.hold_reply(&core.replying, bytes)?;
        Ok(reply)
    });
    held.map(Response::new)
        .map_err(|failure| failed(call, failure))
}

/// A stream of messages, in the form of the protocol layer. It leaves word of how
/// it ended.
fn served<S: Store, T: Send + 'static>(
    call: &Arc<Call<S>>,
    stop: &CancellationToken,
    stream: impl Stream<Item = Result<T, Failure>> + Send + 'static,
) -> ServiceStream<T> {
    let call_of_it = Arc::clone(call);
    let served = stream_within(call, stop, stream);
    Box::pin(served.map_err(move |failure| failed(&call_of_it, failure)))
}

fn failed<S: Store>(call: &Call<S>, failure: Failure) -> ConnectError {
    status::connect_error(&call.failed(failure))
}
