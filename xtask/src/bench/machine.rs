//! The machine that is measured on, and where programs run on it.

use std::process::Command;

use anyhow::Context as _;

use crate::runner::is_on_path;

/// Open files that a program may need: a thousand connections and more.
const OPEN_FILES: u32 = 16_384;

/// Which cores the servers and the load use.
pub(super) struct Cores {
    /// Cores of a server, as `taskset` wants them; `None` for all.
    server: Option<String>,
    load: Option<String>,
    /// Threads of a server: one for each of its cores.
    pub(super) server_threads: usize,
    /// Threads of the load generator.
    pub(super) load_threads: usize,
}

impl Cores {
    /// One half for the server and the other for the load, where there are two
    /// or more and `taskset`; with `shared`, all for both.
    pub(super) fn new(shared: bool) -> anyhow::Result<Self> {
        let all = std::thread::available_parallelism()?.get();
        if shared || all < 2 || !is_on_path("taskset") {
            return Ok(Self {
                server: None,
                load: None,
                server_threads: all,
                load_threads: (all / 2).max(1),
            });
        }
        let half = all / 2;
        Ok(Self {
            server: Some(range(0, half - 1)),
            load: Some(range(half, all - 1)),
            server_threads: half,
            load_threads: all - half,
        })
    }

    /// What was done, for the page.
    pub(super) fn told(&self) -> String {
        match (&self.server, &self.load) {
            (Some(server), Some(load)) => format!(
                "By `taskset`, servers run on core {server} with {} thread(s), the load on core {load} with {}. \
                 Redis has one thread for commands whatever there is.",
                self.server_threads, self.load_threads
            ),
            _ => format!(
                "Servers and load share all cores; a server has {} thread(s), the load {}. \
                 Redis has one thread for commands whatever there is.",
                self.server_threads, self.load_threads
            ),
        }
    }

    /// A command that runs on the cores of servers.
    pub(super) fn server(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        command(self.server.as_deref(), program)
    }

    /// A command that runs on the cores of the load.
    pub(super) fn load(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        command(self.load.as_deref(), program)
    }
}

/// Cores as `taskset` wants them.
fn range(first: usize, last: usize) -> String {
    match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    }
}

/// Goes through a shell that becomes the program, since only a shell can allow
/// itself more open files without code that is not safe.
fn command(cores: Option<&str>, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c");
    command.arg(format!("ulimit -n {OPEN_FILES} 2>/dev/null; exec \"$@\""));
    command.arg("sh");
    if let Some(cores) = cores {
        command.args(["taskset", "-c", cores]);
    }
    command.arg(program);
    command
}

/// The machine in a line.
pub(super) fn description() -> anyhow::Result<String> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = field(&cpu, "model name").unwrap_or("unknown processor");
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let memory = field(&memory, "MemTotal").unwrap_or("0 kB");
    let kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .unwrap_or("Linux")
        .trim_matches('"');
    let is_virtual = cpu.contains(" hypervisor");
    Ok(format!(
        "{model}, {} core(s){}, {} GiB, {system}, Linux {}",
        std::thread::available_parallelism()?,
        if is_virtual {
            " of a virtual machine"
        } else {
            ""
        },
        (kib + (1 << 19)) >> 20,
        kernel.trim()
    ))
}

/// GiB of memory that programs could have.
pub(super) fn available_gib() -> u64 {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = field(&memory, "MemAvailable").unwrap_or("0 kB");
    let kib: u64 = available.trim_end_matches(" kB").parse().unwrap_or(0);
    kib >> 20
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then_some(value.trim())
    })
}

/// The first line of what a command prints, or nothing.
pub(super) fn first_line(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().context("cannot start a program")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}
