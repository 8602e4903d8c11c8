//! What a service config says of methods.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use larder_api::errors::Code;

use super::reader::Field;
use crate::channel::hedge::HedgingPolicy;
use crate::channel::retry::{CodeSet, MAX_ATTEMPTS, RetryPolicy};
use crate::error::Error;

/// What holds for one method.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct MethodConfig {
    /// Whether its calls wait for a server rather than fail while none can be reached.
    pub(crate) wait_for_ready: Option<bool>,
    /// Most time for a call; a caller may give it less.
    pub(crate) timeout: Option<Duration>,
    /// Largest message that is sent, bytes.
    pub(crate) max_request_bytes: Option<usize>,
    /// Largest message that is taken, bytes.
    pub(crate) max_response_bytes: Option<usize>,
    pub(crate) tries: Tries,
}

/// How often a call is made.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum Tries {
    /// Once; transparent retries are no further tries (gRFC A6).
    #[default]
    Once,
    Retry(RetryPolicy),
    Hedge(HedgingPolicy),
}

/// The configs of all methods.
#[derive(Debug, Clone, Default)]
pub(crate) struct Methods {
    /// By `/service/method`.
    exact: HashMap<String, Arc<MethodConfig>>,
    /// By `/service/`.
    services: HashMap<String, Arc<MethodConfig>>,
    fallback: Arc<MethodConfig>,
}

impl Methods {
    /// What holds for a path, `/service/method`: the method's, else the service's, else the
    /// default's.
    pub(crate) fn of(&self, path: &str) -> &Arc<MethodConfig> {
        if let Some(config) = self.exact.get(path) {
            return config;
        }
        let service = path.rfind('/').map_or("", |end| &path[..=end]);
        self.services.get(service).unwrap_or(&self.fallback)
    }

    pub(super) fn read(root: &Field<'_>) -> Result<Self, Error> {
        let mut methods = Self::default();
        let mut has_fallback = false;
        let Some(configs) = root.get("methodConfig")? else {
            return Ok(methods);
        };
        for field in configs.list()? {
            let config = Arc::new(MethodConfig::read(&field)?);
            let Some(names) = field.get("name")? else {
                continue;
            };
            for name in names.list()? {
                let is_new = match read_name(&name)? {
                    Name::All => {
                        methods.fallback = Arc::clone(&config);
                        !std::mem::replace(&mut has_fallback, true)
                    }
                    Name::Service(service) => add(&mut methods.services, service, &config),
                    Name::Method(path) => add(&mut methods.exact, path, &config),
                };
                if !is_new {
                    return Err(name.wrong("was named before"));
                }
            }
        }
        Ok(methods)
    }
}

enum Name {
    All,
    Service(String),
    Method(String),
}

fn read_name(field: &Field<'_>) -> Result<Name, Error> {
    let part = |name: &str| -> Result<&str, Error> {
        field.get(name)?.map_or(Ok(""), |field| field.text())
    };
    match (part("service")?, part("method")?) {
        ("", "") => Ok(Name::All),
        ("", _) => Err(field.wrong("a method needs a service")),
        (service, "") => Ok(Name::Service(format!("/{service}/"))),
        (service, method) => Ok(Name::Method(format!("/{service}/{method}"))),
    }
}

fn add(
    to: &mut HashMap<String, Arc<MethodConfig>>,
    name: String,
    config: &Arc<MethodConfig>,
) -> bool {
    match to.entry(name) {
        Entry::Occupied(_) => false,
        Entry::Vacant(place) => {
            place.insert(Arc::clone(config));
            true
        }
    }
}

impl MethodConfig {
    fn read(field: &Field<'_>) -> Result<Self, Error> {
        let bytes = |name: &str| -> Result<Option<usize>, Error> {
            let field = field.get(name)?;
            let bytes = field.map(|field| field.whole()).transpose()?;
            Ok(bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)))
        };
        let tries = match (field.get("retryPolicy")?, field.get("hedgingPolicy")?) {
            (None, None) => Tries::Once,
            (Some(retry), None) => Tries::Retry(read_retry(&retry)?),
            (None, Some(hedging)) => Tries::Hedge(read_hedging(&hedging)?),
            (Some(_), Some(hedging)) => {
                return Err(hedging.wrong("stands beside retryPolicy; only one of them may"));
            }
        };
        Ok(Self {
            wait_for_ready: field
                .get("waitForReady")?
                .map(|field| field.boolean())
                .transpose()?,
            timeout: field
                .get("timeout")?
                .map(|field| field.positive_duration())
                .transpose()?,
            max_request_bytes: bytes("maxRequestMessageBytes")?,
            max_response_bytes: bytes("maxResponseMessageBytes")?,
            tries,
        })
    }
}

fn read_retry(field: &Field<'_>) -> Result<RetryPolicy, Error> {
    let initial_backoff = field.require("initialBackoff")?.positive_duration()?;
    let max_backoff = field.require("maxBackoff")?.positive_duration()?;
    let multiplier = field.require("backoffMultiplier")?;
    let backoff_multiplier = multiplier.number()?;
    if backoff_multiplier <= 0.0 {
        return Err(multiplier.wrong("must be more than nothing"));
    }
    let codes = field.require("retryableStatusCodes")?;
    let retryable = read_codes(&codes)?;
    if retryable.is_empty() {
        return Err(codes.wrong("must name a status code"));
    }
    Ok(RetryPolicy {
        max_attempts: read_max_attempts(field)?,
        initial_backoff,
        max_backoff,
        backoff_multiplier,
        retryable,
    })
}

fn read_hedging(field: &Field<'_>) -> Result<HedgingPolicy, Error> {
    let delay = field.get("hedgingDelay")?;
    let codes = field.get("nonFatalStatusCodes")?;
    Ok(HedgingPolicy {
        max_attempts: read_max_attempts(field)?,
        delay: delay.map_or(Ok(Duration::ZERO), |delay| delay.duration())?,
        non_fatal: codes.map_or(Ok(CodeSet::default()), |codes| read_codes(&codes))?,
    })
}

/// gRFC A6: at least two, and more than five are five.
fn read_max_attempts(field: &Field<'_>) -> Result<u32, Error> {
    let most = field.require("maxAttempts")?;
    let attempts = most.whole()?;
    if attempts < 2 {
        return Err(most.wrong(format_args!("is {attempts}; must be at least 2")));
    }
    Ok(attempts.min(MAX_ATTEMPTS))
}

/// Codes by name, in any case, or by number.
fn read_codes(field: &Field<'_>) -> Result<CodeSet, Error> {
    let mut codes = CodeSet::default();
    for field in field.list()? {
        let by_name = field.text().ok().and_then(|text| {
            let mut all = Code::ALL.into_iter();
            all.find(|code| code.to_string().eq_ignore_ascii_case(text))
        });
        let by_number = || {
            let number = usize::try_from(field.whole().ok()?).ok()?;
            Code::ALL.get(number).copied()
        };
        let code = by_name.or_else(by_number);
        codes.insert(code.ok_or_else(|| field.wrong("is no status code"))?);
    }
    Ok(codes)
}
