//! What is let in: the table `[admission]` of a configuration file.

use std::time::Duration;

use larder_api::wire;
use serde::{Deserialize, Serialize};

use super::{ConfigError, bad, within};
use crate::layers::shed::Shedding;

/// What is let in, as it is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdmissionSettings {
    /// See `late_ms` in `docs/configuration.md`.
    pub late_ms: Option<u64>,
    /// See `target_ms` in `docs/configuration.md`.
    pub target_ms: Option<u64>,
    /// See `interval_ms` in `docs/configuration.md`.
    pub interval_ms: Option<u64>,
    /// See `max_calls_per_account` in `docs/configuration.md`.
    pub max_calls_per_account: Option<u32>,
    /// See `max_streams_per_account` in `docs/configuration.md`.
    pub max_streams_per_account: Option<u32>,
}

/// What is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// When calls are refused because there is no time for them; `None`: never.
    pub shedding: Option<Shedding>,
    /// Calls of one account in flight: those that wait, and streams.
    pub max_calls_per_account: u32,
    /// Streams among them: dumps and loads.
    pub max_streams_per_account: u32,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            shedding: Some(Shedding::default()),
            max_calls_per_account: wire::MAX_CALLS_PER_ACCOUNT,
            max_streams_per_account: wire::MAX_STREAMS_PER_ACCOUNT,
        }
    }
}

impl From<&Admission> for AdmissionSettings {
    fn from(admission: &Admission) -> Self {
        let millis = |of: fn(&Shedding) -> Duration| {
            let time = admission.shedding.as_ref().map(of);
            time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
        };
        Self {
            late_ms: Some(millis(|it| it.late).unwrap_or(0)),
            target_ms: millis(|it| it.target),
            interval_ms: millis(|it| it.interval),
            max_calls_per_account: Some(admission.max_calls_per_account),
            max_streams_per_account: Some(admission.max_streams_per_account),
        }
    }
}

impl AdmissionSettings {
    /// Checks them.
    ///
    /// # Errors
    /// The first that is out of its range, or a target above the interval.
    pub(super) fn parse(&self) -> Result<Admission, ConfigError> {
        let late = within("admission.late_ms", self.late_ms, 25, 0..=10_000)?;
        let target = within("admission.target_ms", self.target_ms, 5, 1..=1000)?;
        let interval = within("admission.interval_ms", self.interval_ms, 100, 10..=10_000)?;
        if late > 0 && target > interval {
            let reason = format!("{target} is more than interval_ms, {interval}");
            return Err(bad("admission.target_ms", reason));
        }
        let calls = within(
            "admission.max_calls_per_account",
            self.max_calls_per_account,
            wire::MAX_CALLS_PER_ACCOUNT,
            1..=1_000_000,
        )?;
        let streams = within(
            "admission.max_streams_per_account",
            self.max_streams_per_account,
            wire::MAX_STREAMS_PER_ACCOUNT,
            1..=1_000_000,
        )?;
        Ok(Admission {
            shedding: (late > 0).then(|| Shedding {
                late: Duration::from_millis(late),
                target: Duration::from_millis(target),
                interval: Duration::from_millis(interval),
            }),
            max_calls_per_account: calls,
            max_streams_per_account: streams,
        })
    }
}
