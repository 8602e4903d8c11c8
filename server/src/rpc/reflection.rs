//! `grpc.reflection.v1` and `v1alpha`: connectrpc's answers, on streams that end with
//! their deadline and with the server, as every other stream does.

use std::sync::Arc;

use connectrpc::{
    ConnectError, RequestContext, Router, ServiceResult, ServiceStream, StreamMessage,
};
use connectrpc_reflection::wire::{v1, v1alpha};
use connectrpc_reflection::{
    ReflectionService, Reflector, ServerReflection, ServerReflectionV1Alpha, apply_request_limits,
    request_limits,
};
use futures::{FutureExt as _, StreamExt as _, stream};
use larder_model::Store;

use super::{call_of, failed};
use crate::call::Call;
use crate::core::Core;
use crate::layers::within::within;

/// Adds both versions to a router.
pub(super) fn install<S: Store>(router: Router, core: &Arc<Core<S>>, known: Reflector) -> Router {
    use connectrpc_reflection::{ServerReflectionExt as _, ServerReflectionV1AlphaExt as _};
    let bounded = Arc::new(Bounded {
        inner: ReflectionService::new(known),
        core: Arc::clone(core),
    });
    let router = Arc::clone(&bounded).register(router);
    let router = connectrpc_reflection::ServerReflectionV1AlphaExt::register(bounded, router);
    apply_request_limits(router, request_limits())
}
