//! `larder bench`: many calls at a time, as fast as they are answered, or at a
//! rate.

mod crew;
mod pace;
mod plan;

use std::num::NonZeroU64;
use std::rc::Rc;
use std::time::Duration;

use clap::Args;
use larder_client::Entry;

use crate::args::Connection;
use crate::connect::Caller;
use crate::failure::Failure;
use crate::output::Output;
use crate::units::parse_duration;

pub(super) use self::crew::Run;
use self::crew::{Budget, Crew};
use self::plan::Plan;
use super::interrupt::Interrupt;
use super::key_choice::MAX_EXPONENT;
use super::load_report::report;
use super::mix::Mix;
use super::parse_value_bytes;
use super::progress::Progress;
use super::tenant::with_default_namespace;

/// Entries of a load lie apart from those of real users.
const DEFAULT_NAMESPACE: &str = "bench";

/// How long a load lasts if nothing else is said.
const DEFAULT_DURATION: Duration = Duration::from_secs(10);

/// Most connections; servers take 10,000 by default.
const MAX_CONNECTIONS: u64 = 1_000;

/// Most calls in flight on a connection, which is what servers allow.
const MAX_STREAMS: u64 = 1_000;

/// Most calls in flight altogether: each holds a few KiB here.
const MAX_IN_FLIGHT: usize = 100_000;

/// Longest key that is worth a try, bytes.
const MAX_KEY_BYTES: u64 = 64 << 10;

/// Entries between two looks at the progress of a preload.
const SHOW_EVERY: u64 = 1_000;

/// `larder bench`.
#[derive(Debug, Args)]
pub(super) struct LoadArgs {
    /// Connections
    #[arg(long, value_name = "C", default_value_t = 4,
        value_parser = clap::value_parser!(u64).range(1..=MAX_CONNECTIONS))]
    pub(super) connections: u64,

    /// Calls in flight on each connection
    #[arg(long, value_name = "S", default_value_t = 16,
        value_parser = clap::value_parser!(u64).range(1..=MAX_STREAMS))]
    pub(super) streams: u64,

    /// Size of each key, bytes
    #[arg(long, value_name = "B", default_value_t = 16,
        value_parser = clap::value_parser!(u64).range(2..=MAX_KEY_BYTES))]
    pub(super) key_bytes: u64,

    /// Size of each value
    #[arg(long, value_name = "SIZE", default_value = "100", value_parser = parse_value_bytes)]
    pub(super) value_bytes: usize,

    /// Calls and their weights; get, set, del and incr
    #[arg(long, value_name = "MIX", default_value = "get:90,set:10")]
    pub(super) mix: Mix,

    /// How many keys there are
    #[arg(long, value_name = "N", default_value = "100000")]
    pub(super) keys: NonZeroU64,

    /// Few keys often, by Zipf's law with this exponent, such as 0.99 [default: all keys alike]
    #[arg(long, value_name = "EXPONENT", value_parser = parse_exponent)]
    pub(super) zipf: Option<f64>,

    /// Calls a second, over all connections; latency then counts from when a call was due
    /// [default: as many as are answered]
    #[arg(long, value_name = "R")]
    pub(super) rate: Option<NonZeroU64>,

    /// How long [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(super) duration: Option<Duration>,

    /// How many calls, in place of a duration
    #[arg(long, value_name = "N", conflicts_with = "duration")]
    pub(super) requests: Option<NonZeroU64>,

    /// Load this long before anything counts
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(super) warmup: Option<Duration>,

    /// Write all keys first
    #[arg(long)]
    pub(super) preload: bool,

    /// The same seed gives each call in flight the same sequence of calls
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub(super) seed: u64,
}

fn parse_exponent(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|exponent| *exponent > 0.0 && *exponent <= MAX_EXPONENT)
        .ok_or_else(|| {
            format!("`{text}` is no exponent; write a number above 0, up to {MAX_EXPONENT}")
        })
}

/// Prints what was measured; see [`report`].
pub(super) async fn run(
    args: &LoadArgs,
    connection: &Connection,
    out: &mut Output,
) -> Result<(), Failure> {
    let plan = Rc::new(Plan::new(args)?);
    let mut interrupt =
        Interrupt::listen().map_err(|error| Failure::file("cannot wait for signals", &error))?;
    let connection = with_default_namespace(connection, DEFAULT_NAMESPACE);
    let callers = tokio::select! {
        () = interrupt.wait() => return Err(interrupted()),
        callers = connect(args, &connection) => callers?,
    };
    if args.preload {
        tokio::select! {
            () = interrupt.wait() => return Err(interrupted()),
            loaded = preload(&plan, &callers[0], out) => loaded?,
        }
    }
    let crew = Crew::new(plan, &callers, args);
    if let Some(warmup) = args.warmup {
        let budget = Budget::Time(warmup);
        if crew
            .run(budget, "warming up", &mut interrupt, out.format)
            .await?
            .interrupted
        {
            return Err(interrupted());
        }
    }
    let budget = match args.requests {
        Some(requests) => Budget::Requests(requests.get()),
        None => Budget::Time(args.duration.unwrap_or(DEFAULT_DURATION)),
    };
    let run: Run = crew
        .run(budget, "running", &mut interrupt, out.format)
        .await?;
    report(args, &run, out)
}

fn interrupted() -> Failure {
    Failure::Failed("interrupted before anything was measured".into())
}

/// Connects, and learns before the load begins whether the credential is good.
async fn connect(args: &LoadArgs, connection: &Connection) -> Result<Vec<Caller>, Failure> {
    let mut callers = Vec::new();
    for _ in 0..args.connections {
        callers.push(Caller::connect(connection).await?);
    }
    if let Some(first) = callers.first() {
        first
            .client
            .usage()
            .await
            .map_err(|error| first.failed(error))?;
    }
    Ok(callers)
}

async fn preload(plan: &Plan, caller: &Caller, out: &Output) -> Result<(), Failure> {
    let progress = Progress::new(Some(plan.keys), out.format);
    let mut loader = caller.client.load();
    for index in 0..plan.keys {
        let entry = Entry::new(plan.key(index), plan.value.clone());
        loader
            .push(entry)
            .await
            .map_err(|error| caller.failed(error))?;
        if index.is_multiple_of(SHOW_EVERY) {
            progress.show(index, format!("{index} of {} keys written", plan.keys));
        }
    }
    let summary = loader
        .finish()
        .await
        .map_err(|error| caller.failed(error))?;
    // An account that evicts takes them all, if not for long; one that refuses
    // would make every read a miss without a word.
    match summary.first_refusal {
        Some(error) => Err(caller.failed(error)),
        None => Ok(()),
    }
}
