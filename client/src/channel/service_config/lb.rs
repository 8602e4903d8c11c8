//! `loadBalancingConfig`: the first of a list of policies that this client knows. The names and
//! fields are those of gRFC A2, A42, A48, A50 and A62, those that end in `_experimental` also
//! without that.

use std::time::Duration;

use super::reader::Field;
use crate::channel::balancing::{
    Balancing, DEFAULT_CHOICES, DEFAULT_MAX_RING, DEFAULT_MIN_RING, FailurePercentage, MAX_CHOICES,
    MAX_RING, OutlierEjection, Policy, RingHash, SuccessRate,
};
use crate::error::Error;

/// Policies within one another; outlier detection is the only one that has a child here.
const MAX_DEPTH: u32 = 8;

pub(super) fn read(root: &Field<'_>) -> Result<Option<Balancing>, Error> {
    match root.get("loadBalancingConfig")? {
        Some(list) => read_list(&list, MAX_DEPTH).map(Some),
        None => Ok(None),
    }
}

fn read_list(list: &Field<'_>, depth: u32) -> Result<Balancing, Error> {
    if depth == 0 {
        return Err(list.wrong("is too deep"));
    }
    for item in list.list()? {
        let entries = item.entries()?;
        let [(name, config)] = entries.as_slice() else {
            return Err(item.wrong("must have one name, that of the policy"));
        };
        let policy = match name.strip_suffix("_experimental").unwrap_or(name) {
            "pick_first" => Policy::PickFirst {
                shuffle: config
                    .get("shuffleAddressList")?
                    .map_or(Ok(false), |field| field.boolean())?,
            },
            "round_robin" => {
                config.entries()?;
                Policy::RoundRobin
            }
            "least_request" => read_least_request(config)?,
            "ring_hash" => read_ring(config)?,
            "outlier_detection" => return read_outlier(config, depth),
            _ => continue,
        };
        return Ok(Balancing::new(policy));
    }
    Err(list.wrong("has no policy that this client knows"))
}

fn read_least_request(config: &Field<'_>) -> Result<Policy, Error> {
    let choices = match config.get("choiceCount")? {
        Some(field) => field.within(2, u32::MAX)?.min(MAX_CHOICES),
        None => DEFAULT_CHOICES,
    };
    Ok(Policy::LeastRequest { choices })
}

fn read_ring(config: &Field<'_>) -> Result<Policy, Error> {
    // A42 bounds both by 8 Mi entries, and lets a client have a bound of its own.
    let size = |name: &str, default: u32| -> Result<u32, Error> {
        match config.get(name)? {
            Some(field) => Ok(field.within(1, 8 << 20)?.min(MAX_RING)),
            None => Ok(default),
        }
    };
    let min_ring_size = size("minRingSize", DEFAULT_MIN_RING)?;
    let max_ring_size = size("maxRingSize", DEFAULT_MAX_RING.max(min_ring_size))?;
    if min_ring_size > max_ring_size {
        return Err(config.wrong("minRingSize is more than maxRingSize"));
    }
    // Envoy's `hash_balance_factor`, percent; gRPC has none.
    let balance_percent = match config.get("hashBalanceFactor")? {
        Some(field) if field.whole()? == 0 => 0,
        Some(field) => field.within(100, 10_000)?,
        None => 0,
    };
    Ok(Policy::RingHash(RingHash {
        min_ring_size,
        max_ring_size,
        balance_percent,
    }))
}

fn read_outlier(config: &Field<'_>, depth: u32) -> Result<Balancing, Error> {
    let none = OutlierEjection::DISABLED;
    let time = |name: &str, default: Duration| -> Result<Duration, Error> {
        config
            .get(name)?
            .map_or(Ok(default), |field| field.positive_duration())
    };
    let percent = |field: &Field<'_>, name: &str, default: u32| -> Result<u32, Error> {
        field
            .get(name)?
            .map_or(Ok(default), |field| field.within(0, 100))
    };
    let whole = |field: &Field<'_>, name: &str, default: u32| -> Result<u32, Error> {
        field.get(name)?.map_or(Ok(default), |field| field.whole())
    };
    let success_rate = match config.get("successRateEjection")? {
        None => None,
        Some(field) => {
            let default = SuccessRate::default();
            Some(SuccessRate {
                stdev_factor: whole(&field, "stdevFactor", default.stdev_factor)?,
                enforcement_percent: percent(&field, "enforcementPercentage", 100)?,
                minimum_hosts: whole(&field, "minimumHosts", default.minimum_hosts)?,
                request_volume: whole(&field, "requestVolume", default.request_volume)?,
            })
        }
    };
    let failure_percentage = match config.get("failurePercentageEjection")? {
        None => None,
        Some(field) => {
            let default = FailurePercentage::default();
            Some(FailurePercentage {
                threshold: percent(&field, "threshold", default.threshold)?,
                enforcement_percent: percent(&field, "enforcementPercentage", 100)?,
                minimum_hosts: whole(&field, "minimumHosts", default.minimum_hosts)?,
                request_volume: whole(&field, "requestVolume", default.request_volume)?,
            })
        }
    };
    let ejection = OutlierEjection {
        interval: time("interval", none.interval)?,
        base_time: time("baseEjectionTime", none.base_time)?,
        max_time: time("maxEjectionTime", none.max_time)?,
        max_percent: percent(config, "maxEjectionPercent", none.max_percent)?,
        success_rate,
        failure_percentage,
    };
    let child = read_list(&config.require("childPolicy")?, depth - 1)?;
    Ok(Balancing {
        ejection: Some(ejection).filter(OutlierEjection::is_enabled),
        ..child
    })
}
