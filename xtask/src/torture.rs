//! Attacks on a running server, at the size that has a place in the tests; `cargo xtask
//! torture` has others.

use crate::runner::{Done, Shell};
use crate::steps::built;

pub(crate) fn http2(shell: &Shell) -> anyhow::Result<Done> {
    let mut command = shell.command(built(shell, "larder-torture")?, ".");
    let size = ["--seconds", "0.6", "--connections", "1000"];
    shell.run(command.arg("http2").args(size))?;
    Ok(Done::Passed)
}

pub(crate) fn drain(shell: &Shell) -> anyhow::Result<Done> {
    let mut command = shell.command(built(shell, "larder-torture")?, ".");
    shell.run(command.args(["drain", "--rounds", "20"]))?;
    Ok(Done::Passed)
}

/// Six, two of them in the middle of a snapshot.
pub(crate) fn crash(shell: &Shell) -> anyhow::Result<Done> {
    let mut command = shell.command(built(shell, "larder-torture")?, ".");
    shell.run(command.args(["crash", "--rounds", "6"]))?;
    Ok(Done::Passed)
}

pub(crate) fn isolation(shell: &Shell) -> anyhow::Result<Done> {
    let mut command = shell.command(built(shell, "larder-torture")?, ".");
    shell.run(command.args(["isolation", "--attempts", "10000"]))?;
    Ok(Done::Passed)
}

pub(crate) fn rotate(shell: &Shell) -> anyhow::Result<Done> {
    let mut command = shell.command(built(shell, "larder-torture")?, ".");
    shell.run(command.args(["rotate", "--rotations", "20"]))?;
    Ok(Done::Passed)
}

/// Bounds that other steps beside it do not break; `cargo xtask torture overload` has
/// those that are meant.
pub(crate) fn overload(shell: &Shell) -> anyhow::Result<Done> {
    let mut command = shell.command(built(shell, "larder-torture")?, ".");
    let bounds = [
        "--least-goodput=0.2",
        "--least-modest=0.7",
        "--most-latency=100",
    ];
    shell.run(command.args(["overload", "--seconds=1.5"]).args(bounds))?;
    Ok(Done::Passed)
}

/// The bounds of memory are those that are meant; that of latency is one that other steps
/// beside it do not break.
pub(crate) fn slow_readers(shell: &Shell) -> anyhow::Result<Done> {
    let mut command = shell.command(built(shell, "larder-torture")?, ".");
    let size = ["--readers=20", "--seconds=1.5", "--most-latency=100"];
    shell.run(command.arg("slow-readers").args(size))?;
    Ok(Done::Passed)
}

/// As with slow readers.
pub(crate) fn neighbour(shell: &Shell) -> anyhow::Result<Done> {
    let mut command = shell.command(built(shell, "larder-torture")?, ".");
    let size = ["--seconds=4", "--rate=100"];
    let bounds = ["--most-points=1", "--most-latency=100"];
    shell.run(command.arg("neighbour").args(size).args(bounds))?;
    Ok(Done::Passed)
}
