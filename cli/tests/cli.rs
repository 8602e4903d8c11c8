//! The command from outside: its command line, its exit codes, its help.

#![allow(clippy::unwrap_used, reason = "in a test, a surprise is a failure")]

#[path = "cli/compression.rs"]
mod compression;
#[path = "cli/failover.rs"]
mod failover;
#[path = "cli/near.rs"]
mod near;
#[path = "cli/once.rs"]
mod once;
#[path = "cli/ring.rs"]
mod ring;
#[path = "cli/server.rs"]
mod server;
#[path = "cli/token.rs"]
mod token;

use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs `larder` with no credentials and no server of the environment.
fn larder(arguments: &[&str]) -> Output {
    larder_with(arguments, &[], b"")
}

fn larder_with(arguments: &[&str], environment: &[(&str, &str)], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_larder"))
        .args(arguments)
        .env_clear()
        .env("HOME", "/nonexistent")
        .env("COLUMNS", "100")
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that fails early does not read what it is given.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// An address where nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// Compares with a file beside this one; `UPDATE_SNAPSHOTS=1` writes it.
fn check_snapshot(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/snapshots")
        .join(name);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{name}; UPDATE_SNAPSHOTS=1 writes it anew");
}

#[test]
fn without_a_command_it_prints_help() {
    let output = larder(&[]);
    assert_eq!(code(&output), 0);
    assert!(stdout(&output).contains("Usage: larder"), "{output:?}");
}

#[test]
fn help() {
    for (name, arguments) in [
        ("get.txt", &["get", "--help"][..]),
        ("set.txt", &["set", "--help"]),
        ("del.txt", &["del", "--help"]),
        ("touch.txt", &["touch", "--help"]),
        ("incr.txt", &["incr", "--help"]),
        ("keys.txt", &["keys", "--help"]),
        ("dump.txt", &["dump", "--help"]),
        ("load.txt", &["load", "--help"]),
        ("import.txt", &["import", "--help"]),
        ("usage.txt", &["usage", "--help"]),
        ("account-create.txt", &["account", "create", "--help"]),
        ("account-set.txt", &["account", "set", "--help"]),
        ("account-delete.txt", &["account", "delete", "--help"]),
        ("token-create.txt", &["token", "create", "--help"]),
        ("token-revoke.txt", &["token", "revoke", "--help"]),
    ] {
        let output = larder(arguments);
        assert_eq!(code(&output), 0, "{arguments:?}");
        check_snapshot(name, stdout(&output));
    }
}

/// Each is refused before a server is asked, and says what is wrong with what.
#[test]
fn wrong_command_lines() {
    for (arguments, said) in [
        (&["frobnicate"][..], "frobnicate"),
        (&["get"], "<KEY>"),
        (&["set", "k"], "<VALUE>"),
        (&["set", "k", "v", "--ttl", "30"], "--ttl"),
        (&["set", "k", "v", "--ttl", "30"], "such as 30s"),
        (&["set", "k", "v", "--ttl", "0s"], "too short"),
        (
            &["set", "k", "v", "--if-absent", "--if-version", "3"],
            "--if-version",
        ),
        (&["set", "k", "v", "--if-version", "x"], "--if-version"),
        (
            &["set", "k", "v", "--ttl", "3s", "--keep-ttl"],
            "--keep-ttl",
        ),
        (&["touch", "k"], "--ttl"),
        (&["touch", "k", "--ttl", "3s", "--never"], "--never"),
        (&["del"], "<KEY>"),
        (&["del", "k", "--prefix", "p"], "--prefix"),
        (&["incr", "k", "many"], "many"),
        (&["get", "k", "--timeout", "soon"], "--timeout"),
        (&["get", "k", "--cert", "c.pem"], "--key"),
        (
            &["account", "create", "a", "--max-bytes", "64 apples"],
            "--max-bytes",
        ),
        (&["account", "create", "a", "--max-keys", "0"], "--max-keys"),
        (
            &["account", "create", "a", "--at-limit", "explode"],
            "refuse",
        ),
        (&["account", "set", "a"], "--max-keys"),
        (&["token", "create", "a", "--expires", "never"], "--expires"),
        (&["get", "k", "--server", "ftp://127.0.0.1"], "http://"),
        (&["get", "k", "--server", "http://me:pw@127.0.0.1"], "token"),
        (&["get", "k", "--token", "two words"], "--token"),
        (
            &["get", "k", "--token-file", "/nonexistent/t"],
            "--token-file",
        ),
        (&["get", "k", "--ca", "/nonexistent/ca"], "/nonexistent/ca"),
        (
            &[
                "get",
                "k",
                "--server",
                "http://cache.example:1",
                "--token",
                "t",
            ],
            "--insecure",
        ),
    ] {
        let output = larder(arguments);
        assert_eq!(code(&output), 2, "{arguments:?}: {output:?}");
        assert!(
            stderr(&output).contains(said),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

#[test]
fn a_configuration_whose_log_filter_cannot_be_read_is_not_good() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("larder.toml");
    let file = file.to_str().expect("it is UTF-8");
    for (filter, status) in [("=====,,[", 1), ("info,access=off", 0)] {
        std::fs::write(file, format!("log_filter = '{filter}'\n")).expect("there is room");
        let output = larder(&["config", "check", file]);
        assert_eq!(code(&output), status, "{filter}: {}", stderr(&output));
        let named = stderr(&output).contains("larder.toml: line 1, `log_filter`: ");
        assert_eq!(named, status != 0, "{}", stderr(&output));
    }
}

/// Something that closes every connection, after it has said `first`.
fn closing(first: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut read = [0; 16];
            let _ = std::io::Read::read(&mut socket, &mut read);
            // Who has gone does not listen.
            let _ = socket.write_all(first);
        }
    });
    address
}

#[test]
fn the_wrong_scheme_is_told() {
    // RFC 8446, section 6: a fatal alert; and what HTTP/1.1 has for a bad request.
    let (tls, clear) = (&b"\x15\x03\x03\x00\x02\x02\x0a"[..], &b"HTTP/1.1 400 "[..]);
    for (scheme, first, hint) in [
        ("http", &b""[..], "if it speaks TLS, it is https://"),
        ("http", tls, "if it speaks TLS, it is https://"),
        ("https", b"", "if it speaks clear text, it is http://"),
        ("https", clear, "if it speaks clear text, it is http://"),
    ] {
        let server = format!("{scheme}://{}", closing(first));
        let output = larder(&["get", "k", "--server", &server]);
        assert_eq!(code(&output), 1, "{output:?}");
        let said = stderr(&output);
        assert!(
            said.contains(hint) && !said.contains("--ca"),
            "{scheme}: {said}"
        );
    }
}

#[test]
fn a_secret_is_not_repeated() {
    let output = larder(&["get", "k", "--token", "s3cret token"]);
    assert!(!stderr(&output).contains("s3cret"), "{}", stderr(&output));
    let output = larder_with(&["get", "--help"], &[("LARDER_TOKEN", "s3cret")], b"");
    assert!(!stdout(&output).contains("s3cret"));
}

#[test]
fn wrong_command_lines_in_json() {
    for arguments in [
        &["set", "k", "v", "--ttl", "30", "--json"][..],
        &["--json", "frobnicate"],
        &["--json", "get", "k", "--server", "ftp://nowhere"],
    ] {
        let output = larder(arguments);
        assert_eq!(code(&output), 2);
        let object: serde_json::Value = serde_json::from_str(stderr(&output)).unwrap();
        let code = object["error"]["code"].as_str().unwrap();
        assert!(["USAGE", "INVALID_ARGUMENT"].contains(&code), "{object}");
        assert!(!object["error"]["message"].as_str().unwrap().is_empty());
    }
}

#[test]
fn nobody_listens() {
    let server = nobody();
    let output = larder(&["get", "k", "--server", &server]);
    assert_eq!(code(&output), 1);
    let said = stderr(&output);
    assert!(said.contains("Connection refused"), "{said}");
    assert!(
        said.contains(&format!("is `larder serve` running at {server}?")),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");

    let output = larder_with(
        &["--json", "set", "k", "v"],
        &[("LARDER_SERVER", &server)],
        b"",
    );
    assert_eq!(code(&output), 1);
    let object: serde_json::Value = serde_json::from_str(stderr(&output)).unwrap();
    let error = &object["error"];
    assert_eq!(error["code"], "UNAVAILABLE");
    assert_eq!(error["retryable"], true);
    assert_eq!(error["may_have_applied"], false);
    assert!(error["hint"].as_str().unwrap().contains("larder serve"));
}

#[test]
fn a_socket_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let server = format!("unix:{}/l.sock", dir.path().display());
    let output = larder(&["usage", "--server", &server]);
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("No such file"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn completions_and_man() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = larder(&["completions", shell]);
        assert_eq!(code(&output), 0);
        assert!(stdout(&output).contains("namespace-scope"), "{shell}");
    }
    let output = larder(&["man"]);
    assert_eq!(code(&output), 0);
    assert!(
        stdout(&output).contains(".TH larder 1"),
        "{}",
        stdout(&output)
    );

    let dir = tempfile::tempdir().unwrap();
    let output = larder(&["man", "--dir", dir.path().to_str().unwrap()]);
    assert_eq!(code(&output), 0);
    for page in ["larder.1", "larder-get.1", "larder-token-create.1"] {
        let page = std::fs::read_to_string(dir.path().join(page)).unwrap();
        assert!(page.contains(".TH larder"), "{page}");
    }
}

#[test]
fn a_reader_who_went_away_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_larder"))
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 0, "{output:?}");
    assert_eq!(stderr(&output), "");
}
