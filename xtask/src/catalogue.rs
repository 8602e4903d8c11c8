//! `cargo xtask gen`: the page of the catalogue of errors.

use std::path::Path;

use anyhow::Context as _;

// The catalogue needs nothing but the standard library, so it is compiled here
// a second time: `larder-api` itself brings the whole protocol layer.
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the page is all that is wanted here"
)]
#[path = "../../api/src/errors.rs"]
mod errors;

/// Writes `docs/errors.md`; a test of `larder-api` fails when it is old.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write(root: &Path) -> anyhow::Result<()> {
    let page = root.join("docs/errors.md");
    let folder = page.parent().context("docs/errors.md has a folder")?;
    std::fs::create_dir_all(folder)?;
    std::fs::write(&page, errors::markdown())
        .with_context(|| format!("cannot write {}", page.display()))?;
    println!("wrote docs/errors.md");
    Ok(())
}
