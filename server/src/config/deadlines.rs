//! How long calls may take: the table `[deadlines]` of a configuration file.

use std::time::Duration;

use larder_api::wire;
use serde::{Deserialize, Serialize};

use super::{ConfigError, bad, within};
use crate::methods::Method;

/// How long calls may take, as it is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadlineSettings {
    /// See `default_seconds` in `docs/configuration.md`.
    pub default_seconds: Option<u64>,
    /// See `max_seconds` in `docs/configuration.md`.
    pub max_seconds: Option<u64>,
}

/// How long calls may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// A unary call whose caller gives no time.
    pub default: Duration,
    /// Any call, whatever time its caller gives, and a stream whose caller gives none.
    pub max: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            default: wire::DEFAULT_DEADLINE,
            max: wire::MAX_DEADLINE,
        }
    }
}

impl Deadlines {
    /// How long a call may take whose caller gives it `asked`. One that lasts by nature
    /// may last as long as any.
    pub(crate) fn of(&self, method: &Method, asked: Option<Duration>) -> Duration {
        match asked {
            Some(asked) => asked.min(self.max),
            None if method.lasts() => self.max,
            None => self.default,
        }
    }
}

/// A week.
const LONGEST_SECONDS: u64 = 7 * 24 * 3600;

impl From<&Deadlines> for DeadlineSettings {
    fn from(deadlines: &Deadlines) -> Self {
        Self {
            default_seconds: Some(deadlines.default.as_secs()),
            max_seconds: Some(deadlines.max.as_secs()),
        }
    }
}

impl DeadlineSettings {
    /// Checks them.
    ///
    /// # Errors
    /// The first that is out of its range, or a default above the maximum.
    pub(super) fn parse(&self) -> Result<Deadlines, ConfigError> {
        let range = 1..=LONGEST_SECONDS;
        let usual = Deadlines::default();
        let most = usual.max.as_secs();
        let max = within(
            "deadlines.max_seconds",
            self.max_seconds,
            most,
            range.clone(),
        )?;
        let least = usual.default.as_secs().min(max);
        let name = "deadlines.default_seconds";
        let default = within(name, self.default_seconds, least, range)?;
        if default > max {
            let reason = format!("{default} is more than max_seconds, {max}");
            return Err(bad(name, reason));
        }
        Ok(Deadlines {
            default: Duration::from_secs(default),
            max: Duration::from_secs(max),
        })
    }
}
