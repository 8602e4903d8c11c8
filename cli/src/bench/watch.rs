//! What a process uses while a load runs: Linux tells it in `/proc`.

use std::fs;
use std::io;
use std::time::Duration;

/// Ticks a second in which `/proc` counts the time of the processor: fixed for
/// programs, whatever the kernel's own clock does.
const TICKS_PER_SECOND: u64 = 100;

/// Where the user's time stands in `/proc/PID/stat`, counted from 0 after the
/// name of the program (proc_pid_stat(5): the 14th of all); the system's
/// follows.
const USER_FIELD: usize = 11;

/// A process at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    /// Time of the processor in the program itself.
    pub(super) user: Duration,
    /// Time of the processor in the kernel, for the program.
    pub(super) system: Duration,
    /// Memory in use (RSS), bytes.
    pub(super) resident_bytes: u64,
}

impl Sample {
    /// Looks at a process.
    ///
    /// # Errors
    /// There is no such process, or no such way to look at it.
    pub(super) fn take(process: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let malformed = || io::Error::other("/proc tells something else than expected");
        let [user, system] = times(&stat).ok_or_else(malformed)?;
        Ok(Self {
            user,
            system,
            resident_bytes: resident_bytes(&status).ok_or_else(malformed)?,
        })
    }

    /// Time of the processor since an earlier look.
    pub(super) fn cpu_since(&self, before: &Self) -> Duration {
        (self.user + self.system).saturating_sub(before.user + before.system)
    }
}

fn times(stat: &str) -> Option<[Duration; 2]> {
    // The name stands in parentheses, and may have some of its own.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(USER_FIELD);
    let mut next = || {
        let ticks: u64 = fields.next()?.parse().ok()?;
        Some(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
    };
    Some([next()?, next()?])
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_tells() {
        let stat = "7 (a) (b) S 1 7 7 0 -1 4194560 1 2 3 4 150 25 8 9 20 0 1 0 5";
        let [user, system] = times(stat).unwrap();
        assert_eq!(
            (user, system),
            (Duration::from_millis(1_500), Duration::from_millis(250))
        );
        let status = "Name:\ta\nVmHWM:\t  9 kB\nVmRSS:\t    5120 kB\n";
        assert_eq!(resident_bytes(status), Some(5 << 20));
        assert_eq!(times(""), None);
        assert_eq!(resident_bytes(""), None);
    }
}
