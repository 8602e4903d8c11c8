//! The data directory: who may read it, and who has it open.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::error::OpenError;

/// Held by the server that has the directory open. The file stays behind: a
/// lock on a file that somebody may delete is no lock.
const LOCK_FILE: &str = "accounts.lock";

/// Holds the directory until it is dropped, or the process ends in any way.
#[derive(Debug)]
#[must_use]
pub(crate) struct DirectoryLock {
    file: File,
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Closing the file does not do: a child process that is just being
        // started holds a copy of it until it runs its own program.
        let _ = self.file.unlock();
    }
}

/// Attaches what was tried, and on what, to an I/O error.
pub(crate) fn io_error(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> OpenError + use<> {
    let path = path.to_owned();
    move |source| OpenError::Io {
        action,
        path,
        source,
    }
}

/// Makes the directory if it is not there, for the owner alone. One that is
/// there keeps its mode: the operator may have chosen it.
pub(crate) fn create(dir: &Path) -> Result<(), OpenError> {
    if dir.is_dir() {
        return Ok(());
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(dir)
        .map_err(io_error("create the data directory", dir))?;
    sync_parent(dir)
}

/// Takes the directory for this server, at once or not at all. The lock is of
/// the operating system: it excludes a second open in this process and in any
/// other, and a crash releases it.
pub(crate) fn lock(dir: &Path) -> Result<DirectoryLock, OpenError> {
    let path = dir.join(LOCK_FILE);
    let mut options = private_file();
    let file = options
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(DirectoryLock { file }),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            path: dir.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(io_error("lock", &path)(error)),
    }
}

/// Makes an empty file for the owner alone; one of that name, left over from a
/// crash, goes.
pub(crate) fn create_file(path: &Path) -> Result<File, OpenError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("remove", path)(error));
        }
        _ => {}
    }
    private_file()
        .create_new(true)
        .open(path)
        .map_err(io_error("create", path))
}

/// Puts `new` in the place of `path`, durably: after a crash `path` is the old
/// file or the new one, whole.
pub(crate) fn replace(new: &Path, path: &Path) -> Result<(), OpenError> {
    std::fs::rename(new, path).map_err(io_error("replace", path))?;
    sync_parent(path)
}

/// Writes a whole file for the owner alone, in one step; see [`replace`].
pub(crate) fn write_file(path: &Path, content: &[u8]) -> Result<(), OpenError> {
    let new = new_path(path);
    let mut file = create_file(&new)?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(io_error("write", &new))?;
    replace(&new, path)
}

/// Where the successor of `path` is made.
pub(crate) fn new_path(path: &Path) -> PathBuf {
    path.with_added_extension("new")
}

fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// A new name is durable only once its directory is.
fn sync_parent(path: &Path) -> Result<(), OpenError> {
    #[cfg(unix)]
    if let Some(parent) = path.parent() {
        let here = parent.as_os_str().is_empty();
        let parent = if here { Path::new(".") } else { parent };
        File::open(parent)
            .and_then(|dir| dir.sync_all())
            .map_err(io_error("sync", parent))?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}
