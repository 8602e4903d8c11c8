//! `larder import`: copies the entries of a Redis or Valkey.
//!
//! The source is walked with SCAN and read in pipelines; what was read is stored in
//! batches while the next is read. An import that was cut off is begun again: every write
//! of it can be repeated.

mod progress;
mod redis;
mod store;
mod tally;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use self::progress::Progress;
use self::redis::Redis;
use self::store::Store;
use self::tally::Tally;
use crate::args::{DryRun, Secret};
use crate::connect::Caller;
use crate::failure::Failure;
use crate::output::Output;

/// Bytes of keys and values that are read, and then sent, at a time; more only where a
/// single entry is larger.
const PART_BYTES: u64 = 1 << 20;

/// `larder import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    // No doc comment: brackets are links there.
    #[arg(
        value_name = "URL",
        help = "The source: redis://[USER[:PASSWORD]@]HOST[:PORT][/DB], rediss:// for TLS, or redis+unix:///PATH"
    )]
    source: Secret,
    /// Read the password of the source from this file; it may also stand in REDISCLI_AUTH
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Trust the certificate authorities in this PEM file for rediss://, not the platform's
    #[arg(long, value_name = "FILE")]
    source_ca: Option<PathBuf>,
    /// Only keys that match, as in Redis: 'session:*'
    #[arg(long = "match", value_name = "PATTERN")]
    pattern: Option<OsString>,
    /// What becomes of a key that larder has already
    #[arg(long, value_enum, value_name = "WHAT", default_value = "replace")]
    on_conflict: OnConflict,
    /// Keys in a step of the walk and at most in a batch
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    #[command(flatten)]
    dry_run: DryRun,
}

/// What becomes of a key that larder has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnConflict {
    /// The source's entry replaces it
    Replace,
    /// It stays
    Skip,
}

/// What the server takes.
#[derive(Debug, Clone, Copy)]
struct Limits {
    key_bytes: u64,
    value_bytes: u64,
    ttl: Duration,
    batch_keys: usize,
}

impl Limits {
    /// Asks the server; `batch` bounds the batches further.
    async fn ask(caller: &Caller, batch: u32) -> Result<Self, Failure> {
        let info = caller.client.server_info().await;
        let info = info.map_err(|error| caller.failed(error))?;
        let limit = |name: &str| {
            let limit = info.limits.get(name).copied();
            limit
                .and_then(|limit| u64::try_from(limit).ok())
                .ok_or_else(|| Failure::Failed(format!("the server does not say its {name}")))
        };
        let batch_keys = limit("max_batch_keys")?.min(u64::from(batch)).max(1);
        Ok(Self {
            key_bytes: limit("max_key_bytes")?,
            value_bytes: limit("max_value_bytes")?,
            ttl: Duration::from_millis(limit("max_ttl_ms")?),
            batch_keys: usize::try_from(batch_keys).unwrap_or(usize::MAX),
        })
    }
}

/// Copies everything, and prints what became of it. Holds at most five parts of
/// [`PART_BYTES`] and the keys of a step of the walk.
pub(crate) async fn run(
    args: &ImportArgs,
    caller: &Caller,
    out: &mut Output,
) -> Result<(), Failure> {
    let limits = Limits::ask(caller, args.batch).await?;
    let mut source = Redis::connect(args, limits).await?;
    // A pattern matches nobody knows how many.
    let total = match args.pattern {
        None => source.size().await?,
        Some(_) => None,
    };
    let mut progress = Progress::new(total, out.format);
    let mut tally = Tally::default();
    let mut store = Store::new(caller, args);
    let walked = copy(&mut source, &mut store, &mut tally, &mut progress).await;
    // What is on its way counts, also if the source has gone.
    let stored = store.finish(&mut tally).await;
    progress.clear();
    tally.print(args.dry_run.dry_run, out)?;
    walked.and(stored)?;
    tally.failure().map_or(Ok(()), Err)
}

async fn copy(
    source: &mut Redis,
    store: &mut Store<'_>,
    tally: &mut Tally,
    progress: &mut Progress,
) -> Result<(), Failure> {
    while let Some(part) = source.next_part(tally).await? {
        store.push(part, tally).await?;
        progress.show(tally);
    }
    Ok(())
}
