//! Which settings may change while the server runs.

use std::collections::BTreeSet;

use super::Config;
use super::layers::{flat, table};

/// Settings that a running server takes on. For `[transport]`: connections that
/// begin from then on.
const CHANGEABLE: &[&str] = &[
    "log_filter",
    "log_calls_per_second",
    "max_key_bytes",
    "max_value_bytes",
    "max_batch_keys",
    "max_list_page",
    "drain_grace_seconds",
    "snapshot.interval_seconds",
    "cors_origin",
    "audit.file",
    "audit.failures_per_second",
];
/// Of the transport, those that all connections share.
const SHARED: &[&str] = &[
    "transport.max_unproven_connections",
    "transport.max_handshakes",
    "transport.max_buffered_bytes",
];

/// What a new configuration changes. Empty: nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes(pub BTreeSet<String>);

/// A new configuration that changes what only a restart can.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("these settings cannot change while the server runs: {}", settings.join(", "))]
pub struct NeedsRestart {
    /// Their names.
    pub settings: Vec<String>,
}

impl Config {
    /// What `new` changes, if a running server can take on all of it.
    ///
    /// # Errors
    /// [`NeedsRestart`] names every setting that it cannot.
    pub fn changes(&self, new: &Self) -> Result<Changes, NeedsRestart> {
        let old = flat(&table(&self.settings()));
        let new_values = flat(&table(&new.settings()));
        let names: BTreeSet<&String> = old.keys().chain(new_values.keys()).collect();
        let differs = |name: &&String| old.get(*name) != new_values.get(*name);
        let mut changed: BTreeSet<String> = names.into_iter().filter(differs).cloned().collect();
        if self.anonymous != new.anonymous {
            changed.insert("anonymous".to_owned());
        }
        let settings: Vec<_> = changed
            .iter()
            .filter(|name| !may_change(name))
            .cloned()
            .collect();
        if settings.is_empty() {
            Ok(Changes(changed))
        } else {
            Err(NeedsRestart { settings })
        }
    }
}

fn may_change(name: &str) -> bool {
    CHANGEABLE.contains(&name) || name.starts_with("transport.") && !SHARED.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;

    #[test]
    fn all_or_nothing_is_taken_on() {
        let check = |old: &str, new: &str, changed: Result<&[&str], &[&str]>| {
            let (old, new) = (parse(old).expect(old), parse(new).expect(new));
            let changes = old.changes(&new);
            let changes = changes.map(|it| it.0.into_iter().collect::<Vec<_>>());
            let changes = changes.map_err(|it| it.settings);
            let expected = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect();
            assert_eq!(changes, changed.map(expected).map_err(expected));
        };
        check("", "", Ok(&[]));
        check(
            "",
            "max_key_bytes = 10\nlog_calls_per_second = 0\n[transport]\nidle_seconds = 5",
            Ok(&[
                "log_calls_per_second",
                "max_key_bytes",
                "transport.idle_seconds",
            ]),
        );
        check(
            "threads = 1\nmax_key_bytes = 5",
            "threads = 2\nadmin = '127.0.0.1:1'",
            Err(&["admin", "threads"]),
        );
        check(
            "",
            "listen = ['127.0.0.1:1']\nmax_key_bytes = 7",
            Err(&["listen"]),
        );
        check("", "anonymous = 'other'", Err(&["anonymous"]));
        check(
            "",
            "[snapshot]\ninterval_seconds = 7",
            Ok(&["snapshot.interval_seconds"]),
        );
        check(
            "[snapshot]\nenabled = true",
            "[snapshot]\nload_after_crash = false",
            Err(&["snapshot.load_after_crash"]),
        );
        check(
            "cors_origin = ['https://a.example']",
            "cors_origin = ['https://b.example']\n[audit]\nfile = 'a'\nfailures_per_second = 1",
            Ok(&["audit.failures_per_second", "audit.file", "cors_origin"]),
        );
        check("", "max_memory = '2GiB'", Err(&["max_memory"]));
        check(
            "",
            "[transport]\nmax_handshakes = 7",
            Err(&["transport.max_handshakes"]),
        );
    }
}
