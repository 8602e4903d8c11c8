//! Where each setting comes from: the command line, else the environment, else the
//! file, else its default.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::names::{Kind, Name, names};
use super::{ConfigError, Settings, words};

/// Where a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nobody said anything.
    Default,
    /// The file.
    File(PathBuf),
    /// The variable of this name.
    Environment(String),
    /// A flag.
    CommandLine,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "${name}"),
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

/// What was said, by whomever, and who said it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Layers {
    /// All of it, each setting by whoever has the say.
    pub settings: Settings,
    sources: BTreeMap<String, Source>,
}

/// A variable that existed before the others.
pub(super) const LOG_FILTER: (&str, &str) = ("LARDER_LOG", "log_filter");

impl Layers {
    /// Lays the command line over the environment, and that over the file. A variable
    /// is named as its setting, `LARDER_SNAPSHOT_INTERVAL_SECONDS`; an empty
    /// one says nothing, and others are left alone.
    ///
    /// # Errors
    /// [`ConfigError`] names the file and line, or the variable.
    pub fn read(
        file: Option<&Path>,
        variable: impl Fn(&str) -> Option<String>,
        command_line: &Settings,
    ) -> Result<Self, ConfigError> {
        let mut layers = Self::default();
        let mut merged = Table::new();
        if let Some(path) = file {
            let settings = Settings::from_file(path)?;
            layers.lay(&mut merged, &table(&settings), |_| {
                Source::File(path.into())
            });
        }
        for name in names() {
            let given = [Some(name.variable()), older(&name)];
            let given = given.into_iter().flatten().find_map(|variable_name| {
                let text = variable(&variable_name).filter(|text| !text.is_empty())?;
                Some((variable_name, text))
            });
            if let Some((variable_name, text)) = given {
                let table = checked(&name, &variable_name, &text)?;
                layers.lay(&mut merged, &table, |_| {
                    Source::Environment(variable_name.clone())
                });
            }
        }
        layers.lay(&mut merged, &table(command_line), |_| Source::CommandLine);
        let settings = Settings::deserialize_table(merged);
        layers.settings = settings.map_err(|error| ConfigError::Together {
            reason: words::plain(error.message()),
        })?;
        Ok(layers)
    }

    /// Where a setting comes from.
    pub fn source(&self, path: &str) -> Source {
        self.sources.get(path).cloned().unwrap_or(Source::Default)
    }

    fn lay(&mut self, under: &mut Table, over: &Table, source: impl Fn(&str) -> Source) {
        for (path, value) in flat(over) {
            self.sources.insert(path.clone(), source(&path));
            put(under, &path, value);
        }
    }
}

/// Another variable for the same.
fn older(name: &Name) -> Option<String> {
    (name.path == LOG_FILTER.1).then(|| LOG_FILTER.0.to_owned())
}

/// What a variable says, if the setting can be that.
fn checked(name: &Name, variable: &str, text: &str) -> Result<Table, ConfigError> {
    let value = match name.kind {
        Kind::Text => Value::String(text.to_owned()),
        Kind::List => {
            let items = text.split(',').map(|it| it.trim().to_owned());
            Value::Array(items.map(Value::String).collect())
        }
        Kind::Literal => literal(text),
    };
    let mut table = Table::new();
    put(&mut table, &name.path, value);
    match Settings::deserialize_table(table.clone()) {
        // The rest of its table may stand elsewhere.
        Err(error) if !error.message().starts_with("missing field") => Err(ConfigError::Variable {
            name: variable.to_owned(),
            reason: words::plain(error.message()),
        }),
        _ => Ok(table),
    }
}

/// A number or a truth as TOML writes it, or else a text.
fn literal(text: &str) -> Value {
    let parsed = toml::from_str::<Table>(&format!("value = {text}"));
    match parsed.ok().and_then(|mut table| table.remove("value")) {
        Some(value @ (Value::Integer(_) | Value::Boolean(_) | Value::Float(_))) => value,
        _ => Value::String(text.to_owned()),
    }
}

/// Settings as a table of what was said.
pub(super) fn table(settings: &Settings) -> Table {
    Table::try_from(settings).expect("settings are a table of texts, numbers and lists")
}

/// All settings of a table by their whole names.
pub(super) fn flat(table: &Table) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for (name, value) in table {
        if let Value::Table(table) = value {
            let below = flat(table).into_iter();
            found.extend(below.map(|(path, value)| (format!("{name}.{path}"), value)));
        } else {
            found.insert(name.clone(), value.clone());
        }
    }
    found
}

fn put(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
        }
        Some((name, rest)) => {
            let below = table
                .entry(name.to_owned())
                .or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(below) = below {
                put(below, rest, value);
            }
        }
    }
}
