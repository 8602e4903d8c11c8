//! What `/metrics` tells of snapshots.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::load::Loaded;
use super::save::Saved;
use crate::clock;

/// Counted by the one thread that saves.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    saves: AtomicU64,
    failures: AtomicU64,
    last_success_unix_ms: AtomicU64,
    last_duration_ms: AtomicU64,
    last_bytes: AtomicU64,
    last_entries: AtomicU64,
    loaded_entries: AtomicU64,
}

impl Stats {
    pub(super) fn saved(&self, saved: &Saved, took: Duration) {
        self.saves.fetch_add(1, Relaxed);
        self.last_success_unix_ms
            .store(clock::unix_millis(), Relaxed);
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.last_duration_ms.store(took_ms, Relaxed);
        self.last_bytes.store(saved.bytes, Relaxed);
        self.last_entries.store(saved.entries, Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Relaxed);
    }

    pub(crate) fn loaded(&self, loaded: &Loaded) {
        self.loaded_entries.store(loaded.entries, Relaxed);
    }

    /// Appends them to a page in Prometheus' text format.
    pub(crate) fn write(&self, page: &mut String) {
        let seconds = |ms: &AtomicU64| {
            let ms = ms.load(Relaxed);
            format!("{}.{:03}", ms / 1000, ms % 1000)
        };
        let number = |count: &AtomicU64| count.load(Relaxed).to_string();
        for (name, kind, value) in [
            ("saves_total", "counter", number(&self.saves)),
            ("failures_total", "counter", number(&self.failures)),
            (
                "last_success_timestamp_seconds",
                "gauge",
                seconds(&self.last_success_unix_ms),
            ),
            (
                "last_duration_seconds",
                "gauge",
                seconds(&self.last_duration_ms),
            ),
            ("last_bytes", "gauge", number(&self.last_bytes)),
            ("last_entries", "gauge", number(&self.last_entries)),
            ("loaded_entries", "gauge", number(&self.loaded_entries)),
        ] {
            // Writing to a string does not fail.
            let _ = writeln!(page, "# TYPE larder_snapshot_{name} {kind}");
            let _ = writeln!(page, "larder_snapshot_{name} {value}");
        }
    }
}
