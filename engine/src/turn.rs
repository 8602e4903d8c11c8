//! Giving way to other tasks, without a runtime.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Ready at the second poll; asks to be polled again at the first.
#[derive(Debug, Default)]
#[must_use = "nothing happens until it is awaited"]
pub(crate) struct Turn {
    taken: bool,
}

/// Lets the executor run others, between two steps of long work.
pub(crate) fn turn() -> Turn {
    Turn::default()
}

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.taken {
            return Poll::Ready(());
        }
        self.taken = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
