//! Which calls are traced, and the queue of those that have ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder_api::errors::{Code, Reason};
use larder_transport::serve::Peer;
use parking_lot::Mutex;
use rand::RngCore as _;
use rand::rngs::StdRng;
use tokio::sync::mpsc;

use super::interceptor::CallEnd;
use super::trace_context::{SpanId, TraceContext};
use crate::clock;

/// Spans that wait for the exporter; more are dropped, and counted. As OpenTelemetry's batch
/// processor has it (`OTEL_BSP_MAX_QUEUE_SIZE`).
pub(crate) const MAX_QUEUED_SPANS: usize = 2048;

/// Starts spans, and queues them as they end.
pub(crate) struct Tracer {
    /// Traces that begin here are recorded if 56 random bits are below; 2^56 records all.
    below: u64,
    queue: mpsc::Sender<Span>,
    counts: Arc<SpanCounts>,
}

/// What became of spans.
#[derive(Debug, Default)]
pub(crate) struct SpanCounts {
    pub(crate) exported: AtomicU64,
    /// The queue was full.
    pub(crate) dropped_queue_full: AtomicU64,
    /// The collector did not take them.
    pub(crate) dropped_export_failed: AtomicU64,
}

/// A call that has ended and is recorded.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    /// The trace, and the span's own id.
    pub(crate) context: TraceContext,
    /// The span that it belongs to: the caller's, or of a call that this server made, its own.
    pub(crate) parent: Option<SpanId>,
    pub(crate) method: &'static str,
    pub(crate) is_grpc: bool,
    pub(crate) ended_unix_nanos: u64,
    pub(crate) took: Duration,
    pub(crate) code: Code,
    pub(crate) reason: Option<Reason>,
    pub(crate) side: Side,
}

/// On which side of a call this server was.
#[derive(Debug, Clone)]
pub(crate) enum Side {
    /// It served it.
    Server(Served),
    /// It asked another server.
    Client {
        /// Which.
        server: http::Uri,
    },
}

/// What only who serves a call knows of it.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    pub(crate) account: Option<Box<str>>,
    pub(crate) peer: Peer,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) previous_attempts: u32,
    pub(crate) accounts_wait: Duration,
}

impl Span {
    /// Of a call that was served, as it ends.
    pub(crate) fn of(
        end: &CallEnd<'_>,
        is_grpc: bool,
        context: TraceContext,
        parent: Option<SpanId>,
    ) -> Self {
        Self {
            context,
            parent,
            method: end.method,
            is_grpc,
            ended_unix_nanos: clock::unix_nanos(),
            took: end.duration,
            code: end.code,
            reason: end.reason,
            side: Side::Server(Served {
                account: end.account.map(Into::into),
                peer: end.peer,
                request_bytes: end.request_bytes,
                response_bytes: end.response_bytes,
                previous_attempts: end.previous_attempts,
                accounts_wait: end.accounts_wait,
            }),
        }
    }
}

impl Tracer {
    /// Of the traces that begin here, so many parts in a million are recorded.
    pub(crate) fn new(parts_per_million: u32) -> (Self, mpsc::Receiver<Span>) {
        let (queue, spans) = mpsc::channel(MAX_QUEUED_SPANS);
        let below = u64::from(parts_per_million) * ((1 << 56) / 1_000_000);
        // What is left by the division belongs to all.
        let below = match parts_per_million {
            1_000_000.. => 1 << 56,
            _ => below,
        };
        let tracer = Self {
            below,
            queue,
            counts: Arc::default(),
        };
        (tracer, spans)
    }

    pub(crate) const fn counts(&self) -> &Arc<SpanCounts> {
        &self.counts
    }

    /// The span of a call with this parent; `None` if it is not recorded. Parent-based: a trace
    /// that began elsewhere is recorded if it is there.
    pub(crate) fn start(
        &self,
        parent: Option<&TraceContext>,
        random: &Mutex<StdRng>,
    ) -> Option<TraceContext> {
        match parent {
            Some(parent) if parent.is_sampled() => Some(parent.with_span(span_id(random))),
            Some(_) => None,
            None if self.below == 0 => None,
            None => {
                let mut trace_id = [0; 16];
                random.lock().fill_bytes(&mut trace_id);
                // W3C Trace Context, level 2: the low seven bytes are those to decide by.
                let [.., a, b, c, d, e, f, g] = trace_id;
                let low = u64::from_be_bytes([0, a, b, c, d, e, f, g]);
                // All zero would be no id.
                trace_id[0] |= u8::from(trace_id == [0; 16]);
                (low < self.below).then(|| TraceContext::root(trace_id, span_id(random)))
            }
        }
    }

    /// Queues a span that has ended; waits for nothing.
    pub(crate) fn ended(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            let dropped = &self.counts.dropped_queue_full;
            dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// An identifier of a span.
pub(crate) fn span_id(random: &Mutex<StdRng>) -> SpanId {
    random.lock().next_u64().max(1).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn the_parent_decides_and_without_one_the_ratio() {
        let parent = TraceContext::root([7; 16], [8; 8]);
        let head = |flags: &str| {
            let mut head = http::HeaderMap::new();
            let value = parent.to_parent();
            let value = format!("{}{flags}", &value[..value.len() - 2]);
            head.insert("traceparent", value.parse().expect("a header value"));
            TraceContext::read(&head).expect("a trace")
        };
        let check = |parts: u32, least: usize, most: usize| {
            let (tracer, _spans) = Tracer::new(parts);
            let random = Mutex::new(StdRng::from_seed([1; 32]));
            let roots = (0..1000)
                .filter(|_| tracer.start(None, &random).is_some())
                .count();
            assert!((least..=most).contains(&roots), "{parts}: {roots}");
            assert_eq!(tracer.start(Some(&head("00")), &random), None);
            let child = tracer.start(Some(&head("01")), &random).expect("a span");
            assert_eq!(child.trace_id, [7; 16]);
            assert_ne!(child.span_id, [8; 8]);
        };
        check(0, 0, 0);
        check(100_000, 60, 140);
        check(1_000_000, 1000, 1000);
    }
}
