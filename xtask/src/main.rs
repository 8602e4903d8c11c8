//! The chores of this repository, each a command of `cargo xtask`.
//!
//! No crate of larder is a dependency: the checks start within seconds, and
//! still run when a crate does not compile.

#![allow(
    clippy::print_stdout,
    reason = "a command line: standard output is its product"
)]

mod balancers;
mod bench;
mod cache;
mod catalogue;
mod clients;
mod conformance;
mod contract;
mod deploy;
mod hostile;
mod runner;
mod steps;
mod torture;
mod tours;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The chores of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Runs every check and test, and does the set-up that they need.
    ///
    /// Downloads go to `.cache/`. A step whose toolchain is missing is skipped,
    /// and named at the end; with `CI=true` it fails, after Debian packages
    /// that are missing were installed.
    Test {
        /// Run only this step, and what it needs; may be repeated.
        #[arg(long, value_name = "STEP")]
        only: Vec<String>,
        /// List the steps.
        #[arg(long)]
        list: bool,
    },
    /// Proves the transport right with h2spec and the Connect conformance suite:
    /// the steps of `test` that do so, and what they need.
    Conformance,
    /// Measures larder beside tonic, grpc-go and Redis; writes docs/performance.md.
    ///
    /// Builds larder and the peers in release first, which takes some minutes.
    /// Redis, h2load and openssl are Debian's; with `CI=true` they are installed,
    /// else what is missing is left out.
    Bench(bench::BenchArgs),
    /// Writes what is generated and committed: docs/errors.md.
    Gen,
    /// Keeps the contract as that of a release: proto/released/vVERSION.binpb.
    ReleaseContract {
        /// The version that is released, such as 0.2.0.
        version: String,
    },
    /// Runs the transport's fuzz targets, 60 s each.
    Fuzz {
        /// Run one target under libFuzzer: needs a nightly toolchain and cargo-fuzz.
        #[arg(long)]
        libfuzzer: bool,
        /// Targets, all if none is named, and: --seconds N, --seed N, --jobs N,
        /// --input FILE.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Attacks a server, and says what that does to its other clients.
    Torture {
        /// Attack an optimised build.
        #[arg(long)]
        release: bool,
        /// A kind: `http2` with --list, --attack NAME, --seconds N, --connections N,
        /// --echo-cache; `overload` with --seconds N and more; `drain` or `crash` with
        /// --rounds N, --seed N, --connections N; `isolation` with --attempts N, --seed N;
        /// `rotate` with --rotations N; `slow-readers` with --readers N, --seconds N;
        /// `neighbour` with --seconds N, --rate N; each with --larder PROGRAM. --help says more.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let root = root();
    match Arguments::parse().command {
        Chore::Test { list: true, .. } => {
            for step in std::iter::once(&steps::FIRST).chain(steps::ALL) {
                println!("{:<20} {}", step.name, step.about);
            }
            Ok(ExitCode::SUCCESS)
        }
        Chore::Test { only, .. } => runner::run(&root, &steps::FIRST, steps::ALL, &only),
        Chore::Conformance => {
            let is_wanted = |step: &&runner::Step| step.name.starts_with("conformance-");
            let names = steps::ALL.iter().filter(is_wanted);
            let names: Vec<String> = names.map(|step| step.name.to_owned()).collect();
            runner::run(&root, &steps::FIRST, steps::ALL, &names)
        }
        Chore::Bench(args) => {
            bench::run(&root, &args)?;
            Ok(ExitCode::SUCCESS)
        }
        Chore::Gen => {
            catalogue::write(&root)?;
            Ok(ExitCode::SUCCESS)
        }
        Chore::ReleaseContract { version } => {
            contract::release(&root, &version)?;
            Ok(ExitCode::SUCCESS)
        }
        Chore::Fuzz {
            libfuzzer,
            arguments,
        } => hostile::fuzz(&root, libfuzzer, &arguments),
        Chore::Torture { release, arguments } => hostile::torture(&root, release, &arguments),
    }
}

/// The root of the repository that this program was built from.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent()
        .expect("the manifest lies in a folder of the repository")
        .into()
}
