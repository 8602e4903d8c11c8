//! What is deployed names only what there is: flags, settings, ports, paths and
//! metrics of the program.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in a test, a surprise is a failure"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap()
}

fn larder(arguments: &[&str], environment: &[(&str, &str)]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_larder"))
        .args(arguments)
        .env_clear()
        .env("HOME", "/nonexistent")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// What stands between two words, in every line that has them.
fn between<'a>(text: &'a str, before: &'a str, after: &'a str) -> impl Iterator<Item = &'a str> {
    let parts = text.split(before).skip(1);
    parts.map(move |part| part.split(after).next().unwrap_or(part))
}

#[test]
fn the_container_starts_with_settings_that_there_are() {
    let text = read("Dockerfile");
    let variables: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::split_whitespace)
        .filter(|word| word.starts_with("LARDER_"))
        .filter_map(|word| word.split_once('='))
        .collect();
    assert!(variables.len() >= 4, "{variables:?}");
    let allowed = [&variables[..], &[("LARDER_ALLOW_CLEAR_TEXT", "true")]].concat();
    let (good, printed) = larder(&["serve", "--print-config"], &allowed);
    assert!(good, "{printed}");
    for (name, value) in variables {
        let from = format!("# ${name}");
        let line = printed.lines().find(|line| line.ends_with(&from));
        let line = line.unwrap_or_else(|| panic!("{name} sets nothing:\n{printed}"));
        assert!(line.contains(value), "{line}");
    }
    assert!(text.contains("EXPOSE 5051"), "as it listens");
    assert!(text.contains("USER 65532"), "not root");
    let health = larder(&["health", "--help"], &[]);
    assert!(text.contains("\"health\"]") && health.0, "{health:?}");
}

#[test]
fn the_unit_starts_with_flags_that_there_are() {
    let unit = read("deploy/systemd/larder.service");
    let (_, help) = larder(&["serve", "--help"], &[]);
    let start = between(&unit, "\nExecStart=", "\n").next().unwrap();
    let flags: Vec<_> = start.split(' ').filter(|it| it.starts_with("--")).collect();
    assert!(flags.len() >= 3, "{flags:?}");
    for flag in flags {
        assert!(help.contains(&format!("{flag} ")), "{flag}");
    }
    let check = between(&unit, "\nExecStartPre=/usr/local/bin/larder ", "\n")
        .next()
        .unwrap();
    let words: Vec<_> = check.split(' ').take(2).chain(["--help"]).collect();
    assert!(larder(&words, &[]).0, "{words:?}");
}

#[test]
fn the_manifest_has_a_good_configuration_and_its_own_ports() {
    let manifest = read("deploy/kubernetes/larder.yaml");
    let file = between(&manifest, "larder.toml: |\n", "---")
        .next()
        .unwrap();
    let file: String = file
        .lines()
        .map(|line| format!("{}\n", line.trim()))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("larder.toml");
    std::fs::write(&path, &file).unwrap();
    let (good, told) = larder(&["config", "check", path.to_str().unwrap()], &[]);
    assert!(good, "{told}\n{file}");
    let setting = |name: &str| {
        between(&file, &format!("{name} = "), "\n")
            .next()
            .unwrap()
            .to_owned()
    };
    for (port, setting) in [("5051", setting("listen")), ("5053", setting("admin"))] {
        assert!(setting.contains(&format!(":{port}")), "{setting}");
        assert!(
            manifest.contains(&format!("containerPort: {port}")),
            "{port}"
        );
    }
    for (file, mount) in [
        ("data_dir", "/var/lib/larder"),
        ("tls_cert", "/etc/larder-tls"),
    ] {
        assert!(setting(file).contains(mount), "{file}");
        assert!(
            manifest.contains(&format!("mountPath: {mount}\n")),
            "{mount}"
        );
    }
    // The drain, its last words, and a snapshot.
    let number = |text: &str| text.trim().parse::<u64>().unwrap();
    let grace = number(&setting("drain_grace_seconds"));
    let all = number(
        between(&manifest, "terminationGracePeriodSeconds:", "\n")
            .next()
            .unwrap(),
    );
    assert!(
        all >= grace + 2 + 30,
        "{all} s are too short for a drain of {grace} s"
    );
}

/// A server, killed in the end.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A server with a data directory there, and where its admin listener is.
fn started(folder: &Path, variables: &[(&str, &str)]) -> (Server, String) {
    let child = Command::new(env!("CARGO_BIN_EXE_larder"))
        .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .arg("--data-dir")
        .arg(folder)
        .env_clear()
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut server = Server(child);
    let lines = BufReader::new(server.0.stdout.take().unwrap()).lines();
    let mut lines = lines.map(Result::unwrap);
    let address = lines.find_map(|line| line.strip_prefix("admin on ").map(str::to_owned));
    (server, address.unwrap())
}

#[test]
fn alerts_follow_the_settings_that_they_are_about() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ("LARDER_SNAPSHOT_INTERVAL_SECONDS", "3600"),
        ("LARDER_TRANSPORT_MAX_BUFFERED_BYTES", "2GiB"),
    ];
    let (_server, address) = started(folder.path(), &settings);
    let metrics = get(&address, "/metrics");
    let alerts = read("deploy/prometheus/alerts.yaml");
    for (alert, metric, value) in [
        (
            "LarderSnapshotOld",
            "larder_snapshot_interval_seconds",
            "3600.000",
        ),
        (
            "LarderBuffersFull",
            "larder_transport_buffered_limit_bytes",
            "2147483648",
        ),
    ] {
        let line = format!("\n{metric} {value}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
        let name = format!("alert: {alert}\n");
        let mut rules = between(&alerts, &name, "annotations:");
        assert!(rules.any(|text| text.contains(metric)), "{alert}");
    }
}

#[test]
fn alerts_and_probes_ask_for_what_the_server_tells() {
    let folder = tempfile::tempdir().unwrap();
    let (server, address) = started(folder.path(), &[]);
    let metrics = get(&address, "/metrics");
    let alerts = read("deploy/prometheus/alerts.yaml");
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let words = alerts.lines().filter(|line| line.contains("expr:"));
    let words = words.flat_map(|line| line.split(|c| !is_name(c)));
    let names: Vec<_> = words.filter(|word| word.starts_with("larder_")).collect();
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        assert!(
            metrics.contains(&format!("\n{name} ")),
            "{name}:\n{metrics}"
        );
    }
    let manifest = read("deploy/kubernetes/larder.yaml");
    for path in between(&manifest, "\n              path: ", "\n") {
        assert!(get(&address, path).starts_with("HTTP/1.1 200"), "{path}");
    }
    let (good, told) = larder(&["health", "--admin", &address], &[]);
    assert!(good, "{told}");
    assert_eq!(told, "ready\n");
    drop(server);
    assert!(!larder(&["health", "--admin", &address], &[]).0);
}
