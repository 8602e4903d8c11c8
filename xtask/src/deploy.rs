//! The steps about what is deployed.

use anyhow::ensure;

use crate::clients::python_with;
use crate::runner::{Done, Shell};

const MANIFEST: &str = "deploy/kubernetes/larder.yaml";
/// The oldest version of Kubernetes that the manifest is for, and the newest whose schemas
/// the checker has.
const VERSIONS: [&str; 2] = ["1.25", "1.37"];
/// A field of the manifest, and what it is no more once it is misspelt.
const MISSPELT: (&str, &str) = ("readinessProbe:", "readynessProbe:");

/// The manifest is what Kubernetes takes, by the schemas of its own API: nothing is missing
/// that must be there, and no field is there that it does not know.
pub(crate) fn kubernetes(shell: &Shell) -> anyhow::Result<Done> {
    let requirements = "xtask/tools/kubernetes/requirements.txt";
    let checker = python_with(shell, "kubernetes", requirements)?.join("kubernetes-validate");
    let check = |file: &str, version: &str| {
        let mut command = shell.command(&checker, ".");
        shell.run(command.args(["--strict", "--kubernetes-version", version, file]))
    };
    for version in VERSIONS {
        check(MANIFEST, version)?;
    }
    // A checker that takes everything would show nothing.
    let text = std::fs::read_to_string(shell.root.join(MANIFEST))?;
    let (field, misspelt) = MISSPELT;
    ensure!(text.contains(field), "{MANIFEST} has no {field}");
    let copy = shell.cache.join("logs/misspelt.yaml");
    std::fs::write(&copy, text.replace(field, misspelt))?;
    let refused = check(&copy.display().to_string(), VERSIONS[1]).is_err();
    ensure!(refused, "a manifest with {misspelt} was not refused");
    Ok(Done::Passed)
}
