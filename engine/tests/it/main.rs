//! The engine against the suite of every store, against the model, and under
//! many threads.

mod accounts;
mod driver;
mod dry;
mod expected;
mod memory;
mod once;
mod shared;
mod snapshot;
mod threads;
mod walks;

use larder_engine::{Account, Engine, EngineConfig, Keyspace};
use larder_model::suite::{account, block_on, entry_key};
use larder_model::{
    AtLimit, Call, Condition, Deleted, EntryMeta, Expiry, ExpiryChange, Quota, ReadEffect,
    ScanBudget, Selection, Set, Store, StoreError, Time, Usage, Written,
};

/// More than any test but those of memory needs.
const MEMORY: u64 = 1 << 30;

const WHOLE: ScanBudget = ScanBudget {
    bytes: usize::MAX,
    entries: usize::MAX,
};

/// An engine of `memory` bytes.
fn engine(memory: u64, keyspace: Keyspace) -> Engine {
    Engine::new(EngineConfig {
        max_memory_bytes: memory,
        hash_seed: *b"sixteen bytes ok",
        first_version: 1 << 48,
        keyspace,
    })
}

fn quota(max_keys: u64, max_bytes: u64, at_limit: AtLimit) -> Quota {
    Quota {
        max_keys,
        max_bytes,
        at_limit,
    }
}

/// An account at work, in the default namespace.
#[derive(Clone)]
struct Tenant<'e> {
    engine: &'e Engine,
    account: Account,
}

impl<'e> Tenant<'e> {
    fn open(engine: &'e Engine, name: &str, quota: Quota) -> Self {
        let account = engine.open(&account(name, "1"), quota);
        Self { engine, account }
    }

    fn set(
        &self,
        now: u64,
        key: &[u8],
        value: &[u8],
        end: Option<u64>,
    ) -> Result<EntryMeta, StoreError> {
        let set = Set {
            at: entry_key("", key),
            value,
            flags: 0,
            expiry: ExpiryChange::To(
                end.map_or(Expiry::Never, |end| Expiry::At(Time::from_millis(end))),
            ),
            condition: Condition::Always,
        };
        match block_on(self.engine.set(&self.account, at(now), set))? {
            Written::Applied(meta) => Ok(meta),
            Written::NotApplied(_) => unreachable!("there is no condition"),
        }
    }

    fn get(&self, now: u64, key: &[u8]) -> Option<Vec<u8>> {
        let key = entry_key("", key);
        let get = self
            .engine
            .get(&self.account, at(now), key, ReadEffect::Use, |it| {
                it.map(|it| it.value.to_owned())
            });
        block_on(get).expect("a read does not fail")
    }

    fn delete(&self, now: u64, key: &[u8]) -> bool {
        let key = entry_key("", key);
        let delete = self
            .engine
            .delete(&self.account, at(now), key, Condition::Always);
        block_on(delete) == Ok(Deleted::Applied)
    }

    fn usage(&self, now: u64) -> Usage {
        block_on(self.engine.usage(&self.account, at(now))).expect("usage does not fail")
    }

    /// Keys and bytes, counted by looking.
    fn recount(&self, now: u64) -> (u64, u64) {
        let (mut keys, mut bytes) = (0, 0);
        let scan = self.engine.scan(
            &self.account,
            at(now),
            everything(),
            cursor(),
            WHOLE,
            |it| {
                keys += 1;
                bytes += it.meta.size_bytes;
            },
        );
        assert_eq!(block_on(scan), Ok(None));
        (keys, bytes)
    }
}

fn at(now: u64) -> Call {
    Call::at(Time::from_millis(now))
}

fn everything() -> Selection<'static> {
    Selection {
        namespace: larder_model::Namespace::DEFAULT,
        prefix: &[],
    }
}

fn cursor() -> larder_model::Cursor {
    larder_model::Cursor::default()
}
