//! What is saved comes back; what is damaged does not.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use larder_engine::{EngineConfig, Keyspace};
use larder_model::{
    AccountName, AccountUid, AtLimit, Call, Condition, EntryKey, Expiry, ExpiryChange, Key,
    Namespace, Set, Store as _, Time,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::load::{Versions, fill, verify, verify_from};
use super::save::{SaveError, Saved, Source, save, write};
use super::*;

mod folder;
mod requests;

static GOES_ON: AtomicBool = AtomicBool::new(false);

fn engine(first_version: u64) -> Engine {
    Engine::restoring(EngineConfig {
        max_memory_bytes: 64 << 20,
        hash_seed: [7; 16],
        first_version,
        keyspace: Keyspace::PerAccount,
    })
}

fn id(name: &str, uid: &str) -> AccountId {
    AccountId {
        name: AccountName::parse(name).expect("a name"),
        uid: AccountUid::new(uid),
    }
}

fn put(engine: &Engine, account: &AccountId, key: &str, value: &[u8], expiry: Expiry) {
    let handle = engine.open(account, Quota::UNLIMITED);
    let set = Set {
        at: EntryKey {
            namespace: Namespace::parse(if key.len().is_multiple_of(2) {
                "even"
            } else {
                ""
            })
            .expect("a namespace"),
            key: Key::parse(key.as_bytes(), &Limits::default()).expect("a key"),
        },
        value,
        flags: 9,
        expiry: ExpiryChange::To(expiry),
        condition: Condition::Always,
    };
    let set = engine.set_now(&handle, Call::at(Time::ZERO), set);
    set.expect("ready at once").expect("there is room");
}

/// Two accounts, and entries of many sizes.
fn filled(entries: usize) -> Engine {
    let engine = engine(1 << 50);
    for number in 0..entries {
        let value = vec![number.to_le_bytes()[0]; (number * 37) % 700];
        let account = id(
            if number.is_multiple_of(3) {
                "team-a"
            } else {
                "team-b"
            },
            "1",
        );
        put(
            &engine,
            &account,
            &format!("key-{number}"),
            &value,
            Expiry::Never,
        );
    }
    put(
        &engine,
        &id("team-a", "1"),
        "large",
        &vec![1; 1 << 20],
        Expiry::Never,
    );
    engine
}

type Content = BTreeMap<(String, String, Vec<u8>), (Vec<u8>, u64, u32)>;

fn content(engine: &Engine) -> Content {
    let mut content = Content::new();
    let mut walk = engine.walk();
    while walk.step(Time::ZERO, |owner, entry| {
        let at = (
            owner.id.name.to_string(),
            entry.namespace.to_owned(),
            entry.key.to_vec(),
        );
        let meta = entry.meta;
        content.insert(at, (entry.value.to_vec(), meta.version.get(), meta.flags));
    }) {}
    content
}

fn bytes(engine: &Engine, number: u64) -> Vec<u8> {
    let clock = Clock::start();
    let source = Source {
        engine,
        clock: &clock,
    };
    let mut bytes = Vec::new();
    write(source, number, &mut bytes, &GOES_ON).expect("memory takes everything");
    bytes
}

fn there(_: &AccountId, had: Quota) -> Option<Quota> {
    Some(had)
}

fn target<'a>(engine: &'a Engine, clock: &'a Clock) -> Target<'a> {
    Target {
        engine,
        clock,
        limits: Limits::default(),
        versions: Versions::Kept,
        quota: &there,
    }
}

/// A data directory, and the server that uses it.
struct Home {
    folder: tempfile::TempDir,
    clock: Clock,
}

impl Home {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            clock: Clock::start(),
        }
    }

    fn open(&self, load_after_crash: bool) -> Snapshots {
        let config = SnapshotConfig {
            interval: None,
            load_after_crash,
        };
        Snapshots::open(self.folder.path(), config).expect("the folder is free")
    }

    fn save(&self, snapshots: &Snapshots, engine: &Engine) -> Saved {
        let source = Source {
            engine,
            clock: &self.clock,
        };
        save(source, &snapshots.directory, &GOES_ON).expect("the disk has room")
    }

    fn load(&self, snapshots: &Snapshots, engine: &Engine) -> Option<Loaded> {
        let admission = Admission {
            limits: Limits::default(),
            quota: &there,
        };
        let loaded = snapshots.load(engine, &self.clock, &admission, &GOES_ON);
        loaded.expect("the folder can be read")
    }

    fn file(&self, number: u64) -> PathBuf {
        let name = format!("snapshots/{number:016}.snapshot");
        self.folder.path().join(name)
    }
}

#[test]
fn after_a_clean_end_everything_comes_back_as_it_was() {
    let home = Home::new();
    let old = filled(2_000);
    let snapshots = home.open(true);
    assert_eq!(home.load(&snapshots, &old), None);
    let saved = home.save(&snapshots, &old);
    assert_eq!(saved.entries, 2_001);
    snapshots.directory.mark_ended().expect("it was marked");
    drop(snapshots);

    let snapshots = home.open(false);
    let first = snapshots.end_version();
    assert_eq!(first, old.end_version());
    let new = engine(first);
    let loaded = home.load(&snapshots, &new).expect("it is whole");
    assert_eq!((loaded.entries, loaded.bytes), (2_001, saved.bytes));
    assert_eq!(content(&new), content(&old));
}

#[test]
fn after_a_crash_entries_have_new_versions_or_there_are_none() {
    let home = Home::new();
    let old = filled(10);
    let snapshots = home.open(true);
    home.load(&snapshots, &old);
    home.save(&snapshots, &old);
    drop(snapshots);

    let snapshots = home.open(false);
    let new = engine(snapshots.end_version());
    assert_eq!(home.load(&snapshots, &new), None);
    assert!(content(&new).is_empty());
    drop(snapshots);

    let snapshots = home.open(true);
    let first = snapshots.end_version();
    assert_eq!(first, old.end_version() + CRASH_VERSIONS);
    let new = engine(first);
    home.load(&snapshots, &new).expect("it is whole");
    let (before, after) = (content(&old), content(&new));
    assert!(before.keys().eq(after.keys()));
    assert!(after.values().all(|(_, version, _)| *version >= first));
}

#[test]
fn a_damaged_snapshot_is_put_aside_for_the_one_before() {
    let home = Home::new();
    let (older, newer) = (filled(5), filled(10));
    let snapshots = home.open(true);
    home.load(&snapshots, &older);
    for engine in [&older, &older, &older, &newer] {
        home.save(&snapshots, engine);
    }
    snapshots.directory.mark_ended().expect("it was marked");
    assert!(!home.file(2).exists(), "two are kept");
    let mut damaged = std::fs::read(home.file(4)).expect("the newest");
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(home.file(4), damaged).expect("the disk has room");

    let new = engine(snapshots.end_version());
    let loaded = home
        .load(&snapshots, &new)
        .expect("the one before is whole");
    assert_eq!(loaded.entries, 6);
    let first = older.end_version();
    assert!(
        content(&new)
            .values()
            .all(|(_, version, _)| *version >= first)
    );
    assert!(!home.file(4).exists());
    assert!(home.file(4).with_extension("damaged").exists());
    // Its number is not used again.
    assert_eq!(home.save(&snapshots, &new).number, 5);
}

#[test]
fn two_servers_do_not_share_a_folder() {
    let home = Home::new();
    let _one = home.open(true);
    let config = SnapshotConfig {
        interval: None,
        load_after_crash: true,
    };
    let two = Snapshots::open(home.folder.path(), config);
    let error = two.err().expect("it is in use").to_string();
    assert!(error.contains("another server"), "{error}");
}

#[test]
fn what_may_not_come_back_is_left_out_and_counted() {
    let home = Home::new();
    let old = engine(1 << 50);
    let (kept, gone, small) = (id("kept", "1"), id("gone", "1"), id("small", "1"));
    put(&old, &kept, "lives", b"1", Expiry::Never);
    put(
        &old,
        &kept,
        "ends",
        b"2",
        Expiry::At(Time::from_millis(60_000)),
    );
    put(&old, &kept, "over", b"3", Expiry::At(home.clock.now()));
    put(&old, &kept, "long", &[0; 100], Expiry::Never);
    put(&old, &gone, "k", b"4", Expiry::Never);
    put(&old, &small, "a", b"5", Expiry::Never);
    put(&old, &small, "b", b"6", Expiry::Never);
    let path = home.folder.path().join("file");
    let mut written = Vec::new();
    // Its clock stands still: nothing has expired when it is written.
    let source = Source {
        engine: &old,
        clock: &home.clock,
    };
    write(source, 1, &mut written, &GOES_ON).expect("memory takes everything");
    std::fs::write(&path, written).expect("the disk has room");

    let quota = |id: &AccountId, had: Quota| match id.name.as_str() {
        "gone" => None,
        "small" => Some(Quota {
            max_keys: 1,
            at_limit: AtLimit::Refuse,
            ..had
        }),
        _ => Some(had),
    };
    let new = engine(old.end_version());
    let clock = Clock::start();
    let target = Target {
        limits: Limits {
            max_value_bytes: 50,
            ..Limits::default()
        },
        quota: &quota,
        ..target(&new, &clock)
    };
    let loaded = fill(&path, &target, &GOES_ON).expect("it is whole");
    let counts = (
        loaded.entries,
        loaded.no_account,
        loaded.no_room,
        loaded.too_long,
    );
    assert_eq!(counts, (3, 1, 1, 1));
    let mut walk = new.walk();
    let mut ends = None;
    while walk.step(clock.now(), |_, entry| {
        if entry.key == b"ends" {
            ends = Some(entry.meta.expiry);
        }
    }) {}
    let Some(Expiry::At(end)) = ends else {
        panic!("{ends:?}");
    };
    let left = end.since(clock.now()).as_millis();
    assert!((50_000..=60_100).contains(&left), "{left}");
}

#[test]
fn an_entry_that_expired_meanwhile_is_not_loaded() {
    let home = Home::new();
    let clock = &home.clock;
    let new = engine(1 << 50);
    let target = target(&new, clock);
    let now = clock.now();
    let unix_ms = u64::try_from(clock.unix_millis_of(now)).expect("after 1970");
    let account = id("a", "1");
    let mut entries = Vec::new();
    for (key, expires_unix_ms) in [
        ("past", unix_ms - 1),
        ("now", unix_ms),
        ("later", unix_ms + 60_000),
    ] {
        let entry = format::Entry {
            account: 0,
            flags: 0,
            version: 1,
            expires_unix_ms,
            namespace: b"default",
            key: key.as_bytes(),
            value: b"",
        };
        entry.push(&mut entries).expect("it is short");
    }
    let header = Header {
        format: format::FORMAT,
        number: 1,
        begun_unix_ms: 0,
        end_version: 5,
    };
    let mut writer = format::Writer::begin(Vec::new(), &header).expect("memory");
    let mut accounts = Vec::new();
    format::push_account(&mut accounts, &account, Quota::UNLIMITED).expect("it is short");
    writer
        .block(format::Kind::Accounts, &accounts, 1)
        .expect("memory");
    writer
        .block(format::Kind::Entries, &entries, 3)
        .expect("memory");
    let (bytes, ..) = writer.end().expect("memory");
    let path = home.folder.path().join("file");
    std::fs::write(&path, bytes).expect("the disk has room");
    verify(&path, &GOES_ON).expect("it is whole");
    let loaded = fill(&path, &target, &GOES_ON).expect("it is whole");
    assert_eq!((loaded.entries, loaded.expired), (1, 2));
}

/// Damages a snapshot in one of the ways that disks and people do; `other` is the one
/// before. It may come out as it was.
fn damage(bytes: &[u8], other: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let length = bytes.len();
    let at = random.random_range(0..length);
    let run = random.random_range(1..=4096.min(length));
    let end = (at + run).min(length);
    match random.random_range(0..9) {
        0 => bytes[at] ^= 1 << random.random_range(0..8),
        1 => bytes.truncate(at),
        2 => bytes[at..end].fill(0),
        3 => {
            let page = at / 4096 * 4096;
            bytes[page..(page + 4096).min(length)].fill(0);
        }
        4 => {
            let to = random.random_range(0..length);
            for offset in 0..run {
                bytes.swap((at + offset) % length, (to + offset) % length);
            }
        }
        // A part of the snapshot before, in the same place: a write that was lost.
        5 => {
            let end = end.min(other.len()).max(at.min(other.len()));
            let at = at.min(end);
            bytes[at..end].copy_from_slice(&other[at..end]);
        }
        6 => bytes.extend((0..run).map(|_| random.random::<u8>())),
        7 => drop(bytes.drain(at..end)),
        _ => bytes[at..end]
            .iter_mut()
            .for_each(|byte| *byte = random.random()),
    }
    bytes
}

/// An account with small entries, and outcomes of requests.
fn small() -> Engine {
    let small = engine(1);
    for number in 0..60 {
        let value = vec![1; number * 5];
        put(
            &small,
            &id("team-a", "1"),
            &format!("key-{number}"),
            &value,
            Expiry::Never,
        );
        requests::record(&small, &format!("request-{number}"));
    }
    small
}

/// 2,000 by default; `LARDER_DAMAGED_SNAPSHOTS` asks for more.
#[test]
fn every_damaged_snapshot_is_told_from_a_whole_one() {
    let asked = std::env::var("LARDER_DAMAGED_SNAPSHOTS").ok();
    let rounds: u64 = asked.map_or(2_000, |text| text.parse().expect("a number"));
    let small = small();
    let (before, whole) = (bytes(&small, 6), bytes(&small, 7));
    verify_from(&whole[..], &GOES_ON, |_| ()).expect("it is whole");
    let mut unchanged = 0;
    for seed in 0..rounds {
        let mut random = StdRng::seed_from_u64(seed);
        let damaged = damage(&whole, &before, &mut random);
        let read = verify_from(&damaged[..], &GOES_ON, |_| ());
        if damaged == whole {
            unchanged += 1;
            assert!(read.is_ok(), "seed {seed}");
            continue;
        }
        match read {
            Err(ReadError::Damaged(damage)) => {
                assert!(
                    damage.offset <= damaged.len() as u64,
                    "seed {seed}: {damage}"
                );
            }
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    assert!(
        unchanged < rounds / 10,
        "{unchanged} of {rounds} came out as they were"
    );
}

#[test]
fn a_snapshot_that_ends_at_any_byte_before_its_last_is_damaged() {
    let whole = bytes(&small(), 1);
    for length in 0..whole.len() {
        let read = verify_from(&whole[..length], &GOES_ON, |_| ());
        let Err(ReadError::Damaged(damage)) = read else {
            panic!("{length} of {} bytes: {read:?}", whole.len());
        };
        assert!(damage.offset <= length as u64, "{length}: {damage}");
    }
}

#[test]
fn a_whole_block_of_another_snapshot_does_not_pass_for_one_of_this() {
    let one = filled(3);
    let (first, second) = (bytes(&one, 1), bytes(&one, 2));
    assert_eq!(first.len(), second.len());
    // All but the header: every block is whole in itself.
    let mixed = [
        &first[..format::HEADER_BYTES],
        &second[format::HEADER_BYTES..],
    ]
    .concat();
    let read = verify_from(&mixed[..], &GOES_ON, |_| ());
    assert!(matches!(read, Err(ReadError::Damaged(_))), "{read:?}");
}

/// A disk that is full after so many bytes.
struct Full {
    room: usize,
}

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let written = bytes.len().min(self.room);
        self.room -= written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_an_error_wherever_it_is_full() {
    let engine = filled(200);
    let clock = Clock::start();
    let length = bytes(&engine, 1).len();
    for room in (0..length).step_by(9_973).chain([length - 1]) {
        let source = Source {
            engine: &engine,
            clock: &clock,
        };
        let written = write(source, 1, Full { room }, &GOES_ON);
        assert!(matches!(written, Err(SaveError::Io(_))), "{room}");
    }
}

#[test]
fn a_snapshot_that_is_given_up_leaves_nothing_behind() {
    let home = Home::new();
    let snapshots = home.open(true);
    let engine = filled(10);
    let source = Source {
        engine: &engine,
        clock: &home.clock,
    };
    let saved = save(source, &snapshots.directory, &AtomicBool::new(true));
    assert!(matches!(saved, Err(SaveError::Cancelled)));
    assert_eq!(snapshots.directory.whole().expect("a folder"), []);
    let files = std::fs::read_dir(home.folder.path().join("snapshots")).expect("a folder");
    assert_eq!(files.count(), 1, "the lock alone");
}
