//! A service with a method for each way in which a call can go.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request as HttpRequest, Response};
use http_body::{Body as HttpBody, Frame};

use crate::general::{Body, BodyError};
use crate::message::Head;
use crate::rpc::{Code, Handler, Outcome, Reply, Request, Status, Step, Waiting};

/// Lets calls of `Later` wait until they are told to go on.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<Mutex<(bool, Vec<Waker>)>>);

impl Gate {
    pub(crate) fn open(&self) {
        let mut gate = self.0.lock().expect("a test is sound");
        gate.0 = true;
        gate.1.drain(..).for_each(Waker::wake);
    }

    pub(crate) fn has_waiters(&self) -> bool {
        !self.0.lock().expect("a test is sound").1.is_empty()
    }
}

/// `Echo`, `Fail`, `Later`, `Stream`, `Panic`, `HalfPanic`, `Left`.
#[derive(Clone, Default)]
pub(crate) struct Methods {
    pub(crate) gate: Gate,
    /// Heads that were looked at.
    pub(crate) routed: Arc<Mutex<usize>>,
}

impl Handler for Methods {
    type Method = &'static str;
    type Waiting = Box<dyn Waiting + Send>;

    fn route(&mut self, head: &Head) -> Option<&'static str> {
        *self.routed.lock().expect("a test is sound") += 1;
        let names = [
            "Echo",
            "Fail",
            "Later",
            "Stream",
            "Panic",
            "HalfPanic",
            "Left",
        ];
        let path = head.path().strip_prefix(b"/t.T/")?;
        names.into_iter().find(|name| name.as_bytes() == path)
    }

    fn call(
        &mut self,
        request: Request<'_, &'static str>,
        reply: &mut Reply<'_>,
    ) -> Outcome<Self::Waiting> {
        let message = request.message.to_vec();
        match *request.method {
            "Echo" => {
                if let Some(value) = request.head.value(b"x-meta") {
                    reply.metadata(b"x-meta", value);
                    reply.trailer(b"x-trailer", value);
                }
                reply.message(|out| out.extend_from_slice(&message));
                Outcome::Done(Status::OK)
            }
            "Fail" => Outcome::Done(Status {
                code: Code::NOT_FOUND,
                message: "no \u{e9}".into(),
                details: b"why".into(),
            }),
            "Later" => Outcome::Waits(Box::new(Later(self.gate.clone(), message))),
            "Left" => {
                assert!(request.deadline.is_some());
                reply.message(|_| {});
                Outcome::Done(Status::OK)
            }
            "Stream" => {
                let [count, size] = [0, 1].map(|at| u32::from(message[at]));
                Outcome::Waits(Box::new(Stream { count, size }))
            }
            "HalfPanic" => {
                reply.message(|out| {
                    out.extend_from_slice(b"half");
                    panic!("on purpose");
                });
                Outcome::Done(Status::OK)
            }
            _ => panic!("on purpose"),
        }
    }
}

struct Later(Gate, Vec<u8>);

impl Waiting for Later {
    fn poll(&mut self, cx: &mut Context<'_>, reply: &mut Reply<'_>) -> Poll<Step> {
        let mut gate = self.0.0.lock().expect("a test is sound");
        if !gate.0 {
            gate.1.push(cx.waker().clone());
            return Poll::Pending;
        }
        reply.message(|out| out.extend_from_slice(&self.1));
        Poll::Ready(Step::End(Status::OK))
    }
}

/// `count` messages of 100 × `size` bytes.
struct Stream {
    count: u32,
    size: u32,
}

impl Waiting for Stream {
    fn poll(&mut self, _: &mut Context<'_>, reply: &mut Reply<'_>) -> Poll<Step> {
        let Some(left) = self.count.checked_sub(1) else {
            return Poll::Ready(Step::End(Status::OK));
        };
        self.count = left;
        let byte = left.to_le_bytes()[0];
        let size = 100 * self.size as usize;
        reply.message(|out| out.resize(out.len() + size, byte));
        Poll::Ready(Step::More)
    }
}

/// Answers with the request's own body and trailers.
#[derive(Clone, Copy, Default)]
pub(crate) struct Mirror;

pub(crate) struct MirrorBody(Body);

impl tower_service::Service<HttpRequest<Body>> for Mirror {
    type Response = Response<MirrorBody>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        assert!(!request.uri().path().contains("Panic"), "on purpose");
        let uri = request.uri().to_string();
        let mut response = Response::new(MirrorBody(request.into_body()));
        response
            .headers_mut()
            .insert("x-uri", uri.parse().expect("a test is sound"));
        std::future::ready(Ok(response))
    }
}

impl HttpBody for MirrorBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }
}
