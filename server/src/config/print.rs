//! The configuration in force, as a file that says the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use toml::Value;

use super::layers::{Layers, flat, table};
use super::names::names;
use super::{ByteSize, Config, Role, Settings, TelemetrySettings, TlsSettings, TransportSettings};

impl Config {
    /// The settings that say all of this, defaults too. What follows from the absence
    /// of a setting is left out.
    pub(crate) fn settings(&self) -> Settings {
        let files = self.tls.as_ref();
        let accounts = self.accounts.as_ref();
        let limits = &self.limits;
        let anonymous = self
            .anonymous
            .as_ref()
            .filter(|_| !self.anonymous_by_default);
        let shown = accounts.and_then(|accounts| accounts.certificate.as_ref());
        Settings {
            listen: Some(self.listen.iter().map(ToString::to_string).collect()),
            data_dir: Some(self.data_dir.clone()),
            max_memory: Some(ByteSize(self.max_memory_bytes)),
            threads: Some(self.threads),
            tls_cert: files.map(|files| files.cert.clone()),
            tls_key: files.map(|files| files.key.clone()),
            client_ca: files.and_then(|files| files.client_ca.clone()),
            client_crl: files.and_then(|files| files.client_crl.clone()),
            allow_clear_text: Some(self.allow_clear_text),
            accounts: accounts.map(|accounts| accounts.uri.to_string()),
            accounts_token_file: accounts.and_then(|accounts| accounts.token_file.clone()),
            accounts_ca: accounts.and_then(|accounts| accounts.ca.clone()),
            accounts_cert: shown.map(|files| files.cert.clone()),
            accounts_key: shown.map(|files| files.key.clone()),
            accounts_max_age_seconds: accounts.map(|it| it.default_max_age.as_secs()),
            anonymous: anonymous.map(ToString::to_string),
            shared_keyspace: Some(self.shared_keyspace),
            cors_origin: Some(self.cors_origins.clone()),
            max_connections: Some(self.max_connections),
            max_key_bytes: Some(limits.max_key_bytes),
            max_value_bytes: Some(ByteSize(limits.max_value_bytes as u64)),
            max_batch_keys: Some(limits.max_batch_keys),
            max_list_page: Some(limits.max_list_page),
            log_format: Some(self.log_format),
            log_filter: Some(self.log_filter.clone()),
            log_calls_per_second: Some(self.log_calls_per_second),
            drain_grace_seconds: Some(self.drain_grace.as_secs()),
            admin: self.admin.map(|address| address.to_string()),
            snapshot: Some(self.snapshot_settings()),
            tls: files.map(|files| TlsSettings::of(files, &self.certificate_account_settings)),
            audit: Some((&self.audit).into()),
            admission: Some((&self.admission).into()),
            deadlines: Some((&self.deadlines).into()),
            compression: Some((&self.compression).into()),
            telemetry: Some((&self.telemetry).into()),
            request_ids: Some((&self.replay).into()),
            transport: Some(TransportSettings::of(&self.transport)),
        }
    }

    /// The configuration as TOML, each setting with where it comes from. It holds no
    /// secret: those stand in files that it names.
    pub fn print(&self, layers: &Layers) -> String {
        let values = flat(&table(&self.settings()));
        let dormant = dormant();
        let mut page = String::new();
        let mut section = String::new();
        for name in names() {
            let (above, last) = name.path.rsplit_once('.').unwrap_or(("", &name.path));
            if above != section {
                above.clone_into(&mut section);
                // Writing to a string does not fail.
                let _ = writeln!(page, "\n[{section}]");
            }
            let _ = match values.get(&name.path) {
                Some(value) => {
                    let source = layers.source(&name.path);
                    writeln!(page, "{last} = {} # {source}", shown(&name.path, value))
                }
                None if name.path == "anonymous" && self.anonymous_by_default => {
                    writeln!(
                        page,
                        "# {last} = \"default\" # default, while all listeners are local"
                    )
                }
                None => match dormant.get(&name.path) {
                    Some(value) => {
                        writeln!(page, "# {last} = {value} # default, without effect here")
                    }
                    None => writeln!(page, "# {last} is not set"),
                },
            };
        }
        page
    }
}

/// Defaults that count only where another setting, which has none, is given.
fn dormant() -> BTreeMap<String, Value> {
    let parse = |settings| {
        let config = Config::parse(Role::Cache, settings, Path::new(""));
        flat(&table(&config.expect("the settings are good").settings()))
    };
    let some = || Some("a".into());
    let given = Settings {
        tls_cert: some(),
        tls_key: some(),
        client_ca: some(),
        accounts: Some("http://localhost:1".into()),
        telemetry: Some(TelemetrySettings {
            otlp_endpoint: Some("http://localhost:1".into()),
            ..TelemetrySettings::default()
        }),
        ..Settings::default()
    };
    let names = flat(&table(&given));
    let mut values = parse(given);
    values.retain(|name, _| !names.contains_key(name));
    values
}

/// A value as it is written; a URL without the password that it may hold.
fn shown(path: &str, value: &Value) -> String {
    match value {
        Value::String(url) if path == "accounts" => {
            Value::String(without_password(url)).to_string()
        }
        value => value.to_string(),
    }
}

fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://REDACTED@{host}"),
        _ => url.to_owned(),
    }
}
