//! The invariants of the architecture that no compiler keeps: read from
//! `cargo metadata` and from the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// "Who may use whom", as ARCHITECTURE.md has it; other crates of the
/// workspace are out of bounds. Dev-dependencies may add none.
const MAY_USE: &[(&str, &[&str])] = &[
    ("larder-api", &[]),
    ("larder-model", &[]),
    ("larder-engine", &["larder-model"]),
    ("larder-accounts", &["larder-model"]),
    ("larder-transport", &[]),
    (
        "larder-server",
        &[
            "larder-model",
            "larder-engine",
            "larder-accounts",
            "larder-api",
            "larder-transport",
            // Only to call a remote Accounts server.
            "larder-client",
        ],
    ),
    ("larder-client", &["larder-api", "larder-transport"]),
    (
        "larder-cli",
        &[
            "larder-server",
            "larder-client",
            // Its frames and HPACK carry the load of `larder bench`.
            "larder-transport",
            // Only in tests: clients and servers on connections that break.
            "larder-faults",
        ],
    ),
    ("larder-conformance", &["larder-transport"]),
    ("larder-fuzz", &["larder-transport"]),
    ("larder-faults", &[]),
    ("larder-torture", &["larder-faults", "larder-transport"]),
    ("xtask", &[]),
];

/// Runtimes, clocks and sources of randomness.
const RUNTIMES: &[&str] = &[
    "tokio",
    "async-std",
    "smol",
    "async-executor",
    "futures-executor",
];
const CLOCKS: &[&str] = &["time", "chrono", "jiff", "quanta", "web-time", "coarsetime"];
const RANDOMNESS: &[&str] = &[
    "rand",
    "rand_core",
    "getrandom",
    "fastrand",
    "ahash",
    "uuid",
];
/// What speaks on the wire, or makes a type speak.
const WIRE: &[&str] = &[
    "serde",
    "buffa",
    "prost",
    "connectrpc",
    "tonic",
    "http",
    "hyper",
];

/// Crates that may not be reached from these, however many steps away.
const MUST_NOT_REACH: &[(&str, &[&[&str]])] = &[
    ("larder-model", &[RUNTIMES, CLOCKS, RANDOMNESS, WIRE]),
    ("larder-engine", &[RUNTIMES, CLOCKS, RANDOMNESS, WIRE]),
];

/// Longest file, lines.
const MAX_FILE_LINES: usize = 700;

/// Folders that hold nothing written by hand.
const NOT_OURS: &[&str] = &["target", "node_modules", "__pycache__", "gen"];

/// Written elsewhere, and kept as it came.
const VENDORED: &str = "proto/google/";

/// Kinds of files that people write.
const WRITTEN: &[&str] = &[
    "rs", "py", "go", "proto", "toml", "md", "yaml", "yml", "json", "sh", "ts", "js", "html", "css",
];

#[test]
fn crates_use_only_what_the_architecture_allows() {
    let metadata = metadata();
    let members = members(&metadata);
    let allowed: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    for package in packages(&metadata) {
        let name = text(&package["name"]);
        if !members.contains(name) {
            continue;
        }
        let may = allowed
            .get(name)
            .unwrap_or_else(|| panic!("{name} is new: give it a row in MAY_USE"));
        for dependency in array(&package["dependencies"]) {
            let used = text(&dependency["name"]);
            assert!(
                !members.contains(used) || used == name || may.contains(&used),
                "{name} uses {used}, which the architecture does not allow"
            );
        }
    }
    for (name, _) in MAY_USE {
        assert!(members.contains(name), "{name} has a row, but is no crate");
    }
}

#[test]
fn the_core_reaches_no_runtime_clock_randomness_or_wire() {
    let metadata = metadata();
    for (from, forbidden) in MUST_NOT_REACH {
        for (reached, by) in reachable(&metadata, from) {
            assert!(
                !forbidden.iter().any(|list| list.contains(&reached)),
                "{from} reaches {reached}, by way of {by}"
            );
        }
    }
}

#[test]
fn the_core_takes_time_and_threads_from_its_callers() {
    // Split, so that this file may be searched too.
    let clocks = [concat!("Instant", "::now"), concat!("System", "Time")];
    let threads = [
        concat!("thread::", "spawn"),
        concat!("thread::", "scope"),
        concat!("thread::", "Builder"),
    ];
    let core = |source: &&Source| {
        ["model/src/", "engine/src/"]
            .iter()
            .any(|f| source.is_in(f))
    };
    check_absent(sources().iter().filter(core), &clocks);
    // The suite of the stores is a test: it lets threads race.
    let without_suite = |source: &&Source| !source.path.contains("/suite");
    check_absent(
        sources().iter().filter(core).filter(without_suite),
        &threads,
    );
}

#[test]
fn wire_types_stop_in_the_server_and_the_client() {
    let name = concat!("larder", "_api");
    let rooms = ["api/", "server/", "client/"];
    let elsewhere = |source: &&Source| !rooms.iter().any(|room| source.is_in(room));
    check_absent(sources().iter().filter(elsewhere), &[name]);
}

#[test]
fn nothing_unfinished_and_no_unexplained_panic() {
    let words = [
        concat!(".unw", "rap()"),
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
    ];
    check_absent(sources().iter(), &words);
}

#[test]
fn files_are_short_enough_to_read() {
    for file in files() {
        let lines = file.content.lines().count();
        let is_lock = file.path.ends_with("package-lock.json");
        assert!(
            lines <= MAX_FILE_LINES || is_lock || file.is_in(VENDORED),
            "{} has {lines} lines, more than {MAX_FILE_LINES}",
            file.path
        );
    }
}

#[test]
fn no_file_knows_where_its_developer_lives() {
    // Where this copy happens to be, and whose it is.
    let mut homes = vec![format!("{}/", root().display())];
    if let Some(home) = std::env::home_dir().filter(|home| home.parent().is_some()) {
        homes.push(format!("{}/", home.display()));
    }
    for file in files() {
        for home in &homes {
            let found = file.content.lines().position(|line| line.contains(home));
            assert!(
                found.is_none(),
                "{}:{}: {home} is a path of one machine",
                file.path,
                found.map_or(0, |index| index + 1)
            );
        }
    }
}

/// A text file of the repository.
struct Source {
    /// From the root, with `/`.
    path: String,
    content: String,
}

impl Source {
    fn is_in(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }
}

/// Asserts that no line of these sources has one of these words, comments
/// aside.
fn check_absent<'a>(sources: impl Iterator<Item = &'a Source>, words: &[&str]) {
    for source in sources {
        for (index, line) in source.content.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in words {
                assert!(
                    !code.contains(word),
                    "{}:{}: {word} has no place here",
                    source.path,
                    index + 1
                );
            }
        }
    }
}

/// The Rust code that is shipped: without tests, which are files in a `tests`
/// folder, files `tests.rs`, and modules under `#[cfg(test)]`.
fn sources() -> Vec<Source> {
    let is_code = |path: &str| {
        path.ends_with(".rs")
            && !path.ends_with("/tests.rs")
            && !["/tests/", "/benches/", "/examples/"]
                .iter()
                .any(|folder| path.contains(folder))
    };
    files()
        .into_iter()
        .filter(|file| is_code(&file.path))
        .map(|file| Source {
            content: without_test_modules(&file.content),
            path: file.path,
        })
        .collect()
}

/// The same lines, those of test modules emptied, so that numbers stay.
fn without_test_modules(content: &str) -> String {
    let mut end: Option<String> = None;
    let mut marked = false;
    let mut kept = String::new();
    for line in content.lines() {
        if let Some(close) = &end {
            if line == close.as_str() {
                end = None;
            }
        } else if line.trim_start().starts_with("#[cfg(test)]") {
            marked = true;
        } else if marked && line.trim_end().ends_with('{') {
            let indent = &line[..line.len() - line.trim_start().len()];
            end = Some(format!("{indent}}}"));
            marked = false;
        } else {
            marked &= line.trim_start().starts_with("#[");
            kept.push_str(line);
        }
        kept.push('\n');
    }
    kept
}

#[test]
fn test_modules_are_left_out_and_nothing_else() {
    let content =
        "a\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n    b\n}\nc\n#[cfg(test)]\nuse d;\ne\n";
    let kept: Vec<_> = without_test_modules(content)
        .lines()
        .map(str::to_owned)
        .collect();
    assert_eq!(kept.len(), content.lines().count());
    assert_eq!(kept[0], "a");
    assert!(!kept.iter().any(|line| line.contains('b')));
    assert_eq!((kept[6].as_str(), kept[9].as_str()), ("c", "e"));
}

fn files() -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root(), &mut found);
    assert!(found.len() > 30, "the repository has more files than this");
    found
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the repository can be read") {
        let entry = entry.expect("its entries can be read");
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let kind = entry.file_type().expect("a file has a type");
        if kind.is_dir() {
            // Hidden: version control, caches.
            if !NOT_OURS.contains(&&*name) && (!name.starts_with('.') || name == ".ci") {
                collect(&path, found);
            }
        } else if kind.is_file() && is_written(&path) {
            let content = std::fs::read(&path).expect("a file of the repository can be read");
            found.push(Source {
                path: relative(&path),
                content: String::from_utf8_lossy(&content).into_owned(),
            });
        }
    }
}

fn is_written(path: &Path) -> bool {
    match path.extension() {
        Some(extension) => WRITTEN.iter().any(|written| extension == *written),
        None => true,
    }
}

fn relative(path: &Path) -> String {
    let path = path
        .strip_prefix(root())
        .expect("it was found below the root");
    path.to_string_lossy().replace('\\', "/")
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("xtask lies in the repository").into()
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--format-version=1"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo metadata writes JSON")
}

fn members(metadata: &Value) -> BTreeSet<&str> {
    let ids: BTreeSet<&str> = array(&metadata["workspace_members"])
        .iter()
        .map(text)
        .collect();
    packages(metadata)
        .iter()
        .filter(|package| ids.contains(text(&package["id"])))
        .map(|package| text(&package["name"]))
        .collect()
}

/// Crates that `from` needs to be built, each with one that needs it directly;
/// dev-dependencies do not count.
fn reachable<'a>(metadata: &'a Value, from: &str) -> BTreeMap<&'a str, &'a str> {
    let names: BTreeMap<&str, &str> = packages(metadata)
        .iter()
        .map(|package| (text(&package["id"]), text(&package["name"])))
        .collect();
    let nodes: BTreeMap<&str, &Value> = array(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| (text(&node["id"]), node))
        .collect();
    let start = names
        .iter()
        .find(|(_, name)| **name == from)
        .expect("a crate of the workspace has this name");
    let mut reached = BTreeMap::new();
    let mut open = vec![*start.0];
    while let Some(id) = open.pop() {
        for dependency in array(&nodes[id]["deps"]) {
            let kinds = array(&dependency["dep_kinds"]);
            let is_built_in = kinds.iter().any(|kind| kind["kind"].is_null());
            let used = text(&dependency["pkg"]);
            if is_built_in && reached.insert(names[used], names[id]).is_none() {
                open.push(used);
            }
        }
    }
    reached
}

fn packages(metadata: &Value) -> &[Value] {
    array(&metadata["packages"])
}

fn array(value: &Value) -> &[Value] {
    value.as_array().expect("cargo metadata has a list here")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("cargo metadata has a text here")
}
