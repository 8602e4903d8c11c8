//! `larder config check`: what is wrong with a file, by line and name, and what is
//! allowed there.

use std::path::Path;

use super::names::names;
use super::{Config, ConfigError, Role, Settings};

/// Names that are no further away are taken for typing errors.
const MAX_TYPOS: usize = 3;

impl Config {
    /// Reads and checks a file by itself, without the environment or a command line.
    ///
    /// # Errors
    /// [`ConfigError::File`] names the file, the line, the setting, and what it may be.
    pub fn check_file(path: &Path, default_data_dir: &Path) -> Result<Self, ConfigError> {
        let settings = Settings::from_file(path)?;
        Self::parse(Role::Cache, settings, default_data_dir).map_err(|error| match error {
            ConfigError::Setting { setting, reason } => {
                ConfigError::of_file(path, setting, &reason)
            }
            other => other,
        })
    }
}

impl ConfigError {
    /// A setting of a file that cannot be, with the line that it stands on.
    pub fn of_file(path: &Path, setting: &str, reason: &str) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = line_of(&text, setting).map_or(String::new(), |n| format!("line {n}, "));
        Self::File {
            path: path.into(),
            reason: format!("{line}`{setting}`: {reason}"),
        }
    }
}

/// The line of a setting in a file, counted from 1.
fn line_of(text: &str, setting: &str) -> Option<usize> {
    let mut table = String::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[') {
            name.split(']').next()?.trim().clone_into(&mut table);
            continue;
        }
        let (key, _) = line.split_once('=').unwrap_or(("", ""));
        let key = key.trim().trim_matches(['"', '\'']);
        let whole = match table.as_str() {
            "" => key.to_owned(),
            table => format!("{table}.{key}"),
        };
        // `pings = { … }` stands on one line.
        let is_it = whole == setting || setting.starts_with(&format!("{whole}."));
        if !key.is_empty() && is_it {
            return Some(index + 1);
        }
    }
    None
}

/// What somebody may have meant who wrote `given` in the file; the last part of its
/// name.
pub(super) fn suggestion(given: &str) -> Option<String> {
    let known = names().into_iter().map(|name| name.path);
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let near = known.map(|path| (distance(given, &last(&path)), path));
    let (distance, path) = near.min()?;
    (distance <= MAX_TYPOS.min(given.len() / 2)).then_some(path)
}

/// Insertions, deletions and replacements from one to the other (Levenshtein 1966;
/// Wagner and Fischer, 1974).
pub(super) fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (place, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[place + 1];
            row[place + 1] = replaced.min(row[place] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, parts: &[&str]) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("larder.toml");
        std::fs::write(&path, text).expect("the disk has room");
        let error = Config::check_file(&path, Path::new("data")).expect_err(text);
        let message = error.to_string();
        assert!(message.contains("larder.toml"), "{message}");
        for part in parts {
            assert!(message.contains(part), "{text:?}: {message}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_line_and_what_is_allowed() {
        check(
            "threads = 1\nmax_memry = 2",
            &["line 2", "max_memry", "did you mean `max_memory`"],
        );
        check(
            "\nmax_memory = '1MiB'",
            &["line 2", "`max_memory`", "16MiB to 1024TiB"],
        );
        check(
            "threads = 1\n[snapshot]\ninterval_seconds = 99999999",
            &["line 3", "snapshot.interval_seconds", "0 to 604800"],
        );
        check(
            "[transport.abuse]\n\npings = { burst = 0, per_second = 1 }",
            &["line 3", "transport.abuse.pings", "1 to"],
        );
        check(
            "[snapshot]\nintervall_seconds = 1",
            &["line 2", "`snapshot.interval_seconds`"],
        );
        check("log_format = 'xml'", &["line 1", "text", "json", "off"]);
        for (text, kind) in [
            ("max_memory = true", "a size, as \"512MiB\""),
            ("max_memory = -1", "a size, as \"512MiB\""),
            ("threads = 'x'", "a whole number"),
            ("threads = -1", "a whole number"),
            ("listen = 'localhost:1'", "a list, as ["),
            ("shared_keyspace = 1", "true or false"),
            ("snapshot = '5m'", "expected a table"),
            ("telemetry.trace_ratio = 'x'", "expected a number"),
            (
                "transport.max_buffered_bytes = '1 elephant'",
                "the unit must be",
            ),
            ("transport.max_buffered_bytes = '1KiB'", "1MiB to 1TiB"),
        ] {
            let name = text.split(' ').next().expect("a name");
            check(text, &["line 1", name, kind]);
        }
        check("tls_cert = 'a'", &["tls_key"]);
    }

    #[test]
    fn far_away_names_are_not_suggested() {
        assert_eq!(suggestion("thread").as_deref(), Some("threads"));
        assert_eq!(suggestion("zebra"), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
