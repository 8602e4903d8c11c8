//! The program under attack.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;
use tokio::time::Instant;

/// Between two looks at the server's memory.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(20);
/// `USER_HZ`, the unit of processor time in `/proc`: 100 a second wherever Linux
/// has a stable interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// What is attacked.
#[derive(Debug, Clone)]
pub(crate) enum Program {
    /// `larder serve`.
    Larder(PathBuf),
    /// The example of the transport.
    EchoCache(PathBuf),
}

/// A server that runs until it is dropped.
pub(crate) struct Server {
    /// To look at.
    pub(crate) process: Process,
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The victim's credential; empty if the server asks for none.
    pub(crate) token: String,
    /// Where it tells of itself, if it was told to.
    admin: Option<SocketAddr>,
    sampler: Option<JoinHandle<()>>,
    peak_rss_bytes: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    home: TempDir,
}

/// A machine that is short of processors makes a server late, and what is attacked here
/// is not its admission.
const NO_SHEDDING: [(&str, &str); 1] = [("LARDER_ADMISSION_LATE_MS", "0")];
/// How long its metrics may take.
const SCRAPE_PATIENCE: Duration = Duration::from_secs(10);

impl Server {
    /// Starts it, with at most so many open files, and waits until it listens.
    ///
    /// # Errors
    /// It does not start, or does not say where it listens.
    pub(crate) fn start(program: &Program, max_open_files: usize) -> anyhow::Result<Self> {
        Self::spawn(program, max_open_files, &[], &NO_SHEDDING)
    }

    /// The same with more arguments; the victim then has no account and no token.
    ///
    /// # Errors
    /// As of [`Self::start`].
    pub(crate) fn start_with(
        program: &Program,
        max_open_files: usize,
        more: &[&str],
    ) -> anyhow::Result<Self> {
        Self::spawn(program, max_open_files, more, &[])
    }

    /// Starts `larder` so that it tells of itself and sheds no load; there is no account.
    ///
    /// # Errors
    /// As of [`Self::start`].
    pub(crate) fn start_watched(
        larder: &Path,
        max_open_files: usize,
        more: &[&str],
    ) -> anyhow::Result<Self> {
        let more = [&["--admin", "127.0.0.1:0"], more].concat();
        let program = Program::Larder(larder.into());
        Self::spawn(&program, max_open_files, &more, &NO_SHEDDING)
    }

    fn spawn(
        program: &Program,
        max_open_files: usize,
        more: &[&str],
        variables: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let home = tempfile::tempdir()?;
        let data = home.path().join("data");
        let (path, arguments) = match program {
            Program::Larder(path) => {
                let data = data.display().to_string();
                let listen = ["serve", "--listen", "127.0.0.1:0", "--data-dir"];
                let arguments = listen.map(str::to_owned).into_iter().chain([data]);
                (path, arguments.collect::<Vec<_>>())
            }
            Program::EchoCache(path) => (path, vec!["127.0.0.1:0".to_owned()]),
        };
        // The shell sets the limit; the program takes its place.
        let mut child = Command::new("sh")
            .args(["-c", "ulimit -n \"$0\"; exec \"$@\""])
            .arg(max_open_files.to_string())
            .arg(path)
            .args(arguments)
            .args(more)
            .env_clear()
            .envs(variables.iter().copied())
            .envs(environment())
            .env("HOME", home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", path.display()))?;
        let is_watched = more.contains(&"--admin");
        let (address, admin) = match listening(&mut child, is_watched) {
            Ok(addresses) => addresses,
            Err(error) => {
                // It may have ended by itself.
                let _ = child.kill();
                return Err(error.context(format!("{} did not listen", path.display())));
            }
        };
        let token = match program {
            Program::Larder(_) if !more.is_empty() => Ok(String::new()),
            Program::Larder(path) => make_token(path, address, &data.join("admin-token")),
            Program::EchoCache(_) => Ok(String::new()),
        };
        let token = match token {
            Ok(token) => token,
            Err(error) => {
                // What matters is the error.
                let _ = child.kill();
                return Err(error);
            }
        };
        let peak_rss_bytes = Arc::new(AtomicU64::new(0));
        let ended = Arc::new(AtomicBool::new(false));
        let process = Process(child.id());
        let (peak, end) = (Arc::clone(&peak_rss_bytes), Arc::clone(&ended));
        let sampler = std::thread::Builder::new()
            .name("sampler".to_owned())
            .spawn(move || {
                while !end.load(Ordering::Relaxed) {
                    peak.fetch_max(process.rss_bytes(), Ordering::Relaxed);
                    std::thread::park_timeout(SAMPLE_INTERVAL);
                }
            })?;
        Ok(Self {
            process,
            child,
            address,
            token,
            admin,
            sampler: Some(sampler),
            peak_rss_bytes,
            ended,
            home,
        })
    }

    /// Where the administrator's token lies.
    pub(crate) fn admin_token_file(&self) -> PathBuf {
        self.home.path().join("data/admin-token")
    }

    /// The most memory that it held since the last time, bytes.
    pub(crate) fn take_peak_rss_bytes(&self) -> u64 {
        let peak = self.peak_rss_bytes.swap(0, Ordering::Relaxed);
        peak.max(self.process.rss_bytes())
    }

    /// Makes so many accounts; returns a token of each.
    ///
    /// # Errors
    /// It is not `larder`, or refuses.
    pub(crate) fn accounts(&self, program: &Program, count: usize) -> anyhow::Result<Vec<String>> {
        let Program::Larder(larder) = program else {
            bail!("only larder has accounts");
        };
        let output = Command::new(larder)
            .env_clear()
            .envs(environment())
            .args(["bench", "accounts", "--json", "--name=load"])
            .arg(count.to_string())
            .arg("--max-rps=1000000000")
            .arg(format!("--server=http://{}", self.address))
            .arg("--token-file")
            .arg(self.home.path().join("data").join("admin-token"))
            .output()?;
        let why = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "larder bench accounts: {why}");
        let made: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let tokens = made["tokens"].as_array().context("a list of tokens")?;
        let tokens = tokens.iter().filter_map(|token| token.as_str());
        Ok(tokens.map(str::to_owned).collect())
    }

    /// What it counts, by name and labels as they are written.
    ///
    /// # Errors
    /// It was not started by [`Self::start_watched`], or does not answer.
    pub(crate) fn metrics(&self) -> anyhow::Result<HashMap<String, f64>> {
        let address = self.admin.context("it was not told to tell of itself")?;
        let mut io = TcpStream::connect(address)?;
        io.set_read_timeout(Some(SCRAPE_PATIENCE))?;
        io.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut page = String::new();
        io.read_to_string(&mut page)?;
        let (head, page) = page.split_once("\r\n\r\n").context("an answer of HTTP")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "/metrics: {head}");
        let samples = page.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Ok(samples.collect())
    }

    /// True if it has not ended.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // It may have ended by itself, which was told before.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(sampler) = self.sampler.take() {
            sampler.thread().unpark();
            // It only reads.
            let _ = sampler.join();
        }
    }
}

/// Makes an account, and a token of it.
fn make_token(larder: &Path, address: SocketAddr, admin: &Path) -> anyhow::Result<String> {
    let run = |arguments: &[&str]| command(larder, address, admin, arguments);
    let limits = ["--max-keys=1000", "--max-bytes=64MiB", "--max-rps=none"];
    run(&[&["account", "create", "victim"][..], &limits].concat())?;
    let made: serde_json::Value = serde_json::from_slice(&run(&["token", "create", "victim"])?)?;
    let secret = made["secret"].as_str().context("a token has a secret")?;
    Ok(secret.to_owned())
}

/// Runs a command of `larder` as an administrator; what it wrote, as JSON.
///
/// # Errors
/// It fails.
pub(crate) fn command(
    larder: &Path,
    address: SocketAddr,
    admin: &Path,
    arguments: &[&str],
) -> anyhow::Result<Vec<u8>> {
    let output = Command::new(larder)
        .env_clear()
        .envs(environment())
        .args(arguments)
        .arg("--json")
        .arg(format!("--server=http://{address}"))
        .arg("--token-file")
        .arg(admin)
        .output()?;
    let why = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "larder {arguments:?}: {why}");
    Ok(output.stdout)
}

/// The environment without what would configure larder.
fn environment() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| !name.to_string_lossy().starts_with("LARDER_"))
}

/// Where it listens, and where it tells of itself.
fn listening(
    child: &mut Child,
    is_watched: bool,
) -> anyhow::Result<(SocketAddr, Option<SocketAddr>)> {
    let output = child.stdout.take().context("its output is a pipe")?;
    let mut address = None;
    for line in BufReader::new(output).lines() {
        let line = line?;
        if let Some(told) = line.strip_prefix("listening on ") {
            address = Some(told.parse()?);
        }
        let admin = line.strip_prefix("admin on ").map(str::parse).transpose()?;
        if let Some(address) = address
            && admin.is_some() == is_watched
        {
            return Ok((address, admin));
        }
    }
    bail!("it ended");
}

/// Lets a server, and what was started beside it, do what they do for a while.
pub(crate) fn pause(duration: Duration) {
    let until = Instant::now() + duration;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

/// A process, as `/proc` shows it. When it has ended, everything is 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(u32);

impl Process {
    /// Its number.
    pub(crate) const fn id(self) -> u32 {
        self.0
    }

    /// Memory that it holds now, bytes.
    pub(crate) fn rss_bytes(self) -> u64 {
        self.read_rss_bytes().unwrap_or(0)
    }

    /// Processor time that it has used, seconds.
    pub(crate) fn cpu_seconds(self) -> f64 {
        self.read_cpu_seconds().unwrap_or(0.0)
    }

    fn read(self, file: &str) -> Option<String> {
        let folder = Path::new("/proc").join(self.0.to_string());
        std::fs::read_to_string(folder.join(file)).ok()
    }

    fn read_rss_bytes(self) -> Option<u64> {
        let status = self.read("status")?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kibibytes * 1024)
    }

    /// Fields 14 and 15 of `stat`, counted after the name, which may hold
    /// anything.
    fn read_cpu_seconds(self) -> Option<f64> {
        let stat = self.read("stat")?;
        let after = stat.rsplit_once(')')?.1;
        let mut times = after.split_whitespace().skip(11);
        let user: f64 = times.next()?.parse().ok()?;
        let system: f64 = times.next()?.parse().ok()?;
        Some((user + system) / TICKS_PER_SECOND)
    }
}
