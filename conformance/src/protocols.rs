//! `ConformanceService` in every protocol that connectrpc speaks. Serves the
//! general lane, and HTTP/1.1.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use buffa_types::google::protobuf::Any;
use connectrpc::{
    ConnectError, ConnectRpcService, DeadlinePolicy, ErrorCode, ErrorDetail, InboundStream, Limits,
    RequestContext, Response, Router, ServiceRequest, ServiceResult, ServiceStream,
};
use futures::StreamExt as _;
use futures::stream::unfold;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tower_service::Service;

use crate::answer::{self, Failure, Metadata, Turns};
use crate::wire::conformance_payload::RequestInfo;
use crate::wire::{
    BidiStreamRequest, BidiStreamResponse, ClientStreamRequest, ClientStreamResponse, Code,
    ConformancePayload, ConformanceService, Header, IdempotentUnaryRequest,
    IdempotentUnaryResponse, ServerStreamRequest, ServerStreamResponse, UnaryRequest,
    UnaryResponse, UnaryResponseDefinition, UnimplementedRequest, UnimplementedResponse, any,
};

/// The bytes before a message that is part of a stream.
const PREFIX_BYTES: usize = 5;

/// The service as a `tower` service. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Protocols(ConnectRpcService<Router>);

impl Protocols {
    /// Refuses messages of more than `max_message_bytes`.
    pub(crate) fn new(max_message_bytes: usize) -> Self {
        let limits = Limits::default()
            .with_max_message_size(max_message_bytes)
            .with_max_request_body_size(max_message_bytes + PREFIX_BYTES);
        let service = ConnectRpcService::new(Router::new().add_service(Arc::new(Conformance)))
            .with_limits(limits)
            .with_deadline_policy(DeadlinePolicy::new().with_enforce_on_streams(true));
        Self(service)
    }
}

/// What the address of a request had after its `?`: connectrpc hands on a
/// request's extensions, and not its address.
#[derive(Clone)]
struct Query(String);

impl<B> Service<Request<B>> for Protocols
where
    ConnectRpcService<Router>: Service<Request<B>>,
{
    type Response = <ConnectRpcService<Router> as Service<Request<B>>>::Response;
    type Error = <ConnectRpcService<Router> as Service<Request<B>>>::Error;
    type Future = <ConnectRpcService<Router> as Service<Request<B>>>::Future;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if let Some(query) = request.uri().query() {
            let query = Query(query.to_owned());
            request.extensions_mut().insert(query);
        }
        self.0.call(request)
    }
}

struct Conformance;

#[allow(
    refining_impl_trait,
    reason = "the concrete message says more than `impl Encodable`"
)]
impl ConformanceService for Conformance {
    async fn unary(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, UnaryRequest>,
    ) -> ServiceResult<UnaryResponse> {
        let requests = vec![any::<UnaryRequest>(request.bytes().clone())];
        let definition = request.to_owned_message().response_definition.into_option();
        let answer = answer_unary(&context, definition, requests).await?;
        Ok(answer.map_body(|payload| UnaryResponse {
            payload: payload.into(),
            ..UnaryResponse::default()
        }))
    }

    async fn idempotent_unary(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, IdempotentUnaryRequest>,
    ) -> ServiceResult<IdempotentUnaryResponse> {
        let requests = vec![any::<IdempotentUnaryRequest>(request.bytes().clone())];
        let definition = request.to_owned_message().response_definition.into_option();
        let answer = answer_unary(&context, definition, requests).await?;
        Ok(answer.map_body(|payload| IdempotentUnaryResponse {
            payload: payload.into(),
            ..IdempotentUnaryResponse::default()
        }))
    }

    async fn unimplemented(
        &self,
        _: RequestContext,
        _: ServiceRequest<'_, UnimplementedRequest>,
    ) -> ServiceResult<UnimplementedResponse> {
        Err(ConnectError::unimplemented("as the suite wants it"))
    }

    async fn client_stream(
        &self,
        context: RequestContext,
        mut requests: InboundStream<ClientStreamRequest>,
    ) -> ServiceResult<ClientStreamResponse> {
        let mut definition = None;
        let mut all = Vec::new();
        while let Some(request) = requests.next().await {
            let request = request?;
            if all.is_empty() {
                definition = request.to_owned_message().response_definition.into_option();
            }
            all.push(any::<ClientStreamRequest>(request.bytes().clone()));
        }
        let answer = answer_unary(&context, definition, all).await?;
        Ok(answer.map_body(|payload| ClientStreamResponse {
            payload: payload.into(),
            ..ClientStreamResponse::default()
        }))
    }

    async fn server_stream(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, ServerStreamRequest>,
    ) -> ServiceResult<ServiceStream<ServerStreamResponse>> {
        let requests = vec![any::<ServerStreamRequest>(request.bytes().clone())];
        let definition = request.to_owned_message().response_definition.into_option();
        let answer = answer::stream(definition, request_info(&context, requests));
        answer_stream(answer, |payload| ServerStreamResponse {
            payload: payload.into(),
            ..ServerStreamResponse::default()
        })
    }

    async fn bidi_stream(
        &self,
        context: RequestContext,
        mut requests: InboundStream<BidiStreamRequest>,
    ) -> ServiceResult<ServiceStream<BidiStreamResponse>> {
        let Some(first) = requests.next().await.transpose()? else {
            return Ok(Response::new(futures::stream::empty().boxed()));
        };
        let mut all = vec![any::<BidiStreamRequest>(first.bytes().clone())];
        let first = first.to_owned_message();
        let definition = first.response_definition.into_option();
        if first.full_duplex {
            return Ok(take_turns(&context, definition, all, requests));
        }
        while let Some(request) = requests.next().await.transpose()? {
            all.push(any::<BidiStreamRequest>(request.bytes().clone()));
        }
        let answer = answer::stream(definition, request_info(&context, all));
        answer_stream(answer, bidi_response)
    }
}

fn bidi_response(payload: ConformancePayload) -> BidiStreamResponse {
    BidiStreamResponse {
        payload: payload.into(),
        ..BidiStreamResponse::default()
    }
}

async fn answer_unary(
    context: &RequestContext,
    definition: Option<UnaryResponseDefinition>,
    requests: Vec<Any>,
) -> ServiceResult<ConformancePayload> {
    let answer = answer::unary(definition, request_info(context, requests));
    wait(answer.delay).await;
    match answer.outcome {
        Ok(payload) => Ok(with_metadata(payload, &answer.metadata)),
        Err(failure) => Err(connect_error(failure)
            .with_headers(header_map(&answer.metadata.headers))
            .with_trailers(header_map(&answer.metadata.trailers))),
    }
}

fn answer_stream<M: Send + 'static>(
    answer: answer::StreamAnswer,
    response: fn(ConformancePayload) -> M,
) -> ServiceResult<ServiceStream<M>> {
    let answer::StreamAnswer {
        metadata,
        delay,
        payloads,
        end,
    } = answer;
    let messages = unfold(payloads, move |mut payloads| async move {
        let payload = payloads.pop_front()?;
        wait(delay).await;
        Some((Ok(response(payload)), payloads))
    });
    let end = futures::stream::iter(end.err().map(|failure| Err(connect_error(failure))));
    Ok(with_metadata(messages.chain(end).boxed(), &metadata))
}

/// A bidirectional stream that is answered message by message.
struct Conversation {
    /// As long as they are read.
    requests: Option<InboundStream<BidiStreamRequest>>,
    /// Not told of in a message yet.
    pending: Vec<Any>,
    turns: Turns,
}

fn take_turns(
    context: &RequestContext,
    definition: Option<crate::wire::StreamResponseDefinition>,
    first: Vec<Any>,
    requests: InboundStream<BidiStreamRequest>,
) -> Response<ServiceStream<BidiStreamResponse>> {
    let metadata = definition
        .as_ref()
        .map_or_else(Metadata::default, |definition| Metadata {
            headers: definition.response_headers.clone(),
            trailers: definition.response_trailers.clone(),
        });
    let conversation = Conversation {
        requests: Some(requests),
        pending: first,
        turns: Turns::new(definition, request_info(context, Vec::new())),
    };
    let messages = unfold(conversation, |mut conversation| async move {
        let message = conversation.next().await?;
        Some((message, conversation))
    });
    with_metadata(messages.boxed(), &metadata)
}

impl Conversation {
    async fn next(&mut self) -> Option<Result<BidiStreamResponse, ConnectError>> {
        if let Some(requests) = &mut self.requests
            && self.pending.is_empty()
        {
            match requests.next().await {
                Some(Ok(request)) => {
                    let request = any::<BidiStreamRequest>(request.bytes().clone());
                    self.pending.push(request);
                }
                Some(Err(error)) => return Some(Err(error)),
                None => self.requests = None,
            }
        }
        let pending = std::mem::take(&mut self.pending);
        if self.turns.is_exhausted() {
            self.requests = None;
            let failure = self.turns.end(pending)?;
            return Some(Err(connect_error(failure)));
        }
        wait(self.turns.delay).await;
        let payload = self.turns.next(pending)?;
        Some(Ok(bidi_response(payload)))
    }
}

async fn wait(delay: Duration) {
    // A sleep of nothing would be one until the timer's next tick.
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}

fn request_info(context: &RequestContext, requests: Vec<Any>) -> RequestInfo {
    let fields = context.headers().iter();
    let query = context.extensions().get::<Query>();
    answer::request_info(
        fields.map(|(name, value)| (name.as_str(), value.as_bytes())),
        context.time_remaining(),
        query.map(|query| query.0.as_str()),
        requests,
    )
}

fn with_metadata<B>(body: B, metadata: &Metadata) -> Response<B> {
    let mut response = Response::new(body);
    response.headers = header_map(&metadata.headers);
    response.trailers = header_map(&metadata.trailers);
    response
}

/// What the types of `http` have no word for is left out: the suite asks for
/// nothing of the kind.
fn header_map(headers: &[Header]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for header in headers {
        for value in &header.value {
            if let (Ok(name), Ok(value)) = (
                HeaderName::try_from(&header.name),
                HeaderValue::try_from(value),
            ) {
                map.append(name, value);
            }
        }
    }
    map
}

fn connect_error(failure: Failure) -> ConnectError {
    let code = error_code(failure.code);
    let error = ConnectError::new(code, failure.message);
    failure.details.into_iter().fold(error, |error, detail| {
        let name = detail.type_url.rsplit('/').next().unwrap_or_default();
        error.with_detail(ErrorDetail {
            type_url: name.to_owned(),
            value: Some(STANDARD_NO_PAD.encode(&detail.value)),
            debug: None,
        })
    })
}

/// The suite numbers its codes as gRPC does.
fn error_code(code: Code) -> ErrorCode {
    u32::try_from(code as i32)
        .ok()
        .and_then(ErrorCode::from_grpc_code)
        .unwrap_or(ErrorCode::Unknown)
}
