//! One attack, measured: the victim before, during and after it, and the server's
//! memory and processor.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use larder_transport::error_codes::ErrorCode;
use tokio::time::Instant;

use super::{Attack, Ends, Outcome, Size, Target};
use crate::calls;
use crate::server::{Program, Server};
use crate::victim::{Victim, failed, p99};
use crate::wire::{Wire, request};

/// Memory that an attack may cost, bytes; those of many connections say so
/// themselves.
const MAX_RSS_GROWTH_BYTES: u64 = 64 * 1024 * 1024;
/// After the attack, until the victim is served as before.
const MAX_RECOVERY: Duration = Duration::from_secs(10);
/// A percentile that is no worse than this is good, whatever it was before:
/// machines that do other things as well.
const GOOD_P99: Duration = Duration::from_millis(50);
/// A server that serves the victim alone uses no more of one core.
const MAX_CPU_AFTERWARDS: f64 = 0.5;
/// Beyond this, an attack hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a trial came to.
pub(super) struct Verdict {
    pub(super) text: String,
    pub(super) failures: Vec<String>,
}

struct Measured {
    outcome: Outcome,
    baseline_p99: Duration,
    p99: Duration,
    calls: usize,
    failed: usize,
    recovered: Option<Duration>,
    rss: [u64; 3],
    cpu: f64,
    cpu_afterwards: f64,
    took: Duration,
    alive: bool,
}

/// Starts a server and a victim, and attacks.
pub(super) fn run(attack: &Attack, program: &Program, size: Size) -> anyhow::Result<Verdict> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut server = Server::start(program, attack.max_open_files)?;
    let address = server.address;
    runtime
        .block_on(fill(address))
        .context("the server cannot be filled")?;
    let victim = Victim::start(address, &server.token)?;
    let measured = runtime.block_on(measure(attack, &mut server, &victim, size))?;
    let failures = judge(attack, &measured);
    Ok(Verdict {
        text: describe(attack, &measured, &failures),
        failures,
    })
}

/// Stores what is asked for.
async fn fill(address: std::net::SocketAddr) -> anyhow::Result<()> {
    let mut wire = Wire::greeted(address, &[]).await?;
    let large = vec![b'v'; calls::LARGE_BYTES];
    let block = calls::grpc_block(calls::STORE, &[]);
    for (stream, key, value) in [(1, calls::SMALL, &b"value"[..]), (3, calls::LARGE, &large)] {
        let mut bytes = Vec::new();
        request(&mut bytes, stream, &block, &calls::store(key, value));
        wire.send(&bytes).await;
        wire.read_until(PATIENCE, |came| {
            came.answered() == u64::from(stream).div_ceil(2)
        })
        .await;
    }
    let stored = wire.came.answers.get("0");
    anyhow::ensure!(stored == Some(&2), "{:?}", wire.came);
    Ok(())
}

async fn measure(
    attack: &Attack,
    server: &mut Server,
    victim: &Victim,
    size: Size,
) -> anyhow::Result<Measured> {
    let window = (size.duration / 2).clamp(Duration::from_millis(500), Duration::from_secs(1));
    let start = Instant::now();
    tokio::time::sleep(window + window / 2).await;
    let begins = Instant::now();
    let baseline_p99 = p99(&victim.samples(start + window / 2, begins));
    let before = server.process.rss_bytes();
    server.take_peak_rss_bytes();
    let cpu = server.process.cpu_seconds();
    let target = Target {
        address: server.address,
        size,
        until: begins + size.duration,
        process: server.process,
    };
    let attacking = tokio::time::timeout(size.duration + PATIENCE, (attack.run)(target));
    let outcome = attacking.await.context("the attack hangs")?;
    let outcome = outcome.unwrap_or_else(|error| Outcome {
        failures: vec![format!("the attacker failed: {error:#}")],
        ..Outcome::default()
    });
    let ends = Instant::now();
    let cpu = server.process.cpu_seconds() - cpu;
    let peak = server.take_peak_rss_bytes();
    let (recovered, cpu_afterwards) = recover(server, victim, baseline_p99, window).await;
    // Calls that began late in the attack are told by now, unless they hang.
    let samples = victim.samples(begins, ends);
    let all = victim.samples(start, Instant::now());
    Ok(Measured {
        baseline_p99,
        p99: p99(&samples),
        calls: all.len(),
        failed: failed(&all),
        recovered,
        rss: [before, peak, server.process.rss_bytes()],
        cpu,
        cpu_afterwards,
        took: ends - begins,
        alive: server.is_alive(),
        outcome,
    })
}

/// Waits for a window of time in which the victim is served as before. How long
/// that took, and the processor's use in the last window.
async fn recover(
    server: &Server,
    victim: &Victim,
    baseline: Duration,
    window: Duration,
) -> (Option<Duration>, f64) {
    let good = (baseline * 3 / 2).max(GOOD_P99);
    let started = Instant::now();
    loop {
        let (begins, cpu) = (Instant::now(), server.process.cpu_seconds());
        tokio::time::sleep(window).await;
        let used = (server.process.cpu_seconds() - cpu) / begins.elapsed().as_secs_f64();
        // An answer may need as long as is good.
        tokio::time::sleep(good).await;
        let samples = victim.samples(begins, begins + window);
        let expected = window.as_secs_f64() * f64::from(crate::victim::RATE);
        let enough = samples.len() as f64 >= 0.8 * expected;
        if enough && failed(&samples) == 0 && p99(&samples) <= good {
            return (Some(begins - started), used);
        }
        if started.elapsed() > MAX_RECOVERY {
            return (None, used);
        }
    }
}

fn judge(attack: &Attack, measured: &Measured) -> Vec<String> {
    let mut failures = measured.outcome.failures.clone();
    let mut check = |good: bool, why: String| {
        if !good {
            failures.push(why);
        }
    };
    check(measured.alive, "the server has ended".to_owned());
    let failed = measured.failed;
    check(failed == 0, format!("{failed} calls of the victim failed"));
    check(
        measured.recovered.is_some(),
        "it did not recover".to_owned(),
    );
    let [before, peak, _] = measured.rss;
    let grown = peak.saturating_sub(before);
    let own = measured.outcome.held.len() as u64 * 64 * 1024;
    check(
        grown <= MAX_RSS_GROWTH_BYTES.max(own),
        format!("{} of memory more", mebibytes(grown)),
    );
    let used = measured.cpu_afterwards;
    check(
        used <= MAX_CPU_AFTERWARDS,
        format!("it uses {used:.2} of a core after the attack"),
    );
    check_endings(attack.ends, &measured.outcome, &mut check);
    failures
}

fn check_endings(ends: Ends, outcome: &Outcome, check: &mut impl FnMut(bool, String)) {
    match ends {
        Ends::Anyhow => {}
        Ends::Never => {
            let list: Vec<_> = outcome.endings.keys().map(ToString::to_string).collect();
            check(list.is_empty(), format!("ended: {}", list.join(", ")));
        }
        Ends::With(codes) => {
            check(
                !outcome.endings.is_empty(),
                "the server let it go on".to_owned(),
            );
            for ending in outcome.endings.keys() {
                let code = ending.code.map(ErrorCode);
                let right = code.is_some_and(|code| codes.contains(&code));
                // A reset of the connection can take the GOAWAY away: then another
                // connection has shown it.
                let unseen = code.is_none() && outcome.endings.len() > 1;
                check(right || unseen, format!("ended with {ending}"));
            }
        }
    }
}

fn mebibytes(bytes: u64) -> String {
    let tenths = bytes * 10 / (1024 * 1024);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

fn describe(attack: &Attack, measured: &Measured, failures: &[String]) -> String {
    let outcome = &measured.outcome;
    let mut text = format!(
        "{:<28} {} events, {} connections",
        attack.name, outcome.events, outcome.connections
    );
    // Writing to a string does not fail.
    for (ending, count) in &outcome.endings {
        let _ = write!(text, "; {count} ended: {ending}");
    }
    if let Some(events) = outcome.events_until_end {
        let _ = write!(text, ", the first after {events} events");
    }
    for note in &outcome.notes {
        let _ = write!(text, "; {note}");
    }
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let ratio = ms(measured.p99) / ms(measured.baseline_p99).max(0.001);
    let _ = write!(
        text,
        "\n    victim: {} calls, {} failed, p99 {:.1} -> {:.1} ms ({ratio:.1} x)",
        measured.calls,
        measured.failed,
        ms(measured.baseline_p99),
        ms(measured.p99)
    );
    let _ = match measured.recovered {
        Some(after) => write!(text, ", recovered after {:.1} s", after.as_secs_f64()),
        None => write!(text, ", not recovered"),
    };
    let [before, peak, after] = measured.rss.map(mebibytes);
    let _ = write!(
        text,
        "\n    server: {before}, peak {peak}, then {after}; {:.2} s of processor in {:.1} s, then {:.2} of a core",
        measured.cpu,
        measured.took.as_secs_f64(),
        measured.cpu_afterwards
    );
    for failure in failures {
        let _ = write!(text, "\n    FAILED: {failure}");
    }
    text
}
