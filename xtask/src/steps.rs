//! Every step of `cargo xtask test`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;

use crate::balancers;
use crate::cache;
use crate::clients;
use crate::conformance;
use crate::contract;
use crate::deploy;
use crate::runner::{Done, Lane, Shell, Step, is_on_path};
use crate::torture;
use crate::tours;

/// The version of cargo-deny that is installed.
const CARGO_DENY: &str = "0.20.2";

/// Programs that the steps use, with the Debian packages they come from. Go is
/// not among them: Debian's is too old.
const DEBIAN: [(&str, &str); 10] = [
    ("cc", "build-essential"),
    ("cmake", "cmake"),
    ("curl", "curl"),
    ("haproxy", "haproxy"),
    ("nginx", "nginx"),
    ("python3", "python3-venv"),
    ("npm", "npm"),
    ("php", "php-cli"),
    ("php", "php-curl"),
    ("redis-server", "redis-server"),
];

/// Runs alone and before all others, which then find out for themselves what
/// is still missing.
pub(crate) const FIRST: Step = Step {
    name: "setup-debian",
    about: "with CI=true, install Debian packages that are missing",
    needs: &[],
    tools: &[],
    lane: Lane::Free,
    run: setup_debian,
};

/// In order: what a step needs stands above it, and what others wait for comes
/// early.
pub(crate) const ALL: &[Step] = &[
    Step {
        name: "fmt",
        about: "the Rust code is formatted",
        needs: &[],
        tools: &["cargo-fmt"],
        lane: Lane::Free,
        run: fmt,
    },
    Step {
        name: "build",
        about: "everything compiles; makes the programs that are tested from outside",
        needs: &[],
        tools: &["cc"],
        lane: Lane::Target,
        run: build,
    },
    Step {
        name: "setup-buf",
        about: "install buf into .cache",
        needs: &[],
        tools: &["npm", "node"],
        lane: Lane::Free,
        run: setup_buf,
    },
    Step {
        name: "setup-go",
        about: "build the stub generators and write the Go stubs",
        needs: &["setup-buf"],
        tools: &["go"],
        lane: Lane::Free,
        run: clients::setup_go,
    },
    Step {
        name: "setup-conformance",
        about: "build h2spec and the Connect conformance suite",
        needs: &[],
        tools: &["go"],
        lane: Lane::Free,
        run: conformance::set_up,
    },
    Step {
        name: "setup-python",
        about: "make a Python environment in .cache",
        needs: &[],
        tools: &["python3"],
        lane: Lane::Free,
        run: clients::setup_python,
    },
    Step {
        name: "setup-node",
        about: "install gRPC for Node into .cache",
        needs: &[],
        tools: &["npm"],
        lane: Lane::Free,
        run: clients::setup_node,
    },
    Step {
        name: "setup-deny",
        about: "install cargo-deny into .cache",
        needs: &[],
        tools: &["cc"],
        lane: Lane::Free,
        run: setup_deny,
    },
    Step {
        name: "proto-lint",
        about: "the contract follows buf's STANDARD and COMMENTS rules",
        needs: &["setup-buf"],
        tools: &["node"],
        lane: Lane::Free,
        run: contract::lint,
    },
    Step {
        name: "proto-breaking",
        about: "the contract still serves clients of the last release",
        needs: &["setup-buf"],
        tools: &["node"],
        lane: Lane::Free,
        run: contract::breaking,
    },
    Step {
        name: "proto-breaking-noticed",
        about: "a contract that breaks clients is noticed, in each of six ways",
        needs: &["setup-buf"],
        tools: &["node"],
        lane: Lane::Free,
        run: contract::breaking_is_noticed,
    },
    Step {
        name: "semver",
        about: "the Rust client's public items, against the last release",
        needs: &[],
        tools: &["cc", "git"],
        lane: Lane::Target,
        run: contract::semver,
    },
    Step {
        name: "python-lint",
        about: "ruff finds nothing in the Python tests",
        needs: &["setup-python"],
        tools: &[],
        lane: Lane::Free,
        run: clients::python_lint,
    },
    Step {
        name: "go-lint",
        about: "gofmt and go vet find nothing in the Go client",
        needs: &["setup-go"],
        tools: &["go", "gofmt"],
        lane: Lane::Free,
        run: clients::go_lint,
    },
    Step {
        name: "deny",
        about: "licences, sources and versions of the dependencies",
        needs: &["setup-deny"],
        tools: &[],
        lane: Lane::Free,
        run: deny,
    },
    Step {
        name: "deny-advisories",
        about: "no dependency has a known vulnerability; needs the network",
        needs: &["setup-deny"],
        tools: &[],
        lane: Lane::Free,
        run: deny_advisories,
    },
    Step {
        name: "deploy-kubernetes",
        about: "the manifest is what Kubernetes 1.25 and 1.37 take",
        needs: &[],
        tools: &["python3"],
        lane: Lane::Free,
        run: deploy::kubernetes,
    },
    Step {
        name: "test",
        about: "the Rust tests: unit, model, integration",
        needs: &[],
        tools: &["cc"],
        lane: Lane::Target,
        run: test,
    },
    Step {
        name: "clippy",
        about: "clippy finds nothing",
        needs: &[],
        tools: &["cc", "cargo-clippy"],
        lane: Lane::Target,
        run: clippy,
    },
    Step {
        name: "doc",
        about: "the documentation builds without a warning",
        needs: &[],
        tools: &["cc"],
        lane: Lane::Target,
        run: doc,
    },
    Step {
        name: "conformance-h2spec",
        about: "the transport keeps to RFC 9113 and RFC 7541",
        needs: &["build", "setup-conformance"],
        tools: &[],
        lane: Lane::Free,
        run: conformance::h2spec,
    },
    Step {
        name: "conformance-general",
        about: "gRPC, gRPC-Web and Connect on the transport's general lane",
        needs: &["build", "setup-conformance"],
        tools: &[],
        lane: Lane::Free,
        run: conformance::general_lane,
    },
    Step {
        name: "conformance-typed",
        about: "the same with gRPC on the typed lane, as far as it goes",
        needs: &["build", "setup-conformance"],
        tools: &[],
        lane: Lane::Free,
        run: conformance::typed_lane,
    },
    Step {
        name: "fuzz",
        about: "mutated inputs break no promise of the transport: 10 targets, 60 s each",
        needs: &["build"],
        tools: &[],
        lane: Lane::Free,
        run: fuzz,
    },
    Step {
        name: "torture-http2",
        about: "attacks on a server leave its other clients served",
        needs: &["build"],
        tools: &["sh"],
        lane: Lane::Free,
        run: torture::http2,
    },
    Step {
        name: "torture-drain",
        about: "ends by SIGTERM cut no call and lose nothing that was acknowledged",
        needs: &["build"],
        tools: &["sh"],
        lane: Lane::Free,
        run: torture::drain,
    },
    Step {
        name: "torture-crash",
        about: "ends by SIGKILL leave whole snapshots",
        needs: &["build"],
        tools: &["sh"],
        lane: Lane::Free,
        run: torture::crash,
    },
    Step {
        name: "torture-isolation",
        about: "10,000 attempts reach nothing of another account",
        needs: &["build"],
        tools: &["sh"],
        lane: Lane::Free,
        run: torture::isolation,
    },
    Step {
        name: "torture-rotate",
        about: "20 exchanges of the certificate under load fail no call",
        needs: &["build"],
        tools: &["sh"],
        lane: Lane::Free,
        run: torture::rotate,
    },
    Step {
        name: "torture-overload",
        about: "a server that is asked for too much serves, and the modest first",
        needs: &["build"],
        tools: &["sh"],
        lane: Lane::Free,
        run: torture::overload,
    },
    Step {
        name: "torture-slow-readers",
        about: "20 dumps that are read slowly take their memory and no more",
        needs: &["build"],
        tools: &["sh"],
        lane: Lane::Free,
        run: torture::slow_readers,
    },
    Step {
        name: "torture-neighbour",
        about: "a neighbour that goes through more than fits takes no hits of others",
        needs: &["build"],
        tools: &["sh"],
        lane: Lane::Free,
        run: torture::neighbour,
    },
    Step {
        name: "e2e-go",
        about: "the talk's programs and more, from Go",
        needs: &["build", "setup-go"],
        tools: &["go"],
        lane: Lane::Free,
        run: clients::e2e_go,
    },
    Step {
        name: "e2e-python",
        about: "the whole service from outside, from Python",
        needs: &["build", "setup-python"],
        tools: &["curl"],
        lane: Lane::Free,
        run: clients::e2e_python,
    },
    Step {
        name: "e2e-balancers",
        about: "nginx, HAProxy and Envoy before two servers, with the files of deploy/",
        needs: &["build", "setup-python"],
        tools: &["curl", "haproxy", "nginx"],
        lane: Lane::Free,
        run: balancers::end_to_end,
    },
    Step {
        name: "e2e-balancers-go",
        about: "the same, from grpc-go",
        needs: &["build", "setup-python", "setup-go", "e2e-balancers?"],
        tools: &["curl", "go", "haproxy", "nginx"],
        lane: Lane::Free,
        run: balancers::end_to_end_go,
    },
    Step {
        name: "e2e-import",
        about: "larder import from a real Redis",
        needs: &["build", "setup-python"],
        tools: &["redis-server"],
        lane: Lane::Free,
        run: clients::e2e_import,
    },
    Step {
        name: "e2e-php",
        about: "larder from PHP, with JSON over HTTP",
        needs: &["build", "setup-python"],
        tools: &["php"],
        lane: Lane::Free,
        run: clients::e2e_php,
    },
    Step {
        name: "e2e-node",
        about: "bursts of calls from Node",
        needs: &["build", "setup-node"],
        tools: &["node"],
        lane: Lane::Free,
        run: clients::e2e_node,
    },
    Step {
        name: "e2e-tonic",
        about: "bursts of calls from tonic",
        needs: &["build"],
        tools: &["cc"],
        lane: Lane::Free,
        run: clients::e2e_tonic,
    },
    Step {
        name: "tour-python",
        about: "what a client meets, from Python",
        needs: &["build", "setup-python"],
        tools: &[],
        lane: Lane::Free,
        run: tours::python_tour,
    },
    Step {
        name: "tour-go",
        about: "the same, from Go",
        needs: &["build", "setup-python", "setup-go"],
        tools: &["go"],
        lane: Lane::Free,
        run: tours::go,
    },
    Step {
        name: "tour-java",
        about: "the same, from Java",
        needs: &["build", "setup-python"],
        tools: &["javac", "mvn"],
        lane: Lane::Free,
        run: tours::java,
    },
    Step {
        name: "tour-node",
        about: "the same, from Node",
        needs: &["build", "setup-python", "setup-node"],
        tools: &["node"],
        lane: Lane::Free,
        run: tours::node,
    },
    Step {
        name: "tour-cpp",
        about: "the same, from C++",
        needs: &["build", "setup-python"],
        tools: &["cmake", "grpc_cpp_plugin", "pkg-config"],
        lane: Lane::Free,
        run: tours::cpp,
    },
    Step {
        name: "tour-ruby",
        about: "the same, from Ruby",
        needs: &["build", "setup-python"],
        tools: &["grpc_ruby_plugin", "protoc", "ruby"],
        lane: Lane::Free,
        run: tours::ruby,
    },
    Step {
        name: "tour-rust",
        about: "the same, from Rust with tonic",
        needs: &["build", "setup-python"],
        tools: &["cc"],
        lane: Lane::Free,
        run: tours::rust,
    },
    Step {
        name: "tour-browser",
        about: "the same, from a page in Chromium",
        needs: &["build", "setup-python", "setup-buf"],
        tools: &["chromium", "node", "npm"],
        lane: Lane::Free,
        run: tours::browser,
    },
    Step {
        name: "tour-csharp",
        about: "the same, from C# on Mono, with JSON over HTTP",
        needs: &["build", "setup-python"],
        tools: &["mcs", "mono"],
        lane: Lane::Free,
        run: tours::csharp,
    },
    Step {
        name: "tour-php",
        about: "the same, from PHP, with JSON over HTTP",
        needs: &["build", "setup-python"],
        tools: &["php"],
        lane: Lane::Free,
        run: tours::php,
    },
    Step {
        name: "clients-matrix",
        about: "the table: what each language's stock client can do",
        needs: &[
            "setup-python",
            "tour-python?",
            "tour-go?",
            "tour-java?",
            "tour-node?",
            "tour-cpp?",
            "tour-ruby?",
            "tour-rust?",
            "tour-browser?",
            "tour-csharp?",
            "tour-php?",
        ],
        tools: &[],
        lane: Lane::Free,
        run: tours::matrix,
    },
];

/// On a build server, installs what is missing; elsewhere it is not ours to
/// install, and the steps that miss it say so.
fn setup_debian(shell: &Shell) -> anyhow::Result<Done> {
    let mut missing: Vec<&str> = DEBIAN
        .iter()
        .filter(|(program, _)| !is_on_path(program))
        .map(|(_, package)| *package)
        .collect();
    // Debian splits the standard library: a python3 may lack this module.
    let has_venv = is_on_path("python3")
        && shell
            .run(
                shell
                    .command("python3", ".")
                    .args(["-c", "import ensurepip"]),
            )
            .is_ok();
    if !has_venv && !missing.contains(&"python3-venv") {
        missing.push("python3-venv");
    }
    missing.extend(tours::missing_packages(shell));
    install(shell, &missing)?;
    tours::forget_rows(shell)?;
    Ok(Done::Passed)
}

/// On a build server, installs the packages of the programs that are missing.
///
/// # Errors
/// When they cannot be installed.
pub(crate) fn install_debian(shell: &Shell, programs: &[(&str, &str)]) -> anyhow::Result<()> {
    let missing: Vec<&str> = programs
        .iter()
        .filter(|(program, _)| !is_on_path(program))
        .map(|(_, package)| *package)
        .collect();
    install(shell, &missing)
}

fn install(shell: &Shell, packages: &[&str]) -> anyhow::Result<()> {
    if packages.is_empty() || !shell.ci || !is_on_path("apt-get") {
        return Ok(());
    }
    shell.run(shell.command("apt-get", ".").arg("update"))?;
    shell.run(
        shell
            .command("apt-get", ".")
            .args(["install", "--yes", "--no-install-recommends"])
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}

fn fmt(shell: &Shell) -> anyhow::Result<Done> {
    shell.run(cargo(shell).args(["fmt", "--check"]))?;
    let mut peer = shell.command("cargo", "bench/peers/tonic");
    shell.run(peer.args(["fmt", "--check"]))?;
    Ok(Done::Passed)
}

fn build(shell: &Shell) -> anyhow::Result<Done> {
    shell.run(cargo(shell).args(["build", "--locked", "--workspace"]))?;
    // With what the tests build, so that it is not built twice.
    shell.run(cargo(shell).args([
        "build",
        "--locked",
        "--workspace",
        "--example",
        "echo_cache",
    ]))?;
    Ok(Done::Passed)
}

/// Two targets at a time: five minutes.
fn fuzz(shell: &Shell) -> anyhow::Result<Done> {
    let mut command = shell.command(built(shell, "larder-fuzz")?, ".");
    shell.run(command.args(["--seconds", "60", "--jobs", "2"]))?;
    Ok(Done::Passed)
}

fn test(shell: &Shell) -> anyhow::Result<Done> {
    shell.run(cargo(shell).args(["test", "--locked", "--workspace", "--no-fail-fast"]))?;
    Ok(Done::Passed)
}

fn clippy(shell: &Shell) -> anyhow::Result<Done> {
    shell.run(
        cargo(shell)
            .args(["clippy", "--locked", "--workspace", "--all-targets"])
            .args(["--", "-D", "warnings"]),
    )?;
    Ok(Done::Passed)
}

fn doc(shell: &Shell) -> anyhow::Result<Done> {
    shell.run(
        cargo(shell)
            .args(["doc", "--locked", "--workspace", "--no-deps"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    Ok(Done::Passed)
}

/// The project's own cargo, not the one that happens to run this: a toolchain
/// file decides.
pub(crate) fn cargo(shell: &Shell) -> Command {
    shell.command("cargo", ".")
}

fn setup_buf(shell: &Shell) -> anyhow::Result<Done> {
    buf(shell)?;
    Ok(Done::Passed)
}

/// Finds or installs buf.
pub(crate) fn buf(shell: &Shell) -> anyhow::Result<PathBuf> {
    Ok(npm_packages(shell, "buf", "xtask/tools")?.join(".bin/buf"))
}

/// Finds or installs what the `package-lock.json` of a folder names; returns its
/// `node_modules`.
pub(crate) fn npm_packages(shell: &Shell, name: &str, folder: &str) -> anyhow::Result<PathBuf> {
    let folder = shell.root.join(folder);
    let files = ["package.json", "package-lock.json"].map(|name| folder.join(name));
    let folder = cache::folder(&shell.cache, name, &[], &files, |folder| {
        for file in &files {
            let name = file.file_name().context("a file has a name")?;
            std::fs::copy(file, folder.join(name))?;
        }
        let mut npm = shell.command("npm", ".");
        npm.current_dir(folder);
        // The scripts would only check what the lock file pins by hash.
        shell.run(npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]))
    })?;
    Ok(folder.join("node_modules"))
}

fn setup_deny(shell: &Shell) -> anyhow::Result<Done> {
    cargo_deny(shell)?;
    Ok(Done::Passed)
}

fn cargo_deny(shell: &Shell) -> anyhow::Result<PathBuf> {
    cargo_tool(shell, "cargo-deny", CARGO_DENY)
}

/// Finds or builds a subcommand of cargo, unoptimised: it runs for seconds and would
/// compile for minutes.
pub(crate) fn cargo_tool(shell: &Shell, name: &str, version: &str) -> anyhow::Result<PathBuf> {
    let folder = cache::folder(&shell.cache, name, &[version], &[], |folder| {
        let built = folder.join("target");
        shell.run(
            cargo(shell)
                .args(["install", name, "--version", version])
                .args(["--locked", "--debug", "--root"])
                .arg(folder)
                .env("CARGO_TARGET_DIR", &built)
                .env("CARGO_PROFILE_DEV_DEBUG", "false")
                .env("CARGO_INCREMENTAL", "0"),
        )?;
        Ok(std::fs::remove_dir_all(built)?)
    })?;
    Ok(folder.join("bin").join(name))
}

fn deny(shell: &Shell) -> anyhow::Result<Done> {
    shell.run(
        shell
            .command(cargo_deny(shell)?, ".")
            .args(["check", "bans", "licenses", "sources"]),
    )?;
    Ok(Done::Passed)
}

fn deny_advisories(shell: &Shell) -> anyhow::Result<Done> {
    let program = cargo_deny(shell)?;
    if let Err(error) = shell.run(shell.command(&program, ".").args(["fetch", "db"])) {
        return Ok(Done::Skipped(format!(
            "KNOWN VULNERABILITIES WERE NOT LOOKED FOR: the advisory database cannot be fetched ({error})"
        )));
    }
    shell.run(
        shell
            .command(&program, ".")
            .args(["check", "--disable-fetch", "advisories"]),
    )?;
    Ok(Done::Passed)
}

/// A program that the step `build` made.
pub(crate) fn built(shell: &Shell, program: &str) -> anyhow::Result<PathBuf> {
    Ok(target(shell)?.join("debug").join(program))
}

/// Cargo's target folder.
pub(crate) fn target(shell: &Shell) -> anyhow::Result<PathBuf> {
    let output = cargo(shell)
        .args(["metadata", "--no-deps", "--format-version=1"])
        .output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let target = metadata["target_directory"]
        .as_str()
        .context("cargo metadata names no target folder")?;
    Ok(target.into())
}
