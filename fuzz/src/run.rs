//! The loop over mutated inputs, with as many targets at a time as asked for.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::mutate::mutate;
use crate::random::Random;
use crate::{Target, features};

/// An input that takes longer hangs.
const HANG: Duration = Duration::from_secs(20);
/// Inputs that are kept because they did something new, beside the first ones.
const MAX_FOUND: usize = 4000;
/// Runs that a failing input is made shorter in.
const SHRINKING_RUNS: usize = 3000;
/// Inputs between two looks at the clock.
const BATCH: u64 = 64;

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// For each target.
    pub time: Duration,
    /// Targets at a time.
    pub jobs: usize,
    /// Of the mutations.
    pub seed: u64,
    /// The folder of the corpora.
    pub corpora: PathBuf,
    /// Where an input that fails is written.
    pub failures: PathBuf,
}

thread_local! {
    /// The message of the last panic of this thread.
    static PANIC: RefCell<String> = RefCell::default();
}

/// What the loop of one target is doing, for whoever watches that it goes on.
struct Current {
    input: Vec<u8>,
    since: Instant,
}

#[derive(Debug, Default)]
struct Report {
    executions: u64,
    elapsed: Duration,
    corpus: usize,
    found: usize,
    failure: Option<String>,
}

#[allow(
    clippy::disallowed_methods,
    reason = "a stopwatch: how long to go on, and how fast it went"
)]
fn now() -> Instant {
    Instant::now()
}

/// Runs targets, and prints what they did. False if one failed.
///
/// # Errors
/// A corpus that cannot be read, or a target that hangs.
#[allow(clippy::print_stdout, reason = "the output of a command")]
pub fn run(targets: &[&'static Target], options: &Options) -> anyhow::Result<bool> {
    keep_panics_quiet();
    let todo = Mutex::new(targets.to_vec());
    let mut good = true;
    let mut total = 0;
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let (done, reports) = mpsc::channel();
        for _ in 0..options.jobs.clamp(1, targets.len().max(1)) {
            let (done, todo) = (done.clone(), &todo);
            scope.spawn(move || {
                while let Some(target) = next(todo) {
                    // Nobody listens any more after a failure to read.
                    let _ = done.send((target, watched(target, options)));
                }
            });
        }
        drop(done);
        for (target, report) in reports {
            let report = report?;
            println!("{}", line(target, &report));
            total += report.executions;
            good &= report.failure.is_none();
        }
        Ok(())
    })?;
    println!(
        "{total} executions of {} targets, seed {}",
        targets.len(),
        options.seed
    );
    Ok(good)
}

fn next(todo: &Mutex<Vec<&'static Target>>) -> Option<&'static Target> {
    let mut todo = todo.lock().unwrap_or_else(PoisonError::into_inner);
    (!todo.is_empty()).then(|| todo.remove(0))
}

fn line(target: &Target, report: &Report) -> String {
    let seconds = report.elapsed.as_secs_f64();
    let millis = u64::try_from(report.elapsed.as_millis()).unwrap_or(u64::MAX);
    let rate = report.executions * 1000 / millis.max(1);
    let mut line = format!(
        "{:<17} {:>10} executions, {rate:>7}/s, {seconds:.1} s, corpus {} + {} found",
        target.name, report.executions, report.corpus, report.found
    );
    if let Some(failure) = &report.failure {
        // Writing to a string does not fail.
        let _ = write!(line, "\nFAILED {}: {failure}", target.name);
    }
    line
}

/// Panics of targets are told by their reports; those on purpose by nobody.
fn keep_panics_quiet() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let message = info.payload_as_str().unwrap_or("a panic");
        PANIC.with_borrow_mut(|known| *known = format!("{place}: {message}"));
    }));
}

/// Runs a target, and ends the program if it hangs.
fn watched(target: &'static Target, options: &Options) -> anyhow::Result<Report> {
    let current = Arc::new(Mutex::new(Current {
        input: Vec::new(),
        since: now(),
    }));
    let (done, report) = mpsc::channel();
    let (shared, own) = (Arc::clone(&current), options.clone());
    std::thread::Builder::new()
        .name(target.name.to_owned())
        .spawn(move || {
            // The one who waits has given up: it hung.
            let _ = done.send(fuzz(target, &own, &shared));
        })?;
    loop {
        match report.recv_timeout(Duration::from_secs(1)) {
            Ok(report) => return report,
            Err(RecvTimeoutError::Disconnected) => bail!("{} broke off", target.name),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let current = current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.since.elapsed() > HANG {
            let file = save(target, &current.input, &options.failures)?;
            bail!(
                "{} hangs; run it again with {}",
                target.name,
                again(target, &file)
            );
        }
    }
}

fn fuzz(
    target: &'static Target,
    options: &Options,
    current: &Mutex<Current>,
) -> anyhow::Result<Report> {
    let mut corpus = read_corpus(&options.corpora.join(target.corpus))?;
    let mut report = Report {
        corpus: corpus.len(),
        ..Report::default()
    };
    let mut random = Random::new(hash(&(options.seed, target.name)));
    let mut known: HashSet<u64> = HashSet::new();
    let started = now();
    // The corpus as it is, and then what comes of it.
    let first = corpus.len();
    loop {
        for _ in 0..BATCH {
            let place = usize::try_from(report.executions).unwrap_or(usize::MAX);
            let mut input = match corpus.get(place) {
                Some(input) if place < first => input.clone(),
                _ => changed(&corpus, &mut random, target.max_bytes),
            };
            report.executions += 1;
            begin(current, &input);
            if let Err(why) = execute(target, &input) {
                shorten(target, &mut input, &mut random);
                let file = save(target, &input, &options.failures)?;
                report.failure = Some(format!("{why}\n{}", again(target, &file)));
                report.elapsed = started.elapsed();
                return Ok(report);
            }
            let seen = features::take();
            if !seen.is_subset(&known) {
                known.extend(seen);
                if report.found < MAX_FOUND {
                    report.found += 1;
                    corpus.push(input);
                }
            }
        }
        report.elapsed = started.elapsed();
        if report.elapsed > options.time {
            return Ok(report);
        }
    }
}

fn begin(current: &Mutex<Current>, input: &[u8]) {
    let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
    current.input.clear();
    current.input.extend_from_slice(input);
    current.since = now();
}

fn changed(corpus: &[Vec<u8>], random: &mut Random, max_bytes: usize) -> Vec<u8> {
    if corpus.is_empty() || random.one_in(50) {
        let count = random.below(max_bytes.min(300));
        return random.bytes(count);
    }
    // The newest did what others did not: half of the time, one of them.
    let recent = corpus.len().saturating_sub(64);
    let place = if random.one_in(2) {
        recent + random.below(corpus.len() - recent)
    } else {
        random.below(corpus.len())
    };
    let mut input = corpus[place].clone();
    let other = &corpus[random.below(corpus.len())];
    mutate(&mut input, other, random, max_bytes);
    input
}

/// Runs one input. An error is what the panic said.
fn execute(target: &Target, input: &[u8]) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|_| PANIC.take())
}

/// Leaves out what the failure does not need.
fn shorten(target: &Target, input: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..SHRINKING_RUNS {
        if input.len() < 2 {
            return;
        }
        let from = random.below(input.len());
        let most = (input.len() - from).min([1, 9, 64, input.len() / 2 + 1][random.below(4)]);
        let mut shorter = input.clone();
        shorter.drain(from..from + 1 + random.below(most));
        if execute(target, &shorter).is_err() {
            *input = shorter;
        }
    }
}

fn hash(what: &impl std::hash::Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(what)
}

fn save(target: &Target, input: &[u8], folder: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    let file = folder.join(format!("{}-{:016x}.bin", target.name, hash(&input)));
    std::fs::write(&file, input).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

fn again(target: &Target, file: &Path) -> String {
    format!(
        "cargo xtask fuzz {} --input {}",
        target.name,
        file.display()
    )
}

fn read_corpus(folder: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry?.path());
    }
    files.sort();
    let read = files.iter().map(std::fs::read);
    Ok(read.collect::<Result<_, _>>()?)
}

/// Runs one file, without catching anything: for a debugger.
///
/// # Errors
/// The file cannot be read.
pub fn check_file(target: &Target, file: &Path) -> anyhow::Result<()> {
    let input = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    (target.run)(&input);
    Ok(())
}

/// Runs a target's corpus. How many inputs it has.
///
/// # Errors
/// A file cannot be read.
pub fn check_corpus(target: &Target, corpora: &Path) -> anyhow::Result<usize> {
    let corpus = read_corpus(&corpora.join(target.corpus))?;
    for input in &corpus {
        (target.run)(input);
    }
    Ok(corpus.len())
}
