//! What it costs to compress messages and to make them whole, nanoseconds for each byte
//! of the message: of JSON, and of bytes that cannot be compressed.
//!
//! ```text
//! cargo run --release --example gzip_cost
//! ```

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "it measures, and says what"
)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use larder_transport::gzip::{compress, decompress};

/// Bytes that are compressed for each figure.
const BYTES: usize = 32 << 20;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Records as a program might keep them.
fn json(bytes: usize) -> Vec<u8> {
    let mut random = Random(1);
    let mut text = String::new();
    while text.len() < bytes {
        let (id, number, score) = (
            random.next() >> 40,
            random.next() % 10_000,
            random.next() % 1000,
        );
        let active = score.is_multiple_of(2);
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "{{\"id\":{id},\"name\":\"user-{number}\",\"email\":\"user{number}@example.com\",\
             \"active\":{active},\"score\":{score}}},"
        );
    }
    text.truncate(bytes);
    text.into_bytes()
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut random = Random(1);
    (0..bytes).map(|_| random.next().to_le_bytes()[3]).collect()
}

/// Nanoseconds for each byte of a message of so many.
fn measure(bytes: usize, mut work: impl FnMut()) -> f64 {
    let rounds = u32::try_from(BYTES / bytes).unwrap_or(1);
    let start = Instant::now();
    for _ in 0..rounds {
        work();
    }
    let size = u32::try_from(bytes).map_or(f64::MAX, f64::from);
    start.elapsed().as_secs_f64() * 1e9 / f64::from(rounds) / size
}

fn main() {
    for bytes in [1 << 10, 4 << 10, 64 << 10, 1 << 20] {
        for (name, message) in [("json", json(bytes)), ("noise", noise(bytes))] {
            let pack = measure(bytes, || drop(black_box(compress(black_box(&message)))));
            let Some(packed) = compress(&message) else {
                println!("{name} {bytes} B: {pack:.1} ns/B, and no smaller");
                continue;
            };
            let open = measure(bytes, || {
                drop(black_box(decompress(black_box(&packed), bytes)));
            });
            println!(
                "{name} {bytes} B: {} B, {pack:.1} ns/B, and {open:.1} ns/B back",
                packed.len()
            );
        }
    }
}
