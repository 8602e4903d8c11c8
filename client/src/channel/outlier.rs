//! Outlier ejection, gRFC A50: which subchannels get no calls for a time because their calls fail
//! more than those of the others. Time, counts and randomness are arguments.

use std::time::Duration;

use rand::Rng;

use super::balancing::OutlierEjection;
use super::subchannel::Id;

/// The calls of one subchannel in an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Calls {
    pub(crate) id: Id,
    pub(crate) succeeded: u32,
    pub(crate) failed: u32,
}

#[derive(Debug)]
pub(crate) struct Ejector {
    config: OutlierEjection,
    hosts: Vec<Host>,
    next_look: Option<Duration>,
}

#[derive(Debug)]
struct Host {
    id: Id,
    ejected_at: Option<Duration>,
    /// Ejections lately: each makes the next longer.
    multiplier: u32,
}

impl Calls {
    fn total(&self) -> u32 {
        self.succeeded.saturating_add(self.failed)
    }

    fn success_rate(&self) -> f64 {
        f64::from(self.succeeded) / f64::from(self.total().max(1))
    }
}

impl Ejector {
    pub(crate) const fn new(config: OutlierEjection) -> Self {
        Self {
            config,
            hosts: Vec::new(),
            next_look: None,
        }
    }

    /// The subchannels that there are; what is known of those that stay is kept.
    pub(crate) fn update(&mut self, ids: &[Id], now: Duration) {
        self.hosts.retain(|host| ids.contains(&host.id));
        for &id in ids {
            if !self.hosts.iter().any(|host| host.id == id) {
                self.hosts.push(Host {
                    id,
                    ejected_at: None,
                    multiplier: 0,
                });
            }
        }
        self.next_look
            .get_or_insert(now.saturating_add(self.config.interval));
    }

    /// When the next interval ends.
    pub(crate) const fn wake_at(&self) -> Option<Duration> {
        self.next_look
    }

    pub(crate) fn is_ejected(&self, id: Id) -> bool {
        let mut hosts = self.hosts.iter();
        hosts.any(|host| host.id == id && host.ejected_at.is_some())
    }

    /// Ends an interval: looks at the calls in it, ejects, and lets those back whose time is over.
    pub(crate) fn look(&mut self, now: Duration, calls: &[Calls], rng: &mut impl Rng) {
        self.next_look = Some(now.saturating_add(self.config.interval));
        self.by_success_rate(now, calls, rng);
        self.by_failure_percentage(now, calls, rng);
        let (base, most) = (self.config.base_time, self.config.max_time);
        for host in &mut self.hosts {
            match host.ejected_at {
                None => host.multiplier = host.multiplier.saturating_sub(1),
                Some(since) => {
                    let time = base.saturating_mul(host.multiplier).min(base.max(most));
                    if now >= since.saturating_add(time) {
                        host.ejected_at = None;
                    }
                }
            }
        }
    }

    fn by_success_rate(&mut self, now: Duration, calls: &[Calls], rng: &mut impl Rng) {
        let Some(config) = self.config.success_rate else {
            return;
        };
        let counted: Vec<_> = with_volume(calls, config.request_volume).collect();
        if counted.is_empty() || is_below(counted.len(), config.minimum_hosts) {
            return;
        }
        let count = f64::from(u32::try_from(counted.len()).unwrap_or(u32::MAX));
        let rates = || counted.iter().map(Calls::success_rate);
        let mean = rates().sum::<f64>() / count;
        let variance = rates().map(|rate| (rate - mean).powi(2)).sum::<f64>() / count;
        let least = mean - variance.sqrt() * f64::from(config.stdev_factor) / 1000.0;
        let is_outlier = |calls: &Calls| calls.success_rate() < least;
        self.eject_those(now, &counted, is_outlier, config.enforcement_percent, rng);
    }

    fn by_failure_percentage(&mut self, now: Duration, calls: &[Calls], rng: &mut impl Rng) {
        let Some(config) = self.config.failure_percentage else {
            return;
        };
        let counted: Vec<_> = with_volume(calls, config.request_volume).collect();
        if is_below(counted.len(), config.minimum_hosts) {
            return;
        }
        let is_outlier = |calls: &Calls| {
            u64::from(calls.failed) * 100 > u64::from(calls.total()) * u64::from(config.threshold)
        };
        self.eject_those(now, &counted, is_outlier, config.enforcement_percent, rng);
    }

    fn eject_those(
        &mut self,
        now: Duration,
        counted: &[Calls],
        is_outlier: impl Fn(&Calls) -> bool,
        enforcement_percent: u32,
        rng: &mut impl Rng,
    ) {
        for calls in counted.iter().filter(|calls| is_outlier(calls)) {
            // Before each: one may be ejected however small the part is.
            if self.ejected_percent() >= u64::from(self.config.max_percent).max(1) {
                return;
            }
            if rng.random_range(0..100) >= enforcement_percent {
                continue;
            }
            let mut hosts = self.hosts.iter_mut();
            let host = hosts.find(|host| host.id == calls.id && host.ejected_at.is_none());
            if let Some(host) = host {
                host.ejected_at = Some(now);
                host.multiplier = host.multiplier.saturating_add(1);
            }
        }
    }

    fn ejected_percent(&self) -> u64 {
        let ejected = self.hosts.iter().filter(|host| host.ejected_at.is_some());
        let percent = 100 * ejected.count() / self.hosts.len().max(1);
        u64::try_from(percent).unwrap_or(100)
    }
}

fn with_volume(calls: &[Calls], volume: u32) -> impl Iterator<Item = Calls> {
    // One without any call has no rate.
    let least = volume.max(1);
    calls
        .iter()
        .copied()
        .filter(move |calls| calls.total() >= least)
}

fn is_below(count: usize, minimum: u32) -> bool {
    u32::try_from(count).is_ok_and(|count| count < minimum)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;

    use super::super::balancing::{FailurePercentage, SuccessRate};
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn ejector(config: OutlierEjection, count: u64) -> Ejector {
        let mut ejector = Ejector::new(config);
        let ids: Vec<_> = (0..count).map(Id).collect();
        ejector.update(&ids, Duration::ZERO);
        ejector
    }

    /// By failures of 100 calls each.
    fn calls(failed: &[u32]) -> Vec<Calls> {
        let calls = (0u64..).zip(failed).map(|(id, &failed)| Calls {
            id: Id(id),
            succeeded: 100 - failed,
            failed,
        });
        calls.collect()
    }

    fn ejected(ejector: &Ejector) -> Vec<u64> {
        let all = ejector.hosts.iter().map(|host| host.id);
        all.filter(|id| ejector.is_ejected(*id))
            .map(|id| id.0)
            .collect()
    }

    #[track_caller]
    fn check(config: OutlierEjection, failed: &[u32], wanted: &[u64]) {
        let mut rng = SmallRng::seed_from_u64(50);
        let mut ejector = ejector(config, failed.len() as u64);
        assert_eq!(ejector.wake_at(), Some(secs(10)));
        ejector.look(secs(10), &calls(failed), &mut rng);
        assert_eq!(ejected(&ejector), wanted, "{failed:?}");
    }

    #[test]
    fn outliers_by_success_rate() {
        let config = OutlierEjection {
            success_rate: Some(SuccessRate::default()),
            max_percent: 50,
            ..OutlierEjection::DISABLED
        };
        check(config, &[0, 0, 0, 0, 0], &[]);
        check(config, &[90, 0, 1, 0, 0, 0], &[0]);
        check(config, &[50, 50, 50, 50, 50], &[]);
        // Too few to compare.
        check(config, &[90, 0, 0, 0], &[]);
        let busy = SuccessRate {
            request_volume: 101,
            ..SuccessRate::default()
        };
        let config = OutlierEjection {
            success_rate: Some(busy),
            ..config
        };
        check(config, &[90, 0, 0, 0, 0, 0], &[]);
    }

    #[test]
    fn outliers_by_failure_percentage() {
        let config = OutlierEjection {
            failure_percentage: Some(FailurePercentage::default()),
            max_percent: 40,
            ..OutlierEjection::DISABLED
        };
        check(config, &[85, 86, 0, 0, 0], &[1]);
        // The third would be more than 40 percent; the look stops before.
        check(config, &[99, 99, 99, 99, 99], &[0, 1]);
        check(config, &[99, 0, 0, 0], &[]);
        let never = FailurePercentage {
            enforcement_percent: 0,
            ..FailurePercentage::default()
        };
        let config = OutlierEjection {
            failure_percentage: Some(never),
            ..config
        };
        check(config, &[99, 0, 0, 0, 0], &[]);
    }

    #[test]
    fn one_may_be_ejected_however_few_there_are() {
        let config = OutlierEjection::default().with_volume(2, 10);
        check(config, &[100, 0, 0], &[0]);
        check(config.with_max_percent(0), &[100, 0, 0], &[0]);
    }

    #[test]
    fn an_ejection_lasts_longer_each_time_and_is_forgotten_slowly() {
        let config = OutlierEjection {
            failure_percentage: Some(FailurePercentage::default()),
            ..OutlierEjection::DISABLED
        };
        let mut rng = SmallRng::seed_from_u64(1);
        let mut ejector = ejector(config, 5);
        let (bad, good) = (calls(&[100, 0, 0, 0, 0]), calls(&[0; 5]));
        ejector.look(secs(10), &bad, &mut rng);
        for (at, is_out) in [(20, true), (30, true), (40, false)] {
            ejector.look(secs(at), &good[1..], &mut rng);
            assert_eq!(ejector.is_ejected(Id(0)), is_out, "at {at}");
        }
        // The second lasts 60 s.
        ejector.look(secs(50), &bad, &mut rng);
        ejector.look(secs(109), &[], &mut rng);
        assert!(ejector.is_ejected(Id(0)));
        ejector.look(secs(110), &[], &mut rng);
        assert!(!ejector.is_ejected(Id(0)));
        // Two intervals without one, and it is as new.
        ejector.look(secs(120), &good, &mut rng);
        ejector.look(secs(130), &good, &mut rng);
        ejector.look(secs(140), &bad, &mut rng);
        ejector.look(secs(170), &[], &mut rng);
        assert!(!ejector.is_ejected(Id(0)));
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut rng = SmallRng::seed_from_u64(1);
        let config = OutlierEjection::default().with_volume(2, 10);
        let mut ejector = ejector(config, 3);
        ejector.look(secs(10), &calls(&[100, 0, 0]), &mut rng);
        ejector.update(&[Id(1), Id(2)], secs(11));
        ejector.update(&[Id(0), Id(1), Id(2)], secs(12));
        assert!(!ejector.is_ejected(Id(0)));
        assert_eq!(ejector.wake_at(), Some(secs(20)));
    }
}
