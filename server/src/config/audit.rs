//! The log of who did what: the table `[audit]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ConfigError, within};

/// The table `[audit]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditSettings {
    /// File of its own, appended to; default the server's log.
    pub file: Option<PathBuf>,
    /// Most lines a second about failures of authentication and authorization;
    /// default 10. What is left out is counted.
    pub failures_per_second: Option<u64>,
}

/// The same, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditConfig {
    /// File of its own.
    pub file: Option<PathBuf>,
    /// Most lines a second about failures.
    pub failures_per_second: u64,
}

impl From<&AuditConfig> for AuditSettings {
    fn from(config: &AuditConfig) -> Self {
        Self {
            file: config.file.clone(),
            failures_per_second: Some(config.failures_per_second),
        }
    }
}

pub(super) fn parse(given: Option<&AuditSettings>) -> Result<AuditConfig, ConfigError> {
    let given = given.cloned().unwrap_or_default();
    Ok(AuditConfig {
        failures_per_second: within(
            "audit.failures_per_second",
            given.failures_per_second,
            10,
            0..=10_000,
        )?,
        file: given.file,
    })
}
