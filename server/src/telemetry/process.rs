//! Figures of the process, by the names that Prometheus' client libraries give them.
//! From `/proc`, so on Linux only: elsewhere they are not exported.

use std::path::Path;

use super::exposition::Page;

/// `USER_HZ`: ticks a second in `/proc`, the same on every architecture that Rust's Linux has.
const TICKS_PER_SECOND: u64 = 100;
/// Bytes of a unit in `/proc/self/status`.
const KIB: u64 = 1024;

pub(crate) fn write(page: &mut Page, proc: &Path) {
    let read = |file: &str| std::fs::read_to_string(proc.join(file)).unwrap_or_default();
    let status = read("self/status");
    let stat = read("self/stat");
    let of_status = |name: &str| {
        let value = line_after(&status, name)?;
        value.parse::<u64>().ok().map(|kib| kib * KIB)
    };
    let mut gauge = |name, help, value: Option<u64>| {
        if let Some(value) = value {
            page.gauge(name, help).value(value);
        }
    };
    gauge(
        "process_resident_memory_bytes",
        "Memory of the process that is in RAM.",
        of_status("VmRSS:"),
    );
    gauge(
        "process_virtual_memory_bytes",
        "Address space of the process.",
        of_status("VmSize:"),
    );
    let descriptors = std::fs::read_dir(proc.join("self/fd")).ok();
    gauge(
        "process_open_fds",
        "Open file descriptors.",
        // One of them reads the folder.
        descriptors.map(|all| (all.count() as u64).saturating_sub(1)),
    );
    let limits = read("self/limits");
    let most = line_after(&limits, "Max open files").and_then(|soft| soft.parse().ok());
    gauge("process_max_fds", "Most file descriptors.", most);
    let threads = line_after(&status, "Threads:").and_then(|it| it.parse().ok());
    gauge("process_threads", "Threads.", threads);
    let booted = line_after(&read("stat"), "btime").and_then(|it| it.parse::<u64>().ok());
    let started = booted.zip(field(&stat, 22));
    gauge(
        "process_start_time_seconds",
        "When the process began, seconds since 1970.",
        started.map(|(booted, ticks)| booted + ticks / TICKS_PER_SECOND),
    );
    if let (Some(user), Some(system)) = (field(&stat, 14), field(&stat, 15)) {
        let ticks = user + system;
        let (seconds, parts) = (ticks / TICKS_PER_SECOND, ticks % TICKS_PER_SECOND);
        let text = format!("{seconds}.{parts:02}");
        page.counter(
            "process_cpu_seconds_total",
            "Processor time of the process, its own and the kernel's for it.",
        )
        .value(text);
    }
}

/// The first word after the name at the start of a line.
fn line_after<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()
}

/// A field of `/proc/self/stat`, by its number in proc(5). The second, the name, may hold anything.
fn field(stat: &str, number: usize) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(number - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_told_and_what_it_does_not_say_is_not() {
        let proc = tempfile::tempdir().expect("a directory");
        let mut page = Page::default();
        write(&mut page, proc.path());
        assert_eq!(page.into_text(), "");

        let own = proc.path().join("self");
        std::fs::create_dir_all(own.join("fd")).expect("a directory");
        let put = |file: &str, text: &str| {
            std::fs::write(proc.path().join(file), text).expect("a file");
        };
        put("self/fd/0", "");
        put("self/fd/1", "");
        put("self/fd/2", "");
        put(
            "self/status",
            "Name:\tx\nVmSize:\t   8 kB\nVmRSS:\t   4 kB\nThreads:\t5\n",
        );
        put(
            "self/stat",
            "7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 150 51 0 0 20 0 5 0 1234 9 9",
        );
        put(
            "self/limits",
            "Max open files            1024                 4096    files\n",
        );
        put("stat", "cpu  1 2\nbtime 1000\n");
        let mut page = Page::default();
        write(&mut page, proc.path());
        let text = page.into_text();
        for line in [
            "process_resident_memory_bytes 4096",
            "process_virtual_memory_bytes 8192",
            "process_open_fds 2",
            "process_max_fds 1024",
            "process_threads 5",
            "process_start_time_seconds 1012",
            "process_cpu_seconds_total 2.01",
        ] {
            assert!(text.lines().any(|each| each == line), "{line}:\n{text}");
        }
    }
}
