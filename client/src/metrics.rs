//! Counts calls and attempts under the names of gRFC A66 and A96.

use std::collections::HashMap;
use std::fmt;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use larder_api::errors::Code;

use crate::interceptor::{AttemptEnd, AttemptStart, CallEnd, Interceptor, Metadata};

/// Counts the calls of a client, and the attempts that they are made of: gRFC A66, and A96 for
/// retries.
///
/// Give it to [`ClientConfig::with_interceptor`](crate::ClientConfig::with_interceptor), keep a
/// clone, and ask that one: [`snapshot`](Self::snapshot), or [`render`](Self::render) for
/// Prometheus. Holds a few KiB for each method and status that occur. A call takes one lock that
/// only readers hold, and about ten additions.
///
/// ```
/// # fn example() -> Result<(), larder_client::Error> {
/// use larder_client::{ClientConfig, Metrics};
///
/// let metrics = Metrics::new("dns:///cache:5051");
/// let config = ClientConfig::new("dns:///cache:5051")?.with_interceptor(metrics.clone());
/// // ... later, for whoever scrapes this program:
/// println!("{}", metrics.render());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    target: String,
    methods: RwLock<HashMap<Box<str>, Arc<Method>>>,
}

/// What is counted of one method.
#[derive(Default)]
struct Method {
    started: AtomicU64,
    attempt_duration: PerStatus,
    sent: PerStatus,
    received: PerStatus,
    call_duration: PerStatus,
    retries: OnceLock<Cells>,
    transparent_retries: OnceLock<Cells>,
    hedges: OnceLock<Cells>,
    retry_delay: OnceLock<Cells>,
}

/// By the number of the status; most never occur.
#[derive(Default)]
struct PerStatus([OnceLock<Cells>; 17]);

struct Cells {
    /// One more than there are bounds.
    counts: Box<[AtomicU64]>,
    /// As it was added.
    sum: AtomicU64,
}

/// One figure at one moment.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name by gRFC A66 or A96, such as `grpc.client.attempt.started`.
    pub name: &'static str,
    /// `grpc.target`.
    pub target: String,
    /// `grpc.method`, `package.Service/Method`.
    pub method: String,
    /// `grpc.status`, where the figure has it.
    pub status: Option<Code>,
    /// The figure.
    pub value: MetricValue,
}

/// A figure.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum MetricValue {
    /// Only grows.
    Counter(u64),
    /// How often a value came to lie below each bound.
    Histogram {
        /// Upper bounds, in the unit of the figure: seconds, bytes or a number.
        bounds: &'static [f64],
        /// Values at or below each bound and above the one before; one more for those above all.
        counts: Vec<u64>,
        /// Of all values.
        sum: f64,
    },
}

/// Upper bounds of a figure's buckets, and how many of what is added are one of its unit.
#[derive(Clone, Copy)]
struct Scale {
    bounds: &'static [f64],
    per_unit: f64,
}

/// gRFC A66, "Latency Buckets"; microseconds are added.
const LATENCY: Scale = Scale {
    bounds: LATENCY_SECONDS,
    per_unit: 1_000_000.0,
};

/// gRFC A66, "Size Buckets".
const SIZE: Scale = Scale {
    bounds: SIZE_BYTES,
    per_unit: 1.0,
};

/// gRFC A96.
const RETRIES: Scale = Scale {
    bounds: &[1.0, 2.0, 3.0, 4.0, 5.0],
    per_unit: 1.0,
};
const TRANSPARENT_RETRIES: Scale = Scale {
    bounds: &[1.0, 2.0, 3.0, 4.0, 5.0, 10.0],
    per_unit: 1.0,
};

const LATENCY_SECONDS: &[f64] = &[
    0.0, 0.00001, 0.00005, 0.0001, 0.0003, 0.0006, 0.0008, 0.001, 0.002, 0.003, 0.004, 0.005,
    0.006, 0.008, 0.01, 0.013, 0.016, 0.02, 0.025, 0.03, 0.04, 0.05, 0.065, 0.08, 0.1, 0.13, 0.16,
    0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0,
];

const SIZE_BYTES: &[f64] = &[
    0.0,
    1024.0,
    2048.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
    1_073_741_824.0,
    4_294_967_296.0,
];

/// Most methods that are counted; a client has some thirty.
const MAX_METHODS: usize = 256;

const STARTED: &str = "grpc.client.attempt.started";
const ATTEMPT_DURATION: &str = "grpc.client.attempt.duration";
const SENT: &str = "grpc.client.attempt.sent_total_compressed_message_size";
const RECEIVED: &str = "grpc.client.attempt.rcvd_total_compressed_message_size";
const CALL_DURATION: &str = "grpc.client.call.duration";

impl Metrics {
    /// Counts nothing yet. `target` becomes `grpc.target`: what the client was made for.
    pub fn new(target: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            target: target.into(),
            methods: RwLock::default(),
        }))
    }

    /// All figures that have occurred, by method and name.
    pub fn snapshot(&self) -> Vec<Metric> {
        let methods = self.0.methods.read();
        let methods = methods.unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<_> = methods.iter().collect();
        names.sort_unstable_by_key(|(name, _)| *name);
        let mut all = Vec::new();
        for (name, method) in names {
            let metric = |name_of: &'static str, status: Option<Code>, value: MetricValue| Metric {
                name: name_of,
                target: self.0.target.clone(),
                method: name.to_string(),
                status,
                value,
            };
            let started = MetricValue::Counter(method.started.load(Ordering::Relaxed));
            all.push(metric(STARTED, None, started));
            for (name, figures, scale) in [
                (ATTEMPT_DURATION, &method.attempt_duration, LATENCY),
                (SENT, &method.sent, SIZE),
                (RECEIVED, &method.received, SIZE),
                (CALL_DURATION, &method.call_duration, LATENCY),
            ] {
                for (code, cells) in Code::ALL.into_iter().zip(&figures.0) {
                    let value = cells.get().map(|cells| cells.value(scale));
                    all.extend(value.map(|value| metric(name, Some(code), value)));
                }
            }
            for (name, cells, scale) in [
                ("grpc.client.call.retries", &method.retries, RETRIES),
                (
                    "grpc.client.call.transparent_retries",
                    &method.transparent_retries,
                    TRANSPARENT_RETRIES,
                ),
                ("grpc.client.call.hedges", &method.hedges, RETRIES),
                ("grpc.client.call.retry_delay", &method.retry_delay, LATENCY),
            ] {
                let value = cells.get().map(|cells| cells.value(scale));
                all.extend(value.map(|value| metric(name, None, value)));
            }
        }
        all
    }

    /// The same in Prometheus's text format: dots become underscores, and the unit or `_total`
    /// stands behind, as OpenTelemetry's exporters have it.
    pub fn render(&self) -> String {
        let mut metrics = self.snapshot();
        metrics.sort_by_key(|metric| metric.name);
        let mut out = String::new();
        let mut last = "";
        for metric in &metrics {
            let name = prometheus_name(metric.name);
            if last != metric.name {
                let kind = match metric.value {
                    MetricValue::Counter(_) => "counter",
                    MetricValue::Histogram { .. } => "histogram",
                };
                // Writing to a string does not fail.
                let _ = writeln!(out, "# TYPE {name} {kind}");
                last = metric.name;
            }
            metric.render(&name, &mut out);
        }
        out
    }

    fn method(&self, path: &str) -> Option<Arc<Method>> {
        let name = path.trim_start_matches('/');
        let methods = self.0.methods.read();
        let methods = methods.unwrap_or_else(PoisonError::into_inner);
        if let Some(method) = methods.get(name) {
            return Some(Arc::clone(method));
        }
        drop(methods);
        let methods = self.0.methods.write();
        let mut methods = methods.unwrap_or_else(PoisonError::into_inner);
        if methods.len() >= MAX_METHODS && !methods.contains_key(name) {
            return None;
        }
        Some(Arc::clone(methods.entry(name.into()).or_default()))
    }
}

impl Interceptor for Metrics {
    fn attempt_start(&self, attempt: &AttemptStart<'_>, _: &mut Metadata<'_>) {
        if let Some(method) = self.method(attempt.method) {
            method.started.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn attempt_end(&self, attempt: &AttemptEnd<'_>) {
        if let Some(method) = self.method(attempt.method) {
            let code = attempt.code;
            method
                .attempt_duration
                .add(code, LATENCY, micros(attempt.duration));
            method.sent.add(code, SIZE, attempt.request_bytes);
            method.received.add(code, SIZE, attempt.response_bytes);
        }
    }

    fn end(&self, call: &CallEnd<'_>) {
        let Some(method) = self.method(call.method) else {
            return;
        };
        method
            .call_duration
            .add(call.code, LATENCY, micros(call.duration));
        for (cells, scale, value) in [
            (&method.retries, RETRIES, call.retries.into()),
            (
                &method.transparent_retries,
                TRANSPARENT_RETRIES,
                call.transparent_retries.into(),
            ),
            (&method.hedges, RETRIES, call.hedges.into()),
            (&method.retry_delay, LATENCY, micros(call.retry_delay)),
        ] {
            // A96: where there were none, 0 is not reported.
            if value > 0 {
                cells.get_or_init(|| Cells::new(scale)).add(scale, value);
            }
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("target", &self.0.target)
            .finish_non_exhaustive()
    }
}

impl PerStatus {
    fn add(&self, code: Code, scale: Scale, raw: u64) {
        if let Some(cells) = self.0.get(usize::from(code.number())) {
            let cells = cells.get_or_init(|| Cells::new(scale));
            cells.add(scale, raw);
        }
    }
}

impl Cells {
    fn new(scale: Scale) -> Self {
        Self {
            counts: (0..=scale.bounds.len())
                .map(|_| AtomicU64::new(0))
                .collect(),
            sum: AtomicU64::new(0),
        }
    }

    fn add(&self, scale: Scale, raw: u64) {
        let value = scale.in_units(raw);
        let at = scale.bounds.partition_point(|bound| *bound < value);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(raw, Ordering::Relaxed);
    }

    fn value(&self, scale: Scale) -> MetricValue {
        let counts = self.counts.iter();
        MetricValue::Histogram {
            bounds: scale.bounds,
            counts: counts.map(|count| count.load(Ordering::Relaxed)).collect(),
            sum: scale.in_units(self.sum.load(Ordering::Relaxed)),
        }
    }
}

impl Scale {
    #[allow(
        clippy::cast_precision_loss,
        reason = "a figure of sixteen digits loses its last"
    )]
    fn in_units(self, raw: u64) -> f64 {
        raw as f64 / self.per_unit
    }
}

impl Metric {
    fn render(&self, name: &str, out: &mut String) {
        let mut labels = format!(
            "grpc_method=\"{}\",grpc_target=\"{}\"",
            escaped(&self.method),
            escaped(&self.target)
        );
        if let Some(status) = self.status {
            let _ = write!(labels, ",grpc_status=\"{status}\"");
        }
        match &self.value {
            MetricValue::Counter(count) => {
                let _ = writeln!(out, "{name}{{{labels}}} {count}");
            }
            MetricValue::Histogram {
                bounds,
                counts,
                sum,
            } => {
                let mut below = 0;
                let bounds = bounds.iter().map(ToString::to_string);
                for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(counts) {
                    below += count;
                    let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {below}");
                }
                let _ = writeln!(out, "{name}_sum{{{labels}}} {sum}");
                let _ = writeln!(out, "{name}_count{{{labels}}} {below}");
            }
        }
    }
}

fn prometheus_name(name: &str) -> String {
    let suffix = match name {
        STARTED => "_total",
        SENT | RECEIVED => "_bytes",
        _ if name.ends_with("duration") || name.ends_with("delay") => "_seconds",
        _ => "",
    };
    format!("{}{suffix}", name.replace('.', "_"))
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_at_or_below_their_bound() {
        let cells = Cells::new(LATENCY);
        for micros in [0, 9, 10, 11, 1_000_000, 1_000_001, 200_000_000] {
            cells.add(LATENCY, micros);
        }
        let MetricValue::Histogram { counts, sum, .. } = cells.value(LATENCY) else {
            panic!("a histogram");
        };
        assert_eq!(counts.len(), LATENCY_SECONDS.len() + 1);
        assert_eq!(counts[..3], [1, 2, 1]);
        let second = LATENCY_SECONDS
            .iter()
            .position(|bound| *bound >= 1.0)
            .unwrap();
        assert_eq!(counts[second..=second + 1], [1, 1]);
        assert_eq!(counts.last(), Some(&1));
        assert_eq!(counts.iter().sum::<u64>(), 7);
        assert!((sum - 202.000_031).abs() < 1e-9, "{sum}");
    }

    #[test]
    fn names_are_those_of_prometheus() {
        for (name, wanted) in [
            (STARTED, "grpc_client_attempt_started_total"),
            (ATTEMPT_DURATION, "grpc_client_attempt_duration_seconds"),
            (
                SENT,
                "grpc_client_attempt_sent_total_compressed_message_size_bytes",
            ),
            ("grpc.client.call.retries", "grpc_client_call_retries"),
            (
                "grpc.client.call.retry_delay",
                "grpc_client_call_retry_delay_seconds",
            ),
        ] {
            assert_eq!(prometheus_name(name), wanted);
        }
        assert_eq!(escaped("a\"b\\"), "a\\\"b\\\\");
    }
}
