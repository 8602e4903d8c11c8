//! `grpc.health.v1.Health`: connectrpc's states, and handlers of our own, so that
//! a watch ends with its deadline and with the server, as every other stream
//! does, and errors carry their reason.

use std::sync::Arc;

use connectrpc::{
    ConnectError, RequestContext, Response, Router, ServiceResult, ServiceStream, handler_fn,
    streaming_handler_fn,
};
use connectrpc_health::wire::{
    HEALTH_CHECK_SPEC, HEALTH_WATCH_SPEC, HealthCheckRequest, HealthCheckResponse, ServingStatus,
};
use connectrpc_health::{Checker as _, HEALTH_SERVICE_NAME, StaticChecker, Status};
use futures::StreamExt as _;
use larder_model::Store;

use super::{answer, call_of, failed, served, status};
use crate::call::Call;
use crate::core::Core;
use crate::failure::Failure;

/// Adds the service to a router.
pub(super) fn install<S: Store>(
    router: Router,
    core: &Arc<Core<S>>,
    checker: &Arc<StaticChecker>,
) -> Router {
    let (states, shared) = (Arc::clone(checker), Arc::clone(core));
    let check = handler_fn(
        move |context: RequestContext, request: HealthCheckRequest| {
            let (states, core) = (Arc::clone(&states), Arc::clone(&shared));
            async move {
                let call: Arc<Call<S>> = call_of(&context)?;
                let state = states.check(&request.service).await;
                answer(
                    &core,
                    &call,
                    state.map(response).map_err(|error| failure(&error)),
                )
            }
        },
    );
    let (states, core) = (Arc::clone(checker), Arc::clone(core));
    let watch = streaming_handler_fn(
        move |context: RequestContext, request: HealthCheckRequest| {
            let (states, core) = (Arc::clone(&states), Arc::clone(&core));
            async move { watch(&core, &states, context, request).await }
        },
    );
    let router = router
        .route(HEALTH_SERVICE_NAME, "Check", check)
        .with_spec(HEALTH_CHECK_SPEC)
        .route_server_stream(HEALTH_SERVICE_NAME, "Watch", watch)
        .with_spec(HEALTH_WATCH_SPEC);
    connectrpc_health::apply_request_limits(router, connectrpc_health::request_limits())
}

async fn watch<S: Store>(
    core: &Core<S>,
    states: &StaticChecker,
    context: RequestContext,
    request: HealthCheckRequest,
) -> ServiceResult<ServiceStream<HealthCheckResponse>> {
    let call: Arc<Call<S>> = call_of(&context)?;
    let watched = states.watch(&request.service).await;
    let states = watched.map_err(|error| failed(&call, failure(&error)))?;
    // This server stops serving only to shut down: there is no news after that,
    // and a watch that stayed open would hold up the drain.
    let states = states.map(|state| Ok(response(state)));
    Ok(Response::new(served(
        &call,
        &core.stop,
        until_not_serving(states),
    )))
}

/// The items up to the first that says NOT_SERVING, and that.
fn until_not_serving(
    states: impl futures::Stream<Item = Result<HealthCheckResponse, Failure>> + Send + 'static,
) -> impl futures::Stream<Item = Result<HealthCheckResponse, Failure>> + Send + 'static {
    futures::stream::unfold(Some(Box::pin(states)), |states| async move {
        let mut states = states?;
        let item = states.next().await?;
        let ended = matches!(&item, Ok(r) if r.status == ServingStatus::NOT_SERVING);
        Some((item, (!ended).then_some(states)))
    })
}

fn response(state: Status) -> HealthCheckResponse {
    HealthCheckResponse {
        status: ServingStatus::from(state).into(),
        ..Default::default()
    }
}

fn failure(error: &ConnectError) -> Failure {
    status::from_protocol_layer(error.code, error.message.as_deref().unwrap_or_default())
}
