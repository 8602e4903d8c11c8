//! The steps of the clients in other languages, and of tonic.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::balancers;
use crate::cache;
use crate::runner::{Done, Shell};
use crate::steps::{buf, built, cargo, npm_packages, target};

/// Plugins of buf that write the Go stubs; go.mod pins them.
const GO_PLUGINS: [&str; 2] = [
    "google.golang.org/protobuf/cmd/protoc-gen-go",
    "google.golang.org/grpc/cmd/protoc-gen-go-grpc",
];

/// Tests of `clients/python` that have a step of their own: they need a Redis, or PHP.
const IMPORT_TESTS: &str = "test_import.py";
const PHP_TESTS: &str = "test_php.py";

pub(crate) fn setup_python(shell: &Shell) -> anyhow::Result<Done> {
    python(shell)?;
    Ok(Done::Passed)
}

/// Finds or makes the Python environment; returns its folder of programs.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn python(shell: &Shell) -> anyhow::Result<PathBuf> {
    python_with(shell, "python", "clients/python/requirements.txt")
}

/// Finds or makes an environment with what a file pins; returns its folder of programs.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn python_with(
    shell: &Shell,
    name: &str,
    requirements: &str,
) -> anyhow::Result<PathBuf> {
    let requirements = shell.root.join(requirements);
    let files = [requirements.clone()];
    let folder = cache::folder(&shell.cache, name, &[], &files, |folder| {
        shell.run(
            shell
                .command("python3", ".")
                .args(["-m", "venv", "--clear"])
                .arg(folder),
        )?;
        shell.run(
            shell
                .command(folder.join("bin/pip"), ".")
                .args(["install", "--quiet", "--require-hashes", "--no-deps", "-r"])
                .arg(&requirements),
        )
    })?;
    Ok(folder.join("bin"))
}

pub(crate) fn python_lint(shell: &Shell) -> anyhow::Result<Done> {
    let ruff = python(shell)?.join("ruff");
    let folder = "clients/python";
    shell.run(
        shell
            .command(&ruff, folder)
            .args(["format", "--check", "."]),
    )?;
    shell.run(shell.command(&ruff, folder).args(["check", "."]))?;
    Ok(Done::Passed)
}

/// All but those that have a step of their own.
pub(crate) fn e2e_python(shell: &Shell) -> anyhow::Result<Done> {
    let [balanced, balanced_go] = balancers::TESTS;
    let others = [balanced, balanced_go, IMPORT_TESTS, PHP_TESTS];
    pytest(shell, others.map(|tests| format!("--ignore={tests}")))
}

pub(crate) fn e2e_import(shell: &Shell) -> anyhow::Result<Done> {
    pytest(shell, [IMPORT_TESTS])
}

pub(crate) fn e2e_php(shell: &Shell) -> anyhow::Result<Done> {
    pytest(shell, [PHP_TESTS])
}

fn pytest<const N: usize>(
    shell: &Shell,
    arguments: [impl AsRef<OsStr>; N],
) -> anyhow::Result<Done> {
    shell.run(
        shell
            .command(python(shell)?.join("python"), "clients/python")
            .args(["-m", "pytest", "--durations=10"])
            .args(arguments)
            .env("LARDER_BIN", built(shell, "larder")?),
    )?;
    Ok(Done::Passed)
}

/// The stubs are written again each time: that takes a second, and they are
/// never old.
pub(crate) fn setup_go(shell: &Shell) -> anyhow::Result<Done> {
    let files = [shell.root.join("clients/go/go.sum")];
    let folder = cache::folder(&shell.cache, "go", &GO_PLUGINS, &files, |folder| {
        shell.run(
            shell
                .command("go", "clients/go")
                .args(["build", "-o"])
                .arg(folder)
                .args(GO_PLUGINS),
        )
    })?;
    shell.run(
        shell
            .command(buf(shell)?, "clients/go")
            .args(["generate", "--clean"])
            .env("PATH", path_with(&folder)?),
    )?;
    Ok(Done::Passed)
}

pub(crate) fn go_lint(shell: &Shell) -> anyhow::Result<Done> {
    // gofmt lists what it would change, and does not fail.
    shell.run(
        shell
            .command("sh", "clients/go")
            .args(["-c", "gofmt -d . | tee /dev/stderr | (! grep -q .)"]),
    )?;
    shell.run(
        shell
            .command("sh", "bench/peers/grpc-go")
            .args(["-c", "gofmt -d . | tee /dev/stderr | (! grep -q .)"]),
    )?;
    shell.run(shell.command("go", "clients/go").args(["vet", "./..."]))?;
    Ok(Done::Passed)
}

pub(crate) fn e2e_go(shell: &Shell) -> anyhow::Result<Done> {
    shell.run(
        shell
            .command("go", "clients/go")
            .args(["test", "-count=1", "-timeout=5m", "./..."])
            .env("LARDER_BIN", built(shell, "larder")?),
    )?;
    Ok(Done::Passed)
}

/// Installs what the Node tests use.
pub(crate) fn setup_node(shell: &Shell) -> anyhow::Result<Done> {
    node_modules(shell)?;
    Ok(Done::Passed)
}

fn node_modules(shell: &Shell) -> anyhow::Result<PathBuf> {
    npm_packages(shell, "node", "clients/node")
}

pub(crate) fn e2e_node(shell: &Shell) -> anyhow::Result<Done> {
    shell.run(
        shell
            .command("node", "clients/node")
            .arg("--test")
            .env("NODE_PATH", node_modules(shell)?)
            .env("LARDER_BIN", built(shell, "larder")?),
    )?;
    Ok(Done::Passed)
}

/// A target folder of its own: nothing in it is larder's.
pub(crate) fn e2e_tonic(shell: &Shell) -> anyhow::Result<Done> {
    let folder = shell.root.join("clients/rust-tonic");
    shell.run(cargo(shell).current_dir(&folder).args(["fmt", "--check"]))?;
    shell.run(
        cargo(shell)
            .current_dir(&folder)
            .args(["test", "--locked", "--tests"])
            .env("CARGO_TARGET_DIR", target(shell)?.join("tonic"))
            .env("LARDER_BIN", built(shell, "larder")?),
    )?;
    Ok(Done::Passed)
}

/// The PATH, with `folder` before all others.
pub(crate) fn path_with(folder: &Path) -> anyhow::Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_path_buf()).chain(std::env::split_paths(&path));
    Ok(std::env::join_paths(folders)?)
}
