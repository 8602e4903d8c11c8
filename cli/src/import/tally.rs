//! What became of the keys of an import.

use std::collections::BTreeMap;

use larder_client::{Code, Error};
use serde_json::{Value, json};

use crate::command::dry;
use crate::failure::Failure;
use crate::output::{Output, escape, key_object};

/// Most kinds of values that are told apart, as far as modules bring their own.
const MAX_KINDS: usize = 64;

/// Counts of keys. A key that the walk met twice is counted twice.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Keys that the walk has met.
    pub(super) scanned: u64,
    /// Entries written, or in a dry run fit to be.
    pub(super) stored: u64,
    /// Left alone since larder has the key.
    pub(super) existing: u64,
    /// Deleted or expired between the walk and the reading.
    pub(super) gone: u64,
    /// Refused by the server, or by its limits.
    pub(super) refused: u64,
    /// Why the first of them was.
    pub(super) first_refusal: Option<Refusal>,
    /// Of kinds that larder has not: the kind, how many, and one of them.
    pub(super) skipped: BTreeMap<String, (u64, Vec<u8>)>,
}

#[derive(Debug)]
pub(super) struct Refusal {
    code: &'static str,
    reason: String,
    message: String,
}

impl Tally {
    /// A key whose value is no string.
    pub(super) fn skip(&mut self, kind: &str, key: &[u8]) {
        let kind = match self.skipped.contains_key(kind) || self.skipped.len() < MAX_KINDS {
            true => kind,
            false => "other",
        };
        let (count, _) = self
            .skipped
            .entry(kind.to_owned())
            .or_insert_with(|| (0, key.to_vec()));
        *count += 1;
    }

    /// An entry that the server has refused.
    pub(super) fn refuse(&mut self, error: &Error) {
        self.refused += 1;
        self.first_refusal.get_or_insert_with(|| Refusal {
            code: error.code().name(),
            reason: error.reason_name().unwrap_or_default().to_owned(),
            message: error.message().to_owned(),
        });
    }

    /// An entry that is not sent: the server would refuse it.
    pub(super) fn refuse_unsent(&mut self, reason: &str, message: String) {
        self.refused += 1;
        self.first_refusal.get_or_insert_with(|| Refusal {
            code: Code::InvalidArgument.name(),
            reason: reason.to_owned(),
            message,
        });
    }

    /// The failure of an import in which something was refused.
    pub(super) fn failure(&self) -> Option<Failure> {
        let first = self.first_refusal.as_ref()?;
        let message = &first.message;
        Some(Failure::Failed(format!(
            "{} refused, the first of them: {message}",
            entries(self.refused)
        )))
    }

    /// `{"scanned", "stored", "existing", "gone", "refused", "first_refusal", "skipped",
    /// "dry_run"}`; `skipped` has an object `{"count", "first_key"}` for each kind.
    pub(super) fn print(&self, dry_run: bool, out: &mut Output) -> Result<(), Failure> {
        let skipped: BTreeMap<&str, Value> = self
            .skipped
            .iter()
            .map(|(kind, (count, key))| {
                let mut object = key_object(key);
                object.insert("count".into(), (*count).into());
                (kind.as_str(), Value::Object(object))
            })
            .collect();
        let object = json!({
            "scanned": self.scanned,
            "stored": self.stored,
            "existing": self.existing,
            "gone": self.gone,
            "refused": self.refused,
            "first_refusal": self.first_refusal.as_ref().map(|first| json!({
                "code": first.code,
                "reason": first.reason,
                "message": first.message,
            })),
            "skipped": skipped,
            "dry_run": dry_run,
        });
        Ok(out.result(&object, &self.text(dry_run))?)
    }

    fn text(&self, dry_run: bool) -> String {
        let mut text = format!("{} imported{}", entries(self.stored), dry(dry_run));
        for (count, what) in [
            (self.existing, "there already and left alone"),
            (self.gone, "gone before they were read"),
            (self.refused, "refused"),
        ] {
            if count > 0 {
                text.push_str(&format!(", {count} {what}"));
            }
        }
        let skipped: u64 = self.skipped.values().map(|(count, _)| count).sum();
        if skipped > 0 {
            text.push_str(&format!("\n{skipped} SKIPPED: larder keeps strings only"));
        }
        for (kind, (count, key)) in &self.skipped {
            let (kind, key) = (escape(kind.as_bytes()), escape(key));
            text.push_str(&format!("\n  {count} {kind}, one of them: {key}"));
        }
        text
    }
}

fn entries(count: u64) -> String {
    match count {
        1 => "1 entry".to_owned(),
        _ => format!("{count} entries"),
    }
}
