//! What a load has measured, for people and for programs.

use std::time::Duration;

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::units::show_size;

use super::load::{LoadArgs, Run};
use super::stats::{Stats, per_second, ratio, seconds_of, whole_per_second};
use super::watch::Sample;

/// Names of the latencies, for people and in JSON, and their percentiles.
const LATENCIES: [(&str, &str, f64); 5] = [
    ("latency p50", "p50", 50.0),
    ("latency p90", "p90", 90.0),
    ("latency p99", "p99", 99.0),
    ("latency p99.9", "p99_9", 99.9),
    ("latency max", "max", 100.0),
];

/// A load, and the server meanwhile.
pub(super) struct Measured {
    pub(super) run: Run,
    pub(super) server: Option<Server>,
}

/// The process that was watched.
pub(super) struct Server {
    /// Before there was a connection.
    pub(super) before: Sample,
    /// When what is measured began.
    pub(super) begin: Sample,
    /// When the last call had ended; all connections are still there.
    pub(super) end: Sample,
}

/// Prints `{"requests", "succeeded", "failed", "errors", "seconds",
/// "requests_per_second", "hits", "misses", "hit_ratio", "bytes_read",
/// "bytes_written", "latency_us", "connections", "streams", "threads", "mix",
/// "seed", "interrupted", "own_cpu_us_per_request", "server"}`, where `errors` are `{"code", "reason", "count"}`,
/// `latency_us` has `p50`, `p90`, `p99`, `p99_9` and `max` of the calls that
/// succeeded, and bytes are those of values read, and of keys and values
/// written. `server` is what was watched: `{"user_seconds", "system_seconds",
/// "cpu_us_per_request", "resident_bytes_before", "resident_bytes_after"}`, the
/// memory before the first connection was made and with all of them. What there
/// is none of is `null`.
pub(super) fn report(
    args: &LoadArgs,
    measured: &Measured,
    out: &mut Output,
) -> Result<(), Failure> {
    let stats = &measured.run.stats;
    match out.format {
        Format::Json => out.json(&object(args, measured))?,
        Format::Text => {
            out.pairs(&pairs(measured))?;
            if stats.failed() > 0 {
                out.line("")?;
                out.table(&["ERROR", "REASON", "COUNT"], &error_rows(stats))?;
            }
        }
    }
    if stats.succeeded() == 0 && stats.failed() > 0 {
        return Err(Failure::Failed("no call succeeded".into()));
    }
    Ok(())
}

fn object(args: &LoadArgs, measured: &Measured) -> Value {
    let run = &measured.run;
    let stats = &run.stats;
    let errors: Vec<_> = stats
        .errors()
        .iter()
        .map(|((code, reason), count)| json!({"code": code, "reason": reason, "count": count}))
        .collect();
    let latency: serde_json::Map<_, _> = LATENCIES
        .iter()
        .map(|&(_, name, percentile)| (name.to_owned(), stats.latency_us(percentile).into()))
        .collect();
    json!({
        "requests": stats.requests(),
        "succeeded": stats.succeeded(),
        "failed": stats.failed(),
        "errors": errors,
        "seconds": run.elapsed.as_secs_f64(),
        "requests_per_second": per_second(stats.requests(), run.elapsed),
        "hits": stats.hits(),
        "misses": stats.misses(),
        "hit_ratio": ratio(stats.hits(), stats.hits() + stats.misses()),
        "bytes_read": stats.bytes_read(),
        "bytes_written": stats.bytes_written(),
        "latency_us": latency,
        "connections": args.connections,
        "streams": args.streams,
        "threads": args.threads,
        "mix": args.mix.to_string(),
        "seed": args.seed,
        "interrupted": run.interrupted,
        "own_cpu_us_per_request": run.own_cpu.and_then(|cpu| us_each(cpu, stats.requests())),
        "server": measured.server.as_ref().map(|server| json!({
            "user_seconds": (server.end.user - server.begin.user).as_secs_f64(),
            "system_seconds": (server.end.system - server.begin.system).as_secs_f64(),
            "cpu_us_per_request": server.cpu_us_each(stats.requests()),
            "resident_bytes_before": server.before.resident_bytes,
            "resident_bytes_after": server.end.resident_bytes,
        })),
    })
}

impl Server {
    /// Time of the processor for each of so many requests, microseconds.
    fn cpu_us_each(&self, requests: u64) -> Option<f64> {
        us_each(self.end.cpu_since(&self.begin), requests)
    }
}

/// Microseconds for each of so many requests; `None` for none.
fn us_each(time: Duration, requests: u64) -> Option<f64> {
    ratio(1, requests).map(|each| time.as_secs_f64() * 1e6 * each)
}

fn pairs(measured: &Measured) -> Vec<(&'static str, String)> {
    let run = &measured.run;
    let stats = &run.stats;
    let reads = stats.hits() + stats.misses();
    let mut pairs = vec![
        ("requests", stats.requests().to_string()),
        ("failed", stats.failed().to_string()),
        ("seconds", seconds_of(run.elapsed)),
        (
            "requests/s",
            whole_per_second(stats.requests(), run.elapsed),
        ),
    ];
    for (name, _, percentile) in LATENCIES {
        let shown = stats
            .latency_us(percentile)
            .map_or_else(|| "-".into(), show_latency);
        pairs.push((name, shown));
    }
    if let Some(ratio) = ratio(stats.hits(), reads) {
        pairs.push(("hit ratio", format!("{ratio:.4}")));
    }
    for (name, bytes) in [
        ("read", stats.bytes_read()),
        ("written", stats.bytes_written()),
    ] {
        pairs.push((
            name,
            format!("{}, {}/s", show_size(bytes), size_rate(bytes, run.elapsed)),
        ));
    }
    if let Some(server) = &measured.server {
        if let Some(us) = server.cpu_us_each(stats.requests()) {
            pairs.push(("server CPU/request", format!("{us:.2} µs")));
        }
        let memory = [server.before, server.end].map(|sample| show_size(sample.resident_bytes));
        pairs.push(("server memory", memory.join(", then ")));
    }
    pairs
}

fn error_rows(stats: &Stats) -> Vec<Vec<String>> {
    stats
        .errors()
        .iter()
        .map(|((code, reason), count)| {
            let reason = reason.as_deref().unwrap_or("-");
            vec![(*code).to_owned(), reason.to_owned(), count.to_string()]
        })
        .collect()
}

/// Bytes a second, for people.
fn size_rate(bytes: u64, elapsed: Duration) -> String {
    let nanos = elapsed.as_nanos().max(1);
    let rate = u128::from(bytes) * 1_000_000_000 / nanos;
    show_size(u64::try_from(rate).unwrap_or(u64::MAX))
}

/// Microseconds for people.
fn show_latency(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{}.{:02} ms", us / 1_000, us % 1_000 / 10),
        _ => format!("{}.{:02} s", us / 1_000_000, us % 1_000_000 / 10_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_for_people() {
        for (us, shown) in [
            (0, "0 µs"),
            (999, "999 µs"),
            (1_000, "1.00 ms"),
            (12_345, "12.34 ms"),
            (999_999, "999.99 ms"),
            (1_050_000, "1.05 s"),
            (60_000_000, "60.00 s"),
        ] {
            assert_eq!(show_latency(us), shown);
        }
    }

    #[test]
    fn byte_rates() {
        assert_eq!(size_rate(2048, Duration::from_millis(500)), "4 KiB");
        assert_eq!(size_rate(0, Duration::ZERO), "0 B");
    }
}
