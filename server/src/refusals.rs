//! How many calls were refused, or given up, and why.

use std::sync::atomic::{AtomicU64, Ordering};

use larder_api::errors::Reason;

/// Defines the counters with their names, once.
macro_rules! causes {
    ($($(#[doc = $doc:literal])+ $cause:ident => $name:literal,)+) => {
        /// Why a call was refused before it was carried out, or not carried out to its
        /// end.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Cause {
            $($(#[doc = $doc])+ $cause,)+
        }

        impl Cause {
            /// All of them.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$cause),+];

            /// The name, for a metrics endpoint.
            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Self::$cause => $name,)+
                }
            }
        }
    };
}

causes! {
    /// No time for it (`layers::shed`), or no place or memory.
    Overloaded => "overloaded",
    /// The account's rate.
    RateLimited => "rate_limited",
    /// As many calls or streams in flight as an account may have.
    ConcurrencyLimited => "concurrency_limited",
    /// Its deadline passed.
    Deadline => "deadline",
    /// Its caller went away, or took it back.
    Cancelled => "cancelled",
}

/// The counters. None is touched by a call that goes well.
#[derive(Debug, Default)]
pub(crate) struct Refusals([AtomicU64; Cause::ALL.len()]);

impl Refusals {
    /// Counts a call that ended for a reason of the catalogue, if it is one of these.
    pub(crate) fn count(&self, reason: Option<Reason>) {
        let cause = match reason {
            Some(Reason::Overloaded) => Cause::Overloaded,
            Some(Reason::RateLimited) => Cause::RateLimited,
            Some(Reason::ConcurrencyLimited) => Cause::ConcurrencyLimited,
            Some(Reason::NotStarted | Reason::MaybeApplied) => Cause::Deadline,
            Some(Reason::Cancelled) => Cause::Cancelled,
            _ => return,
        };
        self.add(cause, 1);
    }

    /// Counts several.
    pub(crate) fn add(&self, cause: Cause, calls: u64) {
        self.0[cause as usize].fetch_add(calls, Ordering::Relaxed);
    }

    /// What was counted.
    pub(crate) fn of(&self, cause: Cause) -> u64 {
        self.0[cause as usize].load(Ordering::Relaxed)
    }

    /// What was counted, by name.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Cause::ALL
            .iter()
            .map(|&cause| (cause.name(), self.of(cause)))
    }
}
