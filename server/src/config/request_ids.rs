//! What is remembered of requests, as a configuration file may set it: the table
//! `[request_ids]`.

use std::time::Duration;

use larder_model::ReplayLimits;
use serde::{Deserialize, Serialize};

use super::{ConfigError, within};

/// Limits of the windows in which a `request_id` is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestIdSettings {
    /// How long an outcome is replayed, seconds; default 600.
    pub window_seconds: Option<u64>,
    /// Most outcomes of one account; default 16,384.
    pub max_per_account: Option<usize>,
    /// Most outcomes of all accounts together; default 262,144.
    pub max_total: Option<usize>,
}

impl From<&ReplayLimits> for RequestIdSettings {
    fn from(limits: &ReplayLimits) -> Self {
        Self {
            window_seconds: Some(limits.window.as_secs()),
            max_per_account: Some(limits.max_per_account),
            max_total: Some(limits.max_total),
        }
    }
}

impl RequestIdSettings {
    /// The limits that they ask for.
    ///
    /// # Errors
    /// The first setting that is out of its range.
    pub(super) fn limits(&self) -> Result<ReplayLimits, ConfigError> {
        let default = ReplayLimits::default();
        let seconds = default.window.as_secs();
        let window = within(
            "request_ids.window_seconds",
            self.window_seconds,
            seconds,
            1..=86_400,
        )?;
        let most = |name, given, default| within(name, given, default, 1..=10_000_000);
        Ok(ReplayLimits {
            window: Duration::from_secs(window),
            max_per_account: most(
                "request_ids.max_per_account",
                self.max_per_account,
                default.max_per_account,
            )?,
            max_total: most("request_ids.max_total", self.max_total, default.max_total)?,
        })
    }
}
