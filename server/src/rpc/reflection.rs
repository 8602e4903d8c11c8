//! `grpc.reflection.v1` and `v1alpha`: connectrpc's answers, on streams that end with
//! their deadline and with the server, as every other stream does.

use std::sync::Arc;

use connectrpc::{InboundStream, RequestContext, Router, ServiceResult, ServiceStream};
use connectrpc_reflection::wire::{v1, v1alpha};
use connectrpc_reflection::{
    ReflectionService, Reflector, ServerReflection, ServerReflectionExt, ServerReflectionV1alpha,
    ServerReflectionV1alphaExt, apply_request_limits, request_limits,
};
use futures::{Stream, StreamExt as _, stream};
use larder_model::Store;
use tokio_util::sync::CancellationToken;

use super::{call_of, failed};
use crate::call::Call;
use crate::core::Core;
use crate::layers::within::within;

/// Adds both versions to a router.
pub(super) fn install<S: Store>(router: Router, core: &Arc<Core<S>>, known: Reflector) -> Router {
    let bounded = Arc::new(Bounded {
        inner: ReflectionService::new(known),
        core: Arc::clone(core),
    });
    let router = ServerReflectionExt::register(Arc::clone(&bounded), router);
    let router = ServerReflectionV1alphaExt::register(bounded, router);
    apply_request_limits(router, request_limits())
}

struct Bounded<S: Store> {
    inner: ReflectionService,
    core: Arc<Core<S>>,
}

/// The versions differ in nothing but their names.
macro_rules! bounded {
    ($service:ident, $version:ident) => {
        #[allow(
            refining_impl_trait,
            reason = "the concrete message says more than `impl Encodable`"
        )]
        impl<S: Store> $service for Bounded<S> {
            async fn server_reflection_info(
                &self,
                context: RequestContext,
                requests: InboundStream<$version::ServerReflectionRequest>,
            ) -> ServiceResult<ServiceStream<$version::ServerReflectionResponse>> {
                let call: Arc<Call<S>> = call_of(&context)?;
                let requests = Box::pin(in_time(call, self.core.stop.clone(), requests));
                $service::server_reflection_info(&self.inner, context, requests).await
            }
        }
    };
}

bounded!(ServerReflection, v1);
bounded!(ServerReflectionV1alpha, v1alpha);

/// The requests until the call's time is over, or the server's; then, why.
fn in_time<S: Store, T: Send + 'static>(
    call: Arc<Call<S>>,
    stop: CancellationToken,
    requests: ServiceStream<T>,
) -> impl Stream<Item = Result<T, connectrpc::ConnectError>> + Send {
    stream::unfold(Some(requests), move |requests| {
        let (call, stop) = (Arc::clone(&call), stop.clone());
        async move {
            let mut requests = requests?;
            match within(&call, &stop, requests.next()).await {
                Ok(next) => Some((next?, Some(requests))),
                Err(failure) => Some((Err(failed(&call, failure)), None)),
            }
        }
    })
}
