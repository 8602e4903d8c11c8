//! A unary call, as its caller sees it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::answer::Response;
use super::assembly::Message;
use super::calls::Key;
use super::core::Core;
use super::failed::Failed;
use super::send::set;
use super::shared::Shared;

/// The answer to come. Dropped before it is here, the call is reset.
#[must_use = "a call that is dropped is given up"]
pub struct Unary(State);

enum State {
    Failed(Failed),
    Waiting(Arc<Shared>, Key),
    Done,
}

impl Unary {
    pub(super) const fn failed(failed: Failed) -> Self {
        Self(State::Failed(failed))
    }

    pub(super) const fn waiting(shared: Arc<Shared>, key: Key) -> Self {
        Self(State::Waiting(shared, key))
    }
}

impl Future for Unary {
    type Output = Result<Response, Failed>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = match &self.0 {
            State::Waiting(shared, key) => shared.with(|core| core.poll_answer(*key, cx)),
            State::Failed(_) => Poll::Ready(None),
            State::Done => return Poll::Pending,
        };
        let Poll::Ready(answer) = polled else {
            return Poll::Pending;
        };
        match (std::mem::replace(&mut self.0, State::Done), answer) {
            (State::Failed(failed), _) => Poll::Ready(Err(failed)),
            (_, Some(answer)) => Poll::Ready(answer.and_then(Came::open)),
            (_, None) => Poll::Pending,
        }
    }
}

impl Drop for Unary {
    fn drop(&mut self) {
        if let State::Waiting(shared, key) = &self.0 {
            shared.with(|core| core.release(*key, true));
        }
    }
}

/// An answer as it came, and how large its message may be.
struct Came {
    response: Response,
    message: Option<Message>,
    max_bytes: usize,
}

impl Came {
    /// Without the connection's lock: a message may have to be made whole.
    #[inline]
    fn open(self) -> Result<Response, Failed> {
        let mut response = self.response;
        if let Some(message) = self.message {
            response.message_bytes = message.bytes.len();
            response.message = message.open(self.max_bytes)?;
        }
        Ok(response)
    }
}

impl Core {
    /// The answer to a unary call, which is freed with it.
    #[inline]
    fn poll_answer(&mut self, key: Key, cx: &Context<'_>) -> Poll<Option<Result<Came, Failed>>> {
        let Some(call) = self.calls.at(key) else {
            return Poll::Ready(None);
        };
        let Some(end) = call.end.take() else {
            set(&mut call.reader, cx.waker());
            return Poll::Pending;
        };
        let answer = end.map(|trailers| Came {
            response: Response {
                headers: std::mem::take(&mut call.headers),
                trailers,
                ..Response::default()
            },
            message: call.messages.pop_front(),
            max_bytes: self.config.max_message_bytes,
        });
        self.release(key, false);
        Poll::Ready(Some(answer))
    }
}
