//! `larder bench replay`: the hit ratio of a real trace, through a server.
//!
//! Strictly one call after the other: read a key, and on a miss write it,
//! before the next key is looked at. What is evicted depends on the order of
//! every read and write, so that calls in flight side by side, or batches,
//! would measure another cache.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use larder_client::{Reason, SetOptions};
use serde_json::json;
use tokio::time::Instant;

use crate::args::Connection;
use crate::connect::Caller;
use crate::failure::Failure;
use crate::output::{Format, Output};

use super::interrupt::Interrupt;
use super::parse_value_bytes;
use super::progress::Progress;
use super::stats::{per_second, ratio, seconds_of, whole_per_second};
use super::tenant::{TemporaryAccount, check_existing, with_token};
use super::trace::{Request, Trace, TraceFormat};

/// Largest value if the server does not tell its limit, bytes: the default of
/// servers.
const DEFAULT_MAX_VALUE_BYTES: usize = 3 << 20;

/// Calls between two looks at the progress.
const SHOW_EVERY: u64 = 256;

/// `larder bench replay`.
///
/// Makes an account that holds `--capacity` keys and evicts for new ones, which
/// needs an administrator's token, and deletes it afterwards. Then, for each
/// request of the trace, it reads the key, and on a miss writes it.
#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// The trace: .lis, .i32be, .ids or .csv, as it is or compressed as .zst, .xz or .gz
    trace: PathBuf,

    /// Keys that the cache holds
    #[arg(long, value_name = "N")]
    capacity: NonZeroU64,

    /// Use the account of the token, whose key limit must be N, and which should be empty
    #[arg(long)]
    no_account: bool,

    /// How the trace is written [default: by its name]
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<TraceFormat>,

    /// Only the first R requests
    #[arg(long, value_name = "R")]
    limit: Option<u64>,

    /// Size of each value
    #[arg(long, value_name = "SIZE", default_value = "1", value_parser = parse_value_bytes)]
    value_bytes: usize,

    /// Values as large as the trace says, up to the server's limit
    #[arg(long, conflicts_with = "value_bytes")]
    trace_sizes: bool,
}

/// What a replay has seen so far.
#[derive(Debug, Default)]
struct Tally {
    requests: u64,
    hits: u64,
    elapsed: Duration,
    /// In the account at the start; each may become a hit that none should be.
    keys_before: u64,
    /// In the account at the end, if it was reached.
    keys_after: Option<u64>,
}

/// How a replay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Complete,
    Interrupted,
}

/// The values that are written.
struct Values {
    /// Zeros, as many as the largest value has.
    longest: Bytes,
    from_trace: bool,
}

/// Prints `{"requests", "hits", "hit_ratio", "capacity", "seconds",
/// "requests_per_second", "misses", "keys_before", "keys_after",
/// "interrupted"}`; the ratio of no requests is `null`.
pub(super) async fn run(
    args: &ReplayArgs,
    connection: &Connection,
    out: &mut Output,
) -> Result<(), Failure> {
    // What can be refused without a server is refused before it is asked.
    let trace = open(args)?;
    let mut interrupt =
        Interrupt::listen().map_err(|error| Failure::file("cannot wait for signals", &error))?;
    let caller = Caller::connect(connection).await?;
    let mut tally = Tally::default();
    if args.no_account {
        let ending =
            until_interrupted(args, &caller, trace, &mut tally, &mut interrupt, out).await?;
        return report(args, &tally, ending, out);
    }
    let account = TemporaryAccount::create(&caller, args.capacity.get()).await?;
    let ended = async {
        let token = account.token().await?;
        let tenant = Caller::connect(&with_token(connection, &token)).await?;
        until_interrupted(args, &tenant, trace, &mut tally, &mut interrupt, out).await
    }
    .await;
    let deleted = account.delete().await;
    let reported = match ended {
        Ok(ending) => report(args, &tally, ending, out),
        Err(failure) => Err(failure),
    };
    match (reported, deleted) {
        (Err(failure), Err(also)) => {
            failure.report(out.format);
            Err(also)
        }
        (reported, deleted) => reported.and(deleted),
    }
}

fn open(args: &ReplayArgs) -> Result<Trace, Failure> {
    let name = args.trace.display();
    let format = args
        .format
        .or_else(|| TraceFormat::of(&args.trace))
        .ok_or_else(|| {
            Failure::Usage(format!(
                "{name}: the name ends in none of .lis, .i32be, .ids and .csv; give its --format"
            ))
        })?;
    if args.trace_sizes && format != TraceFormat::Csv {
        return Err(Failure::Usage(format!(
            "traces of the format {format} tell no sizes"
        )));
    }
    Trace::open(&args.trace, format).map_err(|error| Failure::Failed(format!("{name}: {error}")))
}

async fn until_interrupted(
    args: &ReplayArgs,
    caller: &Caller,
    trace: Trace,
    tally: &mut Tally,
    interrupt: &mut Interrupt,
    out: &Output,
) -> Result<Ending, Failure> {
    tokio::select! {
        biased;
        () = interrupt.wait() => Ok(Ending::Interrupted),
        played = play(args, caller, trace, tally, out.format) => played.map(|()| Ending::Complete),
    }
}

async fn play(
    args: &ReplayArgs,
    caller: &Caller,
    mut trace: Trace,
    tally: &mut Tally,
    format: Format,
) -> Result<(), Failure> {
    let usage = caller
        .client
        .usage()
        .await
        .map_err(|error| caller.failed(error))?;
    check_existing(&usage, args.capacity.get())?;
    tally.keys_before = usage.quota.key_count;
    let values = Values::new(args, caller).await?;
    let progress = Progress::new(Some(trace.progress().1), format);
    let limit = args.limit.unwrap_or(u64::MAX);
    let start = Instant::now();
    while tally.requests < limit {
        let Some(request) = trace.next() else { break };
        let request = request
            .map_err(|error| Failure::Failed(format!("{}: {error}", args.trace.display())))?;
        let hit = ask(caller, request, &values).await?;
        tally.requests += 1;
        tally.hits += u64::from(hit);
        tally.elapsed = start.elapsed();
        if tally.requests.is_multiple_of(SHOW_EVERY) && !progress.is_hidden() {
            progress.show(trace.progress().0, tally.line());
        }
    }
    let usage = caller
        .client
        .usage()
        .await
        .map_err(|error| caller.failed(error))?;
    tally.keys_after = Some(usage.quota.key_count);
    Ok(())
}

/// Reads the key, and on a miss writes it; true if it was there.
async fn ask(caller: &Caller, request: Request, values: &Values) -> Result<bool, Failure> {
    let key = request.key.to_string();
    let found = caller
        .client
        .get(&key)
        .await
        .map_err(|error| caller.failed(error))?;
    if found.is_some() {
        return Ok(true);
    }
    match caller
        .client
        .set(&key, values.of(request), SetOptions::new())
        .await
    {
        Ok(_) => Ok(false),
        Err(error) if error.reason() == Some(Reason::KeyQuotaExceeded) => Err(Failure::Failed(
            "the account refuses keys at its limit; `larder account set NAME --at-limit evict` \
             lets it make room"
                .into(),
        )),
        Err(error) => Err(caller.failed(error)),
    }
}

fn report(
    args: &ReplayArgs,
    tally: &Tally,
    ending: Ending,
    out: &mut Output,
) -> Result<(), Failure> {
    match out.format {
        Format::Json => out.json(&json!({
            "requests": tally.requests,
            "hits": tally.hits,
            "hit_ratio": ratio(tally.hits, tally.requests),
            "capacity": args.capacity.get(),
            "seconds": tally.elapsed.as_secs_f64(),
            "requests_per_second": tally.requests_per_second(),
            "misses": tally.requests - tally.hits,
            "keys_before": tally.keys_before,
            "keys_after": tally.keys_after,
            "interrupted": ending == Ending::Interrupted,
        }))?,
        Format::Text => {
            let mut pairs = vec![
                ("requests", tally.requests.to_string()),
                ("hits", tally.hits.to_string()),
                ("hit ratio", tally.shown_ratio()),
                ("capacity", args.capacity.to_string()),
                ("seconds", seconds_of(tally.elapsed)),
                (
                    "requests/s",
                    whole_per_second(tally.requests, tally.elapsed),
                ),
            ];
            if tally.keys_before > 0 {
                pairs.push((
                    "keys before",
                    format!("{} (may count as hits)", tally.keys_before),
                ));
            }
            out.pairs(&pairs)?;
        }
    }
    match ending {
        Ending::Complete => Ok(()),
        Ending::Interrupted => Err(Failure::Failed(
            "interrupted before the end of the trace".into(),
        )),
    }
}

impl Tally {
    fn shown_ratio(&self) -> String {
        ratio(self.hits, self.requests)
            .map_or_else(|| "no requests".into(), |ratio| format!("{ratio:.4}"))
    }

    fn requests_per_second(&self) -> Option<f64> {
        per_second(self.requests, self.elapsed)
    }

    fn line(&self) -> String {
        format!(
            "{} requests, {}/s, hit ratio {}",
            self.requests,
            whole_per_second(self.requests, self.elapsed),
            self.shown_ratio()
        )
    }
}

impl Values {
    async fn new(args: &ReplayArgs, caller: &Caller) -> Result<Self, Failure> {
        let longest = if args.trace_sizes {
            let info = caller
                .client
                .server_info()
                .await
                .map_err(|error| caller.failed(error))?;
            info.limits
                .get("max_value_bytes")
                .and_then(|&limit| usize::try_from(limit).ok())
                .unwrap_or(DEFAULT_MAX_VALUE_BYTES)
        } else {
            args.value_bytes
        };
        Ok(Self {
            longest: vec![0; longest].into(),
            from_trace: args.trace_sizes,
        })
    }

    /// The value of a request, without a copy.
    fn of(&self, request: Request) -> Bytes {
        if !self.from_trace {
            return self.longest.clone();
        }
        let asked = request.size.and_then(|size| usize::try_from(size).ok());
        self.longest
            .slice(..asked.unwrap_or(1).min(self.longest.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_as_large_as_asked_and_no_larger_than_allowed() {
        let request = |size| Request { key: 1, size };
        for (from_trace, size, bytes) in [
            (false, Some(5), 10),
            (true, Some(5), 5),
            (true, Some(0), 0),
            (true, Some(11), 10),
            (true, Some(u64::MAX), 10),
            (true, None, 1),
        ] {
            let values = Values {
                longest: vec![0; 10].into(),
                from_trace,
            };
            assert_eq!(
                values.of(request(size)).len(),
                bytes,
                "{from_trace} {size:?}"
            );
        }
    }

    #[test]
    fn no_requests_have_no_ratio() {
        let tally = Tally::default();
        assert_eq!(tally.shown_ratio(), "no requests");
        assert_eq!(tally.requests_per_second(), None);
        let tally = Tally {
            requests: 3,
            hits: 1,
            ..tally
        };
        assert_eq!(tally.shown_ratio(), "0.3333");
    }
}
