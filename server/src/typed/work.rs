//! Calls that wait or stream, and how calls end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::Stream;
use larder_api::errors::Reason;
use larder_api::wire::SKIPPED;
use larder_model::Store;
use larder_transport::rpc::{Closing, Refusal, Reply, Status, Step, Waiting};

use super::answers::Answers;
use crate::call::Call;
use crate::failure::Failure;
use crate::layers::admit::overloaded;
use crate::layers::finish::{GONE, finish};
use crate::layers::strict::{malformed, too_large};
use crate::layers::within::{Within, draining, not_received, panicked, stream_within};
use crate::rpc::status::grpc_status;

/// A call that waits, or streams. Dropped before its end, its caller has gone.
pub(crate) struct Work<S: Store> {
    call: Arc<Call<S>>,
    messages: Within<S, Vec<u8>>,
    answers: Answers,
    has_begun: bool,
    ended: bool,
}

impl<S: Store> Work<S> {
    /// The call whose reply is `messages`, encoded.
    pub(super) fn new(
        call: Arc<Call<S>>,
        messages: impl Stream<Item = Result<Vec<u8>, Failure>> + Send + 'static,
        answers: Answers,
    ) -> Self {
        Self {
            messages: stream_within(&call, &call.core().stop, messages),
            call,
            answers,
            has_begun: false,
            ended: false,
        }
    }
}

impl<S: Store> Waiting for Work<S> {
    fn poll(&mut self, cx: &mut Context<'_>, reply: &mut Reply<'_>) -> Poll<Step> {
        let next = ready!(Pin::new(&mut self.messages).poll_next(cx));
        Poll::Ready(match next {
            Some(Ok(message)) => {
                if !std::mem::replace(&mut self.has_begun, true) {
                    self.answers.begin(reply);
                }
                self.answers.send_next(&message, reply);
                self.call.response_bytes.set(reply.message_bytes());
                Step::More
            }
            ended => {
                self.ended = true;
                let ended = ended.map_or(Ok(()), |failed| failed.map(|_| ()));
                Step::End(conclude(&self.call, ended, reply))
            }
        })
    }

    fn refuse(&mut self, why: Refusal, closing: &mut Closing<'_>) -> Status {
        self.ended = true;
        let status = refused(&self.call, failure_of(&self.call, why), closing);
        finish(&self.call);
        status
    }
}

impl<S: Store> Drop for Work<S> {
    fn drop(&mut self) {
        if !self.ended {
            self.call.note(GONE);
            finish(&self.call);
        }
    }
}

/// Ends a call whose messages are written.
pub(super) fn conclude<S: Store>(
    call: &Call<S>,
    result: Result<(), Failure>,
    reply: &mut Reply<'_>,
) -> Status {
    let status = match result {
        Ok(()) => {
            if call.skipped() > 0 {
                reply.trailer(SKIPPED.as_bytes(), call.skipped().to_string().as_bytes());
            }
            Status::OK
        }
        Err(failure) => {
            let (status, pushback) = grpc_status(&call.failed(failure));
            if let Some((name, delay)) = pushback {
                reply.trailer(name.as_bytes(), delay.as_bytes());
            }
            status
        }
    };
    call.response_bytes.set(reply.message_bytes());
    finish(call);
    status
}

/// The status of a call that the transport ends.
pub(super) fn refused<S: Store>(
    call: &Call<S>,
    failure: Failure,
    closing: &mut Closing<'_>,
) -> Status {
    let (status, pushback) = grpc_status(&call.failed(failure));
    if let Some((name, delay)) = pushback {
        closing.trailer(name.as_bytes(), delay.as_bytes());
    }
    status
}

/// Why the transport ends a call, in the terms of the catalogue.
pub(super) fn failure_of<S: Store>(call: &Call<S>, why: Refusal) -> Failure {
    match why {
        Refusal::DeadlineExceeded => call.deadline_failure(),
        Refusal::RequestTimeout => not_received(),
        Refusal::Malformed(why) | Refusal::Cardinality(why) => malformed(&why),
        Refusal::TooLarge { bytes, .. } => too_large(bytes as u64),
        Refusal::Clogged => overloaded("too much of what was asked for waits to be read"),
        Refusal::AssemblyFull => {
            overloaded("the connection has too much of requests that are not complete")
        }
        Refusal::Overloaded => {
            overloaded("as many bytes of replies wait to be read as the server holds")
        }
        Refusal::Stalled | Refusal::Gone => Failure::new(Reason::Cancelled, "the caller has gone"),
        Refusal::Draining => draining(),
        Refusal::Panicked => panicked(),
    }
}
