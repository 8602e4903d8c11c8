//! Around a call: counted as it begins; and after it, once the last frame has left or the caller
//! has gone, its figures, its span and its line in the log, all from one place.

use std::convert::Infallible;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use connectrpc::ConnectRpcBody;
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use larder_api::errors::{Code, Reason};
use larder_api::wire::SKIPPED;
use larder_model::Store;

use crate::audit;
use crate::call::{Call, Outcome};
use crate::clock;
use crate::rate::RateLimiter;
use crate::telemetry::interceptor::{CallEnd, CallStart};
use crate::telemetry::meter::{Measured, SeriesId};
use crate::telemetry::sizes::MessageBytes;
use crate::telemetry::trace_context::hex;
use crate::telemetry::tracer::Span;

/// The access log's target: one line a call.
pub(crate) const ACCESS: &str = "access";

/// Begins a call: before anything is decided about it. Each is ended by [`finish`], once.
#[inline]
pub(crate) fn begin<S: Store>(call: &Call<S>) {
    call.connection.meter.started(call.method);
    let telemetry = &call.core().telemetry;
    if telemetry.is_watched() {
        let start = CallStart {
            method: call.method.path,
            peer: call.connection.peer,
            at: call.started,
            previous_attempts: call.previous_attempts(),
        };
        for interceptor in &telemetry.interceptors {
            interceptor.started(&start);
        }
    }
}

/// Ends a call: the talk's interceptor, after the fact. It is counted; then whoever watches is told,
/// its span is queued, and the log has its line: every error has one, but in floods
/// ([`crate::refusals`]), and calls that went well as far as the log's rate goes.
pub(crate) fn finish<S: Store>(call: &Call<S>) {
    let outcome = call.outcome().unwrap_or(Outcome::OK);
    if outcome.code != Code::Ok || call.method.audited {
        audit::ended(call, outcome);
    }
    // A call that was answered where it was read ended in the same moment.
    let is_full = call.moment.is_some_and(|moment| moment.log_is_full);
    let may_log = |rate: &RateLimiter| !is_full && rate.take(call.now()).is_ok();
    let logs = match outcome.code {
        Code::Ok => call.core().access_log.as_ref().is_some_and(may_log),
        _ => call.core().refusals.has_line(outcome.reason, call.now()),
    };
    let is_looked_at = logs || call.core().telemetry.is_watched() || call.context.is_some();
    let took = match call.ends_with_turn() && !is_looked_at {
        true => None,
        false => Some(clock::instant().saturating_duration_since(call.started)),
    };
    let measured = Measured {
        series: SeriesId::of(call.method, outcome.code),
        reason: outcome.reason,
        received_bytes: call.request_bytes.get(),
        sent_bytes: call.response_bytes.get(),
        took,
        accounts_wait: call.accounts_wait(),
    };
    let account = call.identity().map(|identity| &*identity.meter);
    call.connection.meter.ended(&measured, account);
    if let (Some(took), true) = (took, is_looked_at) {
        tell(call, outcome, took, logs);
    }
}

/// For those who want to know more of a call than its figures.
#[cold]
fn tell<S: Store>(call: &Call<S>, outcome: Outcome, took: Duration, logs: bool) {
    let identity = call.identity();
    let context = call.context.as_ref();
    let end = CallEnd {
        method: call.method.path,
        account: identity.map(|identity| identity.tenant.name().as_str()),
        peer: call.connection.peer,
        started: call.started,
        duration: took,
        accounts_wait: call.accounts_wait(),
        code: outcome.code,
        reason: outcome.reason,
        request_bytes: call.request_bytes.get(),
        response_bytes: call.response_bytes.get(),
        previous_attempts: call.previous_attempts(),
        is_dry_run: call.dry_run == larder_model::Mode::DryRun,
        trace_id: context.and_then(|context| context.trace_id()),
    };
    let telemetry = &call.core().telemetry;
    for interceptor in &telemetry.interceptors {
        interceptor.ended(&end);
    }
    let span = context.and_then(|context| context.span());
    if let (Some(tracer), Some((context, parent))) = (&telemetry.tracer, span) {
        tracer.ended(Span::of(&end, call.is_grpc, context.clone(), parent));
    }
    if logs {
        log(&end);
    }
}

/// The line of the access log.
fn log(end: &CallEnd<'_>) {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    tracing::info!(
        target: ACCESS,
        method = end.method,
        account = end.account.unwrap_or("-"),
        peer = %end.peer,
        status = end.code.name(),
        reason = end.reason.map_or("-", Reason::name),
        duration_us = micros(end.duration),
        accounts_us = micros(end.accounts_wait),
        request_bytes = end.request_bytes,
        response_bytes = end.response_bytes,
        previous_attempts = end.previous_attempts,
        dry_run = end.is_dry_run,
        trace_id = end.trace_id.map(|id| hex(&id)),
        "call",
    );
}

/// A call that has no answer yet. Dropped so, its caller has gone away.
pub(crate) struct InFlight<S: Store>(Option<Arc<Call<S>>>);

impl<S: Store> InFlight<S> {
    pub(crate) fn new(call: Call<S>) -> Self {
        begin(&call);
        Self(Some(Arc::new(call)))
    }

    /// The call, for its handler.
    pub(crate) fn share(&self) -> Arc<Call<S>> {
        Arc::clone(self.call())
    }

    /// The answer's body takes the call over.
    pub(crate) fn answered(mut self, response: Response<ConnectRpcBody>) -> Response<CallBody<S>> {
        let (head, body) = response.into_parts();
        let body = CallBody {
            inner: body,
            // An error in the words of HTTP or Connect is no message.
            sizes: (head.status == StatusCode::OK).then(|| MessageBytes::of(&head.headers)),
            call: self.0.take(),
        };
        Response::from_parts(head, body)
    }

    fn call(&self) -> &Arc<Call<S>> {
        self.0
            .as_ref()
            .expect("only `answered`, which consumes, takes it")
    }
}

impl<S: Store> Deref for InFlight<S> {
    type Target = Call<S>;

    fn deref(&self) -> &Call<S> {
        self.call()
    }
}

impl<S: Store> Drop for InFlight<S> {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            call.note(GONE);
            finish(&call);
        }
    }
}

/// The caller gave up.
pub(crate) const GONE: Outcome = Outcome {
    code: Code::Cancelled,
    reason: Some(Reason::Cancelled),
};

/// A response body that ends its call when it ends.
pub(crate) struct CallBody<S: Store> {
    inner: ConnectRpcBody,
    sizes: Option<MessageBytes>,
    /// `None` once the call has been finished.
    call: Option<Arc<Call<S>>>,
}

/// connectrpc's body does not say when it is at its end, or how long it is.
fn is_end(body: &ConnectRpcBody) -> bool {
    match body {
        ConnectRpcBody::Full(body) => body.is_end_stream(),
        _ => false,
    }
}

impl<S: Store> CallBody<S> {
    fn count(&mut self, frame: &Frame<Bytes>) {
        if let (Some(sizes), Some(data), Some(call)) =
            (&mut self.sizes, frame.data_ref(), &self.call)
        {
            call.response_bytes.add(sizes.count(data));
        }
    }

    fn end(&mut self) {
        if let Some(call) = self.call.take() {
            finish(&call);
        }
    }
}

impl<S: Store> Body for CallBody<S> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut polled = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &mut polled {
            None => self.end(),
            Some(Ok(frame)) => {
                self.count(frame);
                if let (Some(trailers), Some(call)) = (frame.trailers_mut(), &self.call)
                    && call.skipped() > 0
                {
                    trailers.insert(SKIPPED, HeaderValue::from(call.skipped()));
                }
                if frame.is_trailers() || is_end(&self.inner) {
                    self.end();
                }
            }
            Some(Err(never)) => match *never {},
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        is_end(&self.inner)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            ConnectRpcBody::Full(body) => body.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

impl<S: Store> Drop for CallBody<S> {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            // A body that is dropped at its end, without a last poll, was sent.
            if !is_end(&self.inner) {
                call.note(GONE);
            }
            finish(&call);
        }
    }
}
