//! One measurement: a load, and what the server used meanwhile.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::Times;
use super::machine::Cores;
use super::programs::Programs;
use super::scenarios::{Case, Tool};
use super::servers::{Credential, Server, Servers};

/// Ticks a second in which `/proc` counts the time of the processor.
const TICKS_PER_SECOND: u64 = 100;

/// Calls a second over all connections that are to be idle: each makes a few.
const IDLE_RATE: u64 = 3_000;

/// What h2load asks for: a request for one key, with its length before it.
const H2LOAD_REQUEST: &[u8] = b"\0\0\0\0\x12\x0a\x10k000000000000042";

/// Bytes of the answer: prefix, tag, length and the value.
const H2LOAD_ANSWER_BYTES: u64 = 5 + 2 + 100;

/// What a measurement has found.
#[derive(Debug, Clone, Copy)]
pub(super) enum Figure {
    Calls {
        per_second: f64,
        /// Of the server, for each request: microseconds of the processor.
        cpu_us: f64,
        /// Of the load generator, if it tells.
        own_cpu_us: Option<f64>,
        /// Latencies, microseconds, if the load generator tells.
        p50_us: Option<f64>,
        p99_us: Option<f64>,
    },
    /// Of the server, for each connection: bytes of memory.
    Memory { bytes: f64 },
}

impl Figure {
    /// What is compared: less is better.
    pub(super) const fn cost(&self) -> f64 {
        match self {
            Self::Calls { cpu_us, .. } => *cpu_us,
            Self::Memory { bytes } => *bytes,
        }
    }
}

/// Measures.
pub(super) struct Measurer<'a> {
    programs: &'a Programs,
    cores: &'a Cores,
    times: Times,
}

impl<'a> Measurer<'a> {
    pub(super) const fn new(programs: &'a Programs, cores: &'a Cores, times: Times) -> Self {
        Self {
            programs,
            cores,
            times,
        }
    }

    /// Measures a case; `None` if its server or its tool is not there.
    pub(super) fn measure(
        &self,
        case: &Case,
        servers: &mut Servers<'_>,
    ) -> anyhow::Result<Option<Figure>> {
        let Some(server) = servers.get(case.host)? else {
            return Ok(None);
        };
        match case.tool {
            Tool::Larder(api) => self.by_larder(server, case, api).map(Some),
            Tool::Idle => self.idle(server, case).map(Some),
            Tool::GoClient => match &self.programs.go {
                Some(go) => self.by_go(server, case, &go.client).map(Some),
                None => Ok(None),
            },
            Tool::H2load => match &self.programs.h2load {
                Some(h2load) => self.by_h2load(server, case, h2load).map(Some),
                None => Ok(None),
            },
        }
    }

    /// Writes all keys.
    pub(super) fn fill(&self, server: &Server, api: &str, keys: u64) -> anyhow::Result<()> {
        let keys = keys.to_string();
        let options = ["--connections", "4", "--streams", "32", "--keys", &keys];
        let once = ["--preload", "--mix", "get:1", "--requests", "100"];
        let report = self.load(server, api, &[&options[..], &once].concat())?;
        check(&report).context("after all keys were written")
    }

    /// Runs a command of larder against a server; what it prints.
    pub(super) fn larder(
        &self,
        server: &Server,
        credential: &Credential,
        arguments: &[&str],
    ) -> anyhow::Result<String> {
        let mut command = self.cores.load(&self.programs.larder);
        command.args(arguments).args(["--server", &server.url()]);
        command.args(["--timeout", "5s", "--insecure"]);
        // Only what is said here counts.
        for variable in ["LARDER_SERVER", "LARDER_TOKEN"] {
            command.env_remove(variable);
        }
        match credential {
            Credential::Token(token) => command.env("LARDER_TOKEN", token),
            Credential::Tokens(path) => command.arg("--tokens").arg(path),
        };
        output(&mut command)
    }

    fn load(&self, server: &Server, api: &str, options: &[&str]) -> anyhow::Result<Value> {
        let process = server.process().to_string();
        let common = ["bench", "--json", "--api", api, "--watch", &process];
        let arguments = [&common[..], options].concat();
        let printed = self.larder(server, &server.credential, &arguments)?;
        serde_json::from_str(&printed).context("larder bench prints JSON")
    }

    fn by_larder(&self, server: &Server, case: &Case, api: &str) -> anyhow::Result<Figure> {
        let [connections, streams, keys] =
            [case.connections, case.streams, case.keys].map(|n| n.to_string());
        let threads = self.cores.load_threads.to_string();
        let [warmup, measured] = [self.times.warmup, self.times.measured].map(show);
        let report = self.load(
            server,
            api,
            &[
                "--connections",
                &connections,
                "--streams",
                &streams,
                "--keys",
                &keys,
                "--threads",
                &threads,
                "--mix",
                case.mix,
                "--warmup",
                &warmup,
                "--duration",
                &measured,
            ],
        )?;
        check(&report)?;
        Ok(Figure::Calls {
            per_second: number(&report, "requests_per_second")?,
            cpu_us: number(&report["server"], "cpu_us_per_request")?,
            own_cpu_us: report["own_cpu_us_per_request"].as_f64(),
            p50_us: report["latency_us"]["p50"].as_f64(),
            p99_us: report["latency_us"]["p99"].as_f64(),
        })
    }

    /// What all connections take, less what the server took without them.
    fn idle(&self, server: &Server, case: &Case) -> anyhow::Result<Figure> {
        let [connections, rate, keys] =
            [case.connections, IDLE_RATE, case.keys].map(|n| n.to_string());
        let options = [
            "--connections",
            &connections,
            "--streams",
            "1",
            "--keys",
            &keys,
        ];
        let load = ["--rate", &rate, "--duration", "1s", "--mix", case.mix];
        let report = self.load(server, "rpc", &[&options[..], &load].concat())?;
        check(&report)?;
        let memory = |name| number(&report["server"], name);
        let grown = memory("resident_bytes_after")? - memory("resident_bytes_before")?;
        Ok(Figure::Memory {
            bytes: grown / case.connections as f64,
        })
    }

    fn by_go(&self, server: &Server, case: &Case, client: &Path) -> anyhow::Result<Figure> {
        let mut command = self.cores.load(client);
        command.args(["-server", &server.address()]);
        command.args(["-connections", &case.connections.to_string()]);
        command.args(["-streams", &case.streams.to_string()]);
        command.args(["-keys", &case.keys.to_string()]);
        command.args(["-watch", &server.process().to_string()]);
        command.args(["-warmup", &show(self.times.warmup)]);
        command.args(["-duration", &show(self.times.measured)]);
        if let Credential::Token(token) = &server.credential {
            command.args(["-token", token]);
        }
        let report: Value = serde_json::from_str(&output(&mut command)?)?;
        ensure!(report["failed"] == 0, "calls failed: {report}");
        Ok(Figure::Calls {
            per_second: number(&report, "requests_per_second")?,
            cpu_us: number(&report["server"], "cpu_us_per_request")?,
            own_cpu_us: None,
            p50_us: None,
            p99_us: None,
        })
    }

    fn by_h2load(&self, server: &Server, case: &Case, h2load: &Path) -> anyhow::Result<Figure> {
        let data = std::env::temp_dir().join(format!("larder-bench-{}.data", std::process::id()));
        std::fs::write(&data, H2LOAD_REQUEST)?;
        // About as many as a second of larder's gives; slower servers take longer.
        let millis = u64::try_from(self.times.measured.as_millis())?;
        let requests = 100 * millis;
        let mut command = self.cores.load(h2load);
        command.args(["-n", &requests.to_string()]);
        command.args(["-c", &case.connections.to_string()]);
        command.args(["-m", &case.streams.to_string(), "-t", "1"]);
        command.arg("-d").arg(&data);
        command.args(["-H", "content-type: application/grpc", "-H", "te: trailers"]);
        command.args(["-H", "grpc-timeout: 5S"]);
        if let Credential::Token(token) = &server.credential {
            command.args(["-H", &format!("authorization: Bearer {token}")]);
        }
        command.arg(format!("{}/rpc.Cache/Get", server.url()));
        let before = cpu_time(server.process())?;
        let printed = output(&mut command);
        let used = cpu_time(server.process())?.saturating_sub(before);
        let _ = std::fs::remove_file(&data);
        Ok(Figure::Calls {
            per_second: read_h2load(&printed?, requests)?,
            cpu_us: used.as_secs_f64() * 1e6 / requests as f64,
            own_cpu_us: None,
            p50_us: None,
            p99_us: None,
        })
    }
}

/// No call failed, and every read found its value.
fn check(report: &Value) -> anyhow::Result<()> {
    ensure!(report["failed"] == 0, "calls failed: {}", report["errors"]);
    ensure!(
        report["misses"] == 0,
        "{} of the keys were not there",
        report["misses"]
    );
    Ok(())
}

/// Requests a second, once it is sure that each was answered in full.
fn read_h2load(printed: &str, requests: u64) -> anyhow::Result<f64> {
    let done = format!(
        "requests: {requests} total, {requests} started, {requests} done, {requests} succeeded, 0 failed"
    );
    let data = format!("({}) data", requests * H2LOAD_ANSWER_BYTES);
    if !printed.contains(&done) || !printed.contains(&data) {
        bail!("h2load had other answers than expected:\n{printed}");
    }
    printed
        .lines()
        .find_map(|line| line.strip_prefix("finished in "))
        .and_then(|line| {
            line.split(", ")
                .nth(1)?
                .strip_suffix(" req/s")?
                .parse()
                .ok()
        })
        .context("h2load prints requests a second")
}

/// Time of the processor that a process has used, in its own code and in the
/// kernel: the 14th and 15th field of proc_pid_stat(5).
fn cpu_time(process: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("/proc tells a name")?;
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>);
    let ticks: u64 = ticks.sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
}

/// What a command prints on standard output.
fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .context("cannot start a program")?;
    if !output.status.success() {
        bail!(
            "{:?}: {}\n{}",
            command.get_args().collect::<Vec<_>>(),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn number(report: &Value, name: &str) -> anyhow::Result<f64> {
    report[name]
        .as_f64()
        .with_context(|| format!("no {name} in {report}"))
}

fn show(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_h2load_prints() {
        let printed = "finished in 51.05ms, 19588.64 req/s, 2.3MB/s\n\
            requests: 1000 total, 1000 started, 1000 done, 1000 succeeded, 0 failed, 0 errored, 0 timeout\n\
            status codes: 1000 2xx, 0 3xx, 0 4xx, 0 5xx\n\
            traffic: 120.90KB (123800) total, 1.01KB (1034) headers (space savings 98.99%), 104.49KB (107000) data\n";
        assert_eq!(read_h2load(printed, 1_000).unwrap(), 19_588.64);
        assert!(read_h2load(printed, 1_001).is_err());
        assert!(read_h2load(&printed.replace("107000", "106999"), 1_000).is_err());
    }

    #[test]
    fn this_process_has_used_some_time() {
        let used = cpu_time(std::process::id()).unwrap();
        assert!(used < Duration::from_secs(3_600), "{used:?}");
    }
}
