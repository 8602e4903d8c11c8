//! Prints what an entry takes beside its key and value, and what calls cost:
//! `cargo run --release --example measure -- KEYS [VALUE_BYTES] [ttl|evict]`.
//!
//! One thread, keys of 16 bytes, in an order that no cache line likes. Memory
//! is the growth of the process's resident size, so it holds all there is.

use std::error::Error;
use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use larder_engine::{Account, Engine, EngineConfig, Keyspace};
use larder_model::suite::Random;
use larder_model::{
    AccountId, AccountName, AccountUid, AtLimit, Call, Condition, EntryKey, Expiry, ExpiryChange,
    Key, Limits, MAX_EXPECTED, Namespace, Quota, ReadEffect, Set, Store, Time,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const READS: u64 = 5_000_000;

#[allow(
    clippy::print_stdout,
    reason = "its figures are what the example is for"
)]
fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let keys: u64 = args.first().map_or(Ok(100_000), |text| text.parse())?;
    let value_bytes: usize = args.get(1).map_or(Ok(32), |text| text.parse())?;
    let mode = args.get(2).map_or("", String::as_str);
    let engine = Engine::new(EngineConfig {
        max_memory_bytes: 64 << 30,
        hash_seed: [7; 16],
        first_version: 1,
        keyspace: Keyspace::PerAccount,
    });
    let id = AccountId {
        name: AccountName::parse("measured")?,
        uid: AccountUid::new(""),
    };
    let quota = Quota {
        max_keys: keys,
        at_limit: AtLimit::Evict,
        ..Quota::UNLIMITED
    };
    let bench = Bench {
        account: engine.open(&id, quota),
        engine: &engine,
        value: vec![1; value_bytes],
        expiry: if mode == "ttl" {
            Expiry::At(Time::from_millis(3_600_000))
        } else {
            Expiry::Never
        },
    };
    let before = resident_bytes()?;
    let insert = nanos(keys, |key| bench.set(key));
    if mode == "evict" {
        let evict = nanos(keys, |key| bench.set(keys + key));
        println!("set that evicts   {evict:6.0} ns");
    }
    let live = now(engine.usage(&bench.account, Call::at(Time::ZERO)))?.keys;
    let taken = resident_bytes()? - before;
    let beside = taken / live - 16 - value_bytes as u64;
    let charged = engine.memory_use().used_bytes / live - 16 - value_bytes as u64;
    if mode == "memory" {
        println!("beside key and value {beside} bytes resident, {charged} charged");
        return Ok(());
    }
    let mut random = Random::new(1);
    let first = if mode == "evict" { keys } else { 0 };
    let reads: Vec<_> = (0..READS).map(|_| first + random.below(keys)).collect();
    let at = |number: u64| reads[usize::try_from(number).unwrap_or_default()];
    let get = nanos(READS, |number| bench.get(at(number)));
    let expected = nanos(READS, |number| {
        let group = number % MAX_EXPECTED as u64;
        if group == 0 {
            let coming = number..READS.min(number + MAX_EXPECTED as u64);
            bench.expect(&coming.map(|number| key(at(number))).collect::<Vec<_>>());
        }
        bench.get(at(number));
    });
    let miss = nanos(READS, |number| bench.get(at(number) + 10 * keys));
    let set = nanos(READS, |number| bench.set(at(number)));
    println!("{live} keys of 16 bytes, values of {value_bytes}, {mode}");
    println!("beside key and value {beside} bytes resident, {charged} charged");
    println!("set of a new key  {insert:6.0} ns");
    println!("get, hit          {get:6.0} ns");
    println!("get, expected     {expected:6.0} ns, in groups of {MAX_EXPECTED}");
    println!("get, miss         {miss:6.0} ns");
    println!("set, overwriting  {set:6.0} ns");
    compare_values();
    Ok(())
}

/// What a lock is held for: a copy of the value, or a clone of its count.
#[allow(
    clippy::print_stdout,
    reason = "its figures are what the example is for"
)]
fn compare_values() {
    for len in [64, 256, 1024, 4096, 16_384, 65_536, 1 << 20] {
        // 64 MiB of values, so that most are not in a cache.
        let count = ((64 << 20) / len as u64).max(1);
        let values: Vec<Arc<[u8]>> = (0..count).map(|_| Arc::from(vec![1; len])).collect();
        let mut random = Random::new(2);
        let mut out = vec![0; len];
        let rounds = (1_u64 << 31) / (len as u64).max(4096);
        let mut pick = || &values[usize::try_from(random.below(count)).unwrap_or_default()];
        let copy = nanos(rounds, |_| {
            out.copy_from_slice(pick());
            black_box(&mut out);
        });
        let clone = nanos(rounds, |_| drop(black_box(Arc::clone(pick()))));
        println!("value of {len:7} bytes: copy {copy:8.0} ns, count {clone:4.0} ns");
    }
}

struct Bench<'e> {
    engine: &'e Engine,
    account: Account,
    value: Vec<u8>,
    expiry: Expiry,
}

impl Bench<'_> {
    fn set(&self, number: u64) {
        let key = key(number);
        let set = Set {
            at: entry(&key),
            value: &self.value,
            flags: 0,
            expiry: ExpiryChange::To(self.expiry),
            condition: Condition::Always,
        };
        let set = self.engine.set(&self.account, Call::at(Time::ZERO), set);
        let _ = black_box(now(set));
    }

    fn expect(&self, keys: &[[u8; 16]]) {
        let keys = keys.iter().map(|key| entry(key));
        self.engine.expect(&self.account, keys);
    }

    fn get(&self, number: u64) {
        let key = key(number);
        let call = Call::at(Time::ZERO);
        let visit = |it: Option<larder_model::EntryRef<'_>>| it.map(|it| it.value.len());
        let get = self
            .engine
            .get(&self.account, call, entry(&key), ReadEffect::Use, visit);
        let _ = black_box(now(get));
    }
}

fn key(number: u64) -> [u8; 16] {
    let mut key = [b'k'; 16];
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

fn entry(key: &[u8]) -> EntryKey<'_> {
    EntryKey {
        namespace: Namespace::DEFAULT,
        key: Key::parse(key, &Limits::default()).expect("16 bytes are a key"),
    }
}

/// Time of this thread on a processor, each: others may be busy meanwhile.
#[allow(clippy::cast_precision_loss, reason = "three digits are printed")]
fn nanos(times: u64, mut work: impl FnMut(u64)) -> f64 {
    let start = thread_nanos();
    for number in 0..times {
        work(number);
    }
    (thread_nanos() - start) as f64 / times as f64
}

fn thread_nanos() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let spent = text.split(' ').next().and_then(|field| field.parse().ok());
    spent.expect("Linux counts the time of a thread")
}

fn resident_bytes() -> Result<u64, Box<dyn Error>> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split(' ').nth(1).ok_or("no resident size")?;
    Ok(pages.parse::<u64>()? * 4096)
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
