//! `larder config`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use larder_server::{Config, ConfigError};
use serde_json::json;

use crate::data_dir::default_data_dir;
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::serve::parse_filter;

/// `larder config …`
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check a configuration file: names, values, and what contradicts what
    Check {
        /// The file
        file: PathBuf,
    },
}

/// Runs `larder config …`.
pub(crate) fn run(
    command: &ConfigCommand,
    format: Format,
    out: &mut Output,
) -> Result<(), Failure> {
    let ConfigCommand::Check { file } = command;
    let data_dir = default_data_dir().unwrap_or_else(|| Path::new("larder").into());
    let config = Config::check_file(file, &data_dir);
    let config = config.map_err(|error| Failure::Failed(error.to_string()))?;
    parse_filter(&config).map_err(|reason| {
        Failure::Failed(ConfigError::of_file(file, "log_filter", &reason).to_string())
    })?;
    let file = file.display().to_string();
    let told = match format {
        Format::Json => out.json(&json!({ "file": file, "good": true })),
        Format::Text => out.line(&format!("{file}: good")),
    };
    told.map_err(Failure::from)
}
