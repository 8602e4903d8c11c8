//! Holds a call within its deadline and within the life of the server, and a
//! panic within its call.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt, Stream};
use larder_api::errors::Reason;
use larder_api::wire::RECEIVE_TIMEOUT;
use larder_model::Store;
use tokio_util::sync::CancellationToken;

use crate::call::Call;
use crate::failure::Failure;

pub(crate) fn draining() -> Failure {
    Failure::new(Reason::Draining, "the server is shutting down")
}

pub(crate) fn panicked() -> Failure {
    Failure::new(Reason::Internal, "the server failed at this call")
}

/// The request did not come in time, whatever time its caller gives.
pub(crate) fn not_received() -> Failure {
    let message = format!(
        "the request did not arrive within {} s",
        RECEIVE_TIMEOUT.as_secs()
    );
    Failure::new(Reason::NotStarted, message)
}

/// Waits for `work`; gives up at the call's deadline, or when `stop` says that
/// the grace of the shutdown is over.
pub(crate) async fn within<S: Store, T>(
    call: &Call<S>,
    stop: &CancellationToken,
    work: impl Future<Output = T>,
) -> Result<T, Failure> {
    // A timer rounds up to its grain.
    if call.time_left() == Some(Duration::ZERO) {
        return Err(call.deadline_failure());
    }
    let work = AssertUnwindSafe(work).catch_unwind();
    let deadline = async {
        match call.deadline {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = deadline => Err(call.deadline_failure()),
        done = work => done.map_err(|_| panicked()),
        () = stop.cancelled() => Err(draining()),
    }
}

/// A response stream that ends with its call's deadline or with the server.
pub(crate) fn stream_within<S: Store, T: Send + 'static>(
    call: &Arc<Call<S>>,
    stop: &CancellationToken,
    stream: impl Stream<Item = Result<T, Failure>> + Send + 'static,
) -> Within<S, T> {
    let stop = stop.clone();
    let deadline = call
        .deadline
        .map(|at| Box::pin(tokio::time::sleep_until(at.into())));
    Within {
        stream: Some(Box::pin(stream)),
        deadline,
        stopped: Box::pin(async move { stop.cancelled().await }),
        call: Arc::clone(call),
    }
}

/// See [`stream_within`].
pub(crate) struct Within<S: Store, T> {
    /// `None` once it has ended.
    stream: Option<BoxStream<'static, Result<T, Failure>>>,
    deadline: Option<Pin<Box<tokio::time::Sleep>>>,
    stopped: Pin<Box<dyn Future<Output = ()> + Send>>,
    call: Arc<Call<S>>,
}

impl<S: Store, T> Within<S, T> {
    fn end(&mut self, failure: Failure) -> Poll<Option<Result<T, Failure>>> {
        self.stream = None;
        Poll::Ready(Some(Err(failure)))
    }
}

impl<S: Store, T> Stream for Within<S, T> {
    type Item = Result<T, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(stream) = &mut this.stream else {
            return Poll::Ready(None);
        };
        if let Some(deadline) = &mut this.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            let failure = this.call.deadline_failure();
            return this.end(failure);
        }
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| stream.as_mut().poll_next(cx)));
        match polled {
            Ok(Poll::Ready(Some(Ok(item)))) => Poll::Ready(Some(Ok(item))),
            Ok(Poll::Ready(Some(Err(failure)))) => this.end(failure),
            Ok(Poll::Ready(None)) => {
                this.stream = None;
                Poll::Ready(None)
            }
            Ok(Poll::Pending) if this.stopped.as_mut().poll(cx).is_ready() => this.end(draining()),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_) => this.end(panicked()),
        }
    }
}
