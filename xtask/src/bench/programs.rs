//! The programs of a benchmark: larder and its peers are built, Redis and h2load
//! are Debian's.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::machine::first_line;
use crate::cache;
use crate::clients::path_with;
use crate::runner::{Shell, is_on_path};
use crate::steps::{buf, cargo, install_debian, target};

/// Programs of Debian, and their packages.
const DEBIAN: [(&str, &str); 3] = [
    ("redis-server", "redis-server"),
    ("h2load", "nghttp2-client"),
    ("openssl", "openssl"),
];

/// Plugins of buf that write the stubs of the Go peer.
const GO_PLUGINS: [&str; 2] = [
    "google.golang.org/protobuf/cmd/protoc-gen-go",
    "google.golang.org/grpc/cmd/protoc-gen-go-grpc",
];

/// Where the peers lie.
const TONIC: &str = "bench/peers/tonic";
const GRPC_GO: &str = "bench/peers/grpc-go";

/// Where each program is; `None` if the machine has not what it takes.
pub(super) struct Programs {
    pub(super) larder: PathBuf,
    pub(super) tonic: PathBuf,
    pub(super) tonic_tuned: PathBuf,
    pub(super) go: Option<GoPrograms>,
    pub(super) redis: Option<PathBuf>,
    pub(super) h2load: Option<PathBuf>,
    pub(super) openssl: Option<PathBuf>,
    pub(super) echo: Option<PathBuf>,
    /// Names with versions, for the page.
    pub(super) versions: Vec<(String, String)>,
}

/// What is written in Go.
pub(super) struct GoPrograms {
    pub(super) server: PathBuf,
    pub(super) client: PathBuf,
}

impl Programs {
    /// Builds everything.
    ///
    /// # Errors
    /// When something cannot be built. What the machine lacks (Go, Redis,
    /// h2load) is told, and left out.
    pub(super) fn make(
        root: &Path,
        larder: Option<PathBuf>,
        with_echo: bool,
    ) -> anyhow::Result<Self> {
        let shell = Shell::new(root, "bench")?;
        println!("building; the output is in .cache/logs/bench.log");
        install_debian(&shell, &DEBIAN)?;
        let larder = match larder {
            Some(larder) => larder,
            None => build_larder(&shell)?,
        };
        let echo = match with_echo {
            true => Some(build_echo(&shell)?),
            false => None,
        };
        let target = shell.cache.join("bench-tonic");
        build_tonic(&shell, &target, &["--release"])?;
        build_tonic(
            &shell,
            &target,
            &["--profile", "tuned", "--features", "tuned"],
        )?;
        let go = match ["go", "npm", "node"].iter().all(|tool| is_on_path(tool)) {
            true => Some(build_go(&shell)?),
            false => {
                println!("without go, npm or node: grpc-go is left out");
                None
            }
        };
        let find = |program: &str| {
            let found = is_on_path(program).then(|| PathBuf::from(program));
            if found.is_none() {
                println!("{program} is not installed: what needs it is left out");
            }
            found
        };
        let mut programs = Self {
            larder,
            tonic: target.join("release/peer-tonic"),
            tonic_tuned: target.join("tuned/peer-tonic"),
            go,
            redis: find("redis-server"),
            h2load: find("h2load"),
            openssl: find("openssl"),
            echo,
            versions: Vec::new(),
        };
        programs.versions = programs.find_versions(&shell)?;
        Ok(programs)
    }

    fn find_versions(&self, shell: &Shell) -> anyhow::Result<Vec<(String, String)>> {
        let larder = first_line(Command::new(&self.larder).arg("--version"))?;
        let mut describe = shell.command("git", ".");
        let commit = first_line(describe.args(["describe", "--always", "--dirty"]))?;
        let lock = std::fs::read_to_string(shell.root.join(TONIC).join("Cargo.lock"))?;
        let tonic = version_in_lock(&lock, "tonic").context("the peer has tonic in its lock")?;
        let tokio = version_in_lock(&lock, "tokio").context("the peer has tokio in its lock")?;
        let mut versions = vec![
            ("larder".to_owned(), format!("{larder}, commit {commit}")),
            ("tonic".to_owned(), format!("{tonic}, on tokio {tokio}")),
        ];
        let rust = first_line(shell.command("rustc", ".").arg("--version"))?;
        versions.push(("Rust".to_owned(), rust));
        if self.go.is_some() {
            let module = std::fs::read_to_string(shell.root.join(GRPC_GO).join("go.mod"))?;
            let grpc = module
                .lines()
                .find_map(|line| line.trim().strip_prefix("google.golang.org/grpc "))
                .context("the peer has grpc in its go.mod")?;
            let go = first_line(shell.command("go", ".").arg("version"))?;
            versions.push(("grpc-go".to_owned(), format!("{grpc}, {go}")));
        }
        for program in [&self.redis, &self.h2load].into_iter().flatten() {
            let line = first_line(Command::new(program).arg("--version"))?;
            versions.push((program.display().to_string(), line));
        }
        Ok(versions)
    }
}

/// Builds larder for release.
pub(super) fn build_larder(shell: &Shell) -> anyhow::Result<PathBuf> {
    let build = ["build", "--locked", "--release", "--package", "larder-cli"];
    shell.run(cargo(shell).args(build))?;
    Ok(target(shell)?.join("release/larder"))
}

fn build_echo(shell: &Shell) -> anyhow::Result<PathBuf> {
    let example = ["--package", "larder-transport", "--example", "echo_cache"];
    let build = ["build", "--locked", "--release"];
    shell.run(cargo(shell).args(build).args(example))?;
    Ok(target(shell)?.join("release/examples/echo_cache"))
}

/// Builds the peer, its server and its client.
pub(super) fn build_tonic(shell: &Shell, target: &Path, profile: &[&str]) -> anyhow::Result<()> {
    let mut build = shell.command("cargo", TONIC);
    build
        .args(["build", "--locked", "--target-dir"])
        .arg(target);
    shell.run(build.args(profile))
}

fn build_go(shell: &Shell) -> anyhow::Result<GoPrograms> {
    let files = [shell.root.join(GRPC_GO).join("go.sum")];
    let plugins = cache::folder(
        &shell.cache,
        "bench-plugins",
        &GO_PLUGINS,
        &files,
        |folder| {
            let mut build = shell.command("go", GRPC_GO);
            shell.run(build.args(["build", "-o"]).arg(folder).args(GO_PLUGINS))
        },
    )?;
    shell.run(
        shell
            .command(buf(shell)?, GRPC_GO)
            .args(["generate", "--clean"])
            .env("PATH", path_with(&plugins)?),
    )?;
    let programs = shell.cache.join("bench-go");
    std::fs::create_dir_all(&programs)?;
    let mut build = shell.command("go", GRPC_GO);
    build.args(["build", "-o"]).arg(&programs);
    shell.run(build.args(["./server", "./client"]))?;
    Ok(GoPrograms {
        server: programs.join("server"),
        client: programs.join("client"),
    })
}

/// The version of a package in a `Cargo.lock`.
fn version_in_lock<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let name = format!("name = \"{name}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name).skip(1);
    lines
        .next()?
        .strip_prefix("version = \"")?
        .strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_a_lock() {
        let lock = "[[package]]\nname = \"tonic-x\"\nversion = \"1\"\n\n\
            [[package]]\nname = \"tonic\"\nversion = \"0.14.9\"\n";
        assert_eq!(version_in_lock(lock, "tonic"), Some("0.14.9"));
        assert_eq!(version_in_lock(lock, "toni"), None);
    }
}
