//! The page at `/metrics`: everything that is counted, under the names that gRFC A66 gives to
//! what it knows, as Prometheus spells them, and `larder_` before the rest.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::FutureExt as _;
use larder_model::{AccountName, Store, Usage};
use larder_transport::shared::Shared;

use super::accounts::{Accounts, Counter, Row, Sample};
use super::exposition::Page;
use super::histogram::{Bytes, Seconds};
use super::meter::{SeriesTotals, Totals};
use crate::core::Core;
use crate::tls::reload::Certificates;

/// Memory that entries take, and may take, bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) used_bytes: u64,
    pub(crate) limit_bytes: u64,
}

/// What is on the page.
pub(crate) struct Metrics<S: Store> {
    core: Arc<Core<S>>,
    transport: Arc<Shared>,
    accounts: Accounts,
    memory: fn(&S) -> Memory,
    /// `None` where clear text is served.
    certificates: Option<Arc<Certificates>>,
}

impl<S: Store> Metrics<S> {
    pub(crate) fn new(
        core: Arc<Core<S>>,
        transport: Arc<Shared>,
        most_accounts: usize,
        memory: fn(&S) -> Memory,
        certificates: Option<Arc<Certificates>>,
    ) -> Self {
        Self {
            core,
            transport,
            accounts: Accounts::new(most_accounts),
            memory,
            certificates,
        }
    }

    /// Adds up what the threads have counted, and asks the store about each account: a scrape
    /// costs about a microsecond for each account in use, and holds up no call.
    pub(crate) fn page(&self) -> String {
        let mut page = Page::default();
        let totals = self.core.telemetry.meters.totals();
        calls(&mut page, &totals);
        self.cache(&mut page, &totals);
        self.traces(&mut page);
        self.transport(&mut page);
        self.refusals(&mut page);
        self.certificates(&mut page);
        super::process::write(&mut page, Path::new("/proc"));
        page.into_text()
    }

    fn cache(&self, page: &mut Page, totals: &Totals) {
        let samples = self.samples(totals);
        let meters = &self.core.telemetry.meters;
        let rows = self.accounts.rows(&samples);
        let gone = meters.forget(|name| samples.get(name).is_some_and(|it| it.usage.is_some()));
        self.accounts.forget(&gone);
        accounts(page, &rows);
        let usages = || samples.values().filter_map(|sample| sample.usage.as_ref());
        let full = usages().filter(|usage| is_at_quota(usage)).count();
        page.gauge("larder_accounts", "Accounts in use.")
            .value(usages().count());
        page.gauge(
            "larder_accounts_at_quota",
            "Accounts that have as many keys or bytes as they may, 99 % of it counting as all.",
        )
        .value(full);
        let memory = (self.memory)(&self.core.store);
        page.gauge(
            "larder_cache_memory_used_bytes",
            "Memory that entries and accounts take.",
        )
        .value(memory.used_bytes);
        page.gauge(
            "larder_cache_memory_limit_bytes",
            "Memory that they may take.",
        )
        .value(memory.limit_bytes);
    }

    fn samples(&self, totals: &Totals) -> HashMap<AccountName, Sample> {
        let now = self.core.clock.now();
        let mut samples: HashMap<AccountName, Sample> = HashMap::new();
        for (name, totals) in &totals.accounts {
            let totals = *totals;
            let usage = None;
            samples.insert(name.clone(), Sample { totals, usage });
        }
        for tenant in self.core.tenants.all() {
            let call = larder_model::Call::at(now);
            let usage = self.core.store.usage(&tenant.handle, call);
            // A store that would have to be waited for is asked by its account, not here.
            let usage = usage.now_or_never().and_then(Result::ok);
            samples.entry(tenant.name().clone()).or_default().usage = usage;
        }
        samples
    }

    fn traces(&self, page: &mut Page) {
        let Some(tracer) = &self.core.telemetry.tracer else {
            return;
        };
        let counts = tracer.counts();
        page.counter(
            "larder_spans_exported_total",
            "Spans that the collector took.",
        )
        .value(counts.exported.load(Ordering::Relaxed));
        let mut dropped = page.counter(
            "larder_spans_dropped_total",
            "Spans lost: the queue was full, or the collector did not take them.",
        );
        let why = [
            ("queue_full", &counts.dropped_queue_full),
            ("export_failed", &counts.dropped_export_failed),
        ];
        for (why, count) in why {
            dropped.sample(&[("cause", why)], count.load(Ordering::Relaxed));
        }
    }

    /// The counters of the transport, and the memory that waits for its clients.
    fn refusals(&self, page: &mut Page) {
        let mut refused = page.counter(
            "larder_calls_refused_total",
            "Calls that were refused before they were carried out, or not carried out to their end.",
        );
        for (reason, count) in self.core.refusals.all() {
            refused.sample(&[("reason", reason)], count);
        }
    }

    fn certificates(&self, page: &mut Page) {
        let Some(certificates) = &self.certificates else {
            return;
        };
        let status = certificates.status();
        page.counter(
            "larder_tls_reloads_total",
            "Times that new certificates were put in force.",
        )
        .value(status.reloads);
        page.counter(
            "larder_tls_reload_failures_total",
            "Times that changed files were refused, and the old ones stayed in force.",
        )
        .value(status.failures);
        page.gauge(
            "larder_tls_certificate_not_after_timestamp_seconds",
            "When the server's certificate ends, seconds since 1970.",
        )
        .value(status.not_after_unix_seconds);
    }

    fn transport(&self, page: &mut Page) {
        for (name, value) in self.transport.stats().iter() {
            let name = format!("larder_transport_{name}_total");
            page.counter(
                &name,
                "See the limits of the transport in the documentation.",
            )
            .value(value);
        }
        let mut tripped = page.counter(
            "larder_transport_limits_tripped_total",
            "What limits of the transport have ended, by their names: the counters above once more, \
             so that they can be asked for together.",
        );
        for (name, value) in self.transport.stats().iter() {
            if name.contains("_ended_") || name.contains("_drained_") || name.contains("_refused_")
            {
                tripped.sample(&[("limit", name)], value);
            }
        }
        page.gauge(
            "larder_transport_buffered_bytes",
            "Bytes kept for clients that do not read, and of requests that are not whole.",
        )
        .value(self.transport.buffered_bytes());
        page.gauge(
            "larder_transport_buffered_limit_bytes",
            "The most of them, above which calls are refused.",
        )
        .value(self.transport.max_buffered_bytes());
        page.gauge("larder_transport_connections", "Connections that are open.")
            .value(self.transport.registry().connections());
        page.gauge("larder_build_info", "Always 1; its labels say what runs.")
            .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    }
}

/// An eviction takes a little more than it must, so an account at its limit is seldom at its last
/// key.
fn is_at_quota(usage: &Usage) -> bool {
    let is_full = |used: u64, most: u64| most != u64::MAX && used >= most - most / 100;
    is_full(usage.keys, usage.quota.max_keys) || is_full(usage.bytes, usage.quota.max_bytes)
}

fn calls(page: &mut Page, totals: &Totals) {
    let mut started = page.counter(
        "grpc_server_call_started_total",
        "Calls that began, those that have not ended included.",
    );
    for (method, calls) in &totals.started {
        started.sample(&[("grpc_method", method.metric_name())], calls);
    }
    let series = |of: &SeriesTotals| (of.method.metric_name(), of.code.name());
    let mut duration = page.histogram(
        "grpc_server_call_duration_seconds",
        "From the head of a call to its status.",
    );
    for each in totals.series.iter().filter(|it| it.duration.count() > 0) {
        let (method, status) = series(each);
        let labels = [("grpc_method", method), ("grpc_status", status)];
        duration.distribution::<Seconds>(&labels, &each.duration);
    }
    let mut sent = page.histogram(
        "grpc_server_call_sent_total_compressed_message_size_bytes",
        "Messages of the responses of a call, without framing.",
    );
    for each in &totals.series {
        let (method, status) = series(each);
        let labels = [("grpc_method", method), ("grpc_status", status)];
        sent.distribution::<Bytes>(&labels, &each.sent);
    }
    let mut received = page.histogram(
        "grpc_server_call_rcvd_total_compressed_message_size_bytes",
        "Messages of the requests of a call, without framing.",
    );
    for each in &totals.series {
        let (method, status) = series(each);
        let labels = [("grpc_method", method), ("grpc_status", status)];
        received.distribution::<Bytes>(&labels, &each.received);
    }
    let (succeeded, failed) = totals.calls_ended();
    let in_flight = totals.calls_started().saturating_sub(succeeded + failed);
    page.gauge("larder_calls_in_flight", "Calls that have not ended.")
        .value(in_flight);
    let mut failures = page.counter(
        "larder_call_failures_total",
        "Calls that ended with an error, by its reason in the catalogue.",
    );
    for (reason, calls) in &totals.failures {
        failures.sample(&[("reason", reason.name())], calls);
    }
    page.histogram(
        "larder_accounts_wait_seconds",
        "What calls waited to learn whose credential it was, of those that had to ask.",
    )
    .distribution::<Seconds>(&[], &totals.accounts_wait);
}

fn accounts(page: &mut Page, rows: &[Row]) {
    for counter in Counter::ALL {
        let (name, help) = counter.name();
        let mut family = page.counter(name, help);
        for row in rows {
            let count = row.counts[counter as usize];
            family.sample(&[("account", &row.label)], count);
        }
    }
    let mut gauge = |name: &str, help: &str, value: fn(&Row) -> Option<u64>| {
        let mut family = page.gauge(name, help);
        for row in rows {
            if let Some(value) = value(row) {
                family.sample(&[("account", &row.label)], value);
            }
        }
    };
    let key_quota = "Most keys of an account, if it has a limit.";
    let byte_quota = "Most bytes of an account, if it has a limit.";
    gauge("larder_cache_entries", "Entries.", |row| Some(row.keys));
    gauge(
        "larder_cache_entry_bytes",
        "Bytes of entries, as quotas count them.",
        |row| Some(row.bytes),
    );
    gauge("larder_account_max_keys", key_quota, |row| row.max_keys);
    gauge("larder_account_max_bytes", byte_quota, |row| row.max_bytes);
}
