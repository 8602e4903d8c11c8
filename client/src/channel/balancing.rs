//! Which of several servers a call goes to: the choices, as a program or a service config makes
//! them.

use std::time::Duration;

/// How calls are spread over the addresses of a target, and which of them are left out.
///
/// One store in memory for each server means that an entry is where it was written, so that
/// servers of that kind want [`pick_first`](Self::pick_first) (the others stand by) or
/// [`ring_hash`](Self::ring_hash) (each has its part of the keys). Servers before one store want
/// [`least_request`](Self::least_request) or [`round_robin`](Self::round_robin).
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Balancing {
    pub(crate) policy: Policy,
    pub(crate) ejection: Option<OutlierEjection>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Policy {
    PickFirst { shuffle: bool },
    RoundRobin,
    LeastRequest { choices: u32 },
    RingHash(RingHash),
}

/// Ring hash, gRFC A42: which server has a key follows from the key, and when a server comes or
/// goes little more than its own share of the keys moves.
///
/// The ring is the one that gRPC's other implementations make of the same addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingHash {
    pub(crate) min_ring_size: u32,
    pub(crate) max_ring_size: u32,
    pub(crate) balance_percent: u32,
}

/// Outlier ejection, gRFC A50: a server whose calls fail more than those of the others gets none
/// for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct OutlierEjection {
    pub(crate) interval: Duration,
    pub(crate) base_time: Duration,
    pub(crate) max_time: Duration,
    pub(crate) max_percent: u32,
    pub(crate) success_rate: Option<SuccessRate>,
    pub(crate) failure_percentage: Option<FailurePercentage>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SuccessRate {
    /// Thousandths of a standard deviation below the mean.
    pub(crate) stdev_factor: u32,
    pub(crate) enforcement_percent: u32,
    pub(crate) minimum_hosts: u32,
    pub(crate) request_volume: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FailurePercentage {
    pub(crate) threshold: u32,
    pub(crate) enforcement_percent: u32,
    pub(crate) minimum_hosts: u32,
    pub(crate) request_volume: u32,
}

/// Servers that a least-request pick compares, gRFC A48; more than ten gain nothing.
pub(crate) const DEFAULT_CHOICES: u32 = 2;
pub(crate) const MAX_CHOICES: u32 = 10;

/// Entries of a ring, gRFC A42. The client's own bound on what a service config may ask for.
pub(crate) const DEFAULT_MIN_RING: u32 = 1024;
pub(crate) const DEFAULT_MAX_RING: u32 = 4096;
pub(crate) const MAX_RING: u32 = 65_536;

impl Balancing {
    /// All calls to the first address that can be reached, in the order of the resolver
    /// (gRFC A62).
    pub const fn pick_first() -> Self {
        Self::new(Policy::PickFirst { shuffle: false })
    }

    /// As [`pick_first`](Self::pick_first), each client with an order of its own, so that clients
    /// spread.
    pub const fn pick_first_shuffled() -> Self {
        Self::new(Policy::PickFirst { shuffle: true })
    }

    /// One call to each address in turn.
    pub const fn round_robin() -> Self {
        Self::new(Policy::RoundRobin)
    }

    /// The one of two random addresses that has fewer calls of this client in flight (gRFC A48).
    pub const fn least_request() -> Self {
        Self::new(Policy::LeastRequest {
            choices: DEFAULT_CHOICES,
        })
    }

    /// The address that the entry's key leads to (gRFC A42). Batches become a call for each key.
    /// What is about many keys in another way (lists, dumps, loads, deletes by prefix, usage)
    /// goes to any one of the servers, and speaks of that one alone: ask each by a client of its
    /// own.
    pub const fn ring_hash(ring: RingHash) -> Self {
        Self::new(Policy::RingHash(ring))
    }

    /// Leaves out servers whose calls fail more than those of the others: with `UNAVAILABLE`,
    /// `INTERNAL`, `UNKNOWN`, `DEADLINE_EXCEEDED` or `DATA_LOSS`, for what a caller does wrong is
    /// wrong everywhere. [`pick_first`](Self::pick_first) has nothing to compare, and ignores it.
    pub const fn with_outlier_ejection(mut self, ejection: OutlierEjection) -> Self {
        self.ejection = Some(ejection);
        self
    }

    pub(crate) const fn new(policy: Policy) -> Self {
        Self {
            policy,
            ejection: None,
        }
    }
}

impl Default for RingHash {
    /// 1024 to 4096 entries, and no bound on a server's share.
    fn default() -> Self {
        Self {
            min_ring_size: DEFAULT_MIN_RING,
            max_ring_size: DEFAULT_MAX_RING,
            balance_percent: 0,
        }
    }
}

impl RingHash {
    /// A server gets at most this share of the calls in flight, percent of the mean of all; the
    /// next on the ring gets what is above ("Consistent Hashing with Bounded Loads", Mirrokni,
    /// Thorup and Zadimoghaddam 2016). Less than 100 is taken as 100. Only for servers before one
    /// store: with stores of their own, an entry would be looked for where it is not.
    #[must_use]
    pub const fn with_bounded_load(mut self, percent: u32) -> Self {
        self.balance_percent = if percent < 100 { 100 } else { percent };
        self
    }
}

impl Default for OutlierEjection {
    /// gRFC A50's: a look every 10 s, 30 s for a first ejection and 300 s at most, at most a tenth
    /// of the servers; both ways to find one, of five servers with at least 100 calls (success
    /// rate) or 50 (failure percentage) in an interval.
    fn default() -> Self {
        Self {
            success_rate: Some(SuccessRate::default()),
            failure_percentage: Some(FailurePercentage::default()),
            ..Self::DISABLED
        }
    }
}

impl OutlierEjection {
    /// The times of the defaults, and no way to find an outlier.
    pub(crate) const DISABLED: Self = Self {
        interval: Duration::from_secs(10),
        base_time: Duration::from_secs(30),
        max_time: Duration::from_secs(300),
        max_percent: 10,
        success_rate: None,
        failure_percentage: None,
    };

    /// How often the servers are looked at, and how long a first ejection lasts; each further one
    /// lasts that much longer, up to 300 s or `base_time` if that is longer.
    pub const fn with_times(mut self, interval: Duration, base_time: Duration) -> Self {
        self.interval = interval;
        self.base_time = base_time;
        self
    }

    /// Fewest servers, and fewest calls of a server in an interval, for a comparison to mean
    /// something.
    pub fn with_volume(mut self, servers: u32, calls: u32) -> Self {
        if let Some(rate) = &mut self.success_rate {
            (rate.minimum_hosts, rate.request_volume) = (servers, calls);
        }
        if let Some(failures) = &mut self.failure_percentage {
            (failures.minimum_hosts, failures.request_volume) = (servers, calls);
        }
        self
    }

    /// Most servers ejected at a time, percent of all; one may always be.
    pub const fn with_max_percent(mut self, percent: u32) -> Self {
        self.max_percent = if percent > 100 { 100 } else { percent };
        self
    }

    pub(crate) const fn is_enabled(&self) -> bool {
        self.success_rate.is_some() || self.failure_percentage.is_some()
    }
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self {
            stdev_factor: 1900,
            enforcement_percent: 100,
            minimum_hosts: 5,
            request_volume: 100,
        }
    }
}

impl Default for FailurePercentage {
    fn default() -> Self {
        Self {
            threshold: 85,
            enforcement_percent: 100,
            minimum_hosts: 5,
            request_volume: 50,
        }
    }
}
