//! A service with a method for each way in which a call can go.

use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request as HttpRequest, Response};
use http_body::{Body as HttpBody, Frame};
use larder_transport::general::{Body, BodyError};
use larder_transport::message::Head;
use larder_transport::rpc::{Code, Handler, Outcome, Reply, Request, Status, Step, Waiting};

/// A panic of a handler. Without a message: libFuzzer takes one for a failure.
fn fail_on_purpose() -> ! {
    resume_unwind(Box::new("on purpose"))
}

/// A message with its prefix, as gRPC sends it.
#[must_use]
pub fn prefixed(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    out.extend(length.to_be_bytes());
    out.extend_from_slice(message);
    out
}

#[derive(Default)]
struct Waiters {
    open: bool,
    wakers: Vec<Waker>,
}

/// Lets calls wait until they are told to go on.
#[derive(Clone, Default)]
pub struct Gate(Arc<Mutex<Waiters>>);

impl Gate {
    fn lock(&self) -> MutexGuard<'_, Waiters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets all calls go on, until it is shut.
    pub fn open(&self) {
        let mut gate = self.lock();
        gate.open = true;
        let wakers = std::mem::take(&mut gate.wakers);
        drop(gate);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Has calls wait again.
    pub fn shut(&self) {
        self.lock().open = false;
    }

    /// Wakes those that wait for nothing.
    pub fn wake(&self) {
        let wakers = self.lock().wakers.clone();
        wakers.into_iter().for_each(Waker::wake);
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut gate = self.lock();
        if gate.open {
            return Poll::Ready(());
        }
        let known = gate.wakers.iter().any(|known| known.will_wake(cx.waker()));
        if !known {
            gate.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// The methods of the typed lane: `Echo`, `Fail`, `Later`, `Stream`, `Panic`,
/// `HalfPanic`, `LatePanic`, `Head`.
#[derive(Clone, Default)]
pub struct Methods {
    /// What `Later` and `LatePanic` wait for.
    pub gate: Gate,
}

const NAMES: [&str; 8] = [
    "Echo",
    "Fail",
    "Later",
    "Stream",
    "Panic",
    "HalfPanic",
    "LatePanic",
    "Head",
];

impl Handler for Methods {
    type Method = &'static str;
    type Waiting = Box<dyn Waiting>;

    fn route(&mut self, head: &Head) -> Option<&'static str> {
        // What the recorded clients call.
        match head.path() {
            b"/rpc.Cache/Get" => return Some("Echo"),
            b"/rpc.Cache/Store" => return Some("Later"),
            _ => {}
        }
        let path = head.path().strip_prefix(b"/t.T/")?;
        NAMES.into_iter().find(|name| name.as_bytes() == path)
    }

    /// Whatever came, looking at what comes next ends, and finds bytes that may be looked at.
    fn expect<'m>(&mut self, messages: impl Iterator<Item = &'m [u8]>) {
        let bytes: usize = messages.map(|it| it.iter().map(|_| 1).sum::<usize>()).sum();
        std::hint::black_box(bytes);
    }

    fn call(
        &mut self,
        request: Request<'_, &'static str>,
        reply: &mut Reply<'_>,
    ) -> Outcome<Self::Waiting> {
        let message = request.message;
        match *request.method {
            "Echo" => {
                reply.message(|out| out.extend_from_slice(message));
                Outcome::Done(Status::OK)
            }
            "Fail" => Outcome::Done(Status {
                code: Code::NOT_FOUND,
                message: "no \u{e9}".into(),
                details: b"why".into(),
            }),
            "Later" => Outcome::Waits(Box::new(Later(self.gate.clone(), message.to_vec()))),
            "LatePanic" => {
                reply.message(|out| out.extend_from_slice(b"first"));
                Outcome::Waits(Box::new(LatePanic(self.gate.clone())))
            }
            "Stream" => {
                let part = |at: usize| message.get(at).copied().unwrap_or(0);
                let (count, size) = (part(0), part(1));
                Outcome::Waits(Box::new(Stream { count, size }))
            }
            "HalfPanic" => {
                reply.message(|out| {
                    out.extend_from_slice(b"half");
                    fail_on_purpose();
                });
                Outcome::Done(Status::OK)
            }
            "Head" => {
                reply.message(|out| describe(&request, out));
                Outcome::Done(Status::OK)
            }
            _ => fail_on_purpose(),
        }
    }
}

/// The time that the call has, and its metadata.
fn describe(request: &Request<'_, &'static str>, out: &mut Vec<u8>) {
    let left = request.deadline.map(|at| at - request.received);
    out.extend(format!("{:?}\n", left.map(|left| left.as_nanos())).bytes());
    for (name, value) in request.head.metadata() {
        for part in [name, value] {
            out.extend_from_slice(&prefixed(part));
        }
    }
}

struct Later(Gate, Vec<u8>);

impl Waiting for Later {
    fn poll(&mut self, cx: &mut Context<'_>, reply: &mut Reply<'_>) -> Poll<Step> {
        self.0.poll(cx).map(|()| {
            reply.message(|out| out.extend_from_slice(&self.1));
            Step::End(Status::OK)
        })
    }
}

struct LatePanic(Gate);

impl Waiting for LatePanic {
    fn poll(&mut self, cx: &mut Context<'_>, _: &mut Reply<'_>) -> Poll<Step> {
        self.0.poll(cx).map(|()| fail_on_purpose())
    }
}

/// Sends `count` messages of 100 × `size` bytes.
struct Stream {
    count: u8,
    size: u8,
}

/// What `Stream` sends.
#[must_use]
pub fn expected_stream(count: u8, size: u8) -> Vec<u8> {
    let mut content = Vec::new();
    for byte in (0..count).rev() {
        content.extend(prefixed(&vec![byte; 100 * usize::from(size)]));
    }
    content
}

impl Waiting for Stream {
    fn poll(&mut self, _: &mut Context<'_>, reply: &mut Reply<'_>) -> Poll<Step> {
        let Some(left) = self.count.checked_sub(1) else {
            return Poll::Ready(Step::End(Status::OK));
        };
        self.count = left;
        let size = 100 * usize::from(self.size);
        reply.message(|out| out.resize(out.len() + size, left));
        Poll::Ready(Step::More)
    }
}

/// The general lane: answers with the request's own body and trailers.
///
/// A path with `Panic` panics, with `Later` waits for the gate, with `Deaf` never
/// reads the body, with `Refuse` answers with an error.
#[derive(Clone, Default)]
pub struct Mirror {
    /// What `Later` waits for.
    pub gate: Gate,
}

/// A body that is sent back.
pub struct MirrorBody {
    body: Option<Body>,
    gate: Option<Gate>,
}

impl tower_service::Service<HttpRequest<Body>> for Mirror {
    type Response = Response<MirrorBody>;
    type Error = ();
    type Future = std::future::Ready<Result<Self::Response, ()>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        if path.contains("Panic") {
            fail_on_purpose();
        }
        if path.contains("Refuse") {
            return std::future::ready(Err(()));
        }
        let deaf = path.contains("Deaf");
        let body = MirrorBody {
            body: (!deaf).then(|| request.into_body()),
            gate: path.contains("Later").then(|| self.gate.clone()),
        };
        std::future::ready(Ok(Response::new(body)))
    }
}

impl HttpBody for MirrorBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(gate) = &self.gate
            && gate.poll(cx).is_pending()
        {
            return Poll::Pending;
        }
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }
}
