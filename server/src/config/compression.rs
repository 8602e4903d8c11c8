//! Which answers are compressed: the table `[compression]` of a configuration file.

use larder_api::wire::MAX_MESSAGE_BYTES;
use serde::{Deserialize, Serialize};

use super::{ByteSize, ConfigError, bad, within};

/// Below this, what gzip adds is about what it saves, bytes.
const LEAST_BYTES: u64 = 64;

/// Which answers are compressed, as it is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompressionSettings {
    /// See `answers_above` in `docs/configuration.md`.
    pub answers_above: Option<ByteSize>,
}

/// Which answers are compressed, for callers who offer to read them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compression {
    /// Messages of so many bytes and more; `None`: none.
    pub answers_above: Option<usize>,
}

impl From<&Compression> for CompressionSettings {
    fn from(compression: &Compression) -> Self {
        let bytes = compression.answers_above.unwrap_or(0);
        Self {
            answers_above: Some(ByteSize(bytes as u64)),
        }
    }
}

impl CompressionSettings {
    /// Checks them.
    ///
    /// # Errors
    /// The size is out of its range.
    pub(super) fn parse(&self) -> Result<Compression, ConfigError> {
        let name = "compression.answers_above";
        let given = self.answers_above.map(|size| size.0);
        let most = MAX_MESSAGE_BYTES as u64;
        let bytes = match within(name, given, 0, 0..=most)? {
            0 => return Ok(Compression::default()),
            bytes if bytes < LEAST_BYTES => {
                let reason = format!("{bytes} is neither 0 (none) nor {LEAST_BYTES} to {most}");
                return Err(bad(name, reason));
            }
            bytes => usize::try_from(bytes).map_err(|error| bad(name, error.to_string()))?,
        };
        Ok(Compression {
            answers_above: Some(bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_compressed_from_a_size_that_is_worth_it() {
        let check = |given: Option<u64>, expected: Option<Option<usize>>| {
            let answers_above = given.map(ByteSize);
            let parsed = CompressionSettings { answers_above }.parse();
            assert_eq!(
                parsed.ok().map(|it| it.answers_above),
                expected,
                "{given:?}"
            );
        };
        check(None, Some(None));
        check(Some(0), Some(None));
        check(Some(1), None);
        check(Some(63), None);
        check(Some(64), Some(Some(64)));
        check(Some(5 << 20), Some(Some(5 << 20)));
        check(Some((5 << 20) + 1), None);
    }
}
