//! The steps that put nginx, HAProxy and Envoy before larder.

use std::path::PathBuf;
use std::process::Command;

use crate::cache;
use crate::clients::{path_with, python};
use crate::runner::{Done, Shell};
use crate::steps::built;
use crate::tours::build_folder;

/// Tests of `clients/python` that have steps of their own: they need programs
/// that the others do not.
pub(crate) const TESTS: [&str; 2] = ["test_balancers.py", "test_balancers_go.py"];

/// With clients on gRPC's C core.
pub(crate) fn end_to_end(shell: &Shell) -> anyhow::Result<Done> {
    run(shell, tests(shell, TESTS[0])?)
}

/// With clients on grpc-go.
pub(crate) fn end_to_end_go(shell: &Shell) -> anyhow::Result<Done> {
    let program = build_folder(shell, "go")?.join("balanced");
    shell.run(
        shell
            .command("go", "clients/go")
            .args(["build", "-o"])
            .arg(&program)
            .arg("./cmd/balanced"),
    )?;
    let mut tests = tests(shell, TESTS[1])?;
    tests.env("LARDER_BALANCED", program);
    run(shell, tests)
}

fn tests(shell: &Shell, file: &str) -> anyhow::Result<Command> {
    let mut tests = shell.command(python(shell)?.join("python"), "clients/python");
    tests
        .args(["-m", "pytest", "--durations=10", file])
        .env("LARDER_BIN", built(shell, "larder")?);
    Ok(tests)
}

/// nginx and HAProxy are Debian's, and there when this runs. Envoy is downloaded;
/// where it cannot be, the other two are tested, and the summary says so.
fn run(shell: &Shell, mut tests: Command) -> anyhow::Result<Done> {
    match envoy(shell) {
        Ok(folder) => {
            tests
                .env("PATH", path_with(&folder)?)
                .env("LARDER_BALANCERS", "nginx,haproxy,envoy");
            shell.run(&mut tests)?;
            Ok(Done::Passed)
        }
        Err(error) if shell.ci => Err(error.context("Envoy cannot be installed")),
        Err(error) => {
            shell.run(tests.env("LARDER_BALANCERS", "nginx,haproxy"))?;
            let why = format!("ENVOY WAS NOT TESTED: it cannot be installed ({error})");
            Ok(Done::Counted(why))
        }
    }
}

/// Finds or installs Envoy; returns its folder.
fn envoy(shell: &Shell) -> anyhow::Result<PathBuf> {
    let requirements = shell.root.join("clients/python/balancers.txt");
    let files = [requirements.clone()];
    let pip = python(shell)?.join("pip");
    let folder = cache::folder(&shell.cache, "envoy", &[], &files, |folder| {
        let mut install = shell.command(&pip, ".");
        install.args(["install", "--quiet", "--require-hashes", "--no-deps"]);
        shell.run(
            install
                .arg("--target")
                .arg(folder)
                .arg("-r")
                .arg(&requirements),
        )
    })?;
    Ok(folder.join("envoy/_bin"))
}
