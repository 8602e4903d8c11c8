//! Entries in this process, in front of the server: how old they may be, what this program's own
//! writes do, and how a source of changes is plugged in.
//!
//! `cargo run -p larder-client --example near -- http://127.0.0.1:5051`
//!
//! With `--measure` behind, it prints what a hit costs beside a call, and an entry in memory.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use larder_client::{
    Client, ClientConfig, Error, Invalidations, NearCache, NearConfig, SetOptions,
};
use tokio::time::Instant;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let server = arguments.next();
    let server = server.as_deref().unwrap_or("http://127.0.0.1:5051");
    let client = Client::connect(ClientConfig::new(server)?).await?;
    if arguments.next().as_deref() == Some("--measure") {
        return measure(&client).await;
    }

    // At most 2 s old, in at most 64 MiB. Absent keys are kept for half a second.
    let config =
        NearConfig::new(Duration::from_secs(2), 64 << 20).with_misses(Duration::from_millis(500));
    let near = client.near(config)?;

    client.set("greeting", "hello", SetOptions::new()).await?;
    near.get("greeting").await?; // asks the server
    near.get("greeting").await?; // does not
    client.set("greeting", "salve", SetOptions::new()).await?;
    let entry = near.get("greeting").await?; // asks again: this client has written it
    println!("{:?}", entry.map(|entry| entry.value));

    watch(&near.invalidations());
    println!("{:?}", near.stats());
    Ok(())
}

/// What a stream of changes says, here made up.
fn watch(source: &Invalidations) {
    // Begin with what was there before: nothing is known of it.
    source.forget_all();
    let asked = Instant::now();
    // ... the server answers that it has sent all changes up to now:
    source.in_touch(asked.into_std());
    source.written("greeting", 7); // an entry of an older version goes
    source.removed("other", 8); // deleted, expired or evicted
    source.changed("third"); // nobody knows how
    source.prefix("session/");
}

const GETS: u32 = 20_000;
const ENTRIES: u32 = 100_000;

async fn measure(client: &Client) -> Result<(), Error> {
    let near = client.near(NearConfig::new(Duration::from_secs(3600), 1 << 30))?;
    client
        .set("key-of-20-bytes-long", vec![b'v'; 100], SetOptions::new())
        .await?;

    let start = Instant::now();
    for _ in 0..GETS {
        client.get("key-of-20-bytes-long").await?;
    }
    println!(
        "a call: {} ns",
        start.elapsed().as_nanos() / u128::from(GETS)
    );

    near.get("key-of-20-bytes-long").await?;
    let hits = GETS * 100;
    let start = Instant::now();
    for _ in 0..hits {
        std::hint::black_box(near.get("key-of-20-bytes-long").await?);
    }
    println!(
        "a hit: {} ns",
        start.elapsed().as_nanos() / u128::from(hits)
    );
    memory(client, &near).await
}

/// What the process grows by, beside what the cache says of itself.
async fn memory(client: &Client, near: &NearCache) -> Result<(), Error> {
    for number in 0..ENTRIES {
        let key = format!("key-{number:016}");
        client.set(&key, vec![b'v'; 100], SetOptions::new()).await?;
    }
    let before = resident_bytes();
    for number in 0..ENTRIES {
        // A hit shares key and value, which costs memory of its own.
        near.get(format!("key-{number:016}")).await?;
        near.get(format!("key-{number:016}")).await?;
    }
    let grown = resident_bytes().saturating_sub(before) / u64::from(ENTRIES);
    let counted = near.stats().bytes / near.stats().entries;
    println!("an entry of 20 + 100 bytes: {grown} resident, {counted} counted");
    Ok(())
}

/// Linux only; 0 elsewhere.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = pages
        .split_whitespace()
        .nth(1)
        .and_then(|it| it.parse().ok());
    pages.unwrap_or(0_u64) * 4096
}
