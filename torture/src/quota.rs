//! Processor time of a server, bounded, so that whoever makes the load is not starved by
//! it: a cgroup where this process may make one, else a core of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where control groups are found.
const V2: &str = "/sys/fs/cgroup";
const V1: &str = "/sys/fs/cgroup/cpu";

/// How a server's processor time is bounded.
#[derive(Debug)]
pub(crate) enum Quota {
    /// A group that is removed with this.
    Group {
        path: PathBuf,
        version: u8,
        share: Share,
    },
    /// The server has one thread, on a core of its own; no group can be made.
    Core,
    /// Neither.
    None,
}

/// So much processor time in each period, of all cores together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    pub(crate) quota: Duration,
    pub(crate) period: Duration,
}

impl Quota {
    /// Makes a group, if that is possible.
    pub(crate) fn make(share: Share) -> Self {
        let name = format!("larder-torture-{}", std::process::id());
        for (root, version) in [(V2, 2), (V1, 1)] {
            let path = Path::new(root).join(&name);
            if group(Path::new(root), &path, version, share).is_some() {
                return Self::Group {
                    path,
                    version,
                    share,
                };
            }
            // It may have come half-way.
            let _ = fs::remove_dir(&path);
        }
        match std::thread::available_parallelism() {
            Ok(cores) if cores.get() > 1 && has_taskset() => Self::Core,
            _ => Self::None,
        }
    }

    /// Puts a process into it, with all its threads.
    pub(crate) fn hold(&self, process: u32) -> anyhow::Result<()> {
        match self {
            Self::Group { path, .. } => {
                fs::write(path.join("cgroup.procs"), process.to_string())?;
                Ok(())
            }
            Self::Core => pin(process, 0),
            Self::None => Ok(()),
        }
    }

    /// Keeps this process out of the server's way.
    pub(crate) fn hold_self(&self) -> anyhow::Result<()> {
        match self {
            Self::Core => pin(std::process::id(), 1),
            Self::Group { .. } | Self::None => Ok(()),
        }
    }
}

impl std::fmt::Display for Quota {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Group { version, share, .. } => write!(
                f,
                "{:?} of processor time every {:?} (cgroup v{version})",
                share.quota, share.period
            ),
            Self::Core => f.write_str("one thread on a core of its own (no cgroup can be made)"),
            Self::None => f.write_str("not bounded (neither a cgroup nor a second core)"),
        }
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        if let Self::Group { path, .. } = self {
            // The server has ended; if the kernel still counts it, the group stays.
            let _ = fs::remove_dir(path);
        }
    }
}

fn group(root: &Path, path: &Path, version: u8, share: Share) -> Option<()> {
    let micros = |duration: Duration| duration.as_micros().to_string();
    let (quota, period) = (micros(share.quota), micros(share.period));
    match version {
        2 => {
            let controllers = fs::read_to_string(root.join("cgroup.controllers")).ok()?;
            controllers.split_whitespace().find(|name| *name == "cpu")?;
            fs::create_dir(path).ok()?;
            fs::write(path.join("cpu.max"), format!("{quota} {period}")).ok()
        }
        _ => {
            fs::metadata(root.join("cpu.cfs_quota_us")).ok()?;
            fs::create_dir(path).ok()?;
            fs::write(path.join("cpu.cfs_period_us"), period).ok()?;
            fs::write(path.join("cpu.cfs_quota_us"), quota).ok()
        }
    }
}

fn has_taskset() -> bool {
    let version = std::process::Command::new("taskset").arg("-V").output();
    version.is_ok_and(|output| output.status.success())
}

fn pin(process: u32, core: usize) -> anyhow::Result<()> {
    let output = std::process::Command::new("taskset")
        .args(["-a", "-c", "-p", &core.to_string(), &process.to_string()])
        .output()?;
    let why = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "taskset: {why}");
    Ok(())
}
