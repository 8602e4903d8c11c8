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
use crate::rpc::{
    Closing, Code, Handler, Outcome, Refusal, Refused, Reply, Request, Status, Step, Trust, Waiting,
};

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

/// `Echo`, `Fail`, `Later`, `Stream`, `Panic`, `HalfPanic`, `Left`, `LatePanic`,
/// `RefusePanic`.
#[derive(Clone, Default)]
pub(crate) struct Methods {
    pub(crate) gate: Gate,
    /// Heads that were looked at.
    pub(crate) routed: Arc<Mutex<usize>>,
    /// Calls that were refused, and why: `Echo Clogged`.
    pub(crate) refused: Arc<Mutex<Vec<String>>>,
}

impl Handler for Methods {
    type Method = &'static str;
    type Waiting = Box<dyn Waiting + Send>;

    fn route(&mut self, head: &Head) -> Option<&'static str> {
        *self.routed.lock().expect("a test is sound") += 1;
        let names = [
            "Echo",
            "NoWait",
            "Fail",
            "Later",
            "Stream",
            "Panic",
            "HalfPanic",
            "Left",
            "LatePanic",
            "RefusePanic",
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
            "Echo" | "NoWait" => {
                if let Some(value) = request.head.value(b"x-meta") {
                    reply.metadata(b"x-meta", value);
                    reply.trailer(b"x-trailer", value);
                }
                reply.message(|out| out.extend_from_slice(&message));
                Outcome::Done(Status::OK)
            }
            "Fail" => {
                if let Some(value) = request.head.value(b"x-meta") {
                    reply.metadata(b"x-meta", value);
                }
                Outcome::Done(Status {
                    code: Code::NOT_FOUND,
                    message: "no \u{e9}".into(),
                    details: b"why".into(),
                })
            }
            "Later" | "LatePanic" => Outcome::Waits(Box::new(Later {
                gate: self.gate.clone(),
                message,
                panics: *request.method == "LatePanic",
                refused: Arc::clone(&self.refused),
            })),
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

    fn wait_for(
        &mut self,
        call: &Refused<'_, &'static str>,
        closing: &mut Closing<'_>,
    ) -> Result<Trust, Status> {
        if *call.method != "NoWait" {
            return Ok(Trust::Unknown);
        }
        closing.trailer(b"x-why", b"parts");
        Err(Status::new(Code(16), "no"))
    }

    fn refuse(
        &mut self,
        call: &Refused<'_, &'static str>,
        why: Refusal,
        _: &mut Closing<'_>,
    ) -> Status {
        let line = format!("{} {why:?}", call.method);
        self.refused.lock().expect("a test is sound").push(line);
        assert_ne!(*call.method, "RefusePanic", "on purpose");
        why.status()
    }
}

struct Later {
    gate: Gate,
    message: Vec<u8>,
    panics: bool,
    refused: Arc<Mutex<Vec<String>>>,
}

impl Waiting for Later {
    fn poll(&mut self, cx: &mut Context<'_>, reply: &mut Reply<'_>) -> Poll<Step> {
        assert!(!self.panics, "on purpose");
        let mut gate = self.gate.0.lock().expect("a test is sound");
        if !gate.0 {
            gate.1.push(cx.waker().clone());
            return Poll::Pending;
        }
        reply.message(|out| out.extend_from_slice(&self.message));
        Poll::Ready(Step::End(Status::OK))
    }

    fn refuse(&mut self, why: Refusal, _: &mut Closing<'_>) -> Status {
        let line = format!("waiting {why:?}");
        self.refused.lock().expect("a test is sound").push(line);
        why.status()
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
