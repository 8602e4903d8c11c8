//! Calls, for code of others: told as each begins and ends.

use std::time::{Duration, Instant};

use larder_api::errors::{Code, Reason};
use larder_transport::serve::Peer;

/// Is told of every call: unary and streaming, in every protocol, health and reflection too.
///
/// Called on the thread that answers the call, which waits for it: do no more than count or
/// hand on. A panic in here ends the call, not the server.
pub trait Interceptor: Send + Sync + 'static {
    /// The head of a call was read.
    fn started(&self, call: &CallStart) {
        let _ = call;
    }

    /// A call has ended: its last message and its status are on their way, or its caller has gone.
    /// Told once for each that was started.
    fn ended(&self, call: &CallEnd<'_>) {
        let _ = call;
    }
}

/// A call that begins.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct CallStart {
    /// Its path, `/package.Service/Method`; `unknown` for what is not served.
    pub method: &'static str,
    /// Where it came from.
    pub peer: Peer,
    /// When its head was read.
    pub at: Instant,
    /// What its caller says of tries before this one (gRFC A6, `grpc-previous-rpc-attempts`).
    pub previous_attempts: u32,
}

/// A call that has ended. Nothing of what it carried is here: no key, value or credential.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct CallEnd<'a> {
    /// Its path, `/package.Service/Method`; `unknown` for what is not served.
    pub method: &'static str,
    /// Whose it was; `None` if that was not found out.
    pub account: Option<&'a str>,
    /// Where it came from.
    pub peer: Peer,
    /// When its head was read.
    pub started: Instant,
    /// From then to now.
    pub duration: Duration,
    /// Of that, what was spent waiting to learn whose credential it was.
    pub accounts_wait: Duration,
    /// How it ended.
    pub code: Code,
    /// Why, if not well.
    pub reason: Option<Reason>,
    /// Bytes of its messages, as they came: compressed ones compressed, without framing.
    pub request_bytes: u64,
    /// Bytes of the messages that were sent, without framing.
    pub response_bytes: u64,
    /// What its caller says of tries before this one.
    pub previous_attempts: u32,
    /// True if it was asked to check everything and change nothing.
    pub is_dry_run: bool,
    /// The trace that it is part of (W3C Trace Context), if any.
    pub trace_id: Option<[u8; 16]>,
}
