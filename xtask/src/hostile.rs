//! `cargo xtask fuzz` and `cargo xtask torture`: they build what they need, and
//! hand over to it.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};

/// Runs `larder-fuzz`, or cargo-fuzz.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn fuzz(root: &Path, libfuzzer: bool, arguments: &[String]) -> anyhow::Result<ExitCode> {
    let mut command = Command::new("cargo");
    if libfuzzer {
        let target = arguments.first().context("--libfuzzer needs a target")?;
        let folder = match &target[..] {
            "frames" | "connection_bytes" => "conversations",
            other => other,
        };
        // New inputs go to the first folder, and stay out of the repository.
        let found = root.join(".cache/fuzz").join(target);
        std::fs::create_dir_all(&found)?;
        // Nothing here is unsafe: no sanitizer would find anything.
        command
            .args(["+nightly", "fuzz", "run", "--sanitizer", "none"])
            .args(["--fuzz-dir", "fuzz/libfuzzer", target])
            .arg(found)
            .arg(Path::new("fuzz/corpus").join(folder))
            .arg("--")
            .args(&arguments[1..]);
    } else {
        command
            .args([
                "run",
                "--quiet",
                "--locked",
                "--package",
                "larder-fuzz",
                "--",
            ])
            .args(arguments);
    }
    finish(command.current_dir(root))
}

/// Builds the servers, and runs `larder-torture` on one of them.
///
/// # Errors
/// When they cannot be built, or it cannot be started.
pub(crate) fn torture(
    root: &Path,
    release: bool,
    arguments: &[String],
) -> anyhow::Result<ExitCode> {
    let profile: &[&str] = if release { &["--release"] } else { &[] };
    let builds: [&[&str]; 2] = [
        &["--package", "larder-cli"],
        &["--package", "larder-transport", "--example", "echo_cache"],
    ];
    for build in builds {
        let mut command = Command::new("cargo");
        command
            .args(["build", "--quiet", "--locked"])
            .args(build)
            .args(profile);
        if !command.current_dir(root).status()?.success() {
            bail!("there is nothing to attack: {} cannot be built", build[1]);
        }
    }
    let mut command = Command::new("cargo");
    command
        .args(["run", "--quiet", "--locked", "--package", "larder-torture"])
        .args(profile)
        .arg("--")
        .args(arguments);
    finish(command.current_dir(root))
}

/// Runs a command to its end; its exit status is ours.
fn finish(command: &mut Command) -> anyhow::Result<ExitCode> {
    let status = command.status().context("cannot start cargo")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}
