//! The general lane: calls as `http::Request` and `http::Response`, for all that
//! the typed lane does not take.
//!
//! The connection polls the calls itself; the bodies are back-pressured by the
//! flow control of HTTP/2 (RFC 9113, section 5.2).

mod body;
mod request;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Body as HttpBody;
use tower_service::Service;

use self::body::Incoming;
pub use self::body::{Body, BodyError};
use crate::connection::{Core, End, StreamKey};
use crate::error_codes::ErrorCode;
use crate::hpack::Fields;
use crate::message::Head;

/// What answers the calls of the general lane: any
/// `tower_service::Service<http::Request<Body>>` that can be cloned and whose
/// responses have bodies of [`Bytes`]. It is cloned for each call.
pub trait GeneralLane: Clone {
    /// The response's body.
    type Body: HttpBody<Data = Bytes>;
    /// The way to a response. An error resets the stream.
    type Future: Future<Output = Option<Response<Self::Body>>>;

    /// True once a request can be taken.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<bool>;

    /// Takes a request.
    fn call(&mut self, request: Request<Body>) -> Self::Future;
}

impl<S, B> GeneralLane for S
where
    S: Service<Request<Body>, Response = Response<B>> + Clone,
    B: HttpBody<Data = Bytes>,
{
    type Body = B;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        Service::poll_ready(self, cx).map(|ready| ready.is_ok())
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Answering(Box::pin(Service::call(self, request)))
    }
}

/// The future of a service, whose error is dropped.
#[derive(Debug)]
pub struct Answering<F>(Pin<Box<F>>);

impl<F: Future<Output = Result<T, E>>, T, E> Future for Answering<F> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.as_mut().poll(cx).map(Result::ok)
    }
}

/// When the head of a request came: an extension of each request. It may have
/// waited since, if its client does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received(pub Instant);

/// A general lane that takes nothing: every call is answered with status 404.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoGeneralLane;

impl Service<Request<Body>> for NoGeneralLane {
    type Response = Response<NoBody>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let mut response = Response::new(NoBody);
        *response.status_mut() = http::StatusCode::NOT_FOUND;
        std::future::ready(Ok(response))
    }
}

/// A body without content.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoBody;

impl HttpBody for NoBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}

/// What one poll of a call came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Waits,
    GoesOn,
    Ended,
}

enum Stage<L: GeneralLane> {
    /// The service is not ready yet.
    Asking(L, Box<Request<Body>>),
    /// The service works on the response.
    Answering(Pin<Box<L::Future>>),
    /// The response's body is sent.
    Sending(Pin<Box<L::Body>>),
    /// The request cannot be told in the types of `http`.
    Refused,
    Over,
}

/// A call of the general lane.
pub(crate) struct GeneralCall<L: GeneralLane> {
    incoming: Incoming,
    waker: Waker,
    stage: Stage<L>,
}

impl<L: GeneralLane> GeneralCall<L> {
    pub(crate) fn new(lane: &L, head: &Head, end: End, waker: Waker, now: Instant) -> Self {
        let (incoming, body) = Incoming::new(end, head.content_length(), waker.clone());
        let stage = match request::of(head, body, Received(now)) {
            Some(request) => Stage::Asking(lane.clone(), Box::new(request)),
            None => Stage::Refused,
        };
        Self {
            incoming,
            waker,
            stage,
        }
    }

    pub(crate) fn receive(&self, data: &[u8], end: End) {
        self.incoming.receive(data, end);
    }

    pub(crate) fn receive_trailers(&self, trailers: &Fields) {
        self.incoming.receive_trailers(request::trailers(trailers));
    }

    /// Bytes that came, and that nobody will read.
    pub(crate) fn unread(&self) -> u32 {
        self.incoming.abandon()
    }

    pub(crate) fn poll(&mut self, core: &mut Core, key: StreamKey) -> Progress {
        let waker = self.waker.clone();
        let mut cx = Context::from_waker(&waker);
        self.incoming.begin_poll();
        let progress = loop {
            match self.step(core, key, &mut cx) {
                Progress::GoesOn if core.is_drained(key) && core.has_room() => {}
                // Asked again when what it sent has left.
                Progress::GoesOn if !core.is_drained(key) => break Progress::Waits,
                progress => break progress,
            }
        };
        let read = self.incoming.end_poll();
        core.consumed(key, read);
        progress
    }

    fn step(&mut self, core: &mut Core, key: StreamKey, cx: &mut Context<'_>) -> Progress {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Asking(mut lane, request) => match lane.poll_ready(cx) {
                Poll::Ready(true) => {
                    self.stage = Stage::Answering(Box::pin(lane.call(*request)));
                    Progress::GoesOn
                }
                Poll::Ready(false) => {
                    core.reset(key, ErrorCode::REFUSED_STREAM);
                    Progress::Ended
                }
                Poll::Pending => {
                    self.stage = Stage::Asking(lane, request);
                    Progress::Waits
                }
            },
            Stage::Answering(mut future) => match future.as_mut().poll(cx) {
                Poll::Ready(Some(response)) => self.answer(core, key, response),
                Poll::Ready(None) => {
                    core.reset(key, ErrorCode::INTERNAL_ERROR);
                    Progress::Ended
                }
                Poll::Pending => {
                    self.stage = Stage::Answering(future);
                    Progress::Waits
                }
            },
            Stage::Sending(body) => self.send(core, key, body, cx),
            Stage::Refused => {
                core.send_headers(key, End::Stream, |block| block.status(400));
                Progress::Ended
            }
            Stage::Over => Progress::Ended,
        }
    }

    fn answer(&mut self, core: &mut Core, key: StreamKey, response: Response<L::Body>) -> Progress {
        let (head, body) = response.into_parts();
        let ends = body.is_end_stream();
        let end = if ends { End::Stream } else { End::Open };
        core.send_headers(key, end, |block| {
            block.status(head.status.as_u16());
            write_fields(&head.headers, |name, value| block.field(name, value));
        });
        if ends {
            return Progress::Ended;
        }
        self.stage = Stage::Sending(Box::pin(body));
        Progress::GoesOn
    }

    fn send(
        &mut self,
        core: &mut Core,
        key: StreamKey,
        mut body: Pin<Box<L::Body>>,
        cx: &mut Context<'_>,
    ) -> Progress {
        match body.as_mut().poll_frame(cx) {
            Poll::Pending => {
                self.stage = Stage::Sending(body);
                return Progress::Waits;
            }
            Poll::Ready(None) => core.send_end(key),
            Poll::Ready(Some(Err(_))) => core.reset(key, ErrorCode::INTERNAL_ERROR),
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    let mark = core.begin_data();
                    core.output().extend_from_slice(&data);
                    core.end_data(key, mark);
                    self.stage = Stage::Sending(body);
                    return Progress::GoesOn;
                }
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => core.send_trailers(key, |block| {
                        write_fields(&trailers, |name, value| block.field(name, value));
                    }),
                    // Neither: a kind of frame that there is not yet.
                    Err(_) => {
                        self.stage = Stage::Sending(body);
                        return Progress::GoesOn;
                    }
                },
            },
        }
        Progress::Ended
    }
}

/// Every field but those of RFC 9113, section 8.2.2.
fn write_fields(fields: &HeaderMap, mut write: impl FnMut(&[u8], &[u8])) {
    for (name, value) in fields {
        match name.as_str() {
            "connection" | "proxy-connection" | "keep-alive" | "transfer-encoding" | "upgrade" => {}
            name => write(name.as_bytes(), value.as_bytes()),
        }
    }
}
