//! What the head of a call says of where it comes from, for who watches calls.

use parking_lot::Mutex;
use rand::rngs::StdRng;

use super::trace_context::{SpanId, TraceContext, TraceId};
use super::tracer::Tracer;
use crate::layers::admit::Fields;
use crate::layers::attempt::previous_attempts;

/// What few calls have: a trace, or tries before.
#[derive(Debug)]
pub(crate) struct CallContext {
    /// What the caller says.
    parent: Option<TraceContext>,
    /// The call's own span, if it is recorded.
    span: Option<TraceContext>,
    pub(crate) previous_attempts: u32,
}

impl CallContext {
    /// `None` if there is nothing to be said. A call without any allocates nothing.
    pub(crate) fn read(
        fields: &impl Fields,
        tracer: Option<&Tracer>,
        random: &Mutex<StdRng>,
    ) -> Option<Box<Self>> {
        let parent = TraceContext::read(fields);
        let span = tracer.and_then(|tracer| tracer.start(parent.as_ref(), random));
        // What is no number says nothing here; the call is refused for it.
        let previous_attempts = previous_attempts(fields).unwrap_or(0);
        if parent.is_none() && span.is_none() && previous_attempts == 0 {
            return None;
        }
        Some(Box::new(Self {
            parent,
            span,
            previous_attempts,
        }))
    }

    pub(crate) fn trace_id(&self) -> Option<TraceId> {
        let context = self.span.as_ref().or(self.parent.as_ref());
        context.map(|context| context.trace_id)
    }

    /// The call's own span, and its parent.
    pub(crate) fn span(&self) -> Option<(&TraceContext, Option<SpanId>)> {
        let parent = self.parent.as_ref().map(|parent| parent.span_id);
        Some((self.span.as_ref()?, parent))
    }

    /// What goes with calls that are made for this one. A server that records nothing passes on
    /// what it was told (W3C Trace Context, section 3.4).
    pub(crate) fn outgoing(&self) -> Option<&TraceContext> {
        self.span.as_ref().or(self.parent.as_ref())
    }
}
