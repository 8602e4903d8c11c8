//! What is counted.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::abuse::Abuse;
use crate::connection::Failure;
use crate::error_codes::ErrorCode;

/// Counters of a server, all of them growing.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections taken.
    pub accepted: AtomicU64,
    /// Connections closed at once, over `max_unproven_connections`.
    pub refused: AtomicU64,
    /// Times that no connection could be taken, as for want of descriptors.
    pub accept_errors: AtomicU64,
    /// Connections of HTTP/1.1.
    pub http1: AtomicU64,
    /// Connections that ended with an error of their client's.
    pub failed: AtomicU64,
    abuse: [AtomicU64; Abuse::COUNT],
}

impl Stats {
    /// Connections that ended with `ENHANCE_YOUR_CALM` for one kind of abuse.
    #[must_use]
    pub fn abuse(&self, what: Abuse) -> u64 {
        self.abuse[what as usize].load(Ordering::Relaxed)
    }

    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self, failure: Failure) {
        if failure.code != ErrorCode::NO_ERROR {
            Self::count(&self.failed);
        }
        let kind = Abuse::ALL.iter().find(|kind| kind.name() == failure.why);
        if let (ErrorCode::ENHANCE_YOUR_CALM, Some(kind)) = (failure.code, kind) {
            Self::count(&self.abuse[*kind as usize]);
        }
    }
}
