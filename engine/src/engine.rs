//! The store as a whole: accounts come and go, time passes, memory runs short.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use larder_model::{AccountId, AccountName, Quota, ReplayLimits, Time};
use parking_lot::{Mutex, RwLock};

use crate::config::{EngineConfig, Keyspace, MemoryUse, SweepReport};
use crate::hash::KeyHasher;
use crate::ledger::{Amount, Ledger};
use crate::memory::Memory;
use crate::once::{Replay, Requests};
use crate::partition::Partition;
use crate::reclaim::Reclaim;
use crate::registry::{Registry, Tenant};
use crate::shard::Core;
use crate::snapshot::OLD_VERSIONS;
use crate::walk;

/// Handle of an account; 8 bytes, a counted reference.
///
/// Good for one life of the account: once that is closed, it sees an empty
/// account that nothing can be written to.
#[derive(Debug, Clone)]
pub struct Account(pub(crate) Arc<Tenant>);

/// The in-memory [`Store`](larder_model::Store).
///
/// Time is an argument of every call, so an engine needs no clock; nothing
/// runs by itself either, so call [`sweep`](Self::sweep) now and then.
/// Futures of an engine are ready at once, but for long work (`list`,
/// `delete_prefix`, large `scan` budgets, evicting or expiring hundreds of
/// entries for one write), which lets other tasks run between steps that hold
/// one shard's lock for 100 µs at the most.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    memory: Arc<Memory>,
    registry: RwLock<Registry>,
    /// The one partition of a shared key space.
    shared: Option<Arc<Partition>>,
    /// Entries of closed accounts, still to be freed.
    graves: Mutex<Vec<Core>>,
    replay: Arc<Replay>,
    pub(crate) reclaim: Reclaim,
    swept: AtomicUsize,
}

/// Accounts that one sweep looks at for each entry of its budget: looking is
/// cheaper than expiring.
const SEATS_PER_BUDGET: usize = 4;

impl Engine {
    /// An empty engine. Allocates next to nothing.
    pub fn new(config: EngineConfig) -> Self {
        let first_version = config.first_version.max(1);
        Self::counting(config, first_version, first_version)
    }

    /// An empty engine that entries of an earlier one can be put into, with their
    /// versions: see [`restore`](Self::restore).
    pub fn restoring(config: EngineConfig) -> Self {
        let first_version = config.first_version.max(1);
        let oldest = first_version.saturating_sub(OLD_VERSIONS).max(1);
        Self::counting(config, first_version, oldest)
    }

    fn counting(config: EngineConfig, first_version: u64, oldest_version: u64) -> Self {
        let memory = Arc::new(Memory::new(config.max_memory_bytes));
        let replay = Replay::new(ReplayLimits::default(), Arc::clone(&memory));
        let shared = (config.keyspace == Keyspace::Shared).then(|| {
            let hasher = KeyHasher::derive(&config.hash_seed, "");
            let shards = Partition::shards_for(Quota::UNLIMITED, &memory);
            let memory = Arc::clone(&memory);
            let partition = Partition::new(hasher, memory, (oldest_version, 0), shards);
            Arc::new(partition.counting_from(first_version))
        });
        Self {
            config,
            memory,
            registry: RwLock::new(Registry::new(first_version, oldest_version)),
            shared,
            graves: Mutex::default(),
            replay: Arc::new(replay),
            reclaim: Reclaim::default(),
            swept: AtomicUsize::new(0),
        }
    }

    /// The same engine, still without accounts, with other limits for what it
    /// remembers of requests. All windows together take at most a sixteenth of the
    /// memory, whatever the limits say.
    #[must_use]
    pub fn remembering(mut self, limits: ReplayLimits) -> Self {
        self.replay = Arc::new(Replay::new(limits, Arc::clone(&self.memory)));
        self
    }

    /// What the entries take. Two loads.
    pub fn memory_use(&self) -> MemoryUse {
        MemoryUse {
            used_bytes: self.memory.used(),
            limit_bytes: self.memory.limit(),
        }
    }

    /// Accounts that are known.
    pub fn accounts(&self) -> usize {
        self.registry.read().len()
    }

    /// Drops entries that are due at `now`, frees those of closed accounts,
    /// and forgets accounts that are empty and that nobody holds a handle of
    /// (with their hit and miss counts). Goes on where the last sweep ended.
    ///
    /// `budget` bounds the entries that go, up to the last hundred or so; a
    /// thousand take about half a millisecond. Locks are held one at a time,
    /// for 100 µs at the most.
    pub fn sweep(&self, now: Time, budget: usize) -> SweepReport {
        let mut report = SweepReport::default();
        let mut left = budget.saturating_sub(self.bury(budget));
        let seats = self.registry.read().len();
        let looks = seats.min(budget.saturating_mul(SEATS_PER_BUDGET));
        for _ in 0..looks {
            let seat = self.swept.load(Relaxed) % seats.max(1);
            let Some(tenant) = self.registry.read().at(seat).map(Arc::clone) else {
                self.swept.store(0, Relaxed);
                continue;
            };
            let before = report.expired;
            if !tenant.sweep(now, left, &mut report.expired) {
                report.more = true;
                return report;
            }
            left = left.saturating_sub(usize::try_from(report.expired - before).unwrap_or(left));
            tenant.requests.sweep(now);
            report.forgotten += u64::from(self.forget_idle(seat, tenant));
            self.swept.fetch_add(1, Relaxed);
        }
        report.more = looks < seats || !self.graves.lock().is_empty();
        report
    }

    /// Checks every invariant there is, by looking at everything; `Err` says
    /// what is wrong. Only while no call is under way, and for tests: it holds
    /// each lock for as long as it takes.
    ///
    /// # Errors
    /// A description of the first thing that is wrong.
    #[doc(hidden)]
    pub fn validate(&self) -> Result<(), String> {
        let registry = self.registry.read();
        let mut charged: u64 = self.graves.lock().iter().map(Core::charged).sum();
        let mut sums = BTreeMap::new();
        if let Some(shared) = &self.shared {
            sums = shared.check()?;
            charged += shared.charged();
        }
        for tenant in registry.tenants() {
            if self.shared.is_none() {
                sums = tenant.partition.check()?;
                charged += tenant.partition.charged();
            }
            let recounted = sums.remove(&tenant.ledger.number).unwrap_or_default();
            let reported = tenant.ledger.reserved();
            if reported != recounted {
                return Err(format!("reported {reported:?}, recounted {recounted:?}"));
            }
            if self.shared.is_none() && !sums.is_empty() {
                return Err("an entry counts on another account".to_owned());
            }
        }
        if sums.values().any(|sum| *sum != Amount::default()) {
            return Err("an entry counts on an account that has gone".to_owned());
        }
        let reported = self.memory.of_entries();
        if reported != charged {
            return Err(format!("entries take {charged}, reported {reported}"));
        }
        Ok(())
    }

    pub(crate) fn enter(&self, id: &AccountId, quota: Quota) -> Account {
        if let Some(tenant) = self.registry.read().find(id) {
            tenant.ledger.requota(quota);
            return Account(Arc::clone(tenant));
        }
        let mut registry = self.registry.write();
        if let Some(tenant) = registry.find(id) {
            tenant.ledger.requota(quota);
            return Account(Arc::clone(tenant));
        }
        let before = registry.remove(&id.name);
        let tenant = Arc::new(self.tenant(&mut registry, &id.name, quota));
        registry.insert(id.clone(), Arc::clone(&tenant));
        drop(registry);
        if let Some(before) = before {
            self.retire(&before);
        }
        Account(tenant)
    }

    pub(crate) fn leave(&self, name: &AccountName) {
        let tenant = self.registry.write().remove(name);
        if let Some(tenant) = tenant {
            self.retire(&tenant);
        }
    }

    pub(crate) fn registry(&self) -> &RwLock<Registry> {
        &self.registry
    }

    /// The one partition of a shared key space.
    pub(crate) const fn shared_partition(&self) -> Option<&Arc<Partition>> {
        self.shared.as_ref()
    }

    pub(crate) fn replay(&self) -> &Replay {
        &self.replay
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    fn tenant(&self, registry: &mut Registry, name: &AccountName, quota: Quota) -> Tenant {
        let (partition, ledger) = if let Some(shared) = &self.shared {
            let shards = shared.shards().len();
            let ledger = Ledger::new(registry.take_number(), false, shards);
            (Arc::clone(shared), ledger)
        } else {
            registry.births += 1;
            let shards = Partition::shards_for(quota, &self.memory);
            let partition = Partition::new(
                KeyHasher::derive(&self.config.hash_seed, name.as_str()),
                Arc::clone(&self.memory),
                (registry.oldest_version, registry.births),
                shards,
            )
            .counting_from(registry.first_version);
            (Arc::new(partition), Ledger::new(0, true, shards))
        };
        ledger.requota(quota);
        Tenant {
            partition,
            ledger: Arc::new(ledger),
            requests: Requests::new(&self.replay),
        }
    }

    /// Empties an account that is no longer in the registry.
    fn retire(&self, tenant: &Tenant) {
        tenant.ledger.close();
        if self.shared.is_some() {
            walk::remove_owned(&tenant.partition, &tenant.ledger);
            self.forget_number(tenant);
        } else {
            self.graves.lock().extend(tenant.partition.empty());
            // Small accounts are freed at once.
            self.bury(crate::partition::LOCK_STEPS);
        }
    }

    /// Frees entries of closed accounts, at least one chunk and until `budget`
    /// have gone; returns how many went, rounded up to chunks.
    pub(crate) fn bury(&self, budget: usize) -> usize {
        let mut freed = 0;
        while freed < budget {
            let Some(mut core) = self.graves.lock().pop() else {
                break;
            };
            let mut is_left = true;
            while is_left && freed < budget {
                is_left = core.dismantle();
                freed += Core::CHUNK;
            }
            if is_left {
                self.graves.lock().push(core);
            }
        }
        freed
    }

    fn forget_idle(&self, seat: usize, tenant: Arc<Tenant>) -> bool {
        // Two: the registry's and ours.
        if Arc::strong_count(&tenant) > 2
            || tenant.ledger.reserved().keys > 0
            || !tenant.requests.is_empty()
        {
            return false;
        }
        drop(tenant);
        let Some(tenant) = self.registry.write().remove_idle(seat) else {
            return false;
        };
        tenant.ledger.close();
        if self.shared.is_some() {
            self.forget_number(&tenant);
        }
        true
    }

    /// In a shared key space: no entry bears the number any more, nor can any
    /// again, so another account may have it.
    fn forget_number(&self, tenant: &Tenant) {
        tenant.partition.forget(&tenant.ledger);
        self.registry.write().free_number(tenant.ledger.number);
    }
}

impl Tenant {
    /// Drops what is due, `budget` entries at the most but for the last
    /// hundred; true when nothing due is left.
    fn sweep(&self, now: Time, budget: usize, expired: &mut u64) -> bool {
        let end = expired.saturating_add(budget as u64);
        self.partition.shards().iter().all(|shard| {
            while !self.partition.drain_some(shard, now, expired) {
                if *expired >= end {
                    return false;
                }
            }
            true
        })
    }
}
