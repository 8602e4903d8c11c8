//! The folder of the snapshots: which there are, and in which order. All that
//! happens to it is a whole step that the disk has before the next begins.
//!
//! ```text
//! snapshots/0000000000000007.snapshot   the newest
//! snapshots/0000000000000006.snapshot   the one before, should that be damaged
//! snapshots/0000000000000008.part       being written; means nothing after a crash
//! snapshots/0000000000000005.damaged    put aside, to be looked at
//! snapshots/0000000000000004.unknown-format   a later version's, put aside for it
//! snapshots/running                     there from a start to the last snapshot of a drain
//! snapshots/lock                        held by the server that uses the folder
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

/// Name of the folder in the data directory.
pub(super) const FOLDER: &str = "snapshots";
const LOCK: &str = "lock";
const RUNNING: &str = "running";
/// Whole snapshots that are kept.
const KEPT: usize = 2;
/// Damaged ones that are kept, beside those that were put aside since the start.
const KEPT_DAMAGED: usize = 4;
/// Names that are tried for a snapshot to be put aside under.
const MOST_TRIED: usize = 1000;

/// What became of a snapshot's file, by its extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Whole,
    Part,
    Damaged,
    /// Of a later version of the program, which may be there again.
    UnknownFormat,
}

impl State {
    const fn extension(self) -> &'static str {
        match self {
            Self::Whole => "snapshot",
            Self::Part => "part",
            Self::Damaged => "damaged",
            Self::UnknownFormat => "unknown-format",
        }
    }
}

/// How the server before ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastEnd {
    /// With a snapshot of everything.
    Clean,
    /// Otherwise: the newest snapshot is from some time before.
    Crash,
}

/// The folder, held by this process alone.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// The numbers of those that this process put aside.
    aside: Mutex<Vec<u64>>,
    lock: File,
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Closing the file does not do: a child process that is just being started
        // holds a copy of it until it runs its own program.
        let _ = self.lock.unlock();
    }
}

impl Directory {
    /// Makes the folder if it is not there, and locks it.
    pub(super) fn open(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(FOLDER);
        if !path.is_dir() {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(at(&path))?;
            // A file that is on the disk is of no use in a folder that is not.
            sync(data_dir)?;
            data_dir
                .parent()
                .filter(|it| it.is_dir())
                .map_or(Ok(()), sync)?;
        }
        let lock_path = path.join(LOCK);
        let lock = file_options()
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(at(&lock_path))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                let error = io::Error::new(io::ErrorKind::ResourceBusy, "another server uses it");
                at(&path)(error)
            }
            TryLockError::Error(error) => at(&lock_path)(error),
        })?;
        Ok(Self {
            path,
            aside: Mutex::default(),
            lock,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How the server before ended.
    pub(super) fn last_end(&self) -> LastEnd {
        if self.path.join(RUNNING).exists() {
            LastEnd::Crash
        } else {
            LastEnd::Clean
        }
    }

    /// From now on, an end without a last snapshot is a crash.
    pub(super) fn mark_running(&self) -> io::Result<()> {
        mark(&self.path)
    }

    /// The last snapshot is on the disk.
    pub(super) fn mark_ended(&self) -> io::Result<()> {
        let running = self.path.join(RUNNING);
        match std::fs::remove_file(&running) {
            // Somebody else took it away.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done.map_err(at(&running))?,
        }
        self.sync()
    }

    /// The whole snapshots, newest first.
    pub(super) fn whole(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut files = self.list(State::Whole)?;
        // A pipe would be waited for; a link to a file is as good as the file. What cannot be
        // looked at may be a snapshot.
        files.retain(|(_, path)| match std::fs::metadata(path) {
            Ok(file) => file.is_file(),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        });
        Ok(files)
    }

    /// Whether a whole snapshot is still where it was put.
    pub(super) fn has(&self, number: u64) -> bool {
        self.file(number, State::Whole).is_file()
    }

    /// A number above all there are.
    pub(super) fn next_number(&self) -> io::Result<u64> {
        let states = [
            State::Whole,
            State::Part,
            State::Damaged,
            State::UnknownFormat,
        ];
        let mut newest = 0;
        for state in states {
            newest = newest.max(self.list(state)?.first().map_or(0, |(number, _)| *number));
        }
        Ok(newest.saturating_add(1))
    }

    /// A file for the snapshot to be written to.
    pub(super) fn create(&self, number: u64) -> io::Result<(PathBuf, File)> {
        let path = self.file(number, State::Part);
        let file = file_options().create_new(true).open(&path);
        let file = file.map_err(at(&path))?;
        Ok((path, file))
    }

    /// Gives a snapshot that is on the disk its name, for good.
    pub(super) fn publish(&self, path: &Path, number: u64) -> io::Result<()> {
        std::fs::rename(path, self.file(number, State::Whole))?;
        self.sync()
    }

    /// Puts a snapshot aside that is of no use here: it counts no more, and can be looked
    /// at. If one of its number lies there already, it gets the next number that is free:
    /// numbers of whole ones come again when somebody copies them back.
    pub(super) fn put_aside(&self, number: u64, state: State) -> io::Result<PathBuf> {
        let is_free = |number: &u64| {
            let there = self.file(*number, state).symlink_metadata();
            there.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        // Nobody else makes files here.
        let free = (number..=u64::MAX).take(MOST_TRIED).find(is_free);
        let free = free.ok_or_else(|| {
            let why = "too many with its number, or one above it, were put aside before";
            io::Error::new(io::ErrorKind::AlreadyExists, why)
        })?;
        let aside = self.file(free, state);
        std::fs::rename(self.file(number, State::Whole), &aside)?;
        self.aside.lock().push(free);
        self.sync()?;
        Ok(aside)
    }

    /// Removes what is not needed any more: all but two snapshots, all parts, and of the
    /// damaged ones all but four and those that this process put aside. Those of an
    /// unknown format stay. What cannot be removed is tried again with the next
    /// snapshot.
    pub(super) fn prune(&self) {
        let whole = self.whole().unwrap_or_default();
        let parts = self.list(State::Part).unwrap_or_default();
        let mut damaged = self.list(State::Damaged).unwrap_or_default();
        damaged.drain(..KEPT_DAMAGED.min(damaged.len()));
        let aside = self.aside.lock();
        damaged.retain(|(number, _)| !aside.contains(number));
        drop(aside);
        for (_, path) in whole.into_iter().skip(KEPT).chain(damaged).chain(parts) {
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(file = %path.display(), %error, "an old snapshot cannot be removed");
            }
        }
    }

    fn file(&self, number: u64, state: State) -> PathBuf {
        self.path
            .join(format!("{number:016}.{}", state.extension()))
    }

    /// What has the name of a snapshot in a state, newest first.
    fn list(&self, state: State) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut found = Vec::new();
        let files = std::fs::read_dir(&self.path).map_err(at(&self.path))?;
        for file in files {
            let path = file?.path();
            let has = |name: Option<&std::ffi::OsStr>| {
                name.and_then(|name| name.to_str().map(str::to_owned))
            };
            if has(path.extension()).as_deref() != Some(state.extension()) {
                continue;
            }
            let number = has(path.file_stem()).and_then(|stem| stem.parse().ok());
            if let Some(number) = number
                && path == self.file(number, state)
            {
                found.push((number, path));
            }
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        Ok(found)
    }

    fn sync(&self) -> io::Result<()> {
        sync(&self.path)
    }
}

/// A server that makes no snapshots has used the data directory: those that are
/// there are from before it.
pub(super) fn mark_unused(data_dir: &Path) -> io::Result<()> {
    let folder = data_dir.join(FOLDER);
    if folder.is_dir() {
        mark(&folder)
    } else {
        Ok(())
    }
}

fn mark(folder: &Path) -> io::Result<()> {
    let running = folder.join(RUNNING);
    file_options()
        .create(true)
        .truncate(false)
        .open(&running)
        .and_then(|file| file.sync_all())
        .map_err(at(&running))?;
    sync(folder)
}

/// Says of which file or folder an error is.
fn at(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The names in a folder are on the disk.
fn sync(folder: &Path) -> io::Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(at(folder))
}

/// Values are for their owner's eyes.
fn file_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}
