//! gRPC's service config (gRFC A2, A6; `service_config.md`): what may be retried and how, which
//! server a call goes to, and whose health is watched. The same JSON that every gRPC client loads.
//!
//! Fields that are not known are passed over, as the specification asks; a wrong value of one
//! that is refuses the whole, with its path.

mod lb;
mod methods;
mod reader;
#[cfg(test)]
mod tests;

use serde_json::Value;

use super::balancing::Balancing;
use super::throttle::ThrottleConfig;
use crate::error::Error;
pub(crate) use methods::{MethodConfig, Methods, Tries};
use reader::Field;

/// What this client does if it is told nothing else: the file that stock clients load
/// (`clients/service-config.json`), but for methods rather than each by name: the client knows
/// which call may be repeated.
const DEFAULT: &str = include_str!("default.json");

/// Longest service config, bytes: it is for a person to write.
const MAX_BYTES: usize = 1 << 20;

/// The client's own bound on connections to one address, gRFC A105.
pub(crate) const MAX_CONNECTIONS: u32 = 10;

/// A service config that has been read and checked.
#[derive(Debug, Clone)]
pub(crate) struct ServiceConfig {
    pub(crate) methods: Methods,
    pub(crate) throttle: Option<ThrottleConfig>,
    pub(crate) balancing: Option<Balancing>,
    /// Whose health is watched on each connection; empty is the server as a whole.
    pub(crate) health_service: Option<String>,
    /// Most connections to one address, gRFC A105.
    pub(crate) max_connections: u32,
}

impl ServiceConfig {
    /// Reads a service config.
    pub(crate) fn parse(json: &str) -> Result<Self, Error> {
        if json.len() > MAX_BYTES {
            return Err(Error::configuration(format!(
                "service config: {} bytes; at most {MAX_BYTES}",
                json.len()
            )));
        }
        let value: Value = serde_json::from_str(json).map_err(|error| {
            Error::configuration(format!("service config: is no JSON: {error}")).with_source(error)
        })?;
        let root = Field::root(&value);
        Ok(Self {
            methods: Methods::read(&root)?,
            throttle: root
                .get("retryThrottling")?
                .map(|field| read_throttle(&field))
                .transpose()?,
            balancing: lb::read(&root)?,
            health_service: read_health(&root)?,
            max_connections: read_scaling(&root)?,
        })
    }

    /// [`DEFAULT`].
    pub(crate) fn standard() -> Self {
        Self::parse(DEFAULT).expect("a test reads it")
    }
}

/// gRFC A6, "Throttling Retry Attempts and Hedged RPCs".
fn read_throttle(field: &Field<'_>) -> Result<ThrottleConfig, Error> {
    let max_tokens = field.require("maxTokens")?.within(1, 1000)?;
    let ratio = field.require("tokenRatio")?;
    let thousandths = (ratio.number()? * 1000.0).floor();
    if !(1.0..=1_000_000.0).contains(&thousandths) {
        return Err(ratio.wrong("must be from 0.001 to 1000"));
    }
    Ok(ThrottleConfig {
        max_tokens,
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within one million, by the check above"
        )]
        ratio_thousandths: thousandths as u32,
    })
}

fn read_health(root: &Field<'_>) -> Result<Option<String>, Error> {
    let Some(health) = root.get("healthCheckConfig")? else {
        return Ok(None);
    };
    let name = health.get("serviceName")?;
    name.map(|name| name.text().map(str::to_owned)).transpose()
}

fn read_scaling(root: &Field<'_>) -> Result<u32, Error> {
    let Some(scaling) = root.get("connectionScaling")? else {
        return Ok(1);
    };
    match scaling.get("maxConnectionsPerSubchannel")? {
        Some(most) => Ok(most.whole()?.clamp(1, MAX_CONNECTIONS)),
        None => Ok(1),
    }
}
