//! The folder: what is in it besides snapshots, who may read it, and what an end at a
//! bad moment leaves.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

fn mode(path: &Path) -> u32 {
    let metadata = std::fs::metadata(path).expect("it is there");
    metadata.permissions().mode() & 0o777
}

/// Changes a byte in the middle.
fn spoil(path: &Path) {
    let mut bytes = std::fs::read(path).expect("a snapshot");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).expect("the disk has room");
}

#[test]
fn only_the_owner_may_read_what_is_saved() {
    let home = Home::new();
    let snapshots = home.open(true);
    let store = filled(3);
    home.load(&snapshots, &store);
    home.save(&snapshots, &store);
    let folder = home.folder.path().join("snapshots");
    assert_eq!(mode(&folder), 0o700);
    for name in ["0000000000000001.snapshot", "running", "lock"] {
        assert_eq!(mode(&folder.join(name)), 0o600, "{name}");
    }
}

/// A server has saved two snapshots, and ended well. What the first is of.
fn saved_twice(home: &Home) -> Engine {
    let (older, newer) = (filled(5), filled(10));
    let snapshots = home.open(true);
    home.load(&snapshots, &older);
    home.save(&snapshots, &older);
    home.save(&snapshots, &newer);
    snapshots.directory.mark_ended().expect("it was marked");
    older
}

#[test]
fn a_server_that_ends_while_it_loads_the_one_before_does_not_take_it_for_the_last() {
    let home = Home::new();
    let older = saved_twice(&home);
    spoil(&home.file(2));

    // It puts the damaged one aside, and ends.
    let snapshots = home.open(true);
    let error = verify(&home.file(2), &GOES_ON).expect_err("it is damaged");
    snapshots.reject(2, &home.file(2), &error);
    drop(snapshots);

    let strict = home.open(false);
    let new = engine(strict.end_version());
    assert_eq!(home.load(&strict, &new), None, "it is out of date");
    drop(strict);
    let snapshots = home.open(true);
    let first = snapshots.end_version();
    assert_eq!(first, older.end_version() + CRASH_VERSIONS);
    let new = engine(first);
    assert_eq!(home.load(&snapshots, &new).expect("it is whole").entries, 6);
    let versions = content(&new).into_values().map(|(_, version, _)| version);
    assert!(versions.min() >= Some(first));
}

#[test]
fn a_snapshot_that_cannot_be_read_a_second_time_leaves_nothing_in_the_store() {
    let home = Home::new();
    let path = home.folder.path().join("file");
    let whole = bytes(&filled(3_000), 1);
    for part in [whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..part]).expect("the disk has room");
        let new = engine(1 << 51);
        let loaded = fill(&path, &target(&new, &home.clock), &GOES_ON);
        assert!(matches!(loaded, Err(ReadError::Damaged(_))), "{loaded:?}");
        assert!(content(&new).is_empty());
        new.validate().expect("all in agreement");
    }
}

#[test]
fn a_snapshot_that_cannot_be_read_ends_the_start_and_stays() {
    // A loop of links cannot be opened, and the first page of a process not be read: by
    // nobody, not even by root.
    for target in ["0000000000000002.snapshot", "/proc/self/mem"] {
        let home = Home::new();
        let snapshots = home.open(true);
        let store = filled(3);
        home.load(&snapshots, &store);
        home.save(&snapshots, &store);
        home.save(&snapshots, &store);
        snapshots.directory.mark_ended().expect("it was marked");
        drop(snapshots);
        let kept = home.folder.path().join("kept");
        std::fs::rename(home.file(2), &kept).expect("moved");
        symlink(target, home.file(2)).expect("a link");

        let snapshots = home.open(true);
        let new = engine(snapshots.end_version());
        let admission = Admission {
            limits: Limits::default(),
            quota: &there,
        };
        let loaded = snapshots.load(&new, &home.clock, &admission, &GOES_ON);
        let error = loaded.expect_err(target).to_string();
        let file = home.file(2).display().to_string();
        assert!(error.starts_with(&file), "{error}");
        assert!(error.contains("cannot be read"), "{error}");
        assert!(content(&new).is_empty());
        let link = std::fs::symlink_metadata(home.file(2)).expect("it stays");
        assert!(link.is_symlink() && home.file(1).exists());
        drop(snapshots);

        // Once it can be read again, it was a clean end still.
        std::fs::rename(&kept, home.file(2)).expect("moved back");
        let snapshots = home.open(false);
        let new = engine(snapshots.end_version());
        home.load(&snapshots, &new).expect("it is whole");
        assert_eq!(content(&new), content(&store));
    }
}

/// Numbers of the files with an extension.
fn numbers(home: &Home, extension: &str) -> Vec<u64> {
    let there = |number: &u64| home.file(*number).with_extension(extension).exists();
    (1..50).filter(there).collect()
}

#[test]
fn what_was_put_aside_stays_as_long_as_it_was_said() {
    let home = Home::new();
    let store = filled(3);
    let mut aside = Vec::new();
    // All of each start are kept, and those of earlier ones while they are among four.
    for kept in [&[1, 2][..], &[1, 2, 3, 4], &[3, 4, 5, 6]] {
        let snapshots = home.open(true);
        home.load(&snapshots, &store);
        home.save(&snapshots, &store);
        let last = home.save(&snapshots, &store).number;
        drop(snapshots);
        aside.extend([last - 1, last]);
        spoil(&home.file(last - 1));
        spoil(&home.file(last));
        let snapshots = home.open(true);
        assert_eq!(home.load(&snapshots, &engine(1 << 50)), None);
        assert_eq!(numbers(&home, "damaged"), kept);
    }
    // More at once than are kept otherwise, and older: whole ones of another place.
    for number in 20..26 {
        std::fs::write(home.file(number), "none").expect("the disk has room");
    }
    let snapshots = home.open(true);
    assert_eq!(home.load(&snapshots, &engine(1 << 50)), None);
    home.save(&snapshots, &store);
    let expected: Vec<u64> = (20..26).collect();
    assert_eq!(numbers(&home, "damaged"), expected);
    drop(snapshots);
    let snapshots = home.open(true);
    home.load(&snapshots, &engine(1 << 50));
    assert_eq!(numbers(&home, "damaged"), expected[2..]);
}

#[test]
fn a_folder_that_cannot_be_used_is_named() {
    let home = Home::new();
    let folder = home.folder.path().join("snapshots");
    let snapshots = home.open(true);
    std::fs::create_dir(folder.join("running")).expect("there is room");
    let error = snapshots.directory.mark_running().expect_err("no file");
    assert!(error.to_string().contains("snapshots/running: "), "{error}");
    std::fs::remove_dir_all(&folder).expect("it is there");
    let error = snapshots.directory.whole().expect_err("no folder");
    assert!(error.to_string().contains("snapshots: "), "{error}");
    std::fs::write(&folder, "").expect("there is room");
    let error = Directory::open(home.folder.path()).expect_err("a file");
    assert!(error.to_string().contains("snapshots: "), "{error}");
}

#[test]
fn what_was_put_aside_before_is_not_written_over() {
    let home = Home::new();
    drop(home.open(true));
    let later = |content: &[u8]| {
        let header = Header {
            format: format::FORMAT + 1,
            number: 1,
            begun_unix_ms: 0,
            end_version: 5,
        };
        [&header.encode()[..], content].concat()
    };
    // Somebody copies a whole one back under the number that it had, again and again.
    let contents: [&[u8]; 3] = [b"first", b"second", b"third"];
    for content in contents {
        std::fs::write(home.file(1), later(content)).expect("the disk has room");
        let snapshots = home.open(true);
        assert_eq!(home.load(&snapshots, &engine(1 << 50)), None);
        assert!(!home.file(1).exists());
    }
    assert_eq!(numbers(&home, "unknown-format"), [1, 2, 3]);
    for (number, content) in (1..).zip(contents) {
        let kept = std::fs::read(home.file(number).with_extension("unknown-format"));
        assert_eq!(kept.expect("it is kept"), later(content), "{number}");
    }
    // Numbers of new ones are above them.
    assert_eq!(home.save(&home.open(true), &filled(3)).number, 4);
}

#[test]
fn a_snapshot_of_a_later_version_waits_for_that_version() {
    let home = Home::new();
    let header = Header {
        format: format::FORMAT + 1,
        number: 1,
        begun_unix_ms: 0,
        end_version: 5,
    };
    let store = filled(3);
    drop(home.open(true));
    let later = [&header.encode()[..], b"whatever that is"].concat();
    std::fs::write(home.file(1), &later).expect("the disk has room");
    for _ in 0..3 {
        let snapshots = home.open(true);
        home.load(&snapshots, &engine(1 << 50));
        for _ in 0..3 {
            // Its number is not used again.
            assert!(home.save(&snapshots, &store).number > 1);
        }
    }
    assert_eq!(numbers(&home, "snapshot").len(), 2);
    assert!(numbers(&home, "damaged").is_empty());
    let kept = std::fs::read(home.file(1).with_extension("unknown-format"));
    assert_eq!(kept.expect("it is kept"), later);
}

#[test]
fn an_older_snapshot_under_the_name_of_the_newest_is_not_taken_for_it() {
    let home = Home::new();
    let older = saved_twice(&home);
    std::fs::copy(home.file(1), home.file(2)).expect("the disk has room");

    let snapshots = home.open(true);
    let first = snapshots.end_version();
    assert_eq!(first, older.end_version() + CRASH_VERSIONS);
    let header = load::header(&home.file(2)).expect("it is whole");
    let error = named(2, header).expect_err("it is 1").to_string();
    assert!(
        error.contains("number 2") && error.contains("number 1"),
        "{error}"
    );
    let new = engine(first);
    // The one before is where it was, and counts as after a crash.
    assert_eq!(home.load(&snapshots, &new).expect("it is whole").entries, 6);
    let versions = content(&new).into_values().map(|(_, version, _)| version);
    assert!(versions.min() >= Some(first));
    assert_eq!(numbers(&home, "damaged"), [2]);
}

#[test]
fn what_is_no_snapshot_is_left_alone() {
    let home = Home::new();
    let snapshots = home.open(true);
    let store = filled(3);
    home.load(&snapshots, &store);
    home.save(&snapshots, &store);
    snapshots.directory.mark_ended().expect("it was marked");
    drop(snapshots);
    let folder = home.folder.path().join("snapshots");
    for name in [
        "9.snapshot",
        "+0000000000000009.snapshot",
        "a.snapshot",
        "0000000000000009",
    ] {
        std::fs::write(folder.join(name), "none").expect("the disk has room");
    }
    std::fs::create_dir(home.file(8)).expect("a folder");
    // A pipe nobody writes to would be waited for.
    let made = std::process::Command::new("mkfifo")
        .arg(home.file(7))
        .status();
    assert!(made.expect("mkfifo").success());
    symlink("nowhere", home.file(6)).expect("a link");

    let snapshots = home.open(true);
    assert_eq!(snapshots.end_version(), store.end_version());
    let new = engine(snapshots.end_version());
    assert_eq!(home.load(&snapshots, &new).expect("it is whole").entries, 4);
    assert!(folder.join("9.snapshot").exists() && home.file(8).exists());
}

#[test]
fn a_snapshot_on_another_disk_may_be_linked_to() {
    let home = Home::new();
    let snapshots = home.open(true);
    let store = filled(3);
    home.load(&snapshots, &store);
    home.save(&snapshots, &store);
    let elsewhere = home.folder.path().join("elsewhere");
    std::fs::rename(home.file(1), &elsewhere).expect("moved");
    symlink(&elsewhere, home.file(1)).expect("a link");
    let new = engine(snapshots.end_version());
    assert_eq!(home.load(&snapshots, &new).expect("it is whole").entries, 4);
    // What is written never goes through a link, nor stops at what is in its way.
    let before = std::fs::read(&elsewhere).expect("the snapshot");
    let part = |number| home.file(number).with_extension("part");
    symlink(&elsewhere, part(2)).expect("a link");
    assert_eq!(home.save(&snapshots, &new).number, 3);
    symlink("nowhere", part(4)).expect("a link");
    assert_eq!(home.save(&snapshots, &new).number, 5);
    std::fs::create_dir(part(6)).expect("a folder");
    assert_eq!(home.save(&snapshots, &new).number, 7);
    std::fs::create_dir(home.file(8)).expect("a folder");
    assert_eq!(home.save(&snapshots, &new).number, 9);
    assert_eq!(std::fs::read(&elsewhere).expect("the snapshot"), before);
}

#[test]
fn a_mark_that_somebody_took_away_does_not_spoil_the_end() {
    let home = Home::new();
    let snapshots = home.open(true);
    snapshots.directory.mark_running().expect("marked");
    let running = home.folder.path().join("snapshots/running");
    std::fs::remove_file(running).expect("removed");
    snapshots.directory.mark_ended().expect("it has ended");
    assert_eq!(snapshots.directory.last_end(), LastEnd::Clean);
}

#[test]
fn a_clock_that_was_set_back_gives_an_entry_no_more_time_than_it_had() {
    let home = Home::new();
    let clock = &home.clock;
    let now_unix_ms = u64::try_from(clock.unix_millis_of(clock.now())).expect("after 1970");
    let path = home.folder.path().join("file");
    // Begun at a time, with an entry that had so long left: how long it lives.
    let check = |begun_unix_ms: u64, left_ms: u64, lives_ms: Option<(u64, u64)>| {
        let header = Header {
            format: format::FORMAT,
            number: 1,
            begun_unix_ms,
            end_version: 5,
        };
        let mut writer = format::Writer::begin(Vec::new(), &header).expect("memory");
        let (mut accounts, mut entries) = (Vec::new(), Vec::new());
        format::push_account(&mut accounts, &id("a", "1"), Quota::UNLIMITED).expect("short");
        let entry = format::Entry {
            account: 0,
            flags: 0,
            version: 1,
            expires_unix_ms: begun_unix_ms + left_ms,
            namespace: b"default",
            key: b"k",
            value: b"",
        };
        entry.push(&mut entries).expect("it is short");
        for (kind, block) in [
            (format::Kind::Accounts, &accounts),
            (format::Kind::Entries, &entries),
        ] {
            writer.block(kind, block, 1).expect("memory");
        }
        std::fs::write(&path, writer.end().expect("memory").0).expect("the disk has room");
        verify(&path, &GOES_ON).expect("it is whole");
        let new = engine(1 << 50);
        let loaded = fill(&path, &target(&new, clock), &GOES_ON).expect("it is whole");
        assert_eq!(loaded.entries, u64::from(lives_ms.is_some()));
        let Some((least, most)) = lives_ms else {
            return;
        };
        let lives = |after_ms: u64| {
            let at = Time::from_millis(clock.now().as_millis() + after_ms);
            let (mut walk, mut lives) = (new.walk(), false);
            while walk.step(at, |_, _| lives = true) {}
            lives
        };
        assert!(lives(least) && !lives(most), "{begun_unix_ms} {left_ms}");
    };
    let day_ms = 86_400_000;
    check(
        now_unix_ms - day_ms,
        day_ms + 60_000,
        Some((30_000, 60_010)),
    );
    check(now_unix_ms - day_ms, 60_000, None);
    check(now_unix_ms + day_ms, 60_000, Some((30_000, 60_010)));
    check(now_unix_ms + 3650 * day_ms, 60_000, Some((30_000, 60_010)));
}
