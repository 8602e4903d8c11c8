//! What the server tells of itself: the table `[telemetry]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ConfigError, bad, within};

/// Settings of metrics and traces, as they were written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetrySettings {
    /// Collector of OpenTelemetry that traces go to, over gRPC: `http://HOST:PORT` or
    /// `https://HOST:PORT`. Default: none, and nothing is traced.
    pub otlp_endpoint: Option<String>,
    /// Authority of the collector's certificate, PEM.
    pub otlp_ca: Option<PathBuf>,
    /// Part of the traces that begin here which is recorded, 0 to 1; default 0.01. Whether one
    /// that began elsewhere is recorded was decided there.
    pub trace_ratio: Option<f64>,
    /// `service.name` of the traces; default `larder`.
    pub service_name: Option<String>,
    /// Accounts with labels of their own in `/metrics`, 0 to 1,000; default 20. The others
    /// are one.
    pub metrics_accounts: Option<usize>,
}

/// Metrics and traces, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetryConfig {
    /// Where traces go, if anywhere.
    pub traces: Option<TraceConfig>,
    /// Accounts with labels of their own.
    pub metrics_accounts: usize,
}

/// Where traces go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceConfig {
    /// The collector.
    pub uri: http::Uri,
    /// Authority of its certificate, PEM.
    pub ca: Option<PathBuf>,
    /// Part of the traces that begin here, in a million.
    pub parts_per_million: u32,
    /// `service.name`.
    pub service_name: String,
}

impl From<&TelemetryConfig> for TelemetrySettings {
    fn from(config: &TelemetryConfig) -> Self {
        let traces = config.traces.as_ref();
        Self {
            otlp_endpoint: traces.map(|traces| traces.uri.to_string()),
            otlp_ca: traces.and_then(|traces| traces.ca.clone()),
            trace_ratio: traces.map(|traces| f64::from(traces.parts_per_million) / MILLION),
            service_name: traces.map(|traces| traces.service_name.clone()),
            metrics_accounts: Some(config.metrics_accounts),
        }
    }
}

const MILLION: f64 = 1_000_000.0;

impl TelemetrySettings {
    /// # Errors
    /// The first setting that is out of its range, or useless without another.
    pub(super) fn check(self) -> Result<TelemetryConfig, ConfigError> {
        let metrics_accounts = within(
            "telemetry.metrics_accounts",
            self.metrics_accounts,
            20,
            0..=1000,
        )?;
        let ratio = within("telemetry.trace_ratio", self.trace_ratio, 0.01, 0.0..=1.0)?;
        let Some(endpoint) = &self.otlp_endpoint else {
            let useless = [
                ("telemetry.otlp_ca", self.otlp_ca.is_some()),
                ("telemetry.trace_ratio", self.trace_ratio.is_some()),
                ("telemetry.service_name", self.service_name.is_some()),
            ];
            return match useless.into_iter().find(|(_, given)| *given) {
                Some((name, _)) => Err(bad(name, "needs telemetry.otlp_endpoint")),
                None => Ok(TelemetryConfig {
                    traces: None,
                    metrics_accounts,
                }),
            };
        };
        let uri = endpoint_uri(endpoint)?;
        match (uri.scheme_str(), &self.otlp_ca) {
            (Some("https"), None) => {
                let reason = "an https:// collector needs it";
                return Err(bad("telemetry.otlp_ca", reason));
            }
            (Some("http"), Some(_)) => {
                return Err(bad("telemetry.otlp_ca", "needs an https:// collector"));
            }
            _ => {}
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is within 0 to a million"
        )]
        let parts_per_million = (ratio * MILLION).round() as u32;
        Ok(TelemetryConfig {
            traces: Some(TraceConfig {
                uri,
                ca: self.otlp_ca,
                parts_per_million,
                service_name: self.service_name.unwrap_or_else(|| "larder".to_owned()),
            }),
            metrics_accounts,
        })
    }
}

fn endpoint_uri(text: &str) -> Result<http::Uri, ConfigError> {
    let uri: Option<http::Uri> = text.parse().ok();
    let is_good = |uri: &http::Uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.path_and_query().is_none_or(|path| path == "/")
    };
    uri.filter(is_good).ok_or_else(|| {
        let reason = format!("`{text}` must be http://HOST:PORT or https://HOST:PORT");
        bad("telemetry.otlp_endpoint", reason)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused_by_its_name() {
        let check = |toml: &str, wrong: Option<&str>| {
            let settings: TelemetrySettings = toml::from_str(toml).expect("a table of settings");
            let named = match settings.check() {
                Ok(_) => None,
                Err(ConfigError::Setting { setting, .. }) => Some(setting),
                Err(other) => panic!("{toml}: {other}"),
            };
            assert_eq!(named, wrong, "{toml}");
        };
        let endpoint = "otlp_endpoint = 'http://localhost:4317'\n";
        check("", None);
        check("metrics_accounts = 0", None);
        check(endpoint, None);
        check(
            "otlp_endpoint = 'https://otel.example.com:4317'\notlp_ca = 'ca.pem'",
            None,
        );
        check(
            "metrics_accounts = 1001",
            Some("telemetry.metrics_accounts"),
        );
        check("trace_ratio = 0.5", Some("telemetry.trace_ratio"));
        check("service_name = 'x'", Some("telemetry.service_name"));
        for ratio in ["1.01", "-0.1", "nan", "inf"] {
            let toml = format!("{endpoint}trace_ratio = {ratio}");
            check(&toml, Some("telemetry.trace_ratio"));
        }
        check(
            &format!("{endpoint}otlp_ca = 'ca.pem'"),
            Some("telemetry.otlp_ca"),
        );
        for bad in [
            "localhost:4317",
            "ftp://x",
            "http://x/v1/traces",
            "https://x/?y",
            "http://",
        ] {
            let toml = format!("otlp_endpoint = '{bad}'");
            check(&toml, Some("telemetry.otlp_endpoint"));
        }
        check(
            "otlp_endpoint = 'https://localhost:4317'",
            Some("telemetry.otlp_ca"),
        );
    }

    #[test]
    fn a_ratio_is_parts_of_a_million() {
        let check = |ratio: f64, parts: u32| {
            let settings = TelemetrySettings {
                otlp_endpoint: Some("http://localhost:4317".into()),
                trace_ratio: Some(ratio),
                ..TelemetrySettings::default()
            };
            let traces = settings.check().expect("settings").traces;
            assert_eq!(traces.expect("traces").parts_per_million, parts, "{ratio}");
        };
        check(0.0, 0);
        check(0.01, 10_000);
        check(1.0, 1_000_000);
    }
}
