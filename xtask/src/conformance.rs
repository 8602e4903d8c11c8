//! The steps that prove the transport right with tools that were written
//! elsewhere: h2spec, and the Connect conformance suite.
//!
//! A tool that runs no case has none that fails; so the number of cases is known
//! here, and has to be met.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};

use crate::cache;
use crate::runner::{Done, Shell};
use crate::steps::built;

/// As Go names them; `xtask/tools/conformance/go.mod` pins them.
const TOOLS: [&str; 2] = [
    "connectrpc.com/conformance/cmd/connectconformance",
    "github.com/summerwind/h2spec/cmd/h2spec",
];

/// Cases of h2spec, the strict ones among them.
const H2SPEC_CASES: u32 = 146;

/// Cases of the Connect conformance suite for what `conformance/suite.yaml` says
/// that the server supports.
const SUITE_CASES: u32 = 5534;

/// Installs the tools.
pub(crate) fn set_up(shell: &Shell) -> anyhow::Result<Done> {
    tools(shell)?;
    Ok(Done::Passed)
}

/// Finds or builds the tools; returns their folder.
fn tools(shell: &Shell) -> anyhow::Result<PathBuf> {
    let module = "xtask/tools/conformance";
    let files = ["go.mod", "go.sum"].map(|name| shell.root.join(module).join(name));
    cache::folder(&shell.cache, "conformance", &TOOLS, &files, |folder| {
        shell.run(
            shell
                .command("go", module)
                .args(["build", "-o"])
                .arg(folder)
                .args(TOOLS),
        )
    })
}

/// RFC 9113 and RFC 7541, as h2spec reads them.
pub(crate) fn h2spec(shell: &Shell) -> anyhow::Result<Done> {
    let program = built(shell, "examples/echo_cache")?;
    let server = shell.serve(shell.command(program, ".").arg("127.0.0.1:0"))?;
    let (host, port) = server
        .address
        .rsplit_once(':')
        .context("an address has a port")?;
    let output = shell.run_and_read(
        shell
            .command(tools(shell)?.join("h2spec"), ".")
            .args(["--strict", "--host", host, "--port", port]),
    )?;
    let expected = format!("{H2SPEC_CASES} tests, {H2SPEC_CASES} passed, 0 skipped, 0 failed");
    ensure!(
        output.lines().any(|line| line == expected),
        "h2spec was to say: {expected}"
    );
    Ok(Done::Counted(format!("{H2SPEC_CASES} cases")))
}

/// Every protocol on the general lane.
pub(crate) fn general_lane(shell: &Shell) -> anyhow::Result<Done> {
    suite(shell, "general")
}

/// The same, with the typed lane for what it takes.
pub(crate) fn typed_lane(shell: &Shell) -> anyhow::Result<Done> {
    suite(shell, "typed")
}

fn suite(shell: &Shell, lane: &str) -> anyhow::Result<Done> {
    let output = shell.run_and_read(
        shell
            .command(tools(shell)?.join("connectconformance"), ".")
            .args(["--mode", "server", "--conf", "conformance/suite.yaml", "--"])
            .arg(built(shell, "larder-conformance")?)
            .arg(lane),
    )?;
    let expected = format!("{SUITE_CASES} passed, 0 failed");
    ensure!(
        output.lines().any(|line| line == expected),
        "the suite was to say: {expected}"
    );
    Ok(Done::Counted(format!("{SUITE_CASES} cases")))
}
