//! A new configuration for a server that runs: all of it, or nothing.

use super::Running;
use crate::config::{Changes, Config, NeedsRestart};
use crate::live::Worn;

/// Why a server goes on as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    /// It changes what only a restart can.
    #[error(transparent)]
    NeedsRestart(#[from] NeedsRestart),
    /// It has changed its limits too often.
    #[error("limits have changed 63 times: only a restart can change them once more")]
    Worn,
}

impl From<Worn> for ReloadError {
    fn from(_: Worn) -> Self {
        Self::Worn
    }
}

impl Running {
    /// Takes on what `new` changes: limits of the data for the next call, those of
    /// the transport for the next connection. What the log filters is the
    /// caller's to change.
    ///
    /// # Errors
    /// [`ReloadError`]; then nothing has changed.
    pub fn reload(&mut self, new: Config) -> Result<Changes, ReloadError> {
        let changes = self.config.changes(&new)?;
        let core = &self.core;
        if !core.limits.has_room(&new.limits) || !core.transport.has_room(&new.transport) {
            return Err(ReloadError::Worn);
        }
        core.limits.set(new.limits)?;
        core.transport.set(new.transport.clone())?;
        self.transport.set_limits(&new.transport.limits);
        if let Some(log) = &core.access_log {
            log.set_most(new.log_calls_per_second);
        }
        if let (Some(saver), Some(snapshot)) = (&self.saver, &new.snapshot)
            && self.config.snapshot != new.snapshot
        {
            saver.set_interval(snapshot.interval);
        }
        self.config = new;
        Ok(changes)
    }
}
