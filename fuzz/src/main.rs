//! `cargo xtask fuzz`: mutated corpora, on a stable toolchain.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use larder_fuzz::{Options, TARGETS, Target, check_file, run, target};

/// Runs fuzz targets over their corpora, over mutations of them, and over random
/// bytes.
#[derive(Parser)]
#[command(name = "cargo xtask fuzz", bin_name = "cargo xtask fuzz")]
struct Arguments {
    /// Targets; all, if none is named.
    targets: Vec<String>,
    /// For each target.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Targets at a time. Default: one for each core.
    #[arg(long)]
    jobs: Option<usize>,
    /// Of the mutations. Another seed, other mutations.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run only this input of the one target.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Where an input that fails is written.
    #[arg(long, value_name = "FOLDER", default_value = ".cache/fuzz")]
    failures: PathBuf,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut targets = Vec::new();
    for name in &arguments.targets {
        targets.push(target(name).with_context(|| {
            let known: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            format!("there is no target {name:?}, but {}", known.join(", "))
        })?);
    }
    if let Some(file) = &arguments.input {
        let target: &Target = targets.first().context("--input needs a target")?;
        check_file(target, file)?;
        return Ok(ExitCode::SUCCESS);
    }
    if targets.is_empty() {
        targets.extend(TARGETS);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let options = Options {
        time: Duration::from_secs(arguments.seconds),
        jobs: arguments.jobs.unwrap_or(cores),
        seed: arguments.seed,
        corpora: Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus"),
        failures: arguments.failures,
    };
    let good = run(&targets, &options)?;
    Ok(ExitCode::from(u8::from(!good)))
}
