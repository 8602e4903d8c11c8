//! The spans of calls that this server makes for one that it serves: it asks the Accounts server.

use std::sync::Arc;
use std::time::Instant;

use larder_api::errors::Code;
use parking_lot::Mutex;
use rand::rngs::StdRng;

use super::trace_context::TraceContext;
use super::tracer::{Side, Span, Tracer, span_id};
use crate::clock;

/// Begins them.
pub(crate) struct Asking {
    tracer: Arc<Tracer>,
    random: Mutex<StdRng>,
    server: http::Uri,
}

impl Asking {
    /// Of calls to this server; identifiers come from `random`.
    pub(crate) fn new(tracer: Arc<Tracer>, random: StdRng, server: http::Uri) -> Self {
        Self {
            tracer,
            random: Mutex::new(random),
            server,
        }
    }

    /// The span of a call of `method`, for a call whose own span is `parent`; `None` if
    /// that is not recorded. It ends when it is dropped.
    pub(crate) fn begin(
        &self,
        method: &'static str,
        parent: Option<&TraceContext>,
        give_up: Instant,
    ) -> Option<Asked<'_>> {
        let parent = parent.filter(|parent| parent.is_sampled())?;
        Some(Asked {
            asking: self,
            context: parent.with_span(span_id(&self.random)),
            parent: parent.clone(),
            method,
            begun: clock::instant(),
            give_up,
            code: None,
        })
    }
}

/// A call that is under way, or has just ended.
#[must_use]
pub(crate) struct Asked<'a> {
    asking: &'a Asking,
    context: TraceContext,
    parent: TraceContext,
    method: &'static str,
    begun: Instant,
    give_up: Instant,
    code: Option<Code>,
}

impl Asked<'_> {
    /// What goes with the call.
    pub(crate) const fn context(&self) -> &TraceContext {
        &self.context
    }

    /// It was answered.
    pub(crate) fn end(mut self, code: Code) {
        self.code = Some(code);
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let now = clock::instant();
        // Nobody waits for it any more, or its time is up.
        let code = self.code.unwrap_or(match now < self.give_up {
            true => Code::Cancelled,
            false => Code::DeadlineExceeded,
        });
        self.asking.tracer.ended(Span {
            context: self.context.clone(),
            parent: Some(self.parent.span_id),
            method: self.method,
            is_grpc: true,
            ended_unix_nanos: clock::unix_nanos(),
            took: now.saturating_duration_since(self.begun),
            code,
            reason: None,
            side: Side::Client {
                server: self.asking.server.clone(),
            },
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn a_call_that_is_recorded_has_a_span_however_it_ends() {
        let (tracer, mut spans) = Tracer::new(1_000_000);
        let server = http::Uri::from_static("https://accounts.example:5052");
        let asking = Asking::new(Arc::new(tracer), StdRng::from_seed([1; 32]), server.clone());
        let parent = TraceContext::root([7; 16], [8; 8]);
        let mut check = |wait: Duration, end: Option<Code>, expected: Code| {
            let give_up = clock::instant() + wait;
            let asked = asking.begin("/a/b", Some(&parent), give_up);
            let asked = asked.expect("it is recorded");
            let own = asked.context().clone();
            match end {
                Some(code) => asked.end(code),
                None => drop(asked),
            }
            let span = spans.try_recv().expect("a span");
            assert_eq!((span.code, span.parent), (expected, Some(parent.span_id)));
            assert_eq!((span.context.trace_id, &span.context), ([7; 16], &own));
            assert_ne!(own.span_id, parent.span_id);
            assert!(matches!(span.side, Side::Client { server: it } if it == server));
        };
        let minute = Duration::from_secs(60);
        check(minute, Some(Code::Ok), Code::Ok);
        check(minute, Some(Code::NotFound), Code::NotFound);
        check(minute, None, Code::Cancelled);
        check(Duration::ZERO, None, Code::DeadlineExceeded);
        assert!(asking.begin("/a/b", None, clock::instant()).is_none());
        assert!(spans.try_recv().is_err());
    }
}
