//! Why the transport ends a call by itself.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use super::status::{Code, Status};
use crate::message::Head;
use crate::stats::Counter;

/// Why the transport ends a call of the typed lane that its handler has not
/// answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// `grpc-timeout` is over: the caller has given up.
    DeadlineExceeded,
    /// The request did not come to its end within [`Times::request`], whatever
    /// its caller allows.
    ///
    /// [`Times::request`]: crate::limits::Times::request
    RequestTimeout,
    /// The message is not framed as gRPC has it: a wrong flag, or cut short.
    Malformed(Cow<'static, str>),
    /// The method takes one message, and there were none or several.
    Cardinality(Cow<'static, str>),
    /// The message is longer than [`Limits::max_message_bytes`]: refused by its
    /// prefix, before it is read.
    ///
    /// [`Limits::max_message_bytes`]: crate::limits::Limits::max_message_bytes
    TooLarge {
        /// Its length, bytes.
        bytes: usize,
        /// The longest that is taken, bytes.
        max: usize,
    },
    /// More than [`Limits::max_unsent_bytes`] wait for this client to open its
    /// windows, and [`Limits::max_assembly_bytes`] of requests behind them.
    ///
    /// [`Limits::max_assembly_bytes`]: crate::limits::Limits::max_assembly_bytes
    /// [`Limits::max_unsent_bytes`]: crate::limits::Limits::max_unsent_bytes
    Clogged,
    /// The connection has [`Limits::max_assembly_bytes`] of requests that are not
    /// complete.
    ///
    /// [`Limits::max_assembly_bytes`]: crate::limits::Limits::max_assembly_bytes
    AssemblyFull,
    /// All connections together hold more than [`Config::max_buffered_bytes`].
    ///
    /// [`Config::max_buffered_bytes`]: crate::serve::Config::max_buffered_bytes
    Overloaded,
    /// The client did not open the stream's window for [`Times::stall`] while an
    /// answer waited. It is reset: the status reaches nobody.
    ///
    /// [`Times::stall`]: crate::limits::Times::stall
    Stalled,
    /// The server ends, and the time for calls in flight is over.
    Draining,
    /// The handler panicked.
    Panicked,
    /// The client reset the stream, or the connection was lost: the status
    /// reaches nobody.
    Gone,
}

impl Refusal {
    /// The status of a handler that has nothing to add.
    #[must_use]
    pub fn status(self) -> Status {
        let (code, message) = match self {
            Self::DeadlineExceeded => (
                Code::DEADLINE_EXCEEDED,
                Cow::Borrowed("the deadline has passed"),
            ),
            Self::RequestTimeout => (
                Code::DEADLINE_EXCEEDED,
                "the request did not come in time".into(),
            ),
            Self::Malformed(why) => (Code::INTERNAL, why),
            Self::Cardinality(why) => (Code::UNIMPLEMENTED, why),
            Self::TooLarge { bytes, max } => (
                Code::RESOURCE_EXHAUSTED,
                format!("a message of {bytes} bytes; the server takes at most {max}").into(),
            ),
            Self::Clogged => (
                Code::RESOURCE_EXHAUSTED,
                "too much waits for this client to read it".into(),
            ),
            Self::AssemblyFull => (
                Code::RESOURCE_EXHAUSTED,
                "the connection has too much of requests that are not complete".into(),
            ),
            Self::Overloaded => (
                Code::UNAVAILABLE,
                "the server holds too much that waits for its clients".into(),
            ),
            Self::Stalled => (
                Code::RESOURCE_EXHAUSTED,
                "the client did not open the stream's window".into(),
            ),
            Self::Draining => (Code::UNAVAILABLE, "the server ends".into()),
            Self::Panicked => (Code::INTERNAL, "the server failed at this call".into()),
            Self::Gone => (Code::CANCELLED, "the client has gone".into()),
        };
        Status {
            message,
            ..Status::new(code, "")
        }
    }

    /// Where it is counted.
    pub(super) const fn counter(&self) -> Counter {
        match self {
            Self::DeadlineExceeded => Counter::CallsDeadline,
            Self::RequestTimeout => Counter::CallsRequestTimeout,
            Self::Malformed(_) => Counter::CallsMalformed,
            Self::Cardinality(_) => Counter::CallsCardinality,
            Self::TooLarge { .. } => Counter::CallsTooLarge,
            Self::Clogged => Counter::CallsClogged,
            Self::AssemblyFull => Counter::CallsAssemblyFull,
            Self::Overloaded => Counter::CallsOverloaded,
            Self::Stalled => Counter::CallsStalled,
            Self::Draining => Counter::CallsDraining,
            Self::Panicked => Counter::CallsPanicked,
            Self::Gone => Counter::CallsGone,
        }
    }
}

/// A call that is refused, as far as it came: its head.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a, M> {
    /// What was called.
    pub method: &'a M,
    /// The head.
    pub head: &'a Arc<Head>,
    /// When the head came.
    pub received: Instant,
    /// When the caller gives up.
    pub deadline: Option<Instant>,
}
