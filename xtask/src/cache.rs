//! `.cache/`: what the steps download and build, each in a folder named after
//! a hash of the files that decide its content. A changed lock file makes a new
//! folder; deleting `.cache/` is always safe.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Written last, so that a folder cut off half-way is made again.
const COMPLETE: &str = ".complete";

/// Finds or makes `.cache/NAME-HASH`, where the hash is of `keys` and of the
/// content of `files`, and forgets the folders of other hashes.
///
/// # Errors
/// When a file cannot be read, or `make` fails.
pub(crate) fn folder(
    cache: &Path,
    name: &str,
    keys: &[&str],
    files: &[PathBuf],
    make: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    keys.hash(&mut hasher);
    for file in files {
        std::fs::read(file)
            .with_context(|| format!("cannot read {}", file.display()))?
            .hash(&mut hasher);
    }
    let folder = cache.join(format!("{name}-{:016x}", hasher.finish()));
    if folder.join(COMPLETE).exists() {
        return Ok(folder);
    }
    forget(cache, name)?;
    std::fs::create_dir_all(&folder)?;
    make(&folder)?;
    std::fs::write(folder.join(COMPLETE), "")?;
    Ok(folder)
}

/// Deletes every `NAME-HASH`.
fn forget(cache: &Path, name: &str) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(cache)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let is_ours = file_name
            .to_str()
            .and_then(|text| text.strip_prefix(name))
            .and_then(|rest| rest.strip_prefix('-'))
            .is_some_and(|hash| hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()));
        if is_ours {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
