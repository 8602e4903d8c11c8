//! gRPC over HTTP/2, as a server, on the typed lane: unary calls and server
//! streams whose messages are decoded and encoded by the handler itself.
//!
//! A call whose handler is ready at once is answered where its last frame was
//! read: the handler borrows the head and the message from the connection, and
//! writes its answer into the connection's output. No task, channel, lock or
//! waker is involved, and no memory is allocated.
//!
//! | file | part of the specification |
//! |---|---|
//! | `request.rs` | Requests |
//! | `message.rs` | Length-Prefixed-Message |
//! | `reply.rs` | Responses |
//! | `refusal.rs` | why the transport ends a call by itself |
//! | `status.rs` | Status, Status-Message, Status-Details |
//! | `calls.rs` | a call from its head to its handler |
//! | `waiting.rs` | calls whose handlers wait, and server streams |
//! | `wakes.rs` | which of them can go on |

mod calls;
#[cfg(feature = "fuzzing")]
mod inspect;
mod message;
mod refusal;
mod reply;
mod request;
mod status;
mod waiting;
mod wakes;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

pub use calls::Rpc;
#[cfg(feature = "fuzzing")]
pub use inspect::Inspection;
pub use refusal::{Refusal, Refused};
pub use reply::{Closing, Reply};
pub use request::{Route, grpc_timeout};
pub use status::{Code, Prepared, Status};

use crate::message::{Head, HeadFault};

/// Answers the calls of one connection.
pub trait Handler {
    /// What a head leads to, apart from its deadline: a method, and whatever
    /// else follows from the head alone. Cloned for each call.
    type Method: Clone;
    /// A call that waits, or streams.
    type Waiting: Waiting;

    /// The method of a gRPC call. `None`: the general lane takes it.
    ///
    /// Asked once for a head that comes again and again, and for those that differ
    /// from it in [`VARYING_FIELDS`](crate::message::VARYING_FIELDS) alone: what it
    /// leads to must not depend on any of them but `authorization`.
    fn route(&mut self, head: &Head) -> Option<Self::Method>;

    /// The same of a head that differs from one that led to `known` in its
    /// `authorization`, and perhaps in other varying fields.
    fn reroute(&mut self, known: &Self::Method, head: &Head) -> Option<Self::Method> {
        let _ = known;
        self.route(head)
    }

    /// How long a call may take whose caller gives it `asked`, or no limit.
    fn timeout(&self, method: &Self::Method, asked: Option<Duration>) -> Option<Duration> {
        let _ = method;
        asked
    }

    /// Answers a call whose request is complete.
    ///
    /// A panic ends the call, with what [`Self::refuse`] makes of it.
    fn call(
        &mut self,
        request: Request<'_, Self::Method>,
        reply: &mut Reply<'_>,
    ) -> Outcome<Self::Waiting>;

    /// What is likely to be the messages of the next calls, in their order. A hint: it may be wrong,
    /// and must have no effect but on how fast they are answered. Told again after those that it
    /// looked at; a handler that has no use for it does not look.
    #[inline]
    fn expect<'m>(&mut self, messages: impl Iterator<Item = &'m [u8]>) {
        let _ = messages;
    }

    /// A turn of the connection is over, in which calls may have been answered: what they had in
    /// common can be done for all of them.
    fn turned(&mut self) {}

    /// The status of a request whose head cannot be read: it is malformed, or too
    /// large. Whether it is a call of gRPC is not known.
    fn refuse_head(&mut self, fault: HeadFault) -> Status {
        match fault {
            HeadFault::Malformed(why) => Status::new(Code::INVALID_ARGUMENT, why),
            HeadFault::TooLarge { .. } => {
                Status::new(Code::RESOURCE_EXHAUSTED, "the metadata is too large")
            }
        }
    }

    /// Refuses a request that does not come at once, before [`Self::wait_for`] and
    /// before any of it is kept: there is no time for it.
    fn tap(&mut self, call: &Refused<'_, Self::Method>) -> Option<&'static Prepared> {
        let _ = call;
        None
    }

    /// Whether to wait for a request that does not come at once. It is asked before
    /// more of it is kept, and not of requests that are there.
    ///
    /// # Errors
    /// The status that ends the call.
    fn wait_for(
        &mut self,
        call: &Refused<'_, Self::Method>,
        closing: &mut Closing<'_>,
    ) -> Result<Trust, Status> {
        let _ = (call, closing);
        Ok(Trust::Unknown)
    }

    /// The status of a call that the transport ends: its request is wrong or too
    /// late, a limit is reached, [`Self::call`] panicked. Also told of a call
    /// whose client has gone before its request was complete, so that it may be
    /// logged; the status then reaches nobody, as [`Refusal`] says.
    ///
    /// Each call is either answered by [`Self::call`] and what it left waiting,
    /// or ended here, except that a panic of `call` leads to both.
    fn refuse(
        &mut self,
        call: &Refused<'_, Self::Method>,
        why: Refusal,
        closing: &mut Closing<'_>,
    ) -> Status {
        let _ = (call, closing);
        why.status()
    }
}

/// What a handler knows of who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Nothing: the connection has its time for a first whole request.
    Unknown,
    /// Enough for the connection to stay while the request comes.
    Known,
}

/// A call, borrowed from its connection.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a, M> {
    /// What is called.
    pub method: &'a M,
    /// The head. A handler that waits may keep a clone.
    pub head: &'a Arc<Head>,
    /// The message, without its prefix.
    pub message: &'a [u8],
    /// When the head came.
    pub received: Instant,
    /// When the caller gives up. The transport ends the call then.
    pub deadline: Option<Instant>,
    /// Now, as of the beginning of this turn.
    pub now: Instant,
}

/// What became of a call.
#[derive(Debug)]
pub enum Outcome<W> {
    /// It is answered.
    Done(Status),
    /// It is refused, and nothing was written: "Trailers-Only".
    Refused(&'static Prepared),
    /// It waits, or streams: it is polled, first before the turn ends.
    Waits(W),
}

/// A call that waits, or a stream of messages.
pub trait Waiting {
    /// Goes on. Dropped when the caller goes away.
    ///
    /// Not polled while what it has sent waits for the client: so a stream that
    /// is not read stops.
    fn poll(&mut self, cx: &mut Context<'_>, reply: &mut Reply<'_>) -> Poll<Step>;

    /// The status of a call that the transport ends while it waits: its deadline
    /// has passed, the server ends, [`Self::poll`] panicked. It is dropped next.
    ///
    /// One whose client has gone is dropped without.
    fn refuse(&mut self, why: Refusal, closing: &mut Closing<'_>) -> Status {
        let _ = closing;
        why.status()
    }
}

/// How far a waiting call went.
#[derive(Debug)]
pub enum Step {
    /// It sent something, and has more.
    More,
    /// It ended.
    End(Status),
}

impl<W: Waiting + ?Sized> Waiting for Box<W> {
    fn poll(&mut self, cx: &mut Context<'_>, reply: &mut Reply<'_>) -> Poll<Step> {
        (**self).poll(cx, reply)
    }

    fn refuse(&mut self, why: Refusal, closing: &mut Closing<'_>) -> Status {
        (**self).refuse(why, closing)
    }
}

#[cfg(test)]
mod tests;
