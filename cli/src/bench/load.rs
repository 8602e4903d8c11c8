//! `larder bench`: many calls at a time, as fast as they are answered, or at a
//! rate.

mod crew;
mod line;
mod pace;
mod plan;
mod run;
#[cfg(test)]
mod tests;
mod worker;

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use larder_client::{Entry, Route};

use crate::args::Connection;
use crate::connect::{Caller, config, credential};
use crate::failure::Failure;
use crate::output::Output;
use crate::units::parse_duration;

use self::crew::Crew;
pub(super) use self::crew::Run;
use self::plan::Plan;
use self::run::{Budget, Work};
use self::worker::Setting;
use super::interrupt::Interrupt;
use super::key_choice::MAX_EXPONENT;
use super::load_report::{Measured, Server, report};
use super::mix::Mix;
use super::parse_value_bytes;
use super::progress::Progress;
use super::tenant::with_default_namespace;
use super::watch::Sample;
use super::wire::{Address, Api, Calls, Scheme, Tokens};

/// Entries of a load lie apart from those of real users.
const DEFAULT_NAMESPACE: &str = "bench";

/// How long a load lasts if nothing else is said.
const DEFAULT_DURATION: Duration = Duration::from_secs(10);

/// Most connections; servers take 10,000 by default.
const MAX_CONNECTIONS: u64 = 1_000;

/// Most calls in flight on a connection, which is what servers allow.
const MAX_STREAMS: u64 = 1_000;

/// Most threads.
const MAX_THREADS: u64 = 64;

/// Most calls in flight altogether: each holds some hundred bytes here, and its
/// answer while it comes.
const MAX_IN_FLIGHT: usize = 100_000;

/// Longest key that is worth a try, bytes.
const MAX_KEY_BYTES: u64 = 64 << 10;

/// Entries between two looks at the progress of a preload.
const SHOW_EVERY: u64 = 1_000;

/// Time for all connections to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for one address of a name to answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Largest file of tokens, bytes: a million of them.
const MAX_TOKENS_BYTES: u64 = 128 << 20;

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

    /// Which contract to call
    #[arg(long, value_enum, value_name = "API", default_value_t)]
    pub(super) api: Api,

    /// Threads that make the calls, each for its share of the connections
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(1..=MAX_THREADS))]
    pub(super) threads: u64,

    /// Deadline told with each call, up to 1 ms less from call to call [default: --timeout]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(super) deadline: Option<Duration>,

    /// Call with the tokens in this file, one a line, each about keys of its own
    #[arg(long, value_name = "FILE")]
    pub(super) tokens: Option<PathBuf>,

    /// Tell what this process, the server, uses of the processor and the memory
    #[arg(long, value_name = "PID")]
    pub(super) watch: Option<u32>,

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
    let plan = Arc::new(Plan::new(args)?);
    let mut interrupt =
        Interrupt::listen().map_err(|error| Failure::file("cannot wait for signals", &error))?;
    let connection = with_default_namespace(connection, DEFAULT_NAMESPACE);
    let before = look(args)?;
    let (mut crew, caller) = tokio::select! {
        () = interrupt.wait() => return Err(interrupted()),
        connected = connect(args, &connection, &plan) => connected?,
    };
    if args.preload {
        match &caller {
            Some(caller) => tokio::select! {
                () = interrupt.wait() => return Err(interrupted()),
                loaded = preload(&plan, caller, out) => loaded?,
            },
            None => write_all(&mut crew, &plan, &mut interrupt, out).await?,
        }
    }
    if let Some(warmup) = args.warmup {
        let warmup = (Budget::Time(warmup), Work::Mix);
        let run = crew.run(warmup, "warming up", &mut interrupt, out.format);
        if run.await?.interrupted {
            return Err(interrupted());
        }
    }
    let budget = match args.requests {
        Some(requests) => Budget::Requests(requests.get()),
        None => Budget::Time(args.duration.unwrap_or(DEFAULT_DURATION)),
    };
    let begin = look(args)?;
    let run = crew.run((budget, Work::Mix), "running", &mut interrupt, out.format);
    let run: Run = run.await?;
    let end = look(args)?;
    let server = match (before, begin, end) {
        (Some(before), Some(begin), Some(end)) => Some(Server { before, begin, end }),
        _ => None,
    };
    report(args, &Measured { run, server }, out)
}

fn interrupted() -> Failure {
    Failure::Failed("interrupted before anything was measured".into())
}

/// Looks at the process that is watched, if there is one.
fn look(args: &LoadArgs) -> Result<Option<Sample>, Failure> {
    let look = |process| {
        Sample::take(process)
            .map_err(|error| Failure::file(format_args!("process {process}"), &error))
    };
    args.watch.map(look).transpose()
}

/// Makes all connections. For larder's own contract it learns before the load
/// begins whether the credential is good, by an ordinary client.
async fn connect(
    args: &LoadArgs,
    connection: &Connection,
    plan: &Arc<Plan>,
) -> Result<(Crew, Option<Caller>), Failure> {
    let mut caller = None;
    if args.api == Api::V1 && args.tokens.is_none() {
        let ordinary = Caller::connect(connection).await?;
        let usage = ordinary.client.usage().await;
        usage.map_err(|error| ordinary.failed(error))?;
        caller = Some(ordinary);
    }
    let failed = |error| Failure::call(&connection.server, error);
    let route = config(connection)?.route().map_err(failed)?;
    let setting = setting(args, connection, &route, plan)?;
    let threads = usize::try_from(args.threads).unwrap_or(usize::MAX);
    let crew = Crew::connect(&setting, threads, args.seed, CONNECT_TIMEOUT).await?;
    Ok((crew, caller))
}

fn setting(
    args: &LoadArgs,
    connection: &Connection,
    route: &Route,
    plan: &Arc<Plan>,
) -> Result<Setting, Failure> {
    let cannot_reach = |error| {
        let what = format!("cannot reach {}", connection.server);
        Failure::file(what, &error)
    };
    let address = Address::find(route, PROBE_TIMEOUT).map_err(cannot_reach)?;
    let tokens = match &args.tokens {
        Some(path) => Tokens::Many(read_tokens(path)?),
        None => credential(connection)?
            .map_or(Tokens::None, |token| Tokens::One(token.expose().to_owned())),
    };
    let calls = Calls {
        api: args.api,
        scheme: match route.tls {
            Some(_) => Scheme::Https,
            None => Scheme::Http,
        },
        authority: route.authority.clone(),
        namespace: connection.namespace.clone().unwrap_or_default(),
        tokens,
        deadline: Some(args.deadline.unwrap_or(connection.timeout)),
        value: plan.value.clone(),
    };
    Ok(Setting {
        plan: Arc::clone(plan),
        calls: Arc::new(calls),
        address,
        slots: usize::try_from(args.streams).unwrap_or(usize::MAX),
        connections: args.connections,
        rate: args.rate.map(Into::into),
        timeout: connection.timeout,
    })
}

fn read_tokens(path: &Path) -> Result<Vec<String>, Failure> {
    use std::io::Read as _;
    let failed = |error| Failure::file(path.display(), &error);
    let file = std::fs::File::open(path).map_err(failed)?;
    let text = std::io::read_to_string(file.take(MAX_TOKENS_BYTES)).map_err(failed)?;
    let tokens: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
    if tokens.is_empty() {
        let what = format!("{}: there is no token in it", path.display());
        return Err(Failure::Usage(what));
    }
    Ok(tokens.into_iter().map(str::to_owned).collect())
}

/// Writes all entries, one call each: for contracts that have no call for many.
async fn write_all(
    crew: &mut Crew,
    plan: &Plan,
    interrupt: &mut Interrupt,
    out: &Output,
) -> Result<(), Failure> {
    let all = (Budget::Requests(plan.keys), Work::Preload);
    let run = crew.run(all, "writing", interrupt, out.format).await?;
    if run.interrupted {
        return Err(interrupted());
    }
    match run.stats.errors().first_key_value() {
        None => Ok(()),
        Some(((code, reason), _)) => Err(Failure::Failed(format!(
            "{} of {} keys were not written: {code} {}",
            run.stats.failed(),
            plan.keys,
            reason.as_deref().unwrap_or_default()
        ))),
    }
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
