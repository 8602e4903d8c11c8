//! `cargo xtask bench`: larder beside other servers, on the same work in the same
//! run.
//!
//! | file | what |
//! |---|---|
//! | `programs.rs` | builds larder and its peers, and finds those of the machine |
//! | `servers.rs` | starts them, fills them, ends them |
//! | `scenarios.rs` | what is measured, and the goals |
//! | `measure.rs` | one measurement |
//! | `results.rs` | medians and ratios over the rounds |
//! | `report.rs` | the table on standard output, and `docs/performance.md` |
//! | `chart.rs` | `docs/performance.svg` |
//! | `client.rs` | larder's client beside tonic's: `cargo xtask bench client` |
//! | `machine.rs` | the machine, and where programs run on it |
//!
//! What counts first is the time of the processor that a server uses for a
//! request, as the kernel counts it: requests a second depend on how the machine
//! is shared with the load generator. Servers take turns within each round, and
//! ratios are taken within a round, so that a machine that is slower for a while
//! is slower for all.

mod chart;
mod client;
mod machine;
mod measure;
mod programs;
mod report;
mod results;
mod scenarios;
mod servers;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};

use self::machine::Cores;
use self::measure::Measurer;
use self::programs::Programs;
use self::results::Results;
use self::scenarios::{Scenario, Scope};
use self::servers::Servers;

/// Rounds of a run: the median of three bears one that went wrong.
const ROUNDS: usize = 3;

/// `cargo xtask bench`.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    of: Option<BenchOf>,
    /// Fewer scenarios, and shorter ones: some 4 minutes once all is built
    #[arg(long)]
    quick: bool,
    /// Write docs/performance.md and docs/performance.svg [default: not with --quick or --only]
    #[arg(long)]
    write: bool,
    /// Where programs run [default: split where there are two cores or more]
    #[arg(long, value_enum)]
    cores: Option<CoresArg>,
    /// Only scenarios whose name begins with this; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Measure also the transport by itself: its example `echo_cache`
    #[arg(long)]
    echo: bool,
    /// Measure this `larder`, and load with it, in place of one built here
    #[arg(long, value_name = "FILE")]
    larder: Option<PathBuf>,
    /// List the scenarios
    #[arg(long)]
    list: bool,
}

/// What is measured, if it is not the server.
#[derive(Subcommand)]
enum BenchOf {
    /// larder's Rust client beside tonic's
    Client(client::ClientArgs),
}

/// Where programs run.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CoresArg {
    /// One half of the cores for the server, the other for the load
    Split,
    /// All cores for both
    Shared,
}

/// How long a measurement is.
#[derive(Debug, Clone, Copy)]
struct Times {
    warmup: Duration,
    measured: Duration,
}

/// Measures, prints, and writes the page.
///
/// # Errors
/// When something cannot be built, started or measured, or a server answers
/// wrongly.
pub(crate) fn run(root: &Path, args: &BenchArgs) -> anyhow::Result<()> {
    if let Some(BenchOf::Client(args)) = &args.of {
        return client::run(root, args);
    }
    let scope = match args.quick {
        true => Scope::Quick,
        false => Scope::Full,
    };
    let chosen = choose(scenarios::all(scope), &args.only)?;
    if args.list {
        for scenario in &chosen {
            println!("{:<18} {}", scenario.name, scenario.title);
        }
        return Ok(());
    }
    let cores = Cores::new(args.cores == Some(CoresArg::Shared))?;
    let programs = Programs::make(root, args.larder.clone(), args.echo)?;
    let times = match scope {
        Scope::Quick => Times {
            warmup: Duration::from_millis(200),
            measured: Duration::from_millis(800),
        },
        Scope::Full => Times {
            warmup: Duration::from_millis(500),
            measured: Duration::from_secs(3),
        },
    };
    let measurer = Measurer::new(&programs, &cores, times);
    let mut results = Results::new(&chosen);
    {
        let mut servers = Servers::new(&programs, &cores, &measurer)?;
        for round in 0..ROUNDS {
            for (at, scenario) in chosen.iter().enumerate() {
                println!("round {} of {ROUNDS}: {}", round + 1, scenario.name);
                for (place, case) in scenario.cases.iter().enumerate() {
                    let figure = measurer
                        .measure(case, &mut servers)
                        .with_context(|| format!("{}: {}", scenario.name, case.subject))?;
                    results.add(at, place, figure);
                }
            }
        }
    }
    let report = report::Report {
        command: command_line(args),
        cores: &cores,
        times,
        rounds: ROUNDS,
        programs: &programs,
        scenarios: &chosen,
        results: &results,
    };
    println!("\n{}", report.table());
    if args.write || (scope == Scope::Full && args.only.is_empty()) {
        report.write(root)?;
    }
    Ok(())
}

fn choose(all: Vec<Scenario>, only: &[String]) -> anyhow::Result<Vec<Scenario>> {
    for name in only {
        let is_known = all.iter().any(|scenario| scenario.name.starts_with(name));
        anyhow::ensure!(is_known, "no scenario {name:?}; --list shows them");
    }
    let is_wanted = |scenario: &Scenario| {
        only.is_empty() || only.iter().any(|name| scenario.name.starts_with(name))
    };
    Ok(all.into_iter().filter(is_wanted).collect())
}

/// The command that measures this again.
fn command_line(args: &BenchArgs) -> String {
    let mut line = "cargo xtask bench".to_owned();
    if args.quick {
        line += " --quick";
    }
    if args.cores == Some(CoresArg::Shared) {
        line += " --cores shared";
    }
    if args.echo {
        line += " --echo";
    }
    for name in &args.only {
        line += &format!(" --only {name}");
    }
    if args.write {
        line += " --write";
    }
    line
}
