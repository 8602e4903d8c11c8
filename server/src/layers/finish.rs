//! After a call: its line in the log, once the last frame has left or the
//! caller has gone.

use std::convert::Infallible;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use connectrpc::ConnectRpcBody;
use http::HeaderValue;
use http_body::{Body, Frame, SizeHint};
use larder_api::errors::{Code, Reason};
use larder_api::wire::SKIPPED;
use larder_model::Store;

use crate::audit;
use crate::call::{Call, Outcome};
use crate::clock;
use crate::rate::RateLimiter;

/// The access log's target: one line a call.
pub(crate) const ACCESS: &str = "access";

/// Ends a call: the talk's interceptor, after the fact. Every error has its line;
/// calls that went well have theirs as far as the log's rate goes.
pub(crate) fn finish<S: Store>(call: &Call<S>) {
    let outcome = call.outcome().unwrap_or(Outcome::OK);
    if outcome.code != Code::Ok || call.method.audited {
        audit::ended(call, outcome);
    }
    // A call that was answered where it was read ended in the same moment.
    let is_full = call.moment.is_some_and(|moment| moment.log_is_full);
    let may_log = |rate: &RateLimiter| !is_full && rate.take(call.now()).is_ok();
    if outcome.code == Code::Ok && !call.core().access_log.as_ref().is_some_and(may_log) {
        return;
    }
    let took = clock::instant().saturating_duration_since(call.started);
    let account = call
        .identity()
        .map_or("-", |identity| identity.tenant.name().as_str());
    let reason = outcome.reason.map_or("-", Reason::name);
    tracing::info!(
        target: ACCESS,
        method = call.method.path,
        account,
        peer = %call.connection.peer,
        status = outcome.code.name(),
        reason,
        duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        accounts_us = u64::try_from(call.accounts_wait().as_micros()).unwrap_or(u64::MAX),
        dry_run = call.dry_run == larder_model::Mode::DryRun,
        "call",
    );
}

/// A call that has no answer yet. Dropped so, its caller has gone away.
pub(crate) struct InFlight<S: Store>(Option<Arc<Call<S>>>);

impl<S: Store> InFlight<S> {
    pub(crate) fn new(call: Call<S>) -> Self {
        Self(Some(Arc::new(call)))
    }

    /// The call, for its handler.
    pub(crate) fn share(&self) -> Arc<Call<S>> {
        Arc::clone(self.call())
    }

    /// The answer's body takes the call over.
    pub(crate) fn answered(mut self, body: ConnectRpcBody) -> CallBody<S> {
        CallBody {
            inner: body,
            call: self.0.take(),
        }
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
