//! Every step of `cargo xtask test`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::cache;
use crate::runner::{Done, Lane, Shell, Step, is_on_path};

/// The version of cargo-deny that is installed.
const CARGO_DENY: &str = "0.20.2";

/// Plugins of buf that write the Go stubs; go.mod pins them.
const GO_PLUGINS: [&str; 2] = [
    "google.golang.org/protobuf/cmd/protoc-gen-go",
    "google.golang.org/grpc/cmd/protoc-gen-go-grpc",
];

/// Programs that the steps use, with the Debian packages they come from. Go is
/// not among them: Debian's is too old.
const DEBIAN: [(&str, &str); 5] = [
    ("cc", "build-essential"),
    ("cmake", "cmake"),
    ("curl", "curl"),
    ("python3", "python3-venv"),
    ("npm", "npm"),
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
        about: "everything compiles; makes the `larder` that the end-to-end tests drive",
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
        run: setup_go,
    },
    Step {
        name: "setup-python",
        about: "make a Python environment in .cache",
        needs: &[],
        tools: &["python3"],
        lane: Lane::Free,
        run: setup_python,
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
        run: proto_lint,
    },
    Step {
        name: "proto-breaking",
        about: "the contract still serves clients of the last release",
        needs: &["setup-buf"],
        tools: &["node"],
        lane: Lane::Free,
        run: proto_breaking,
    },
    Step {
        name: "python-lint",
        about: "ruff finds nothing in the Python tests",
        needs: &["setup-python"],
        tools: &[],
        lane: Lane::Free,
        run: python_lint,
    },
    Step {
        name: "go-lint",
        about: "gofmt and go vet find nothing in the Go client",
        needs: &["setup-go"],
        tools: &["go", "gofmt"],
        lane: Lane::Free,
        run: go_lint,
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
        name: "e2e-go",
        about: "the talk's programs and more, from Go",
        needs: &["build", "setup-go"],
        tools: &["go"],
        lane: Lane::Free,
        run: e2e_go,
    },
    Step {
        name: "e2e-python",
        about: "the whole service from outside, from Python",
        needs: &["build", "setup-python"],
        tools: &["curl"],
        lane: Lane::Free,
        run: e2e_python,
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
    if missing.is_empty() || !shell.ci || !is_on_path("apt-get") {
        return Ok(Done::Passed);
    }
    shell.run(shell.command("apt-get", ".").arg("update"))?;
    shell.run(
        shell
            .command("apt-get", ".")
            .args(["install", "--yes", "--no-install-recommends"])
            .args(&missing)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )?;
    Ok(Done::Passed)
}

fn fmt(shell: &Shell) -> anyhow::Result<Done> {
    shell.run(cargo(shell).args(["fmt", "--check"]))?;
    Ok(Done::Passed)
}

fn build(shell: &Shell) -> anyhow::Result<Done> {
    shell.run(cargo(shell).args(["build", "--locked", "--workspace"]))?;
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
fn cargo(shell: &Shell) -> Command {
    shell.command("cargo", ".")
}

fn setup_buf(shell: &Shell) -> anyhow::Result<Done> {
    buf(shell)?;
    Ok(Done::Passed)
}

/// Finds or installs buf.
fn buf(shell: &Shell) -> anyhow::Result<PathBuf> {
    let tools = shell.root.join("xtask/tools");
    let files = ["package.json", "package-lock.json"].map(|name| tools.join(name));
    let folder = cache::folder(&shell.cache, "buf", &[], &files, |folder| {
        for file in &files {
            let name = file.file_name().context("a file has a name")?;
            std::fs::copy(file, folder.join(name))?;
        }
        let mut npm = shell.command("npm", ".");
        npm.current_dir(folder);
        // The scripts would only check what the lock file pins by hash.
        shell.run(npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]))
    })?;
    Ok(folder.join("node_modules/.bin/buf"))
}

fn proto_lint(shell: &Shell) -> anyhow::Result<Done> {
    shell.run(shell.command(buf(shell)?, "proto").arg("lint"))?;
    Ok(Done::Passed)
}

/// `proto/released.binpb` is the contract as it was last released; buf.yaml
/// names the rules. At each release it is renewed, and committed, with
/// `buf build proto --exclude-source-info -o proto/released.binpb`.
fn proto_breaking(shell: &Shell) -> anyhow::Result<Done> {
    shell.run(shell.command(buf(shell)?, "proto").args([
        "breaking",
        "--against",
        "released.binpb",
    ]))?;
    Ok(Done::Passed)
}

fn setup_deny(shell: &Shell) -> anyhow::Result<Done> {
    cargo_deny(shell)?;
    Ok(Done::Passed)
}

/// Finds or builds cargo-deny, unoptimised: it runs for seconds and would
/// compile for minutes.
fn cargo_deny(shell: &Shell) -> anyhow::Result<PathBuf> {
    let folder = cache::folder(&shell.cache, "cargo-deny", &[CARGO_DENY], &[], |folder| {
        let built = folder.join("target");
        shell.run(
            cargo(shell)
                .args(["install", "cargo-deny", "--version", CARGO_DENY])
                .args(["--locked", "--debug", "--root"])
                .arg(folder)
                .env("CARGO_TARGET_DIR", &built)
                .env("CARGO_PROFILE_DEV_DEBUG", "false")
                .env("CARGO_INCREMENTAL", "0"),
        )?;
        Ok(std::fs::remove_dir_all(built)?)
    })?;
    Ok(folder.join("bin/cargo-deny"))
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

fn setup_python(shell: &Shell) -> anyhow::Result<Done> {
    python(shell)?;
    Ok(Done::Passed)
}

/// Finds or makes the Python environment; returns its folder of programs.
fn python(shell: &Shell) -> anyhow::Result<PathBuf> {
    let requirements = shell.root.join("clients/python/requirements.txt");
    let files = [requirements.clone()];
    let folder = cache::folder(&shell.cache, "python", &[], &files, |folder| {
        shell.run(
            shell
                .command("python3", ".")
                .args(["-m", "venv", "--clear"])
                .arg(folder),
        )?;
        shell.run(
            shell
                .command(folder.join("bin/pip"), ".")
                .args(["install", "--quiet", "--require-hashes", "--no-deps", "-r"])
                .arg(&requirements),
        )
    })?;
    Ok(folder.join("bin"))
}

fn python_lint(shell: &Shell) -> anyhow::Result<Done> {
    let ruff = python(shell)?.join("ruff");
    let folder = "clients/python";
    shell.run(
        shell
            .command(&ruff, folder)
            .args(["format", "--check", "."]),
    )?;
    shell.run(shell.command(&ruff, folder).args(["check", "."]))?;
    Ok(Done::Passed)
}

fn e2e_python(shell: &Shell) -> anyhow::Result<Done> {
    shell.run(
        shell
            .command(python(shell)?.join("python"), "clients/python")
            .args(["-m", "pytest", "--durations=10"])
            .env("LARDER_BIN", larder(shell)?),
    )?;
    Ok(Done::Passed)
}

/// The stubs are written again each time: that takes a second, and they are
/// never old.
fn setup_go(shell: &Shell) -> anyhow::Result<Done> {
    let files = [shell.root.join("clients/go/go.sum")];
    let folder = cache::folder(&shell.cache, "go", &GO_PLUGINS, &files, |folder| {
        shell.run(
            shell
                .command("go", "clients/go")
                .args(["build", "-o"])
                .arg(folder)
                .args(GO_PLUGINS),
        )
    })?;
    shell.run(
        shell
            .command(buf(shell)?, "clients/go")
            .args(["generate", "--clean"])
            .env("PATH", path_with(&folder)?),
    )?;
    Ok(Done::Passed)
}

fn go_lint(shell: &Shell) -> anyhow::Result<Done> {
    // gofmt lists what it would change, and does not fail.
    shell.run(
        shell
            .command("sh", "clients/go")
            .args(["-c", "gofmt -d . | tee /dev/stderr | (! grep -q .)"]),
    )?;
    shell.run(shell.command("go", "clients/go").args(["vet", "./..."]))?;
    Ok(Done::Passed)
}

fn e2e_go(shell: &Shell) -> anyhow::Result<Done> {
    shell.run(
        shell
            .command("go", "clients/go")
            .args(["test", "-count=1", "-timeout=5m", "./..."])
            .env("LARDER_BIN", larder(shell)?),
    )?;
    Ok(Done::Passed)
}

/// The program that the step `build` made.
fn larder(shell: &Shell) -> anyhow::Result<PathBuf> {
    let output = cargo(shell)
        .args(["metadata", "--no-deps", "--format-version=1"])
        .output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let target = metadata["target_directory"]
        .as_str()
        .context("cargo metadata names no target folder")?;
    Ok(Path::new(target).join("debug/larder"))
}

/// The PATH, with `folder` before all others.
fn path_with(folder: &Path) -> anyhow::Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_path_buf()).chain(std::env::split_paths(&path));
    Ok(std::env::join_paths(folders)?)
}
