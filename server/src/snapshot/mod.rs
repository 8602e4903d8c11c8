//! Snapshots: what is in the store, on disk, so that a restart does not empty it.
//!
//! | file | what |
//! |---|---|
//! | `format.rs` | the bytes of a file |
//! | `requests.rs` | in it, what is remembered of requests with an id |
//! | `save.rs` | the store into a file, while calls go on |
//! | `load.rs` | a file into the store, before the first call |
//! | `directory.rs` | which files there are, and which counts |
//! | `saver.rs` | the thread that saves at an interval, and once more at the end |
//! | `stats.rs` | what `/metrics` tells |
//!
//! The engine walks and fills; it knows no file. A snapshot is loaded before the
//! first call is answered: nothing that it holds can then undo what a client wrote
//! or deleted after the start.

mod directory;
mod format;
mod load;
mod requests;
mod save;
mod saver;
mod stats;

use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use larder_engine::Engine;
use larder_model::{AccountId, Limits, Quota};

use self::directory::{Directory, LastEnd, State};
use self::format::{Header, ReadError};
use self::load::{Loaded, Target, Versions};
pub(crate) use self::saver::Saver;
pub(crate) use self::stats::Stats;
use crate::clock::Clock;
use crate::config::SnapshotConfig;

/// Versions that may have been given out between a snapshot and a crash: more
/// than an account gets in a day of 500,000 writes a second.
const CRASH_VERSIONS: u64 = 1 << 36;

/// The snapshots of a data directory, which no other server uses meanwhile.
pub(crate) struct Snapshots {
    directory: Directory,
    last_end: LastEnd,
    config: SnapshotConfig,
}

/// What decides which entries of a snapshot come back.
pub(crate) struct Admission<'a> {
    pub(crate) limits: Limits,
    /// The quota of an account that is still there; it is given the one that the
    /// account had.
    pub(crate) quota: &'a (dyn Fn(&AccountId, Quota) -> Option<Quota> + Send + Sync),
}

/// A data directory whose snapshots are neither loaded nor made.
pub(crate) fn leave_alone(data_dir: &Path) {
    if let Err(error) = directory::mark_unused(data_dir) {
        tracing::warn!(%error, "the snapshots that are there cannot be marked as out of date");
    }
}

impl Snapshots {
    /// Opens and locks the folder `snapshots` of the data directory.
    ///
    /// # Errors
    /// It cannot be made, or another server uses it.
    pub(crate) fn open(data_dir: &Path, config: SnapshotConfig) -> io::Result<Self> {
        let directory = Directory::open(data_dir)?;
        Ok(Self {
            last_end: directory.last_end(),
            directory,
            config,
        })
    }

    /// Above every version that the servers before gave out to what they saved, and
    /// after it; 0 if there is no snapshot.
    pub(crate) fn end_version(&self) -> u64 {
        let files = self.directory.whole().unwrap_or_default();
        let headers = files.iter().filter_map(|(number, path)| {
            let header = load::header(path).ok()?;
            Some((*number, header))
        });
        let headers: Vec<_> = headers.collect();
        let ends: Vec<u64> = headers.iter().map(|(_, it)| it.end_version).collect();
        let end = ends.iter().copied().max().unwrap_or(0);
        let all_named = headers.iter().all(|(number, it)| it.number == *number);
        // The newest may be the one that cannot be read, or was exchanged.
        let is_exact = self.last_end == LastEnd::Clean && ends.len() == files.len() && all_named;
        if is_exact || ends.is_empty() {
            end
        } else {
            end.saturating_add(CRASH_VERSIONS)
        }
    }

    /// Puts the newest good snapshot into the store, which is empty. A damaged one is
    /// put aside, and the one before tried. From then on, an end without a last
    /// snapshot is a crash.
    ///
    /// # Errors
    /// The folder cannot be read or written, or a file that counts cannot be read.
    /// That one may be good: a server that went on without it would write others, until
    /// it is one too many.
    pub(crate) fn load(
        &self,
        engine: &Engine,
        clock: &Clock,
        admission: &Admission<'_>,
        cancelled: &AtomicBool,
    ) -> io::Result<Option<Loaded>> {
        let is_crash = self.last_end == LastEnd::Crash;
        let files = self.directory.whole()?;
        if is_crash && !self.config.load_after_crash && !files.is_empty() {
            tracing::warn!(
                "the server before ended without its last snapshot, and snapshot.load_after_crash \
                 is off: the cache starts empty"
            );
            self.directory.mark_running()?;
            return Ok(None);
        }
        let mut target = Target {
            engine,
            clock,
            limits: admission.limits,
            versions: if is_crash {
                Versions::New
            } else {
                Versions::Kept
            },
            quota: admission.quota,
        };
        let mut loaded = None;
        for (number, path) in &files {
            match load_one(*number, path, &target, cancelled) {
                Ok(done) => {
                    tell(path, &done, is_crash);
                    loaded = Some(done);
                    break;
                }
                Err(ReadError::Cancelled) => return Ok(None),
                Err(ReadError::Io(error)) => return Err(unreadable(path, &error)),
                Err(error) => self.reject(*number, path, &error),
            }
            // What follows is older than what was acknowledged.
            target.versions = Versions::New;
            if !self.config.load_after_crash {
                break;
            }
        }
        if loaded.is_none() {
            tracing::info!(
                folder = %self.directory.path().display(),
                "no snapshot to load: the cache starts empty"
            );
        }
        self.directory.mark_running()?;
        self.directory.prune();
        Ok(loaded)
    }

    fn reject(&self, number: u64, path: &Path, error: &ReadError) {
        let file = path.display();
        tracing::error!(%file, %error, "THE SNAPSHOT IS NOT LOADED; trying the one before it");
        // Once it is aside, the one before is the newest: a server that ends now, and
        // starts again, must not take it for what was there in the end.
        if let Err(error) = self.directory.mark_running() {
            tracing::error!(%error, "it is not put aside");
            return;
        }
        let (state, until) = if matches!(error, ReadError::UnknownFormat(_)) {
            (
                State::UnknownFormat,
                "it was put aside, and stays until somebody removes it",
            )
        } else {
            (
                State::Damaged,
                "it was put aside, and stays while this server runs",
            )
        };
        match self.directory.put_aside(number, state) {
            Ok(aside) => tracing::error!(file = %aside.display(), "{until}"),
            Err(error) => tracing::error!(%file, %error, "it cannot be put aside"),
        }
    }
}

/// Names the file, and the way out.
fn unreadable(path: &Path, error: &io::Error) -> io::Error {
    let message = format!(
        "{}: cannot be read: {error}; make it readable, or move it away to \
         start without it",
        path.display()
    );
    io::Error::new(error.kind(), message)
}

/// Nothing is in the store unless all of the file is as it was written, under the name
/// that it was written to: an older one must not pass for the newest.
fn load_one(
    number: u64,
    path: &Path,
    target: &Target<'_>,
    cancelled: &AtomicBool,
) -> Result<Loaded, ReadError> {
    named(number, load::verify(path, cancelled)?)?;
    load::fill(path, target, cancelled)
}

/// The header of a file with this number in its name.
const fn named(number: u64, header: Header) -> Result<Header, ReadError> {
    if header.number == number {
        Ok(header)
    } else {
        Err(ReadError::Misnamed {
            name: number,
            header: header.number,
        })
    }
}

fn tell(path: &Path, loaded: &Loaded, is_crash: bool) {
    let file = path.display();
    let Loaded {
        entries,
        requests,
        bytes,
        expired,
        no_account,
        no_room,
        too_long,
    } = *loaded;
    tracing::info!(
        %file, entries, requests, bytes, expired, no_account, no_room, too_long, "loaded a snapshot"
    );
    if is_crash {
        tracing::warn!(
            "the server before ended without its last snapshot: what was written after this one is \
             lost, what was deleted after it is back; all entries have new versions"
        );
    }
}

#[cfg(test)]
mod tests;
