//! What a server tells of itself: metrics, traces, and to whoever asks for it every call.
//!
//! | file | what |
//! |---|---|
//! | `meter.rs` | what each thread counts of the calls it answers |
//! | `histogram.rs` | with the boundaries of gRFC A66 |
//! | `accounts.rs` | figures by account, for so many and no more |
//! | `process.rs` | figures of the process |
//! | `page.rs` | all of them, for `/metrics` |
//! | `exposition.rs` | Prometheus' text format |
//! | `context.rs` | what a head says of traces and of tries before |
//! | `trace_context.rs` | W3C Trace Context |
//! | `asking.rs` | spans of the questions to the Accounts server |
//! | `tracer.rs` | which calls are traced, and the queue of those that ended |
//! | `otlp.rs` | from the queue to a collector |
//! | `interceptor.rs` | calls, for code of others |
//! | `sizes.rs` | bytes of messages in the bodies of the general lane |

pub(crate) mod accounts;
pub(crate) mod asking;
pub(crate) mod context;
pub(crate) mod exposition;
pub(crate) mod histogram;
pub(crate) mod interceptor;
pub(crate) mod meter;
pub(crate) mod otlp;
pub(crate) mod page;
mod process;
pub(crate) mod sizes;
pub(crate) mod trace_context;
pub(crate) mod tracer;

use std::sync::Arc;

use asking::Asking;
use interceptor::Interceptor;
use meter::Meters;
use otlp::Exporter;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use trace_context::hex;
use tracer::Tracer;

use crate::authority::grpc::AskerError;
use crate::config::TelemetryConfig;

/// What all calls of a server report to.
pub(crate) struct Telemetry {
    pub(crate) meters: Meters,
    /// `None`: nothing is traced, and nothing costs anything.
    pub(crate) tracer: Option<Arc<Tracer>>,
    pub(crate) interceptors: Vec<Arc<dyn Interceptor>>,
}

impl Telemetry {
    /// As the configuration says, with what sends the traces, if anything. To be called in a
    /// runtime.
    pub(crate) fn build(
        config: &TelemetryConfig,
        interceptors: Vec<Arc<dyn Interceptor>>,
        seed: [u8; 32],
    ) -> Result<(Self, Option<Exporter>), AskerError> {
        let mut telemetry = Self {
            interceptors,
            ..Self::new(seed)
        };
        let Some(traces) = &config.traces else {
            return Ok((telemetry, None));
        };
        let (tracer, spans) = Tracer::new(traces.parts_per_million);
        telemetry.tracer = Some(Arc::new(tracer));
        let instance = hex(&seed[..16]);
        let exporter = Exporter::new(traces, spans, &instance)?;
        Ok((telemetry, Some(exporter)))
    }

    /// Metrics alone. The seed is that of all identifiers of traces.
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self {
            meters: Meters::new(seed),
            tracer: None,
            interceptors: Vec::new(),
        }
    }

    /// What records the spans of questions to `server`; `None` if nothing is traced.
    pub(crate) fn asking(&self, seed: [u8; 32], server: http::Uri) -> Option<Asking> {
        let tracer = Arc::clone(self.tracer.as_ref()?);
        Some(Asking::new(tracer, StdRng::from_seed(seed), server))
    }

    /// True if somebody wants to know of every call how long it took.
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        !self.interceptors.is_empty()
    }
}
