//! The steps of the clients' tour: the same behaviours in each language, with
//! its stock gRPC, and the table of who can do what.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::cache;
use crate::clients::{path_with, python};
use crate::runner::{Done, Shell, is_on_path};
use crate::steps::{buf, built, cargo, npm_packages, target};

/// What the tours use, and how to see whether Debian's package is there.
const DEBIAN: [(Sign, &str); 12] = [
    (Sign::Program("chromium"), "chromium"),
    (Sign::Program("grpc_cpp_plugin"), "protobuf-compiler-grpc"),
    (Sign::Program("javac"), "default-jdk-headless"),
    (Sign::Program("mcs"), "mono-mcs"),
    (Sign::Program("mono"), "mono-runtime"),
    (Sign::Program("mvn"), "maven"),
    (Sign::Program("pkg-config"), "pkg-config"),
    (Sign::Program("protoc"), "protobuf-compiler"),
    (CPP_LIBRARY, "libgrpc++-dev"),
    (CSHARP_HTTP, "libmono-system-net-http4.0-cil"),
    (CSHARP_JSON, "libmono-system-runtime-serialization4.0-cil"),
    (RUBY_LIBRARY, "ruby-grpc"),
];

const CSHARP_HTTP: Sign = Sign::Succeeds(
    "sh",
    &[
        "-c",
        "gacutil -l System.Net.Http | grep -q ^System.Net.Http,",
    ],
);
const CSHARP_JSON: Sign = Sign::Succeeds(
    "sh",
    &[
        "-c",
        "gacutil -l System.Runtime.Serialization | grep -q ^System.Runtime.Serialization,",
    ],
);
const CPP_LIBRARY: Sign = Sign::Succeeds("pkg-config", &["--exists", "grpc++", "protobuf"]);
const RUBY_LIBRARY: Sign = Sign::Succeeds("ruby", &["-e", "require 'grpc'"]);

/// What shows that something is installed.
#[derive(Clone, Copy)]
enum Sign {
    /// A program on the PATH.
    Program(&'static str),
    /// A command that succeeds.
    Succeeds(&'static str, &'static [&'static str]),
}

impl Sign {
    fn is_there(self, shell: &Shell) -> bool {
        match self {
            Self::Program(name) => is_on_path(name),
            Self::Succeeds(name, arguments) => {
                is_on_path(name) && shell.run(shell.command(name, ".").args(arguments)).is_ok()
            }
        }
    }
}

/// Debian packages that the tours need and this machine lacks.
pub(crate) fn missing_packages(shell: &Shell) -> Vec<&'static str> {
    DEBIAN
        .iter()
        .filter(|(sign, _)| !sign.is_there(shell))
        .map(|(_, package)| *package)
        .collect()
}

/// Forgets the rows of earlier runs: the table shows this one.
///
/// # Errors
/// When they cannot be deleted.
pub(crate) fn forget_rows(shell: &Shell) -> anyhow::Result<()> {
    let rows = shell.cache.join("matrix");
    if rows.exists() {
        std::fs::remove_dir_all(rows)?;
    }
    Ok(())
}

/// Prints the table.
pub(crate) fn matrix(shell: &Shell) -> anyhow::Result<Done> {
    let mut show = shell.command(python(shell)?.join("python"), "clients/python");
    let table = shell.run_and_read(show.args(["matrix.py", "show"]))?;
    Ok(Done::Counted(format!("\n{}", table.trim_end())))
}

pub(crate) fn python_tour(shell: &Shell) -> anyhow::Result<Done> {
    let program = python(shell)?.join("python");
    row(shell, "python", &[], vec![program.into(), "tour.py".into()])
}

pub(crate) fn go(shell: &Shell) -> anyhow::Result<Done> {
    let program = build_folder(shell, "go")?.join("tour");
    shell.run(
        shell
            .command("go", "clients/go")
            .args(["build", "-o"])
            .arg(&program)
            .arg("./cmd/tour"),
    )?;
    row(shell, "go", &[], vec![program.into()])
}

pub(crate) fn node(shell: &Shell) -> anyhow::Result<Done> {
    let modules = npm_packages(shell, "node", "clients/node")?;
    let tour = shell.root.join("clients/node/tour.js");
    let environment = [("NODE_PATH", modules.into())];
    row(
        shell,
        "node",
        &environment,
        vec!["node".into(), tour.into()],
    )
}

/// A target folder of its own, which the tests of tonic use too.
pub(crate) fn rust(shell: &Shell) -> anyhow::Result<Done> {
    let target = target(shell)?.join("tonic");
    let mut build = cargo(shell);
    build.current_dir(shell.root.join("clients/rust-tonic"));
    shell.run(
        build
            .args(["build", "--locked", "--example", "tour"])
            .env("CARGO_TARGET_DIR", &target),
    )?;
    let program = target.join("debug/examples/tour");
    row(shell, "rust", &[], vec![program.into()])
}

/// Maven downloads once, into a repository that only this uses, and builds
/// from there.
pub(crate) fn java(shell: &Shell) -> anyhow::Result<Done> {
    let build = build_folder(shell, "java")?;
    let maven = |repository: &Path| {
        let mut repository_option = OsString::from("-Dmaven.repo.local=");
        repository_option.push(repository);
        let mut build_option = OsString::from("-Dtour.build=");
        build_option.push(&build);
        let mut maven = shell.command("mvn", "clients/java");
        maven.args(["--batch-mode", "--quiet", "process-classes"]);
        shell.run(maven.arg(repository_option).arg(build_option))
    };
    let files = [shell.root.join("clients/java/pom.xml")];
    // Not `--offline`, which the generator refuses; nothing is asked for twice.
    let repository = cache::folder(&shell.cache, "maven", &[], &files, maven)?;
    maven(&repository)?;
    let mut classes = build.join("classes").into_os_string();
    classes.push(":");
    classes.push(build.join("lib/*"));
    let command = ["java".into(), "-cp".into(), classes, "tour.Tour".into()];
    row(shell, "java", &[], command.into())
}

pub(crate) fn cpp(shell: &Shell) -> anyhow::Result<Done> {
    if !CPP_LIBRARY.is_there(shell) {
        return missing(shell, "libgrpc++-dev");
    }
    let build = build_folder(shell, "cpp")?;
    let mut configure = shell.command("cmake", ".");
    shell.run(configure.args(["-S", "clients/cpp", "-B"]).arg(&build))?;
    let mut compile = shell.command("cmake", ".");
    shell.run(compile.arg("--build").arg(&build).args(["--parallel", "2"]))?;
    row(shell, "cpp", &[], vec![build.join("tour").into()])
}

pub(crate) fn ruby(shell: &Shell) -> anyhow::Result<Done> {
    if !RUBY_LIBRARY.is_there(shell) {
        return missing(shell, "ruby-grpc");
    }
    let stubs = build_folder(shell, "ruby")?;
    let option = |name: &str| {
        let mut option = OsString::from(name);
        option.push(&stubs);
        option
    };
    let mut protoc = shell.command("sh", "proto");
    shell.run(
        protoc
            .args([
                "-c",
                "exec protoc --plugin=protoc-gen-grpc=$(command -v grpc_ruby_plugin) \"$@\"",
                "protoc",
            ])
            .args([option("--ruby_out="), option("--grpc_out=")])
            .args(["rpc.proto", "larder/cache/v1/cache_service.proto"])
            .args(["larder/cache/v1/entry.proto", "google/rpc/status.proto"])
            .arg("google/rpc/error_details.proto"),
    )?;
    let tour = shell.root.join("clients/ruby/tour.rb");
    let command = ["ruby".into(), "-I".into(), stubs.into(), tour.into()];
    row(shell, "ruby", &[], command.into())
}

/// Mono's compiler and runtime: Debian has no .NET. The client is JSON over HTTP/1.1, as Mono has
/// no HTTP/2.
pub(crate) fn csharp(shell: &Shell) -> anyhow::Result<Done> {
    for (library, name) in [
        (CSHARP_HTTP, "System.Net.Http of Mono"),
        (CSHARP_JSON, "System.Runtime.Serialization of Mono"),
    ] {
        if !library.is_there(shell) {
            return missing(shell, name);
        }
    }
    let program = build_folder(shell, "csharp")?.join("tour.exe");
    let mut out = OsString::from("-out:");
    out.push(&program);
    let mut compile = shell.command("mcs", "clients/csharp");
    shell.run(
        compile
            .args(["-langversion:7", "-warn:4", "-warnaserror"])
            .args([
                "-r:System.Net.Http.dll",
                "-r:System.Runtime.Serialization.dll",
            ])
            .arg(out)
            .args([
                "Messages.cs",
                "ServiceConfig.cs",
                "LarderClient.cs",
                "Tour.cs",
            ]),
    )?;
    row(shell, "csharp", &[], vec!["mono".into(), program.into()])
}

/// JSON over HTTP/1.1: gRPC for PHP is not in Debian.
pub(crate) fn php(shell: &Shell) -> anyhow::Result<Done> {
    let tour = shell.root.join("clients/php/tour.php");
    row(shell, "php", &[], vec!["php".into(), tour.into()])
}

/// Chromium opens a page that esbuild made of the TypeScript; larder allows the
/// page's origin, and nothing is between.
pub(crate) fn browser(shell: &Shell) -> anyhow::Result<Done> {
    let modules = npm_packages(shell, "browser", "clients/browser")?;
    let build = build_folder(shell, "browser")?;
    let link = build.join("node_modules");
    if link.is_symlink() {
        std::fs::remove_file(&link)?;
    }
    std::os::unix::fs::symlink(&modules, link)?;
    let page = build.join("page");
    std::fs::create_dir_all(&page)?;
    for (file, to) in [
        ("tour.ts", &build),
        ("tsconfig.json", &build),
        ("index.html", &page),
    ] {
        std::fs::copy(shell.root.join("clients/browser").join(file), to.join(file))?;
    }
    let programs = modules.join(".bin");
    let mut generate = shell.command(buf(shell)?, "clients/browser");
    shell.run(
        generate
            .args(["generate", "--output"])
            .arg(&build)
            .env("PATH", path_with(&programs)?),
    )?;
    shell.run(shell.command(programs.join("tsc"), ".").current_dir(&build))?;
    let mut bundle = shell.command(programs.join("esbuild"), ".");
    shell.run(bundle.current_dir(&build).args([
        "tour.ts",
        "--bundle",
        "--format=esm",
        "--target=es2022",
        "--outfile=page/tour.js",
    ]))?;
    let chromium = [
        "chromium",
        "--headless=new",
        "--disable-gpu",
        // A container's is small.
        "--disable-dev-shm-usage",
        "--no-first-run",
    ];
    let mut command: Vec<OsString> = vec!["--page".into(), page.into(), "--".into()];
    command.extend(chromium.map(OsString::from));
    run(shell, "browser", &[], &command)
}

/// Where a client is built: `clients/LANGUAGE` in Cargo's target folder.
pub(crate) fn build_folder(shell: &Shell, language: &str) -> anyhow::Result<PathBuf> {
    let folder = target(shell)?.join("clients").join(language);
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn missing(shell: &Shell, package: &str) -> anyhow::Result<Done> {
    if shell.ci {
        bail!("not installed: {package}");
    }
    Ok(Done::Skipped(format!("not installed: {package}")))
}

/// Runs a client against fresh servers, and keeps its row.
fn row(
    shell: &Shell,
    language: &str,
    environment: &[(&str, OsString)],
    command: Vec<OsString>,
) -> anyhow::Result<Done> {
    let mut arguments: Vec<OsString> = vec!["--".into()];
    arguments.extend(command);
    run(shell, language, environment, &arguments)
}

fn run(
    shell: &Shell,
    language: &str,
    environment: &[(&str, OsString)],
    arguments: &[OsString],
) -> anyhow::Result<Done> {
    let mut runner = shell.command(python(shell)?.join("python"), "clients/python");
    shell.run(
        runner
            .args(["matrix.py", "run", language])
            .args(arguments)
            .envs(environment.iter().cloned())
            .env("LARDER_BIN", built(shell, "larder")?),
    )?;
    Ok(Done::Passed)
}

#[cfg(test)]
mod tests {
    use crate::steps;

    #[test]
    fn what_a_step_waits_for_stands_above_it() {
        for (index, step) in steps::ALL.iter().enumerate() {
            for need in step.needs {
                let name = need.trim_end_matches('?');
                let is_above = steps::ALL[..index].iter().any(|above| above.name == name);
                assert!(is_above, "{} needs {need}", step.name);
            }
        }
    }

    #[test]
    fn the_table_waits_for_every_tour_and_needs_none() {
        let table = steps::ALL.iter().find(|step| step.name == "clients-matrix");
        let waits_for = table.expect("it is a step").needs;
        let tours = steps::ALL
            .iter()
            .filter(|step| step.name.starts_with("tour-"));
        assert!(tours.clone().count() >= 8);
        for tour in tours {
            let optional = format!("{}?", tour.name);
            assert!(waits_for.contains(&&*optional), "{}", tour.name);
        }
    }
}
