//! What is in the store before the first call.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use larder_accounts::Accounts;
use larder_model::{AccountId, Quota};

use super::{App, StartError};
use crate::config::Config;
use crate::snapshot::{self, Admission, Snapshots};

impl App {
    /// Puts the newest snapshot into the store, on a thread of its own; the admin
    /// listener tells meanwhile that the server is not ready. Dropped, it gives
    /// up at the next block, and the snapshots are as they were.
    ///
    /// # Errors
    /// The folder of the snapshots cannot be used.
    pub async fn load(&mut self) -> Result<(), StartError> {
        self.serve_admin()?;
        let Some(snapshots) = self.snapshots.take() else {
            return Ok(());
        };
        let failed = |error: io::Error| StartError::Snapshot(error.to_string());
        let (core, stats) = (Arc::clone(&self.core), Arc::clone(&self.snapshot_stats));
        let given_up = GivenUp::default();
        let cancelled = Arc::clone(&given_up.0);
        let (done, loaded) = tokio::sync::oneshot::channel();
        std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || {
                let quota =
                    |id: &AccountId, had: Quota| quota_of(core.accounts.as_deref(), id, had);
                let admission = Admission {
                    limits: *core.limits,
                    quota: &quota,
                };
                let loaded = snapshots.load(&core.store, &core.clock, &admission, &cancelled);
                if let Ok(Some(loaded)) = &loaded {
                    stats.loaded(loaded);
                }
                // Whoever waited may have gone.
                let _ = done.send(loaded.map(|_| snapshots));
            })
            .map_err(|error| StartError::Threads(error.to_string()))?;
        let ended = loaded.await;
        let ended = ended.map_err(|_| StartError::Snapshot("loading it failed".into()))?;
        self.snapshots = Some(ended.map_err(failed)?);
        Ok(())
    }
}

/// The snapshots of the data directory, if this server makes any.
pub(super) fn snapshots(config: &Config) -> Result<Option<Snapshots>, StartError> {
    let Some(snapshot) = config.snapshot else {
        // Else the directory is another server's.
        if config.accounts.is_none() {
            snapshot::leave_alone(&config.data_dir);
        }
        return Ok(None);
    };
    match Snapshots::open(&config.data_dir, snapshot) {
        Ok(snapshots) => Ok(Some(snapshots)),
        Err(error) => Err(StartError::Snapshot(error.to_string())),
    }
}

/// The quota of an account that had `had` when its entries were saved; `None` if it
/// is gone. Of accounts that are kept elsewhere that one holds until the
/// account calls: then its entries go if it is another one.
fn quota_of(accounts: Option<&Accounts>, id: &AccountId, had: Quota) -> Option<Quota> {
    let Some(accounts) = accounts else {
        return Some(had);
    };
    let account = accounts.account(&id.name)?;
    (account.id() == *id).then(|| account.quota())
}

/// Tells a thread that nobody waits for it any more.
#[derive(Default)]
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
