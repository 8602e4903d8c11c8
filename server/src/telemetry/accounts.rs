//! Figures by account, for so many accounts and no more.
//!
//! The accounts with the most calls have labels of their own, and the others are one, `other`.
//! Who has a label changes from scrape to scrape, and no counter may go back: so each scrape
//! adds what was counted since the one before to wherever the account stands now.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use larder_model::{AccountName, Usage};
use parking_lot::Mutex;

use super::meter::AccountTotals;

/// The label of all accounts that have none.
pub(crate) const OTHER: &str = "other";

/// Figures that only grow, by [`Counter`].
pub(crate) type Counts = [u64; Counter::ALL.len()];

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counter {
    Calls,
    Failures,
    ReceivedBytes,
    SentBytes,
    Sets,
    Hits,
    Misses,
    Evictions,
    Expirations,
}

impl Counter {
    pub(crate) const ALL: [Self; 9] = [
        Self::Calls,
        Self::Failures,
        Self::ReceivedBytes,
        Self::SentBytes,
        Self::Sets,
        Self::Hits,
        Self::Misses,
        Self::Evictions,
        Self::Expirations,
    ];

    /// Name and help, as they are exported.
    pub(crate) const fn name(self) -> (&'static str, &'static str) {
        match self {
            Self::Calls => ("larder_account_calls_total", "Calls that ended."),
            Self::Failures => (
                "larder_account_call_failures_total",
                "Calls that ended with an error.",
            ),
            Self::ReceivedBytes => (
                "larder_account_received_bytes_total",
                "Bytes of the messages of requests.",
            ),
            Self::SentBytes => (
                "larder_account_sent_bytes_total",
                "Bytes of the messages of responses.",
            ),
            Self::Sets => (
                "larder_cache_sets_total",
                "Entries written by Set, BatchSet, Load and Store.",
            ),
            Self::Hits => ("larder_cache_hits_total", "Reads that found an entry."),
            Self::Misses => ("larder_cache_misses_total", "Reads that found none."),
            Self::Evictions => (
                "larder_cache_evictions_total",
                "Entries taken away to make room.",
            ),
            Self::Expirations => (
                "larder_cache_expirations_total",
                "Entries whose time was over.",
            ),
        }
    }
}

/// What is known of an account at a scrape.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    pub(crate) totals: AccountTotals,
    /// `None`: it has none in the store, or the store does not say.
    pub(crate) usage: Option<Usage>,
}

impl Sample {
    fn counts(&self) -> Counts {
        let usage = |figure: fn(&Usage) -> u64| self.usage.as_ref().map_or(0, figure);
        Counter::ALL.map(|counter| match counter {
            Counter::Calls => self.totals.calls,
            Counter::Failures => self.totals.failures,
            Counter::ReceivedBytes => self.totals.received_bytes,
            Counter::SentBytes => self.totals.sent_bytes,
            Counter::Sets => self.totals.sets,
            Counter::Hits => usage(|usage| usage.hits),
            Counter::Misses => usage(|usage| usage.misses),
            Counter::Evictions => usage(|usage| usage.evicted),
            Counter::Expirations => usage(|usage| usage.expired),
        })
    }
}

/// A row of the page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) label: String,
    pub(crate) counts: Counts,
    pub(crate) keys: u64,
    pub(crate) bytes: u64,
    /// Of one account that has such a limit.
    pub(crate) max_keys: Option<u64>,
    pub(crate) max_bytes: Option<u64>,
}

/// What the scrapes before have exported.
#[derive(Debug)]
pub(crate) struct Accounts {
    /// Accounts that have a label.
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What was seen last of each account.
    seen: HashMap<AccountName, Counts>,
    /// What was exported of those with a label.
    labelled: HashMap<AccountName, Counts>,
    other: Counts,
}

impl Accounts {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            state: Mutex::default(),
        }
    }

    /// The rows of a scrape, `other` last.
    pub(crate) fn rows(&self, samples: &HashMap<AccountName, Sample>) -> Vec<Row> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let mut ranks: Vec<_> = samples.iter().collect();
        // An account may be called as the others are: it is then among them.
        ranks.sort_unstable_by_key(|(name, sample)| {
            (name.as_str() == OTHER, Reverse(sample.totals.calls), *name)
        });
        let labels = ranks.iter().take_while(|(name, _)| name.as_str() != OTHER);
        let (labelled, rest) = ranks.split_at(labels.take(self.most).count());
        let kept: HashSet<&AccountName> = labelled.iter().map(|(name, _)| *name).collect();
        state.labelled.retain(|name, _| kept.contains(name));
        let mut rows: Vec<Row> = Vec::new();
        for (name, sample) in labelled {
            let new = state.since_last(name, sample);
            let counts = state.labelled.entry((*name).clone()).or_default();
            add(counts, &new);
            let usage = sample.usage.as_ref();
            let limit = |limit: fn(&Usage) -> u64| usage.map(limit).filter(|it| *it != u64::MAX);
            rows.push(Row {
                label: name.as_str().to_owned(),
                counts: *counts,
                keys: usage.map_or(0, |usage| usage.keys),
                bytes: usage.map_or(0, |usage| usage.bytes),
                max_keys: limit(|usage| usage.quota.max_keys),
                max_bytes: limit(|usage| usage.quota.max_bytes),
            });
        }
        let mut other = Row {
            label: OTHER.to_owned(),
            ..Row::default()
        };
        for (name, sample) in rest {
            let new = state.since_last(name, sample);
            add(&mut state.other, &new);
            if let Some(usage) = &sample.usage {
                other.keys += usage.keys;
                other.bytes += usage.bytes;
            }
        }
        other.counts = state.other;
        state.seen.retain(|name, _| samples.contains_key(name));
        rows.push(other);
        rows
    }

    /// What was counted of accounts by those who count no more.
    pub(crate) fn forget(&self, gone: &HashMap<AccountName, AccountTotals>) {
        let mut state = self.state.lock();
        for (name, totals) in gone {
            let sample = Sample {
                totals: *totals,
                usage: None,
            };
            if let Some(seen) = state.seen.get_mut(name) {
                for (seen, gone) in seen.iter_mut().zip(sample.counts()) {
                    *seen = seen.saturating_sub(gone);
                }
            }
        }
    }
}

impl State {
    fn since_last(&mut self, name: &AccountName, sample: &Sample) -> Counts {
        let now = sample.counts();
        let before = self.seen.insert(name.clone(), now).unwrap_or_default();
        let mut new = now;
        for (new, before) in new.iter_mut().zip(before) {
            // Less than before: it began again, as for an account that was made anew.
            *new = new.checked_sub(before).unwrap_or(*new);
        }
        new
    }
}

fn add(sum: &mut Counts, more: &Counts) {
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum += more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(accounts: &[(&str, u64)]) -> HashMap<AccountName, Sample> {
        let sample = |(name, calls): &(&str, u64)| {
            let name = AccountName::parse(name).expect("a name");
            let totals = AccountTotals {
                calls: *calls,
                ..AccountTotals::default()
            };
            let sample = Sample {
                totals,
                usage: None,
            };
            (name, sample)
        };
        accounts.iter().map(sample).collect()
    }

    #[test]
    fn no_counter_goes_back_whoever_has_a_label() {
        let accounts = Accounts::new(2);
        let check = |given: &[(&str, u64)], expected: &[(&str, u64)]| {
            let rows = accounts.rows(&samples(given));
            let calls: Vec<_> = rows
                .iter()
                .map(|row| (row.label.as_str(), row.counts[Counter::Calls as usize]))
                .collect();
            assert_eq!(calls, expected, "{given:?}");
        };
        check(&[], &[("other", 0)]);
        check(
            &[("a", 5), ("b", 3), ("c", 1)],
            &[("a", 5), ("b", 3), ("other", 1)],
        );
        check(
            &[("a", 6), ("b", 4), ("c", 2)],
            &[("a", 6), ("b", 4), ("other", 2)],
        );
        // "c" gets a label: what it did before stays with the others.
        check(
            &[("a", 6), ("b", 4), ("c", 9)],
            &[("c", 7), ("a", 6), ("other", 2)],
        );
        check(
            &[("a", 6), ("b", 5), ("c", 9)],
            &[("c", 7), ("a", 6), ("other", 3)],
        );
        // Forgotten and made anew.
        check(&[("a", 1), ("c", 9)], &[("c", 7), ("a", 7), ("other", 3)]);
        check(&[("c", 10), ("other", 20)], &[("c", 8), ("other", 23)]);
        check(&[("c", 10), ("other", 21)], &[("c", 8), ("other", 24)]);
        // What is no longer counted on some thread is not taken for a new beginning.
        let gone = |calls| {
            let samples = samples(&[("c", calls)]);
            samples
                .into_iter()
                .map(|(name, it)| (name, it.totals))
                .collect()
        };
        accounts.forget(&gone(6));
        check(&[("c", 5), ("other", 21)], &[("c", 9), ("other", 24)]);
    }
}
