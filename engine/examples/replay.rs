//! Replays a trace of requests against an engine, and prints the hit ratio:
//! `cargo run --release --example replay -- TRACE CAPACITY [keys|bytes]`.
//!
//! Each request is a get, and a set on a miss. The capacity is a number of
//! objects, kept as a key quota, or as a byte quota that just as many one-byte
//! objects fill. The format is told by the end of the file's name: `.lis.zst`
//! (the ARC paper's), `.i32be.xz`, `.ids.gz` (one id a line), `.csv.zst`
//! (libCacheSim's, fifth column).

use std::error::Error;
use std::fs::File;
use std::future::Future;
use std::io::{BufReader, Read};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use larder_engine::{Engine, EngineConfig, Keyspace};
use larder_model::{
    AccountId, AccountName, AccountUid, AtLimit, Call, Condition, EntryKey, Expiry, ExpiryChange,
    Key, Limits, Namespace, Quota, ReadEffect, Set, Store, Time,
};

#[allow(
    clippy::print_stdout,
    reason = "its figures are what the example is for"
)]
fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, capacity, rest @ ..] = args.as_slice() else {
        return Err("usage: replay TRACE CAPACITY [keys|bytes]".into());
    };
    let capacity: u64 = capacity.parse()?;
    let trace = read_trace(path)?;
    let quota = if rest.first().is_some_and(|unit| unit == "bytes") {
        // A key of eight bytes, a value of one, and what each entry counts.
        Quota {
            max_bytes: capacity * (8 + 1 + 64),
            at_limit: AtLimit::Evict,
            ..Quota::UNLIMITED
        }
    } else {
        Quota {
            max_keys: capacity,
            at_limit: AtLimit::Evict,
            ..Quota::UNLIMITED
        }
    };
    let hits = replay(&trace, quota)?;
    #[allow(clippy::cast_precision_loss, reason = "four digits are printed")]
    let ratio = hits as f64 / trace.len() as f64;
    println!("{path} @ {capacity}: {ratio:.4} of {}", trace.len());
    Ok(())
}

fn replay(trace: &[u64], quota: Quota) -> Result<u64, Box<dyn Error>> {
    let engine = Engine::new(EngineConfig {
        max_memory_bytes: 4 << 30,
        hash_seed: [7; 16],
        first_version: 1,
        keyspace: Keyspace::PerAccount,
    });
    let id = AccountId {
        name: AccountName::parse("trace")?,
        uid: AccountUid::new(""),
    };
    let account = engine.open(&id, quota);
    let call = Call::at(Time::ZERO);
    for id in trace {
        let id = id.to_be_bytes();
        let at = EntryKey {
            namespace: Namespace::DEFAULT,
            key: Key::parse(&id, &Limits::default())?,
        };
        let is_hit = now(engine.get(&account, call, at, ReadEffect::Use, |it| it.is_some()))?;
        if !is_hit {
            now(engine.set(
                &account,
                call,
                Set {
                    at,
                    value: b"1",
                    flags: 0,
                    expiry: ExpiryChange::To(Expiry::Never),
                    condition: Condition::Always,
                },
            ))?;
        }
    }
    Ok(now(engine.usage(&account, call))?.hits)
}

/// Runs a future of the engine; it waits for nobody.
fn now<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

fn read_trace(path: &str) -> Result<Vec<u64>, Box<dyn Error>> {
    let mut file = BufReader::new(File::open(path)?);
    let mut bytes = Vec::new();
    if path.ends_with(".zst") {
        zstd::stream::copy_decode(&mut file, &mut bytes)?;
    } else if path.ends_with(".xz") {
        lzma_rs::xz_decompress(&mut file, &mut bytes)?;
    } else if path.ends_with(".gz") {
        flate2::read::MultiGzDecoder::new(file).read_to_end(&mut bytes)?;
    } else {
        file.read_to_end(&mut bytes)?;
    }
    if path.contains(".i32be") {
        let (ids, _) = bytes.as_chunks();
        return Ok(ids
            .iter()
            .map(|id| u32::from_be_bytes(*id).into())
            .collect());
    }
    let text = String::from_utf8(bytes)?;
    let lines = text.lines().map(str::trim);
    if path.contains(".lis") {
        let pages = |line: &str| {
            let mut numbers = line.split_whitespace().map(str::parse);
            let first: u64 = numbers.next().transpose().ok()??;
            let count: u64 = numbers.next().transpose().ok()??;
            Some(first..first + count)
        };
        return Ok(lines.filter_map(pages).flatten().collect());
    }
    if path.contains(".csv") {
        let block = |line: &str| line.split(',').nth(4)?.trim().parse().ok();
        return Ok(lines.filter_map(block).collect());
    }
    Ok(lines.filter_map(|line| line.parse().ok()).collect())
}
