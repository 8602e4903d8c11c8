//! Attacks on a running server, at the size that has a place in the tests; `cargo xtask
//! torture` has others.

use crate::runner::{Done, Shell};
use crate::steps::built;

fn attack(shell: &Shell, arguments: &[&str]) -> anyhow::Result<Done> {
    let mut command = shell.command(built(shell, "larder-torture")?, ".");
    shell.run(command.args(arguments))?;
    Ok(Done::Passed)
}

pub(crate) fn http2(shell: &Shell) -> anyhow::Result<Done> {
    attack(
        shell,
        &["http2", "--seconds", "0.6", "--connections", "1000"],
    )
}

pub(crate) fn drain(shell: &Shell) -> anyhow::Result<Done> {
    attack(shell, &["drain", "--rounds", "20"])
}

/// Six, two of them in the middle of a snapshot.
pub(crate) fn crash(shell: &Shell) -> anyhow::Result<Done> {
    attack(shell, &["crash", "--rounds", "6"])
}

pub(crate) fn isolation(shell: &Shell) -> anyhow::Result<Done> {
    attack(shell, &["isolation", "--attempts", "10000"])
}

pub(crate) fn rotate(shell: &Shell) -> anyhow::Result<Done> {
    attack(shell, &["rotate", "--rotations", "20"])
}

/// Bounds that other steps beside it do not break; `cargo xtask torture overload` has
/// those that are meant.
pub(crate) fn overload(shell: &Shell) -> anyhow::Result<Done> {
    attack(
        shell,
        &[
            "overload",
            "--seconds=1.5",
            "--least-goodput=0.2",
            "--least-modest=0.7",
            "--most-latency=100",
        ],
    )
}

/// The bounds of memory are those that are meant; that of latency is one that other steps
/// beside it do not break.
pub(crate) fn slow_readers(shell: &Shell) -> anyhow::Result<Done> {
    attack(
        shell,
        &[
            "slow-readers",
            "--readers=20",
            "--seconds=1.5",
            "--most-latency=100",
        ],
    )
}

/// As with slow readers.
pub(crate) fn neighbour(shell: &Shell) -> anyhow::Result<Done> {
    attack(
        shell,
        &[
            "neighbour",
            "--seconds=4",
            "--rate=100",
            "--most-points=1",
            "--most-latency=100",
        ],
    )
}
