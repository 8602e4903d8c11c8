//! HTTP/2 for RPC in the client's role: one connection, and the calls on it.
//!
//! | file | section |
//! |---|---|
//! | `core.rs` | RFC 9113, 5.1: a connection and its calls, from their beginning to their end |
//! | `calls.rs` | 5.1: calls by slot and by stream |
//! | `send.rs` | 5.2, 6.1, 6.9: what is sent, as far as windows let it |
//! | `receive.rs` | 6: the frames that a server sends |
//! | `head.rs`, `encoder.rs` | 8.3.1; RFC 7541, 6: heads of requests |
//! | `blocks.rs` | RFC 7541, 3: header blocks of answers |
//! | `assembly.rs` | gRPC over HTTP/2: messages |
//! | `answer.rs`, `failed.rs` | gRPC over HTTP/2: answers, and what there is in place of one |
//! | `times.rs` | deadlines, gRFC A8, the greeting |
//! | `shared.rs`, `driver.rs` | the lock, and the byte stream |
//! | `unary.rs`, `stream.rs` | calls as their callers see them |
//!
//! # What a call costs
//!
//! Many callers share a connection. A call takes a short lock, under which its head —
//! bytes that are known from the call before — and its message are encoded into the
//! connection's output; the driver is woken once for all calls that come before it
//! runs, writes them at once, and reads their answers at once. An answer is handed over
//! in a slot that is used again. For the usual call (a request and an answer that each
//! fit a frame, 200 and `grpc-status: 0`) nothing is allocated but the answer's message:
//! no task, no channel, no timer, no map of headers.
//!
//! # Failures
//!
//! [`Failed`] tells apart what gRFC A6 and its like do: what never left
//! ([`Failed::NotSent`]), what the server did not take ([`Failed::Refused`]), and what it
//! may have done. No call is sent before the server's settings are here, so that a
//! peer that accepts and never speaks leaves every call in the first kind.
//!
//! # Bounds
//!
//! Whatever a server sends is bounded by [`Config`]: messages by their prefix, header
//! blocks, unread streams by their window, and what it asks to be acknowledged by what
//! it reads. What callers send waits for windows and for the socket; calls over the
//! server's `SETTINGS_MAX_CONCURRENT_STREAMS` wait in order, up to a number.

mod answer;
mod assembly;
mod blocks;
mod calls;
mod config;
mod core;
mod driver;
mod encoder;
mod failed;
mod head;
#[cfg(feature = "fuzzing")]
mod inspect;
mod receive;
mod send;
mod shared;
mod stream;
#[cfg(test)]
mod tests;
mod times;
mod unary;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

pub use self::answer::{Code, Response, Trailers};
pub use self::config::{Config, Keepalive};
use self::core::{Core, Gauge, Phase};
use self::driver::Driver;
pub use self::failed::{Closed, Failed, NotSent};
pub use self::head::{BadField, RequestHead, Scheme};
#[cfg(feature = "fuzzing")]
pub use self::inspect::Inspection;
use self::shared::Shared;
pub use self::stream::{Receiving, SendClosed, Sending};
pub use self::unary::Unary;
pub use crate::hpack::Fields;
pub use crate::registry::Activity;

/// A connection; a clone is another handle of the same. When the last one is gone, it
/// ends with the calls that are under way.
#[derive(Clone)]
pub struct Connection(Arc<Handle>);

/// Whether a connection takes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// The server has not spoken: calls wait for it.
    Connecting,
    /// Yes.
    Ready,
    /// All streams that the server allows are in use: calls wait for one (gRFC A105
    /// opens another connection).
    Full,
    /// No more; calls under way go on.
    Closing,
    /// No more.
    Closed,
}

impl Readiness {
    /// In the order of their numbers.
    const ALL: [Self; 5] = [
        Self::Connecting,
        Self::Ready,
        Self::Full,
        Self::Closing,
        Self::Closed,
    ];
}

/// What all handles of a connection share: with the last of them it is drained.
struct Handle {
    shared: Arc<Shared>,
    readiness: watch::Receiver<Readiness>,
    gauge: Arc<Gauge>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared
            .with(|core| core.close_to_calls(Closed::Drained));
    }
}

impl Connection {
    /// Takes over a byte stream. The future drives the connection until it ends, and
    /// says why it did: spawn it. Dropped, it ends every call. Needs a runtime of tokio
    /// with time.
    pub fn start<I>(io: I, config: Config) -> (Self, impl Future<Output = Closed> + Send)
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let core = Core::new(config, now());
        let readiness = core.readiness.subscribe();
        let gauge = Arc::clone(&core.gauge);
        let shared = Arc::new(Shared::new(core));
        let driver = Driver::new(io, Arc::clone(&shared));
        let connection = Self(Arc::new(Handle {
            shared,
            readiness,
            gauge,
        }));
        (connection, driver)
    }

    /// A unary call: one message each way, the first of which `message` appends to the
    /// bytes that it is given. It runs while other calls of the connection wait, so it
    /// does no more than that.
    ///
    /// The call is sent now, or as soon as there is a stream for it; the future, which
    /// borrows nothing, waits for the answer. `deadline` is kept here exactly, and told
    /// to the server (`grpc-timeout`), rounded up by at most 1 in 100.
    pub fn unary(
        &self,
        head: &RequestHead,
        message: impl FnOnce(&mut Vec<u8>),
        deadline: Option<Instant>,
    ) -> Unary {
        let now = now();
        let begun = self
            .0
            .shared
            .with(|core| core.begin(head, Some(message), deadline, now));
        match begun {
            Ok(key) => Unary::waiting(Arc::clone(&self.0.shared), key),
            Err(failed) => Unary::failed(failed),
        }
    }

    /// A call with a stream in either direction, or in both.
    ///
    /// # Errors
    /// If it cannot be sent ([`Failed::NotSent`]), or its deadline has passed.
    pub fn stream(
        &self,
        head: &RequestHead,
        deadline: Option<Instant>,
    ) -> Result<(Sending, Receiving), Failed> {
        let now = now();
        let none = None::<fn(&mut Vec<u8>)>;
        let key = self
            .0
            .shared
            .with(|core| core.begin(head, none, deadline, now))?;
        Ok(stream::halves(Arc::clone(&self.0.shared), key))
    }

    /// Whether calls are taken. Takes no lock.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.0.gauge.readiness()
    }

    /// Waits for the readiness to be another than `last`, and says which.
    pub async fn changed(&self, last: Readiness) -> Readiness {
        let mut readiness = self.0.readiness.clone();
        match readiness.wait_for(|&now| now != last).await {
            Ok(now) => *now,
            // Not while this handle lives.
            Err(_) => Readiness::Closed,
        }
    }

    /// Waits for the server's settings.
    ///
    /// # Errors
    /// If the connection ended before.
    pub async fn ready(&self) -> Result<(), Closed> {
        self.changed(Readiness::Connecting).await;
        match self.why_closed() {
            Some(why) if self.readiness() == Readiness::Closed => Err(why),
            _ => Ok(()),
        }
    }

    /// Why the connection takes no more calls, if that is so.
    #[must_use]
    pub fn why_closed(&self) -> Option<Closed> {
        match &self.0.shared.lock().phase {
            Phase::Greeting | Phase::Open => None,
            Phase::Closing(why) | Phase::Closed(why) => Some(why.clone()),
        }
    }

    /// Calls under way, and calls that wait for a stream. Takes no lock.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.gauge.in_flight()
    }

    /// What it has done so far.
    #[must_use]
    pub fn activity(&self) -> Activity {
        self.0.shared.lock().activity
    }

    /// Has it take no more calls, and end after those under way. Calls that wait for a
    /// stream are not sent.
    pub fn drain(&self) {
        self.0
            .shared
            .with(|core| core.close_to_calls(Closed::Drained));
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("readiness", &self.readiness())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

/// The clock of the runtime, which tests may stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
