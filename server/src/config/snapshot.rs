//! When the store is saved, and what is loaded: the table `[snapshot]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Config, ConfigError, within};

/// Between two snapshots, where nothing else is said.
const INTERVAL_SECONDS: u64 = 300;
/// Longest interval: a week.
const MAX_INTERVAL_SECONDS: u64 = 7 * 24 * 3600;

/// Settings of the table `[snapshot]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotSettings {
    /// Save at shutdown and at an interval, and load at start. By default where the
    /// data directory is this server's: its accounts are kept there, or `data_dir`
    /// was given.
    pub enabled: Option<bool>,
    /// Between two snapshots, seconds; 0: only at shutdown. Default 300.
    pub interval_seconds: Option<u64>,
    /// Load the newest snapshot also after an end without a last one. Default true.
    pub load_after_crash: Option<bool>,
}

/// How snapshots are made and loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotConfig {
    /// Between two; `None`: only at shutdown.
    pub interval: Option<Duration>,
    /// See [`SnapshotSettings::load_after_crash`].
    pub load_after_crash: bool,
}

impl SnapshotSettings {
    /// Checks them; `None`: no snapshots.
    pub(super) fn parse(self, by_default: bool) -> Result<Option<SnapshotConfig>, ConfigError> {
        let seconds = within(
            "snapshot.interval_seconds",
            self.interval_seconds,
            INTERVAL_SECONDS,
            0..=MAX_INTERVAL_SECONDS,
        )?;
        let config = SnapshotConfig {
            interval: (seconds > 0).then(|| Duration::from_secs(seconds)),
            load_after_crash: self.load_after_crash.unwrap_or(true),
        };
        Ok(self.enabled.unwrap_or(by_default).then_some(config))
    }
}

impl Config {
    /// The settings that say how this is.
    pub(super) fn snapshot_settings(&self) -> SnapshotSettings {
        let config = self.snapshot;
        SnapshotSettings {
            enabled: Some(config.is_some()),
            interval_seconds: config.map(|it| it.interval.map_or(0, |it| it.as_secs())),
            load_after_crash: config.map(|it| it.load_after_crash),
        }
    }
}
