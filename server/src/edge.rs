//! Where HTTP meets the layers: one request in, one response out, whatever the
//! protocol inside.

mod compression;

use std::sync::Arc;

use buffa::DecodeOptions;
use bytes::Bytes;
use connectrpc::{ConnectError, ConnectRpcBody, ConnectRpcService, ErrorCode, Limits, Router};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use http_body::Body;
use http_body_util::BodyExt as _;
use larder_api::errors::Reason;
use larder_api::wire::{DRY_RUN, MAX_MESSAGE_BYTES, RECEIVE_TIMEOUT};
use larder_model::{Mode, Store};
use larder_transport::general::Received;
use tower::Service as _;

use crate::call::Call;
use crate::clock;
use crate::connection::Connection;
use crate::core::Core;
use crate::failure::Failure;
use crate::layers::admit::{CallHead, admit, remove_timeouts, timeout};
use crate::layers::finish::{CallBody, InFlight};
use crate::layers::offer;
use crate::layers::shed::Stage;
use crate::layers::strict::Strict;
use crate::layers::tap::{self, no_time};
use crate::layers::within::{not_received, within};
use crate::methods::{Access, Method};
use crate::rpc::status::{connect_error, from_protocol_layer};

/// The protocols inside HTTP: gRPC, gRPC-Web, Connect and JSON.
#[derive(Clone)]
pub(crate) struct Protocols(ConnectRpcService<Router>);

impl Protocols {
    /// Over the methods in `router`, compressed as `core` has it.
    pub(crate) fn new<S: Store>(router: Router, core: &Core<S>) -> Self {
        let protocols = ConnectRpcService::new(router)
            .with_limits(limits())
            .with_compression(compression::registry(&core.receiving))
            .with_compression_policy(compression::policy(core.compression));
        Self(protocols)
    }
}

fn limits() -> Limits {
    Limits::default()
        .with_max_message_size(MAX_MESSAGE_BYTES)
        // A gRPC frame of five bytes goes before a message.
        .with_max_request_body_size(MAX_MESSAGE_BYTES + 5)
}

/// How costly a message may be to decode; the same on both lanes.
pub(crate) fn decode_options() -> DecodeOptions {
    DecodeOptions::new().with_element_memory_limit(limits().element_memory_limit())
}

/// Serves the requests of one connection.
pub(crate) struct Edge<S: Store> {
    protocols: Protocols,
    connection: Arc<Connection<S>>,
}

impl<S: Store> Edge<S> {
    pub(crate) fn new(protocols: Protocols, connection: Arc<Connection<S>>) -> Self {
        Self {
            protocols,
            connection,
        }
    }

    fn core(&self) -> &Core<S> {
        &self.connection.core
    }

    /// Answers one request.
    pub(crate) async fn serve<B>(&self, request: Request<B>) -> Response<CallBody<S>>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let origin = request.headers().get(header::ORIGIN).cloned();
        let method = Method::of(request.uri().path()).unwrap_or(&Method::UNKNOWN);
        let connection = Arc::clone(&self.connection);
        let received = request.extensions().get::<Received>();
        let started = received.map_or_else(clock::instant, |received| received.0);
        let mut call = Call::new(method, connection, started, None);
        let head = CallHead::read(request.headers());
        let kind = request.headers().get(header::CONTENT_TYPE);
        call.is_grpc = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        call.read_context(request.headers());
        let max = self.core().transport.limits.max_header_list_bytes;
        let fits = metadata_fits(&request, max);
        let told = fits.and_then(|()| timeout(request.headers()));
        let told = told.and_then(|timeout| {
            let left = self.core().deadlines.of(method, timeout);
            call.deadline = call.started.checked_add(left);
            head.tell(&mut call)
        });
        if method.audited
            && let Some(parent) = request.headers().get("traceparent")
        {
            call.keep_trace(parent.as_bytes());
        }
        // From here on the call leaves its line in the log, come what may.
        let call = InFlight::new(call);
        if let Err(failure) = self.core().origins.check(&request, self.connection.peer) {
            // Without the headers that would let the page read the answer.
            let response = refusal(&call.failed(failure), request.headers());
            return call.answered(response);
        }
        let mut response = match self.core().origins.preflight(&request) {
            Some(response) => response.map(|body: NoBody| ConnectRpcBody::Full(body)),
            None => match self.admitted(told, &call, &head).await {
                Ok(()) => self.carry_out(&call, request).await,
                Err(failure) => refusal(&call.failed(failure), request.headers()),
            },
        };
        if call.dry_run == Mode::DryRun && call.method.mutates() {
            response
                .headers_mut()
                .insert(DRY_RUN, HeaderValue::from_static("1"));
        }
        if self.core().compression.answers_above.is_some() && !call.is_grpc {
            // Whoever keeps answers keeps each for those who offer the same.
            let offer = HeaderValue::from(header::ACCEPT_ENCODING);
            response.headers_mut().append(header::VARY, offer);
        }
        self.core().origins.allow(origin, response.headers_mut());
        call.answered(response)
    }

    async fn admitted(
        &self,
        told: Result<(), Failure>,
        call: &Call<S>,
        head: &CallHead,
    ) -> Result<(), Failure> {
        if *call.method == Method::UNKNOWN {
            return Err(Failure::new(
                Reason::MethodNotFound,
                "no such service or method",
            ));
        }
        told?;
        let now = call.now();
        if tap::is_late(self.core(), now) {
            let given = self.connection.given(head.token());
            let caller = self.connection.recall(given, now);
            let slot = tap::slot_of(caller.as_deref());
            if !tap::has_time(self.core(), call.method, slot, Stage::Whole) {
                if let Some(caller) = caller {
                    call.set_identity(caller);
                }
                return Err(no_time());
            }
        }
        // Accounts elsewhere may be slow to answer: the deadline holds here too.
        within(call, &self.core().stop, admit(call, head)).await?
    }

    async fn carry_out<B>(
        &self,
        call: &InFlight<S>,
        mut request: Request<B>,
    ) -> Response<ConnectRpcBody>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        remove_timeouts(request.headers_mut());
        if self.core().compression.answers_above.is_some() {
            offer::narrow(request.headers_mut());
        }
        request.extensions_mut().insert(call.share());
        let kind = content_type(request.headers());
        let (head, body) = request.into_parts();
        let body = Strict::new(&head.headers, body, call.share(), &self.core().receiving);
        let work = self
            .protocols
            .0
            .clone()
            .call(Request::from_parts(head, body));
        let work = received(call, work);
        let worked = within(call, &self.core().stop, work).await.flatten();
        if let (Ok(_), Some(failure), false) = (&worked, call.refusal(), call.was_handled()) {
            return refusal(&call.failed(failure.clone()), &kind);
        }
        match worked {
            Ok(Ok(response)) if refused_by_protocol_layer(call, &response) => {
                translate(call, response, &kind).await
            }
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(failure) => refusal(&call.failed(failure), &kind),
        }
    }
}

type NoBody = http_body_util::Full<Bytes>;

/// The head as far as the protocol of an answer goes.
fn content_type(head: &HeaderMap) -> HeaderMap {
    head.get(header::CONTENT_TYPE)
        .map(|kind| (header::CONTENT_TYPE, kind.clone()))
        .into_iter()
        .collect()
}

/// Waits for `work`, and for a request that does not arrive whole only so long.
async fn received<S: Store, T>(
    call: &Call<S>,
    work: impl Future<Output = T>,
) -> Result<T, Failure> {
    let mut work = std::pin::pin!(work);
    let late = tokio::time::sleep_until((call.started + RECEIVE_TIMEOUT).into());
    tokio::select! {
        biased;
        done = work.as_mut() => return Ok(done),
        () = late => {}
    }
    if call.was_handled() {
        return Ok(work.await);
    }
    Err(not_received())
}

/// The failure in the protocol of the request.
fn refusal(failure: &Failure, head: &HeaderMap) -> Response<ConnectRpcBody> {
    let mut error = connect_error(failure);
    match failure.reason {
        Reason::MethodNotFound => error = error.with_http_status(StatusCode::NOT_FOUND),
        // RFC 6585, section 5.
        Reason::MetadataTooLarge => {
            error = error.with_http_status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        }
        _ => {}
    }
    error.into_http_response(head)
}

/// Metadata of HTTP/1.1 has the limit of HTTP/2, counted as RFC 9113, section 10.5.1 does;
/// the transport has looked at that of HTTP/2.
fn metadata_fits<B>(request: &Request<B>, max: u32) -> Result<(), Failure> {
    const FIELD_OVERHEAD_BYTES: usize = 32;
    if request.version() >= Version::HTTP_2 {
        return Ok(());
    }
    let target = request.uri().path_and_query();
    let target = target.map_or("", |target| target.as_str());
    let line = [
        (":method", request.method().as_str()),
        (":scheme", "http"),
        (":path", target),
    ];
    let line = line.map(|(name, value)| name.len() + value.len());
    let fields = request.headers().iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len());
    let fields = fields.chain(line).map(|bytes| bytes + FIELD_OVERHEAD_BYTES);
    if fields.sum::<usize>() > max as usize {
        return Err(metadata_too_large(max));
    }
    Ok(())
}

/// The same in all versions of HTTP.
pub(crate) fn metadata_too_large(max: u32) -> Failure {
    let message = format!("the metadata has more bytes than the limit of {max}");
    Failure::new(Reason::MetadataTooLarge, message)
}

/// True when connectrpc answered by itself. A handler of ours that was never
/// reached leaves no other way; health and reflection are not ours, so there
/// the head decides.
fn refused_by_protocol_layer<S: Store>(
    call: &Call<S>,
    response: &Response<ConnectRpcBody>,
) -> bool {
    let failed = response.status() != StatusCode::OK
        || response
            .headers()
            .get("grpc-status")
            .is_some_and(|status| status != "0");
    match call.method.access {
        Access::Open => failed,
        _ => !call.was_handled(),
    }
}

/// Gives an error of connectrpc's own what every error has: a reason.
async fn translate<S: Store>(
    call: &Call<S>,
    response: Response<ConnectRpcBody>,
    kind: &HeaderMap,
) -> Response<ConnectRpcBody> {
    let (head, body) = response.into_parts();
    // It holds one error; ours are short, and this one is connectrpc's.
    let body = match body.collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(never) => match never {},
    };
    let (code, message) = http_refusal(head.status)
        .or_else(|| grpc_status(&head.headers))
        .or_else(|| grpc_web_status(&body))
        .or_else(|| connect_status(&body))
        .unwrap_or_else(|| (ErrorCode::Unknown, head.status.to_string()));
    let failure = call.failed(from_protocol_layer(code, &message));
    let mut error = connect_error(&failure);
    if matches!(
        head.status,
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::UNSUPPORTED_MEDIA_TYPE | StatusCode::NOT_FOUND
    ) {
        error = error.with_http_status(head.status);
    }
    let mut answer = error.into_http_response(kind);
    if failure.reason == Reason::EncodingUnsupported {
        let (name, value) = compression::taken(kind);
        answer.headers_mut().insert(name, value);
    }
    for name in ["allow", "accept-post"] {
        if let Some(value) = head.headers.get(name) {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    answer
}

/// Refusals that HTTP tells better than any protocol on it.
fn http_refusal(status: StatusCode) -> Option<Status> {
    let message = match status {
        StatusCode::METHOD_NOT_ALLOWED => "this method is not called by this HTTP method",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            "the content type is none of application/json, application/proto, application/grpc, \
             application/grpc-web"
        }
        _ => return None,
    };
    Some((ErrorCode::Unimplemented, message.to_owned()))
}

type Status = (ErrorCode, String);

/// A Trailers-Only response of gRPC.
fn grpc_status(head: &HeaderMap) -> Option<Status> {
    let number = head.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    let message = head
        .get("grpc-message")
        .map_or("", |text| text.to_str().unwrap_or_default());
    Some((code_of(number), percent_decoded(message)))
}

/// The trailer frame of gRPC-Web.
fn grpc_web_status(body: &[u8]) -> Option<Status> {
    const TRAILER_FRAME: u8 = 0x80;
    let lines = std::str::from_utf8(body.strip_prefix(&[TRAILER_FRAME])?.get(4..)?).ok()?;
    let field = |name: &str| {
        lines
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    };
    let number = field("grpc-status")?.parse().ok()?;
    Some((
        code_of(number),
        percent_decoded(field("grpc-message").unwrap_or_default()),
    ))
}

/// The JSON of Connect: a unary error, or the end of a stream.
fn connect_status(body: &[u8]) -> Option<Status> {
    const END_STREAM_FRAME: u8 = 2;
    let parsed = match body.strip_prefix(&[END_STREAM_FRAME]) {
        Some(frame) => serde_json::from_slice::<serde_json::Value>(frame.get(4..)?)
            .ok()?
            .get("error")?
            .clone(),
        None => serde_json::from_slice(body).ok()?,
    };
    let error: ConnectError = serde_json::from_value(parsed).ok()?;
    Some((error.code, error.message.unwrap_or_default()))
}

fn code_of(number: u32) -> ErrorCode {
    ErrorCode::from_grpc_code(number).unwrap_or(ErrorCode::Unknown)
}

fn percent_decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text)
        .decode_utf8_lossy()
        .into_owned()
}

#[cfg(test)]
pub(crate) mod tests;
