//! The log of who did what: changes of the control plane, what an operator has the
//! server do, and callers who were turned away. One line each, as JSON in a file of
//! its own, or under the target `audit` in the server's log.
//!
//! A line holds names and reasons, and never a message, a value or a secret: what
//! a request says is in it only once it was parsed into a name.
//!
//! Lines in a file are written where they arise, one `write` each: an
//! administrator's change has waited for a sync of the disk already, and all
//! others come no faster than the settings allow. So a caller who is turned away a
//! million times fills no disk; how many lines were left out is told.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder_accounts::Action;
use larder_api::errors::{Code, Reason};
use larder_model::{Mode, Store};
use larder_transport::serve::Peer;
use parking_lot::Mutex;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::call::{Call, Outcome};
use crate::clock;
use crate::config::AuditConfig;
use crate::methods::Access;
use crate::rate::RateLimiter;

/// The target in the server's log.
const AUDIT: &str = "audit";
/// How often lines that were left out are told, if no other line tells them.
pub(crate) const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// Where lines go.
pub(crate) struct Audit {
    /// `None`: to the server's log.
    file: Mutex<Option<Opened>>,
    /// Lines that any caller can cause.
    by_anybody: RateLimiter,
    suppressed: AtomicU64,
}

/// A file that lines are appended to.
#[derive(Debug)]
struct Opened {
    path: PathBuf,
    file: File,
}

impl Opened {
    fn open(path: &Path) -> io::Result<Self> {
        let file = append_to(path)?;
        let path = path.to_owned();
        Ok(Self { path, file })
    }
}

/// Other settings, whose file is open: they can be put in force.
#[derive(Debug)]
pub(crate) struct Prepared {
    file: Option<Opened>,
    failures_per_second: u64,
}

/// One line.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Line<'a> {
    time: String,
    /// Who: a token's name, a certificate's, or `-` where nobody was recognised.
    pub(crate) actor: &'a str,
    /// The actor's account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) account: Option<&'a str>,
    /// From where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<String>,
    /// A method, or `drain`, `reload`.
    pub(crate) action: &'a str,
    /// What it was done to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resource: Option<&'a str>,
    /// The status.
    pub(crate) outcome: &'a str,
    /// `ErrorInfo.reason`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'a str>,
    /// Nothing was changed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) dry_run: bool,
    /// The trace that the call is part of (W3C Trace Context).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trace_id: Option<&'a str>,
    /// Lines about callers that were left out since the last one.
    #[serde(skip_serializing_if = "is_zero")]
    suppressed: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Audit {
    /// Opens the file, which only its owner may read.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn open(config: &AuditConfig) -> io::Result<Self> {
        let Prepared {
            file,
            failures_per_second,
        } = Self::prepare(config)?;
        Ok(Self {
            file: Mutex::new(file),
            by_anybody: RateLimiter::at_most(failures_per_second),
            suppressed: AtomicU64::new(0),
        })
    }

    /// Opens the file that other settings name, and changes nothing yet.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn prepare(config: &AuditConfig) -> io::Result<Prepared> {
        let file = config.file.as_deref().map(Opened::open).transpose()?;
        Ok(Prepared {
            file,
            failures_per_second: config.failures_per_second,
        })
    }

    /// From the next line on, these settings hold.
    pub(crate) fn replace(&self, prepared: Prepared) {
        *self.file.lock() = prepared.file;
        self.by_anybody.set_most(prepared.failures_per_second);
    }

    /// Opens the file again: another program may have moved it away. If that fails,
    /// lines go on to where it is now.
    pub(crate) fn reopen(&self) {
        if let Some(opened) = &mut *self.file.lock() {
            match append_to(&opened.path) {
                Ok(file) => opened.file = file,
                Err(error) => told(opened, &error),
            }
        }
    }

    /// Writes a line that no stranger can cause.
    pub(crate) fn write(&self, mut line: Line<'_>) {
        line.suppressed = self.suppressed.swap(0, Ordering::Relaxed);
        self.put(line);
    }

    /// What an operator had the server do.
    pub(crate) fn operator(&self, action: &str, outcome: &str) {
        self.write(Line {
            actor: "operator",
            action,
            outcome,
            ..Line::default()
        });
    }

    /// Tells how many lines were left out, if some were.
    pub(crate) fn tell_suppressed(&self) {
        let suppressed = self.suppressed.swap(0, Ordering::Relaxed);
        if suppressed > 0 {
            self.put(Line {
                actor: "-",
                action: "suppressed",
                outcome: "OK",
                suppressed,
                ..Line::default()
            });
        }
    }

    fn put(&self, mut line: Line<'_>) {
        line.time = now();
        if !self.put_in_file(&line) {
            // The log has a thread and a queue of its own, and waits for no reader.
            to_log(&line);
        }
    }

    /// False if there is no file, or it takes nothing.
    fn put_in_file(&self, line: &Line<'_>) -> bool {
        let mut opened = self.file.lock();
        let Some(opened) = &mut *opened else {
            return false;
        };
        let written = serde_json::to_vec(line)
            .map_err(io::Error::other)
            .and_then(|mut text| {
                text.push(b'\n');
                opened.file.write_all(&text)
            });
        written.inspect_err(|error| told(opened, error)).is_ok()
    }
}

fn told(opened: &Opened, error: &io::Error) {
    tracing::error!(path = %opened.path.display(), %error, "audit.file");
}

/// Opens a regular file: a pipe or a terminal would wait for its reader, when it is opened
/// and for each line, and calls with it.
fn append_to(path: &Path) -> io::Result<File> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            let why = "is no regular file; without audit.file the lines are in the server's log";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600).open(path)
}

fn to_log(line: &Line<'_>) {
    tracing::info!(
        target: AUDIT,
        actor = line.actor,
        account = line.account,
        peer = line.peer,
        action = line.action,
        resource = line.resource,
        outcome = line.outcome,
        reason = line.reason,
        dry_run = line.dry_run,
        trace_id = line.trace_id,
        suppressed = line.suppressed,
        "audit",
    );
}

fn now() -> String {
    let nanos = i128::from(clock::unix_millis()) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// Whose call it was, as far as that is known.
fn actor<S: Store>(call: &Call<S>) -> String {
    match call.identity() {
        Some(identity) => identity.grant.holder.to_string(),
        None => "-".to_owned(),
    }
}

/// Writes the line of a call that has ended, if it has one: changes of the control
/// plane, loads, and callers that were turned away.
#[cold]
pub(crate) fn ended<S: Store>(call: &Call<S>, outcome: Outcome) {
    let denied = matches!(
        outcome.reason,
        Some(
            Reason::TokenMissing | Reason::TokenInvalid | Reason::ScopeDenied | Reason::HostDenied
        )
    );
    if !denied && !call.method.audited {
        return;
    }
    let audit = &call.core().audit;
    let may_administer = |rights: &larder_accounts::TokenRights| rights.allows(Action::Admin);
    let by_administrator = call
        .identity()
        .is_some_and(|identity| may_administer(identity.rights()))
        && matches!(call.method.access, Access::Control(Action::Admin));
    if !by_administrator && audit.by_anybody.take(clock::instant()).is_err() {
        audit.suppressed.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let peer = match call.connection.peer {
        Peer::Unix => "unix".to_owned(),
        Peer::Tcp(address) => address.to_string(),
    };
    audit.write(Line {
        actor: &actor(call),
        account: call
            .identity()
            .map(|identity| identity.tenant.name().as_str()),
        peer: Some(peer),
        action: call.method.path,
        resource: call.concerned(),
        outcome: outcome.code.name(),
        reason: outcome.reason.map(Reason::name),
        dry_run: call.was_dry() || call.dry_run == Mode::DryRun && outcome.code == Code::Ok,
        trace_id: call.trace_id(),
        ..Line::default()
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_appended_to_a_file_of_the_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let audit = Audit::open(&AuditConfig {
            file: Some(path.clone()),
            failures_per_second: 1,
        })
        .unwrap();
        audit.operator("reload", "OK");
        audit.suppressed.fetch_add(7, Ordering::Relaxed);
        audit.tell_suppressed();
        audit.tell_suppressed();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // Moved away by another program.
        std::fs::rename(&path, folder.path().join("audit.log.1")).unwrap();
        audit.reopen();
        audit.operator("drain", "OK");

        let read = |name: &str| -> Vec<serde_json::Value> {
            let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
            let lines = text.lines().map(serde_json::from_str);
            lines.collect::<Result<_, _>>().unwrap()
        };
        let old = read("audit.log.1");
        assert_eq!(old.len(), 2);
        assert_eq!(old[0]["action"], "reload");
        assert_eq!(old[0]["actor"], "operator");
        assert!(old[0]["time"].as_str().unwrap().ends_with('Z'));
        assert_eq!(old[1]["suppressed"], 7);
        let new = read("audit.log");
        assert_eq!(new.len(), 1);
        assert_eq!(new[0]["action"], "drain");

        // Another file, one that cannot be, and none.
        let to = |name: &str| AuditConfig {
            file: Some(folder.path().join(name)),
            failures_per_second: 1,
        };
        audit.replace(Audit::prepare(&to("other.log")).unwrap());
        audit.operator("reload", "OK");
        assert!(Audit::prepare(&to("none/audit.log")).is_err());
        // It would be waited for: a socket here, as a pipe takes more to make.
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket"));
        let refused = Audit::prepare(&to("socket")).unwrap_err().to_string();
        assert!(refused.contains("no regular file"), "{refused}");
        audit.operator("drain", "OK");
        audit.replace(Audit::prepare(&AuditConfig::default()).unwrap());
        audit.operator("reload", "OK");
        let actions = |name| -> Vec<_> {
            let lines = read(name).into_iter();
            lines.map(|line| line["action"].clone()).collect()
        };
        assert_eq!(actions("other.log"), ["reload", "drain"]);
        assert_eq!(actions("audit.log"), ["drain"]);
    }
}
