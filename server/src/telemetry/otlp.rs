//! Spans on their way to a collector: OTLP over gRPC (<https://opentelemetry.io/docs/specs/otlp/>),
//! by the client that the Accounts server is asked with.
//!
//! Spans go in batches. What a collector does not take is tried again a few times, and then
//! dropped; while it is away the queue fills, and more is dropped at its door. Both are counted.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use connectrpc::client::{CallOptions, ClientConfig, Http2Connection, SharedHttp2Connection};
use connectrpc::{ConnectError, ErrorCode, Protocol};
use larder_api::errors::{Code, Reason};
use larder_api::otlp::collector::{ExportTraceServiceRequest, TraceServiceClient};
use larder_api::otlp::common::{AnyValue, InstrumentationScope, KeyValue, any_value};
use larder_api::otlp::resource::Resource;
use larder_api::otlp::trace as wire;
use larder_api::otlp::trace::span::SpanKind;
use larder_transport::serve::Peer;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::tracer::{Served, Side, Span, SpanCounts};
use crate::authority::grpc::{AskerError, client_tls};
use crate::config::TraceConfig;

/// Spans of a batch, and how long the first waits for the others: as OpenTelemetry's batch
/// processor has it (`OTEL_BSP_MAX_EXPORT_BATCH_SIZE`, `OTEL_BSP_SCHEDULE_DELAY`).
const MAX_BATCH_SPANS: usize = 512;
const BATCH_DELAY: Duration = Duration::from_secs(5);
/// For one export (`OTEL_EXPORTER_OTLP_TIMEOUT`).
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Tries of a batch, and the pause after the first; each later one is twice as long.
const MAX_TRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Calls in flight on the connection: one batch after the other.
const MAX_IN_FLIGHT: usize = 1;
/// For what is left when the server ends.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(2);

/// Sends spans until it is told to stop.
pub(crate) struct Exporter {
    client: TraceServiceClient<SharedHttp2Connection>,
    spans: mpsc::Receiver<Span>,
    resource: Resource,
    is_failing: bool,
}

impl Exporter {
    /// Reads the file that `config` names; connects with the first batch. To be called in a
    /// runtime, which then drives the connection.
    pub(crate) fn new(
        config: &TraceConfig,
        spans: mpsc::Receiver<Span>,
        instance: &str,
    ) -> Result<Self, AskerError> {
        let builder = Http2Connection::builder();
        let connection = match &config.ca {
            Some(ca) => {
                let tls = client_tls("telemetry.otlp_ca", ca, None)?;
                builder.lazy_tls(config.uri.clone(), tls)
            }
            None => builder.lazy_plaintext(config.uri.clone()),
        };
        let client_config = ClientConfig::new(config.uri.clone()).with_protocol(Protocol::Grpc);
        let attributes = vec![
            text("service.name", &config.service_name),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("service.instance.id", instance),
        ];
        Ok(Self {
            client: TraceServiceClient::new(connection.shared(MAX_IN_FLIGHT), client_config),
            spans,
            resource: Resource {
                attributes,
                ..Resource::default()
            },
            is_failing: false,
        })
    }

    /// Runs until `stop`, and sends what is left then.
    pub(crate) async fn run(mut self, counts: Arc<SpanCounts>, stop: CancellationToken) {
        let counts = &*counts;
        let mut batch = Vec::new();
        loop {
            let open = tokio::select! {
                biased;
                () = stop.cancelled() => false,
                open = self.gather(&mut batch) => open,
            };
            if !open {
                break;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                sent = self.send(&batch) => self.note(&sent, &mut batch, counts),
            }
        }
        self.finish(batch, counts).await;
    }

    /// Waits for spans, and a while for more. False: there will be none.
    async fn gather(&mut self, batch: &mut Vec<Span>) -> bool {
        if batch.is_empty() && self.spans.recv_many(batch, MAX_BATCH_SPANS).await == 0 {
            return false;
        }
        let deadline = tokio::time::Instant::now() + BATCH_DELAY;
        while batch.len() < MAX_BATCH_SPANS {
            let most = MAX_BATCH_SPANS - batch.len();
            let more = self.spans.recv_many(batch, most);
            match tokio::time::timeout_at(deadline, more).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => break,
            }
        }
        true
    }

    /// Sends what is there at the end, once.
    async fn finish(&mut self, mut batch: Vec<Span>, counts: &SpanCounts) {
        let last_words = tokio::time::Instant::now() + LAST_WORDS;
        self.spans.close();
        loop {
            while let Ok(span) = self.spans.try_recv() {
                batch.push(span);
                if batch.len() == MAX_BATCH_SPANS {
                    break;
                }
            }
            if batch.is_empty() {
                return;
            }
            let sent = tokio::time::timeout_at(last_words, self.export(&batch)).await;
            let sent = sent.unwrap_or_else(|_| Err(ConnectError::deadline_exceeded("no time")));
            self.note(&sent, &mut batch, counts);
        }
    }

    /// Sends a batch, and tries again while that may help.
    async fn send(&self, batch: &[Span]) -> Result<u64, ConnectError> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..MAX_TRIES {
            match self.export(batch).await {
                Err(error) if may_pass(error.code) => {}
                done => return done,
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        self.export(batch).await
    }

    /// How many spans the collector took.
    async fn export(&self, batch: &[Span]) -> Result<u64, ConnectError> {
        let request = self.request(batch);
        let options = CallOptions::default().with_timeout(EXPORT_TIMEOUT);
        let call = self.client.export_with_options(request, options);
        let response = tokio::time::timeout(EXPORT_TIMEOUT, call).await;
        let response = response
            .map_err(|_| ConnectError::deadline_exceeded("the collector does not answer"))??
            .into_owned();
        let rejected = response.partial_success.as_option();
        let rejected = rejected.map_or(0, |it| u64::try_from(it.rejected_spans).unwrap_or(0));
        Ok((batch.len() as u64).saturating_sub(rejected))
    }

    fn note(
        &mut self,
        sent: &Result<u64, ConnectError>,
        batch: &mut Vec<Span>,
        counts: &SpanCounts,
    ) {
        let taken = match sent {
            Ok(taken) => *taken,
            Err(error) => {
                // Once for each time that it begins to fail.
                if !self.is_failing {
                    tracing::warn!(code = error.code.as_str(), "the collector takes no traces");
                }
                0
            }
        };
        self.is_failing = sent.is_err();
        let lost = (batch.len() as u64).saturating_sub(taken);
        counts.exported.fetch_add(taken, Ordering::Relaxed);
        counts
            .dropped_export_failed
            .fetch_add(lost, Ordering::Relaxed);
        batch.clear();
    }

    fn request(&self, batch: &[Span]) -> ExportTraceServiceRequest {
        let scope = InstrumentationScope {
            name: "larder".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..InstrumentationScope::default()
        };
        let spans = wire::ScopeSpans {
            scope: scope.into(),
            spans: batch.iter().map(span).collect(),
            ..wire::ScopeSpans::default()
        };
        let resource = wire::ResourceSpans {
            resource: self.resource.clone().into(),
            scope_spans: vec![spans],
            ..wire::ResourceSpans::default()
        };
        ExportTraceServiceRequest {
            resource_spans: vec![resource],
            ..ExportTraceServiceRequest::default()
        }
    }
}

/// OTLP, "OTLP/gRPC Response": codes after which the same may be sent again.
fn may_pass(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::Canceled
            | ErrorCode::DeadlineExceeded
            | ErrorCode::Aborted
            | ErrorCode::OutOfRange
            | ErrorCode::Unavailable
            | ErrorCode::DataLoss
    )
}

/// OTLP, `SpanFlags`: whether it is known that the parent is elsewhere, and that it is.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// A span as OTLP has it, with the attributes of OpenTelemetry's conventions for RPC.
fn span(span: &Span) -> wire::Span {
    let took = u64::try_from(span.took.as_nanos()).unwrap_or(u64::MAX);
    let (kind, remote) = match (&span.side, span.parent) {
        (Side::Client { .. }, _) => (SpanKind::SPAN_KIND_CLIENT, HAS_IS_REMOTE),
        (Side::Server(_), Some(_)) => (SpanKind::SPAN_KIND_SERVER, HAS_IS_REMOTE | IS_REMOTE),
        (Side::Server(_), None) => (SpanKind::SPAN_KIND_SERVER, 0),
    };
    wire::Span {
        trace_id: span.context.trace_id.into(),
        span_id: span.context.span_id.into(),
        trace_state: span.context.state.as_ref().into(),
        parent_span_id: span.parent.map_or_else(Vec::new, Into::into),
        flags: u32::from(span.context.flags()) | remote,
        // "$package.$service/$method".
        name: span.method.trim_start_matches('/').into(),
        kind: kind.into(),
        start_time_unix_nano: span.ended_unix_nanos.saturating_sub(took),
        end_time_unix_nano: span.ended_unix_nanos,
        attributes: attributes(span),
        status: wire::Status {
            code: status(span).into(),
            ..wire::Status::default()
        }
        .into(),
        ..wire::Span::default()
    }
}

fn attributes(span: &Span) -> Vec<KeyValue> {
    let system = match span.is_grpc {
        true => "grpc",
        false => "connect_rpc",
    };
    let mut all = vec![text("rpc.system", system)];
    if let Some((service, method)) = span.method.trim_start_matches('/').split_once('/') {
        all.push(text("rpc.service", service));
        all.push(text("rpc.method", method));
    }
    let code = i64::from(span.code.number());
    all.push(number("rpc.grpc.status_code", code));
    if let Some(reason) = span.reason {
        all.push(text("error.type", Reason::name(reason)));
    }
    match &span.side {
        Side::Server(served) => of_server(served, &mut all),
        Side::Client { server } => {
            if let Some(host) = server.host() {
                let host = host.trim_matches(['[', ']']);
                all.push(text("server.address", host));
            }
            if let Some(port) = server.port_u16() {
                all.push(number("server.port", i64::from(port)));
            }
        }
    }
    all
}

fn of_server(span: &Served, all: &mut Vec<KeyValue>) {
    match span.peer {
        Peer::Tcp(address) => {
            all.push(text("network.peer.address", &address.ip().to_string()));
            all.push(number("network.peer.port", i64::from(address.port())));
            all.push(text("network.transport", "tcp"));
        }
        Peer::Unix => all.push(text("network.transport", "unix")),
    }
    if let Some(account) = &span.account {
        all.push(text("larder.account", account));
    }
    let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let micros = u64::try_from(span.accounts_wait.as_micros()).unwrap_or(u64::MAX);
    all.extend([
        number("larder.request_bytes", count(span.request_bytes)),
        number("larder.response_bytes", count(span.response_bytes)),
        number(
            "larder.previous_attempts",
            i64::from(span.previous_attempts),
        ),
        number("larder.accounts_us", count(micros)),
    ]);
}

/// Which statuses are errors by OpenTelemetry's conventions: for a client all but OK, for a server
/// those that are its fault.
fn status(span: &Span) -> wire::status::StatusCode {
    let is_client = matches!(span.side, Side::Client { .. });
    match span.code {
        Code::Ok => wire::status::StatusCode::STATUS_CODE_UNSET,
        _ if is_client => wire::status::StatusCode::STATUS_CODE_ERROR,
        Code::Unknown
        | Code::DeadlineExceeded
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => wire::status::StatusCode::STATUS_CODE_ERROR,
        _ => wire::status::StatusCode::STATUS_CODE_UNSET,
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value.into()))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, any_value::Value::IntValue(value))
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    let value = AnyValue {
        value: Some(value),
        ..AnyValue::default()
    };
    KeyValue {
        key: key.into(),
        value: value.into(),
        ..KeyValue::default()
    }
}
