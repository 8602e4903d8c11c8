//! A new configuration for a server that runs: all of it, or nothing.

use std::path::PathBuf;

use super::Running;
use crate::audit::Audit;
use crate::config::{Changes, Config, NeedsRestart};
use crate::live::Worn;

/// Why a server goes on as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    /// It changes what only a restart can.
    #[error(transparent)]
    NeedsRestart(#[from] NeedsRestart),
    /// It has changed its limits too often.
    #[error("limits or origins have changed 63 times: only a restart can change them once more")]
    Worn,
    /// The file that audit.file names cannot be opened.
    #[error("audit.file: {}: {reason}", path.display())]
    Audit {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl From<Worn> for ReloadError {
    fn from(_: Worn) -> Self {
        Self::Worn
    }
}

impl Running {
    /// Takes on what `new` changes: limits of the data and origins for the next call,
    /// the audit log for the next line, limits of the transport for the next connection. What the log filters is the
    /// caller's to change.
    ///
    /// # Errors
    /// [`ReloadError`]; then nothing has changed.
    pub fn reload(&mut self, new: Config) -> Result<Changes, ReloadError> {
        let changes = self.config.changes(&new)?;
        let core = &self.core;
        let origins = &core.origins.allowed;
        if !core.limits.has_room(&new.limits)
            || !core.transport.has_room(&new.transport)
            || !origins.has_room(&new.cors_origins)
        {
            return Err(ReloadError::Worn);
        }
        let audit = (self.config.audit != new.audit).then(|| Audit::prepare(&new.audit));
        let audit = audit.transpose().map_err(|error| ReloadError::Audit {
            path: new.audit.file.clone().unwrap_or_default(),
            reason: error.to_string(),
        })?;
        origins.set(new.cors_origins.clone())?;
        core.limits.set(new.limits)?;
        core.transport.set(new.transport.clone())?;
        self.transport.set_limits(&new.transport.limits);
        if let Some(audit) = audit {
            core.audit.replace(audit);
        }
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
