//! What calls leave behind for `/metrics`, counted by the thread that answers them.
//!
//! A thread has a [`Meter`] of its own, which its connections share: to record a call takes no
//! lock and no locked instruction, and no two threads write to one cache line. Whoever scrapes
//! adds the threads up.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;
use std::time::Duration;

use larder_api::errors::{Code, Reason};
use larder_model::AccountName;
use parking_lot::Mutex;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::histogram::{Bytes, Histogram, Seconds, Tally, Total};
use crate::methods::{METHODS, Method};

/// Statuses of gRPC.
const CODES: usize = Code::ALL.len();

/// A method and the status of its calls, as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeriesId(usize);

impl SeriesId {
    #[inline]
    pub(crate) fn of(method: &Method, code: Code) -> Self {
        Self(method.index() * CODES + code as usize)
    }

    /// Of every method, and of what is none.
    fn all() -> impl Iterator<Item = (Self, &'static Method, Code)> {
        let methods = METHODS.iter().chain([&Method::UNKNOWN]);
        methods.flat_map(|method| {
            let id = move |code| (Self::of(method, code), method, code);
            Code::ALL.into_iter().map(id)
        })
    }
}

/// The calls of a method that ended with a status.
#[derive(Debug, Default)]
struct Series {
    duration: Histogram<Seconds>,
    sent: Histogram<Bytes>,
    received: Histogram<Bytes>,
    /// Calls whose duration is known at the end of the turn: see [`Meter::settle`].
    unsettled: Tally,
}

/// What one thread counts.
#[derive(Debug)]
pub(crate) struct Meter {
    /// By method.
    started: Box<[Tally]>,
    /// By [`SeriesId`]; few of them are ever used.
    series: Box<[OnceLock<Box<Series>>]>,
    failures: [Tally; Reason::ALL.len()],
    accounts_wait: Histogram<Seconds>,
    accounts: Mutex<HashMap<AccountName, Arc<AccountMeter>>>,
    /// For identifiers of traces.
    pub(crate) random: Mutex<StdRng>,
}

/// What one thread counts of an account.
#[derive(Debug, Default)]
pub(crate) struct AccountMeter {
    pub(crate) calls: Tally,
    pub(crate) failures: Tally,
    pub(crate) received_bytes: Tally,
    pub(crate) sent_bytes: Tally,
    /// Entries written.
    pub(crate) sets: Tally,
}

/// A call that has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) series: SeriesId,
    pub(crate) reason: Option<Reason>,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    /// `None`: it ended in the turn that it began in, whose end is not known yet.
    pub(crate) took: Option<Duration>,
    pub(crate) accounts_wait: Duration,
}

impl Meter {
    fn new(random: StdRng) -> Self {
        let methods = METHODS.len() + 1;
        Self {
            started: (0..methods).map(|_| Tally::default()).collect(),
            series: (0..methods * CODES).map(|_| OnceLock::new()).collect(),
            failures: [const { Tally::new() }; Reason::ALL.len()],
            accounts_wait: Histogram::default(),
            accounts: Mutex::default(),
            random: Mutex::new(random),
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Meter {
    #[inline]
    pub(crate) fn started(&self, method: &Method) {
        self.started[method.index()].add(1);
    }

    #[inline]
    pub(crate) fn ended(&self, call: &Measured, account: Option<&AccountMeter>) {
        let series = self.series[call.series.0].get_or_init(Box::default);
        series.received.record(call.received_bytes);
        series.sent.record(call.sent_bytes);
        match call.took {
            None => series.unsettled.add(1),
            Some(took) => series.duration.record(nanos(took)),
        }
        if let Some(account) = account {
            account.calls.add(1);
            account.received_bytes.add(call.received_bytes);
            account.sent_bytes.add(call.sent_bytes);
        }
        if let Some(reason) = call.reason {
            self.failures[reason as usize].add(1);
            if let Some(account) = account {
                account.failures.add(1);
            }
        }
        if !call.accounts_wait.is_zero() {
            self.accounts_wait.record(nanos(call.accounts_wait));
        }
    }

    /// The turn is over in which calls of these series began and ended, after so long.
    pub(crate) fn settle(&self, series: &[SeriesId], took: Duration) {
        for id in series {
            if let Some(series) = self.series[id.0].get() {
                let calls = series.unsettled.take();
                series.duration.record_times(nanos(took), calls);
            }
        }
    }

    /// Where this thread counts what an account does. A lock that only a scrape contends for;
    /// asked once for each caller of a connection, and for each call of a proxy with more
    /// callers than a connection remembers.
    pub(crate) fn account(&self, name: &AccountName) -> Arc<AccountMeter> {
        let mut accounts = self.accounts.lock();
        if let Some(known) = accounts.get(name) {
            return Arc::clone(known);
        }
        Arc::clone(accounts.entry(name.clone()).or_default())
    }
}

/// The meters of all threads.
#[derive(Debug)]
pub(crate) struct Meters {
    threads: Mutex<HashMap<ThreadId, Arc<Meter>>>,
    /// Of the randomness of each thread.
    seeds: Mutex<StdRng>,
}

/// What all threads counted of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct AccountTotals {
    pub(crate) calls: u64,
    pub(crate) failures: u64,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) sets: u64,
}

impl AccountTotals {
    fn add(&mut self, account: &AccountMeter) {
        self.calls += account.calls.get();
        self.failures += account.failures.get();
        self.received_bytes += account.received_bytes.get();
        self.sent_bytes += account.sent_bytes.get();
        self.sets += account.sets.get();
    }
}

/// What all threads counted of the calls of a method that ended with a status.
#[derive(Debug)]
pub(crate) struct SeriesTotals {
    pub(crate) method: &'static Method,
    pub(crate) code: Code,
    pub(crate) duration: Total,
    pub(crate) sent: Total,
    pub(crate) received: Total,
}

/// What all threads counted.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// Of methods that were called.
    pub(crate) started: Vec<(&'static Method, u64)>,
    /// Of those that ended.
    pub(crate) series: Vec<SeriesTotals>,
    pub(crate) failures: Vec<(Reason, u64)>,
    pub(crate) accounts_wait: Total,
    pub(crate) accounts: HashMap<AccountName, AccountTotals>,
}

impl Totals {
    pub(crate) fn calls_started(&self) -> u64 {
        self.started.iter().map(|(_, calls)| calls).sum()
    }

    /// Calls that ended with `OK`, and otherwise.
    pub(crate) fn calls_ended(&self) -> (u64, u64) {
        let count = |ok: bool| {
            let ended = self.series.iter().filter(|it| (it.code == Code::Ok) == ok);
            ended.map(|it| it.received.count()).sum()
        };
        (count(true), count(false))
    }
}

impl Meters {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self {
            threads: Mutex::default(),
            seeds: Mutex::new(StdRng::from_seed(seed)),
        }
    }

    /// The meter of the calling thread: that of all connections it serves. A lock.
    pub(crate) fn of_this_thread(&self) -> Arc<Meter> {
        let mut threads = self.threads.lock();
        let meter = threads
            .entry(std::thread::current().id())
            .or_insert_with(|| Arc::new(Meter::new(StdRng::from_rng(&mut *self.seeds.lock()))));
        Arc::clone(meter)
    }

    /// Lets go of accounts that nobody uses any more, and says what was counted of them.
    pub(crate) fn forget(
        &self,
        is_known: impl Fn(&AccountName) -> bool,
    ) -> HashMap<AccountName, AccountTotals> {
        let mut gone: HashMap<AccountName, AccountTotals> = HashMap::new();
        for meter in self.threads.lock().values() {
            meter.accounts.lock().retain(|name, account| {
                // One: that of this map, whose lock keeps others from being made.
                let is_kept = Arc::strong_count(account) > 1 || is_known(name);
                if !is_kept {
                    gone.entry(name.clone()).or_default().add(account);
                }
                is_kept
            });
        }
        gone
    }

    /// Adds up what there is.
    pub(crate) fn totals(&self) -> Totals {
        let meters: Vec<Arc<Meter>> = self.threads.lock().values().cloned().collect();
        let mut totals = Totals::default();
        // What ended before what began: a call that ends meanwhile is not seen as ended only.
        for (id, method, code) in SeriesId::all() {
            let mut sum = SeriesTotals {
                method,
                code,
                duration: Total::default(),
                sent: Total::default(),
                received: Total::default(),
            };
            for series in meters.iter().filter_map(|meter| meter.series[id.0].get()) {
                series.duration.add_to(&mut sum.duration);
                series.sent.add_to(&mut sum.sent);
                series.received.add_to(&mut sum.received);
            }
            if sum.received.count() > 0 {
                totals.series.push(sum);
            }
        }
        for method in METHODS.iter().chain([&Method::UNKNOWN]) {
            let at = method.index();
            let calls: u64 = meters.iter().map(|meter| meter.started[at].get()).sum();
            if calls > 0 {
                totals.started.push((method, calls));
            }
        }
        for reason in Reason::ALL {
            let at = *reason as usize;
            let calls = meters.iter().map(|meter| meter.failures[at].get()).sum();
            totals.failures.push((*reason, calls));
        }
        for meter in &meters {
            meter.accounts_wait.add_to(&mut totals.accounts_wait);
            for (name, account) in &*meter.accounts.lock() {
                totals
                    .accounts
                    .entry(name.clone())
                    .or_default()
                    .add(account);
            }
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_added_up() {
        let meters = Meters::new([0; 32]);
        let get = Method::of("/rpc.Cache/Get").expect("a method");
        let call = Measured {
            series: SeriesId::of(get, Code::Ok),
            reason: None,
            received_bytes: 10,
            sent_bytes: 2000,
            took: Some(Duration::from_micros(20)),
            accounts_wait: Duration::ZERO,
        };
        let failed = Measured {
            series: SeriesId::of(get, Code::NotFound),
            reason: Some(Reason::KeyNotFound),
            took: None,
            accounts_wait: Duration::from_millis(7),
            ..call
        };
        let name = AccountName::parse("team").expect("a name");
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let meter = meters.of_this_thread();
                    let account = meter.account(&name);
                    for call in [&call, &failed, &failed] {
                        meter.started(get);
                        meter.ended(call, Some(&account));
                    }
                    meter.settle(&[failed.series], Duration::from_millis(1));
                });
            }
        });
        let totals = meters.totals();
        assert_eq!(totals.started.len(), 1);
        assert_eq!(totals.calls_started(), 9);
        assert_eq!(totals.calls_ended(), (3, 6));
        let [ok, failed] = &totals.series[..] else {
            panic!("{:?}", totals.series);
        };
        assert_eq!((ok.code, failed.code), (Code::Ok, Code::NotFound));
        assert_eq!((ok.sent.count(), ok.sent.sum), (3, 6000));
        assert_eq!(
            (failed.duration.count(), failed.duration.sum),
            (6, 6_000_000)
        );
        assert_eq!(totals.accounts_wait.count(), 6);
        assert!(totals.failures.contains(&(Reason::KeyNotFound, 6)));
        let account = totals.accounts[&name];
        assert!(meters.forget(|known| *known == name).is_empty());
        assert_eq!(meters.forget(|_| false)[&name], account);
        assert!(meters.totals().accounts.is_empty());
        assert_eq!((account.calls, account.failures), (9, 6));
        assert_eq!(account.received_bytes, 90);
    }

    #[test]
    fn every_method_and_status_has_a_number_of_its_own() {
        let mut numbers: Vec<usize> = SeriesId::all().map(|(id, ..)| id.0).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), (METHODS.len() + 1) * CODES);
        assert_eq!(numbers.last(), Some(&(numbers.len() - 1)));
    }
}
