//! `cargo xtask bench client`: larder's Rust client beside tonic's. Both make the same
//! calls of the same server in the same run, in turns; what counts is the time of the
//! processor that the client's process uses for a call, and ratios are taken within a
//! round.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;

use super::machine::{Cores, description};
use super::programs::{build_larder, build_tonic};
use crate::runner::{Server, Shell};
use crate::steps::{cargo, target};

/// Connections, and calls in flight on each.
const LOADS: [(u32, u32); 3] = [(1, 1), (1, 32), (8, 32)];

/// What the client may cost of tonic's, where calls are many at a time.
const GOAL: f64 = 0.5;

/// Rounds: the median bears some that went wrong.
const ROUNDS: usize = 5;
const QUICK_ROUNDS: usize = 3;

/// `cargo xtask bench client`.
#[derive(Args)]
pub(super) struct ClientArgs {
    /// Fewer rounds, and shorter ones: half a minute once all is built
    #[arg(long)]
    quick: bool,
    /// The server to call, in place of a `larder` built here
    #[arg(long, value_name = "FILE")]
    larder: Option<PathBuf>,
}

/// A program that makes calls, and says what they cost it.
struct Subject {
    name: &'static str,
    program: PathBuf,
}

/// Microseconds of the processor for a call, and calls a second.
#[derive(Debug, Clone, Copy)]
struct Cost {
    cpu_us: f64,
    per_second: f64,
}

/// Measures, and prints.
///
/// # Errors
/// When something cannot be built, started or measured, a call fails, or the goal is
/// missed.
pub(super) fn run(root: &Path, args: &ClientArgs) -> anyhow::Result<()> {
    let shell = Shell::new(root, "bench-client")?;
    println!("building; the output is in .cache/logs/bench-client.log");
    let subjects = build(&shell)?;
    let larder = match &args.larder {
        Some(larder) => larder.clone(),
        None => build_larder(&shell)?,
    };
    let cores = Cores::new(false)?;
    let folder = std::env::temp_dir().join(format!("larder-bench-client-{}", std::process::id()));
    let measured = measure_all(&shell, &cores, &larder, &folder, &subjects, args.quick);
    // A run that failed leaves nothing behind either.
    let _ = std::fs::remove_dir_all(&folder);
    let rounds = measured?;
    println!("{}\n{}\n", description()?, cores.told());
    report(&subjects, &rounds)
}

fn build(shell: &Shell) -> anyhow::Result<Vec<Subject>> {
    let example = ["--package", "larder-client", "--example", "load"];
    let build = ["build", "--locked", "--release"];
    shell.run(cargo(shell).args(build).args(example))?;
    let tonic = shell.cache.join("bench-tonic");
    build_tonic(shell, &tonic, &["--release"])?;
    Ok(vec![
        Subject {
            name: "larder-client",
            program: target(shell)?.join("release/examples/load"),
        },
        Subject {
            name: "tonic",
            program: tonic.join("release/peer-tonic-client"),
        },
    ])
}

/// What was measured: by round, load and subject.
type Rounds = Vec<Vec<Vec<Cost>>>;

fn measure_all(
    shell: &Shell,
    cores: &Cores,
    larder: &Path,
    folder: &Path,
    subjects: &[Subject],
    quick: bool,
) -> anyhow::Result<Rounds> {
    let mut serve = cores.server(larder);
    serve.args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    serve.args(["--threads", &cores.server_threads.to_string()]);
    let server = shell.serve(serve.arg("--data-dir").arg(folder))?;
    let token = std::fs::read_to_string(folder.join("admin-token"))?;
    let (rounds, time) = match quick {
        true => (QUICK_ROUNDS, Duration::from_millis(800)),
        false => (ROUNDS, Duration::from_secs(3)),
    };
    let run = |subject: &Subject, options: &[&str]| -> anyhow::Result<String> {
        let mut load = cores.load(&subject.program);
        load.arg(format!("http://{}", address(&server)));
        load.args(options).env("LARDER_TOKEN", token.trim());
        let output = load.output().context("cannot start a client")?;
        let failed = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {failed}", subject.name);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    run(&subjects[0], &["--fill"]).context("while all keys were written")?;
    let time = time.as_millis().to_string();
    let mut all = Rounds::new();
    for round in 0..rounds {
        println!("round {} of {rounds}", round + 1);
        let mut loads = Vec::new();
        for (connections, in_flight) in LOADS {
            let [connections, in_flight] = [connections, in_flight].map(|it| it.to_string());
            let options = ["--connections", &connections, "--in-flight", &in_flight];
            let options = [&options[..], &["--measure-ms", &time]].concat();
            let costs = subjects
                .iter()
                .map(|subject| cost(&run(subject, &options)?));
            loads.push(costs.collect::<anyhow::Result<_>>()?);
        }
        all.push(loads);
    }
    Ok(all)
}

fn address(server: &Server) -> &str {
    &server.address
}

/// Reads `N calls N cpu_ns N elapsed_ns`.
fn cost(line: &str) -> anyhow::Result<Cost> {
    let number = |unit: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == unit);
        let number = at.and_then(|at| words.get(at.checked_sub(1)?)?.parse::<f64>().ok());
        number.with_context(|| format!("a client says no {unit}: {line}"))
    };
    let calls = number("calls")?;
    ensure!(calls > 0.0, "a client made no calls");
    Ok(Cost {
        cpu_us: number("cpu_ns")? / calls / 1e3,
        per_second: calls / number("elapsed_ns")? * 1e9,
    })
}

fn report(subjects: &[Subject], rounds: &Rounds) -> anyhow::Result<()> {
    println!("unary Get, values of 100 bytes; microseconds of the client's processor a call");
    println!("(calls a second), medians of {} rounds\n", rounds.len());
    let names: Vec<&str> = subjects.iter().map(|subject| subject.name).collect();
    println!(
        "{:<10}{:>24}{:>24}{:>8}  by round",
        "load", names[0], names[1], "ratio"
    );
    let mut missed = Vec::new();
    for (at, (connections, in_flight)) in LOADS.into_iter().enumerate() {
        let of = |subject: usize| {
            let costs = rounds.iter().map(move |round| round[at][subject]);
            let [cpu, rate] = [
                median(costs.clone().map(|it| it.cpu_us)),
                median(costs.map(|it| it.per_second)),
            ];
            format!("{cpu:.2} ({rate:.0})")
        };
        let ratios: Vec<f64> = rounds
            .iter()
            .map(|round| round[at][0].cpu_us / round[at][1].cpu_us)
            .collect();
        let ratio = median(ratios.iter().copied());
        let each: Vec<String> = ratios.iter().map(|it| format!("{it:.2}")).collect();
        let load = format!("{connections} x {in_flight}");
        println!(
            "{load:<10}{:>24}{:>24}{ratio:>8.2}  {}",
            of(0),
            of(1),
            each.join(" ")
        );
        // With one call at a time the kernel's part is most of it, and the same.
        if in_flight > 1 && ratio > GOAL {
            missed.push(load);
        }
    }
    ensure!(
        missed.is_empty(),
        "above {GOAL} of tonic's client at {}",
        missed.join(", ")
    );
    Ok(())
}

fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_prints_is_read() {
        let read = cost("2000 calls 4000000 cpu_ns 1000000000 elapsed_ns\n").unwrap();
        assert!((read.cpu_us - 2.0).abs() < 1e-9);
        assert!((read.per_second - 2000.0).abs() < 1e-6);
        for wrong in ["", "0 calls 1 cpu_ns 1 elapsed_ns", "5 calls"] {
            assert!(cost(wrong).is_err(), "{wrong}");
        }
        assert!((median([3.0, 1.0, 2.0].into_iter()) - 2.0).abs() < 1e-9);
    }
}
