//! What `/metrics` tells of snapshots.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::load::Loaded;
use super::save::Saved;
use crate::clock;
use crate::telemetry::exposition::Page;

/// Counted by the one thread that saves.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    /// 0: at the end only.
    interval_ms: AtomicU64,
    saves: AtomicU64,
    failures: AtomicU64,
    skips: AtomicU64,
    is_failing: AtomicBool,
    last_success_unix_ms: AtomicU64,
    last_duration_ms: AtomicU64,
    last_bytes: AtomicU64,
    last_entries: AtomicU64,
    last_requests: AtomicU64,
    loaded_entries: AtomicU64,
    loaded_requests: AtomicU64,
}

impl Stats {
    pub(super) fn set_interval(&self, interval: Option<Duration>) {
        let ms = interval.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX));
        self.interval_ms.store(ms, Relaxed);
    }

    pub(super) fn saved(&self, saved: &Saved, took: Duration) {
        self.saves.fetch_add(1, Relaxed);
        self.is_failing.store(false, Relaxed);
        self.last_success_unix_ms
            .store(clock::unix_millis(), Relaxed);
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.last_duration_ms.store(took_ms, Relaxed);
        self.last_bytes.store(saved.bytes, Relaxed);
        self.last_entries.store(saved.entries, Relaxed);
        self.last_requests.store(saved.requests, Relaxed);
    }

    /// The last one is as good as one that were written now.
    pub(super) fn skipped(&self) {
        self.skips.fetch_add(1, Relaxed);
        self.last_success_unix_ms
            .store(clock::unix_millis(), Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Relaxed);
        self.is_failing.store(true, Relaxed);
    }

    /// The last snapshot could not be written.
    pub(crate) fn is_failing(&self) -> bool {
        self.is_failing.load(Relaxed)
    }

    pub(crate) fn loaded(&self, loaded: &Loaded) {
        self.loaded_entries.store(loaded.entries, Relaxed);
        self.loaded_requests.store(loaded.requests, Relaxed);
    }

    /// Appends them to a page.
    pub(crate) fn write(&self, page: &mut Page) {
        let seconds = |ms: &AtomicU64| {
            let ms = ms.load(Relaxed);
            format!("{}.{:03}", ms / 1000, ms % 1000)
        };
        let number = |count: &AtomicU64| count.load(Relaxed);
        page.gauge(
            "larder_snapshot_interval_seconds",
            "How often a snapshot is due; 0: only at the end.",
        )
        .value(seconds(&self.interval_ms));
        page.counter(
            "larder_snapshot_saves_total",
            "Snapshots that were written.",
        )
        .value(number(&self.saves));
        page.counter(
            "larder_snapshot_failures_total",
            "Snapshots that could not be written.",
        )
        .value(number(&self.failures));
        page.gauge(
            "larder_snapshot_failing",
            "1 if the last snapshot that was due could not be written.",
        )
        .value(u8::from(self.is_failing()));
        page.counter(
            "larder_snapshot_skips_total",
            "Snapshots that were due and not written, because nothing had changed since the last one.",
        )
        .value(number(&self.skips));
        page.gauge(
            "larder_snapshot_last_success_timestamp_seconds",
            "When the last snapshot was written, or found to be still current, seconds since 1970; 0: none yet.",
        )
        .value(seconds(&self.last_success_unix_ms));
        page.gauge(
            "larder_snapshot_last_duration_seconds",
            "How long that took.",
        )
        .value(seconds(&self.last_duration_ms));
        page.gauge("larder_snapshot_last_bytes", "Bytes of its file.")
            .value(number(&self.last_bytes));
        page.gauge("larder_snapshot_last_entries", "Entries in it.")
            .value(number(&self.last_entries));
        page.gauge(
            "larder_snapshot_last_requests",
            "Outcomes of requests with an id in it.",
        )
        .value(number(&self.last_requests));
        page.gauge(
            "larder_snapshot_loaded_entries",
            "Entries that were loaded at the start.",
        )
        .value(number(&self.loaded_entries));
        page.gauge(
            "larder_snapshot_loaded_requests",
            "Outcomes of requests with an id that were loaded at the start.",
        )
        .value(number(&self.loaded_requests));
    }
}
