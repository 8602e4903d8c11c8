//! Runs steps side by side: a step waits only for what it needs, and no failure
//! keeps another step from running.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// A command of a step that takes longer is ended, and the step fails.
const COMMAND_TIMEOUT: Duration = Duration::from_mins(20);

/// A server that takes longer to listen is ended.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a running command is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A failure shows this many lines of its log at the most.
const MAX_LINES_SHOWN: usize = 400;

/// What a step may not share with another one that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Cargo's target folder: a second cargo would only wait.
    Target,
    /// Nothing.
    Free,
}

/// One check.
pub(crate) struct Step {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// What it does, in a few words.
    pub(crate) about: &'static str,
    /// Steps whose result it uses. One with a `?` behind its name is only waited
    /// for: it may have been skipped, or failed.
    pub(crate) needs: &'static [&'static str],
    /// Programs that must be on the PATH.
    pub(crate) tools: &'static [&'static str],
    /// What it may not share.
    pub(crate) lane: Lane,
    /// Does it.
    pub(crate) run: fn(&Shell) -> anyhow::Result<Done>,
}

/// How a step ended, if it did not fail.
#[derive(Debug)]
pub(crate) enum Done {
    /// All is well.
    Passed,
    /// All is well with so many cases.
    Counted(String),
    /// It could not be run, and that is no fault of the repository.
    Skipped(String),
}

/// What a step works with.
pub(crate) struct Shell {
    /// Root of the repository.
    pub(crate) root: PathBuf,
    /// Folder of downloads.
    pub(crate) cache: PathBuf,
    /// Whether a build server runs this: nothing may be missing then, and
    /// Debian packages may be installed.
    pub(crate) ci: bool,
    log: PathBuf,
}

impl Shell {
    /// For what is named `name`; its log is emptied.
    ///
    /// # Errors
    /// When `.cache/` cannot be written.
    pub(crate) fn new(root: &Path, name: &str) -> anyhow::Result<Self> {
        let cache = root.join(".cache");
        let logs = cache.join("logs");
        std::fs::create_dir_all(&logs)?;
        let log = logs.join(format!("{name}.log"));
        std::fs::write(&log, "")?;
        Ok(Self {
            root: root.into(),
            cache,
            ci: std::env::var("CI").is_ok_and(|value| value == "true"),
            log,
        })
    }

    /// A command that runs in `folder`, relative to the root.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>, folder: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.root.join(folder));
        command
    }

    /// Runs a command, its output going to the step's log.
    ///
    /// # Errors
    /// When it cannot be started, fails, or runs longer than a step may.
    pub(crate) fn run(&self, command: &mut Command) -> anyhow::Result<()> {
        self.run_and_read(command).map(drop)
    }

    /// The same; returns what the command wrote.
    ///
    /// # Errors
    /// The same.
    pub(crate) fn run_and_read(&self, command: &mut Command) -> anyhow::Result<String> {
        let mut log = self.log()?;
        let line = self.line(command);
        writeln!(log, "$ {line}")?;
        let before = log.metadata()?.len();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {line}"))?;
        let started = stopwatch();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if started.elapsed() > COMMAND_TIMEOUT {
                child.kill()?;
                child.wait()?;
                bail!("{line}: still running after {COMMAND_TIMEOUT:?}, ended");
            }
            std::thread::park_timeout(POLL_INTERVAL);
        };
        if !status.success() {
            bail!("{line}: {status}");
        }
        let mut written = File::open(&self.log)?;
        written.seek(SeekFrom::Start(before))?;
        let mut output = Vec::new();
        written.read_to_end(&mut output)?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    /// Starts a server, whose errors go to the step's log, and reads from its
    /// output where it listens.
    ///
    /// # Errors
    /// When it cannot be started, or does not say so in time.
    pub(crate) fn serve(&self, command: &mut Command) -> anyhow::Result<Server> {
        let mut log = self.log()?;
        let line = self.line(command);
        writeln!(log, "$ {line} &")?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {line}"))?;
        let output = child.stdout.take().context("its output is piped")?;
        let (sender, found) = mpsc::channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            for text in lines {
                if let Some(address) = text.strip_prefix("listening on ") {
                    // Nobody waits for it any more.
                    let _ = sender.send(address.to_owned());
                }
            }
        });
        let mut server = Server {
            child,
            address: String::new(),
        };
        server.address = found
            .recv_timeout(START_TIMEOUT)
            .with_context(|| format!("{line}: does not listen"))?;
        Ok(server)
    }

    fn log(&self) -> io::Result<File> {
        File::options().create(true).append(true).open(&self.log)
    }

    /// The command as one would type it at the root.
    fn line(&self, command: &Command) -> String {
        let root = format!("{}/", self.root.display());
        command_line(command).replace(&root, "")
    }
}

/// A server that ends with this.
pub(crate) struct Server {
    child: Child,
    /// Where it listens.
    pub(crate) address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `first`, then the steps named in `only`, with what they need; all, if
/// it is empty.
///
/// # Errors
/// When a name in `only` is unknown, or `.cache/` cannot be written.
pub(crate) fn run(
    root: &Path,
    first: &'static Step,
    all: &'static [Step],
    only: &[String],
) -> anyhow::Result<ExitCode> {
    let chosen = choose(all, only)?;
    let cache = root.join(".cache");
    let logs = cache.join("logs");
    std::fs::create_dir_all(&logs)?;
    let board = Board {
        steps: chosen,
        state: Mutex::new(State::default()),
        changed: Condvar::new(),
        shell: |step: &Step| Shell {
            root: root.into(),
            cache: cache.clone(),
            ci: std::env::var("CI").is_ok_and(|value| value == "true"),
            log: logs.join(format!("{}.log", step.name)),
        },
    };
    println!(
        "running {} steps; their output is in .cache/logs",
        board.steps.len() + 1
    );
    board.carry_out(first, None);
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 4));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| board.work());
        }
    });
    Ok(summary(&board.lock().results))
}

fn choose(all: &'static [Step], only: &[String]) -> anyhow::Result<Vec<&'static Step>> {
    for name in only {
        if !all.iter().any(|step| step.name == name) {
            bail!("there is no step {name:?}; `cargo xtask test --list` shows them");
        }
    }
    let mut wanted: Vec<&str> = only.iter().map(String::as_str).collect();
    // The table is in order: what a step needs stands above it.
    for step in all.iter().rev() {
        if wanted.contains(&step.name) {
            wanted.extend(step.needs.iter().map(|need| name_of(need)));
        }
    }
    Ok(all
        .iter()
        .filter(|step| only.is_empty() || wanted.contains(&step.name))
        .collect())
}

#[derive(Debug)]
enum Outcome {
    /// Perhaps with a count.
    Passed(Option<String>),
    Failed(String),
    Skipped(String),
}

#[derive(Default)]
struct State {
    started: Vec<&'static str>,
    target_busy: bool,
    results: BTreeMap<&'static str, Outcome>,
}

struct Board<F> {
    steps: Vec<&'static Step>,
    state: Mutex<State>,
    changed: Condvar,
    shell: F,
}

impl<F: Fn(&Step) -> Shell> Board<F> {
    /// Takes steps until none is left to start.
    fn work(&self) {
        while let Some((step, blocked_by)) = self.take() {
            self.carry_out(step, blocked_by);
        }
    }

    /// Runs one step, unless a need of it did not pass, and notes its outcome.
    fn carry_out(&self, step: &'static Step, blocked_by: Option<&str>) {
        let started = stopwatch();
        let shell = (self.shell)(step);
        let outcome = match blocked_by {
            Some(need) => Outcome::Skipped(format!("needs {need}, which did not pass")),
            None => outcome(step, &shell),
        };
        report(step, &outcome, started.elapsed(), &shell.log);
        let mut state = self.lock();
        state.target_busy &= step.lane != Lane::Target;
        state.results.insert(step.name, outcome);
        self.changed.notify_all();
    }

    /// The next step whose needs are done, and the need that did not pass, if
    /// there is one. Waits when all that is left waits for others.
    fn take(&self) -> Option<(&'static Step, Option<&'static str>)> {
        let mut state = self.lock();
        loop {
            let left = || {
                let started = &state.started;
                self.steps
                    .iter()
                    .filter(|step| !started.contains(&step.name))
            };
            left().next()?;
            let ready = left().find(|step| {
                let free = step.lane == Lane::Free || !state.target_busy;
                let is_done = |need: &&str| state.results.contains_key(name_of(need));
                free && step.needs.iter().all(is_done)
            });
            if let Some(step) = ready.copied() {
                let passed = |need: &&&str| {
                    need.ends_with('?') || matches!(state.results[**need], Outcome::Passed(_))
                };
                let blocked_by = step.needs.iter().find(|need| !passed(need)).copied();
                state.started.push(step.name);
                state.target_busy |= step.lane == Lane::Target;
                return Some((step, blocked_by));
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The step that a need names.
fn name_of(need: &str) -> &str {
    need.strip_suffix('?').unwrap_or(need)
}

fn outcome(step: &Step, shell: &Shell) -> Outcome {
    // The log of the run before.
    let _ = std::fs::remove_file(&shell.log);
    let missing: Vec<&str> = step
        .tools
        .iter()
        .copied()
        .filter(|tool| !is_on_path(tool))
        .collect();
    if !missing.is_empty() {
        let why = format!("not installed: {}", missing.join(", "));
        return if shell.ci {
            Outcome::Failed(why)
        } else {
            Outcome::Skipped(why)
        };
    }
    match (step.run)(shell) {
        Ok(Done::Passed) => Outcome::Passed(None),
        Ok(Done::Counted(count)) => Outcome::Passed(Some(count)),
        Ok(Done::Skipped(why)) => Outcome::Skipped(why),
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}

/// Whether the PATH has a program of that name.
pub(crate) fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// One line for the step, in one write so that steps do not mix; after a
/// failure, its output.
fn report(step: &Step, outcome: &Outcome, took: Duration, log: &Path) {
    let mut text = String::new();
    let (word, why) = match outcome {
        Outcome::Passed(count) => ("passed", count.as_ref()),
        Outcome::Failed(why) => ("FAILED", Some(why)),
        Outcome::Skipped(why) => ("SKIPPED", Some(why)),
    };
    text += &format!("{word:<8} {:<20} {:>7.1} s", step.name, took.as_secs_f64());
    if let Some(why) = why {
        text += &format!("  {why}");
    }
    if matches!(outcome, Outcome::Failed(_)) {
        let output = std::fs::read(log).unwrap_or_default();
        let output = String::from_utf8_lossy(&output);
        let lines: Vec<&str> = output.lines().collect();
        let hidden = lines.len().saturating_sub(MAX_LINES_SHOWN);
        text += &format!("\n---- output of {} ----\n", step.name);
        if hidden > 0 {
            text += &format!("({hidden} lines more in {})\n", log.display());
        }
        text += &lines[hidden..].join("\n");
        text += &format!("\n---- end of {} ----", step.name);
    }
    println!("{text}");
}

fn summary(results: &BTreeMap<&'static str, Outcome>) -> ExitCode {
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    println!();
    for (name, outcome) in results {
        match outcome {
            Outcome::Passed(count) => {
                passed += 1;
                if let Some(count) = count {
                    println!("passed   {name}: {count}");
                }
            }
            Outcome::Failed(why) => {
                failed += 1;
                println!("FAILED   {name}: {why}");
            }
            Outcome::Skipped(why) => {
                skipped += 1;
                println!("SKIPPED  {name}: {why}");
            }
        }
    }
    if skipped == 0 {
        println!("{passed} passed, {failed} failed");
    } else {
        println!("{passed} passed, {failed} failed, {skipped} skipped");
    }
    ExitCode::from(u8::from(failed > 0))
}

/// The command as one would type it.
fn command_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[allow(
    clippy::disallowed_methods,
    reason = "a stopwatch for people; nothing is decided by it but that a hanging command ends"
)]
fn stopwatch() -> Instant {
    Instant::now()
}
