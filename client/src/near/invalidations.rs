//! What a source of changes says to a near cache.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::core::{Core, Settled};

/// The end of a near cache at which a source says what has changed: see
/// [`NearCache::invalidations`](crate::NearCache::invalidations).
///
/// When a method returns, every get that begins from then on sees the change, or something newer:
/// what was kept is gone, and answers that were under way are not kept. Whoever already waits for
/// one of those may still get it.
///
/// Calls are in the order of the changes, from one task. Each but [`prefix`](Self::prefix) and
/// [`forget_all`](Self::forget_all) takes one short lock and looks up one key; those walk over all
/// that is kept.
///
/// # Versions
///
/// A server counts versions up for each account, over deletes and restarts, also a crash, as long
/// as its clock is not set back: of two entries under one key the newer has the greater version.
/// Versions of *different* servers say nothing about each other. So [`written`](Self::written)
/// and [`removed`](Self::removed) are for a source that speaks of the very server that the client
/// reads from; others say [`changed`](Self::changed).
pub struct Invalidations {
    core: Arc<Core>,
    source: u64,
}

impl Invalidations {
    pub(super) fn new(core: Arc<Core>) -> Self {
        let source = core.new_source();
        Self { core, source }
    }

    /// Something about a key has changed, such as its expiry, which leaves the version as it is.
    /// Whatever is kept of it goes.
    pub fn changed(&self, key: impl AsRef<[u8]>) {
        self.core.forget(key.as_ref(), Settled::Yes, 0);
    }

    /// A key was written, and has had this version since. What is kept stays if it has that version
    /// or a greater one: an echo of what was read already does no harm.
    pub fn written(&self, key: impl AsRef<[u8]>, version: u64) {
        self.core.forget_below(key.as_ref(), version);
    }

    /// The entry of this version is gone: deleted, expired or evicted. What is kept stays if it has
    /// a greater version: it was written after.
    pub fn removed(&self, key: impl AsRef<[u8]>, version: u64) {
        self.core
            .forget_below(key.as_ref(), version.saturating_add(1));
    }

    /// All keys that begin with a prefix may have changed.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) {
        self.core.forget_prefix(prefix.as_ref(), Settled::Yes);
    }

    /// The source has lost track: anything may have changed. All that is kept goes, and the source
    /// is out of touch until it says otherwise.
    ///
    /// A source that is interrupted, and may have missed a change, has to say this before it is
    /// [in touch](Self::in_touch) again. It need not do so at once: out of touch, entries merely
    /// become too old.
    pub fn forget_all(&self) {
        self.core.lost_track(self.source);
    }

    /// All changes up to `as_of` have been told here, and those after it will be.
    ///
    /// What was asked for while the source was in touch then counts as read at `as_of`, and stays
    /// as long as that is less than `max_staleness` ago: the bound holds for the silence of the
    /// source instead of the age of the entry. What was asked for before the source came in touch
    /// keeps its age.
    ///
    /// `as_of` is by this machine's clock, and has to be *before* the server looked: for a
    /// heartbeat that answers a question, when the question was sent. One in the future counts as
    /// now; one that is earlier than the last changes nothing. A source that watches several
    /// servers gives the earliest of their times.
    ///
    /// Only the latest source of a near cache can be in touch; from earlier ones this does nothing.
    pub fn in_touch(&self, as_of: Instant) {
        let until = self.core.time_of(tokio::time::Instant::from_std(as_of));
        self.core.in_touch(self.source, until, self.core.now());
    }
}

impl fmt::Debug for Invalidations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invalidations")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}
