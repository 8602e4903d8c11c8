//! `ConformanceService` on the typed lane: the gRPC calls of its unary methods
//! and of its server stream, with messages decoded and encoded by buffa.

use std::collections::VecDeque;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use buffa::{Message, MessageName};
use larder_transport::message::Head;
use larder_transport::rpc::{Code, Handler, Outcome, Reply, Request, Status, Step, Waiting};
use tokio::time::Sleep;

use crate::answer::{self, Failure, Metadata};
use crate::wire::conformance_payload::RequestInfo;
use crate::wire::{
    self, ConformancePayload, IdempotentUnaryRequest, IdempotentUnaryResponse, ServerStreamRequest,
    ServerStreamResponse, StatusDetails, UnaryRequest, UnaryResponse,
};

/// Which lane takes what both can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// The general lane takes all calls.
    General,
    /// The typed lane takes what it can.
    Typed,
}

/// The handler of one connection.
pub(crate) struct Typed(pub(crate) Lane);

/// A method that the typed lane can serve.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Method {
    Unary,
    IdempotentUnary,
    ServerStream,
    Unimplemented,
}

impl Handler for Typed {
    type Method = Method;
    type Waiting = Sending;

    fn route(&mut self, head: &Head) -> Option<Method> {
        if self.0 == Lane::General {
            return None;
        }
        let path = head.path();
        match path.strip_prefix(b"/connectrpc.conformance.v1.ConformanceService/")? {
            b"Unary" => Some(Method::Unary),
            b"IdempotentUnary" => Some(Method::IdempotentUnary),
            b"ServerStream" => Some(Method::ServerStream),
            b"Unimplemented" => Some(Method::Unimplemented),
            _ => None,
        }
    }

    fn call(&mut self, request: Request<'_, Method>, reply: &mut Reply<'_>) -> Outcome<Sending> {
        let called = match request.method {
            Method::Unary => unary(request, reply),
            Method::IdempotentUnary => idempotent_unary(request, reply),
            Method::ServerStream => server_stream(request, reply),
            Method::Unimplemented => {
                let why = "as the suite wants it";
                Err(Status::new(Code::UNIMPLEMENTED, why))
            }
        };
        called.unwrap_or_else(Outcome::Done)
    }
}

type Called = Result<Outcome<Sending>, Status>;

fn unary(request: Request<'_, Method>, reply: &mut Reply<'_>) -> Called {
    let message: UnaryRequest = decode(request.message)?;
    let info = request_info::<UnaryRequest>(&request);
    let answer = answer::unary(message.response_definition.into_option(), info);
    Ok(answer_unary(answer, reply, |payload, out| {
        let payload = payload.into();
        UnaryResponse {
            payload,
            ..UnaryResponse::default()
        }
        .encode(out);
    }))
}

fn idempotent_unary(request: Request<'_, Method>, reply: &mut Reply<'_>) -> Called {
    let message: IdempotentUnaryRequest = decode(request.message)?;
    let info = request_info::<IdempotentUnaryRequest>(&request);
    let answer = answer::unary(message.response_definition.into_option(), info);
    Ok(answer_unary(answer, reply, |payload, out| {
        let payload = payload.into();
        IdempotentUnaryResponse {
            payload,
            ..IdempotentUnaryResponse::default()
        }
        .encode(out);
    }))
}

fn server_stream(request: Request<'_, Method>, reply: &mut Reply<'_>) -> Called {
    let message: ServerStreamRequest = decode(request.message)?;
    let info = request_info::<ServerStreamRequest>(&request);
    let answer = answer::stream(message.response_definition.into_option(), info);
    write_metadata(reply, &answer.metadata);
    Ok(Outcome::Waits(Sending {
        payloads: answer.payloads,
        end: answer.end.map_or_else(status, |()| Status::OK),
        encode: |payload, out| {
            let payload = payload.into();
            ServerStreamResponse {
                payload,
                ..ServerStreamResponse::default()
            }
            .encode(out);
        },
        delay: answer.delay,
        delays_end: false,
        sleep: None,
    }))
}

/// Answers at once, unless the answer is to be late.
fn answer_unary(
    answer: answer::UnaryAnswer,
    reply: &mut Reply<'_>,
    encode: Encode,
) -> Outcome<Sending> {
    write_metadata(reply, &answer.metadata);
    let (payload, end) = match answer.outcome {
        Ok(payload) => (Some(payload), Status::OK),
        Err(failure) => (None, status(failure)),
    };
    if answer.delay.is_zero() {
        if let Some(payload) = payload {
            reply.message(|out| encode(payload, out));
        }
        return Outcome::Done(end);
    }
    Outcome::Waits(Sending {
        delays_end: payload.is_none(),
        payloads: payload.into_iter().collect(),
        end,
        encode,
        delay: answer.delay,
        sleep: None,
    })
}

type Encode = fn(ConformancePayload, &mut Vec<u8>);

/// A call that sends its messages one by one, each after a wait.
pub(crate) struct Sending {
    payloads: VecDeque<ConformancePayload>,
    end: Status,
    encode: Encode,
    delay: Duration,
    /// An error that is the whole answer is as late as a message would be.
    delays_end: bool,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Waiting for Sending {
    fn poll(&mut self, cx: &mut Context<'_>, reply: &mut Reply<'_>) -> Poll<Step> {
        if !self.delay.is_zero() && (self.delays_end || !self.payloads.is_empty()) {
            let delay = self.delay;
            let sleep = self
                .sleep
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(delay)));
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
        let Some(payload) = self.payloads.pop_front() else {
            return Poll::Ready(Step::End(self.end.clone()));
        };
        reply.message(|out| (self.encode)(payload, out));
        Poll::Ready(Step::More)
    }
}

fn decode<M: Message + Default>(message: &[u8]) -> Result<M, Status> {
    M::decode_from_slice(message).map_err(|error| Status {
        code: Code::INVALID_ARGUMENT,
        message: format!("the message cannot be decoded: {error}").into(),
        details: Vec::new().into(),
    })
}

fn request_info<M: MessageName>(request: &Request<'_, Method>) -> RequestInfo {
    let now = tokio::time::Instant::now().into_std();
    let fields = request.head.metadata();
    answer::request_info(
        // The transport takes names of tokens only, which are ASCII.
        fields.filter_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, value))),
        request
            .deadline
            .map(|deadline| deadline.saturating_duration_since(now)),
        None,
        vec![wire::any::<M>(request.message.to_vec())],
    )
}

fn write_metadata(reply: &mut Reply<'_>, metadata: &Metadata) {
    for header in &metadata.headers {
        let name = header.name.to_ascii_lowercase();
        for value in &header.value {
            reply.metadata(name.as_bytes(), value.as_bytes());
        }
    }
    for header in &metadata.trailers {
        let name = header.name.to_ascii_lowercase();
        for value in &header.value {
            reply.trailer(name.as_bytes(), value.as_bytes());
        }
    }
}

fn status(failure: Failure) -> Status {
    let details = StatusDetails {
        code: failure.code as i32,
        message: failure.message.clone(),
        details: failure.details,
        ..StatusDetails::default()
    };
    Status {
        code: Code(u8::try_from(failure.code as i32).unwrap_or(Code::UNKNOWN.0)),
        message: failure.message.into(),
        details: details.encode_to_vec().into(),
    }
}
