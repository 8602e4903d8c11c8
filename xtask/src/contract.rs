//! The steps of the contract: its style, and that it still serves the clients of the last
//! release. `proto/released/` has the contract of each, compiled.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::runner::{Done, Shell};
use crate::steps::{buf, cargo_tool};

/// Changes that break clients: what is changed in which file, and the rule of buf that must
/// notice.
const BREAKING: [(&str, &str, &str, &str); 6] = [
    (
        "larder/cache/v1/cache_service.proto",
        "  bytes key = 2;",
        "  bytes key = 22;",
        "field \"2\" with name \"key\" on message \"GetRequest\" was deleted",
    ),
    (
        "larder/cache/v1/cache_service.proto",
        "  bytes key = 2;",
        "  string key = 2;",
        "type",
    ),
    (
        "larder/cache/v1/cache_service.proto",
        "rpc Touch(TouchRequest)",
        "rpc Touched(TouchRequest)",
        "RPC \"Touch\"",
    ),
    (
        "larder/cache/v1/cache_service.proto",
        "rpc Dump(DumpRequest) returns (stream DumpResponse)",
        "rpc Dump(DumpRequest) returns (DumpResponse)",
        "streaming",
    ),
    (
        "larder/accounts/v1/account_service.proto",
        "ACTION_VERIFY = ",
        "ACTION_VERIFIES = ",
        "ACTION_VERIFY",
    ),
    (
        "rpc.proto",
        "string account_token",
        "string token",
        "account_token",
    ),
];

/// The version of cargo-semver-checks that is installed.
const SEMVER_CHECKS: &str = "0.51.0";

/// The crates that outsiders call.
const PUBLIC_CRATES: [&str; 1] = ["larder-client"];

pub(crate) fn lint(shell: &Shell) -> anyhow::Result<Done> {
    shell.run(shell.command(buf(shell)?, "proto").arg("lint"))?;
    Ok(Done::Passed)
}

/// buf.yaml names the rules.
pub(crate) fn breaking(shell: &Shell) -> anyhow::Result<Done> {
    let released = last_release(&shell.root)?;
    let mut compare = shell.command(buf(shell)?, "proto");
    shell.run(compare.args(["breaking", "--against"]).arg(&released))?;
    Ok(Done::Passed)
}

/// Changes a copy of the contract in ways that break clients, and fails if one passes.
pub(crate) fn breaking_is_noticed(shell: &Shell) -> anyhow::Result<Done> {
    let program = buf(shell)?;
    let released = last_release(&shell.root)?;
    let copy = shell.cache.join("breaking");
    for (file, before, after, told) in BREAKING {
        if copy.exists() {
            std::fs::remove_dir_all(&copy)?;
        }
        copy_protos(&shell.root.join("proto"), &copy)?;
        let path = copy.join(file);
        let text = std::fs::read_to_string(&path)?;
        if !text.contains(before) {
            bail!("{file} has no `{before}`: the list of breaking changes is old");
        }
        std::fs::write(&path, text.replacen(before, after, 1))?;
        let mut compare = shell.command(&program, ".");
        compare.current_dir(&copy);
        let output = compare
            .args(["breaking", "--against"])
            .arg(&released)
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        if output.status.success() || !said.contains(told) {
            bail!("{file}: `{after}` for `{before}` passes as no break:\n{said}");
        }
    }
    std::fs::remove_dir_all(&copy)?;
    Ok(Done::Counted(format!("{} kinds of breaks", BREAKING.len())))
}

/// What the crates that outsiders call say in public, against the newest tag `vVERSION`.
/// The checker is built only once there is one: that takes minutes.
pub(crate) fn semver(shell: &Shell) -> anyhow::Result<Done> {
    let mut list = shell.command("git", ".");
    let tags = list
        .args(["tag", "--list", "v*", "--sort=-version:refname"])
        .output()?;
    let tags = String::from_utf8_lossy(&tags.stdout);
    let Some(tag) = tags.lines().next() else {
        return Ok(Done::Skipped(
            "no tag v* to compare with: the Rust crates have not been released, or this clone has no tags".into(),
        ));
    };
    let program = cargo_tool(shell, "cargo-semver-checks", SEMVER_CHECKS)?;
    let mut check = shell.command(program, ".");
    check
        .args(["semver-checks", "--baseline-rev", tag])
        .args(PUBLIC_CRATES.iter().flat_map(|name| ["--package", name]));
    shell.run(&mut check)?;
    Ok(Done::Counted(format!("against {tag}")))
}

/// Compiles the contract into `proto/released/vVERSION.binpb`, against which later ones are
/// compared. Can be repeated until there is a newer one: what is added before a release
/// goes out belongs to it.
///
/// # Errors
/// When there is a newer release, or the contract breaks clients of the newest there is.
pub(crate) fn release(root: &Path, version: &str) -> anyhow::Result<()> {
    let number =
        parse(version).with_context(|| format!("`{version}` is no version, such as 0.2.0"))?;
    let newest = last_release(root)?;
    if version_of(&newest).is_some_and(|newest| number < newest) {
        bail!(
            "{} is newer: an older release is never changed",
            newest.display()
        );
    }
    let shell = Shell::new(root, "release-contract")?;
    breaking(&shell)?;
    let file = root.join(format!("proto/released/v{version}.binpb"));
    let mut build = shell.command(buf(&shell)?, "proto");
    build.args(["build", "--exclude-source-info", "-o"]);
    shell.run(build.arg(&file))?;
    println!("wrote {}", file.display());
    Ok(())
}

/// The compiled contract of the newest release.
fn last_release(root: &Path) -> anyhow::Result<PathBuf> {
    let folder = root.join("proto/released");
    let files = std::fs::read_dir(&folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    newest(&files)
        .with_context(|| format!("{} has no vMAJOR.MINOR.PATCH.binpb", folder.display()))
        .map(Path::to_path_buf)
}

fn newest(files: &[PathBuf]) -> Option<&Path> {
    files
        .iter()
        .filter_map(|path| Some((version_of(path)?, path.as_path())))
        .max_by_key(|(version, _)| *version)
        .map(|(_, path)| path)
}

fn version_of(path: &Path) -> Option<[u64; 3]> {
    let name = path.file_name()?.to_str()?;
    parse(name.strip_prefix('v')?.strip_suffix(".binpb")?)
}

fn parse(version: &str) -> Option<[u64; 3]> {
    let numbers: Vec<u64> = version
        .split('.')
        .map(|number| number.parse().ok())
        .collect::<Option<_>>()?;
    numbers.try_into().ok()
}

/// The sources and buf.yaml; not what is released.
fn copy_protos(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let name = path.file_name().context("a file has a name")?;
        let is_source = path
            .extension()
            .is_some_and(|it| it == "proto" || it == "yaml");
        if path.is_dir() {
            copy_protos(&path, &to.join(name))?;
        } else if is_source {
            std::fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[&str], expected: Option<&str>) {
        let files: Vec<_> = names.iter().map(PathBuf::from).collect();
        assert_eq!(newest(&files), expected.map(Path::new), "{names:?}");
    }

    #[test]
    fn the_newest_release_is_found_by_number() {
        check(&[], None);
        check(&["README.md", "v1.binpb", "v0.1.0.binpb.part"], None);
        check(&["v0.9.0.binpb", "v0.10.0.binpb"], Some("v0.10.0.binpb"));
        check(&["v1.0.0.binpb", "v0.10.2.binpb"], Some("v1.0.0.binpb"));
        check(&["v0.1.10.binpb", "v0.1.9.binpb"], Some("v0.1.10.binpb"));
    }

    #[test]
    fn no_release_of_the_contract_is_ahead_of_the_program() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let released = last_release(&root).unwrap();
        let version = parse(env!("CARGO_PKG_VERSION"));
        assert!(version_of(&released) <= version, "{}", released.display());
    }
}
