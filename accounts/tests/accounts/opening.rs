//! Making, locking and refusing a data directory.

use std::io::Read as _;

use larder_accounts::{AdminTokenState, OpenError};
use redb::TableDefinition;

use crate::fixture::{Fixture, NOW, Random, child_dir, create, snapshot};

#[test]
fn the_first_open_makes_everything_for_the_owner_alone() {
    let fixture = Fixture::new(1);
    let accounts = fixture.open();
    assert_eq!(accounts.admin_token().state, AdminTokenState::Created);
    assert_eq!(accounts.admin_token().path, fixture.path("admin-token"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        for (path, mode) in [
            (fixture.dir(), 0o700),
            (fixture.path("accounts.redb"), 0o600),
            (fixture.path("accounts.lock"), 0o600),
            (fixture.path("admin-token"), 0o600),
        ] {
            let found = std::fs::metadata(&path).expect("it is there").permissions();
            assert_eq!(found.mode() & 0o777, mode, "{}", path.display());
        }
    }
    let mut files: Vec<_> = std::fs::read_dir(fixture.dir())
        .expect("it is there")
        .map(|entry| entry.expect("it can be read").file_name())
        .collect();
    files.sort();
    assert_eq!(files, ["accounts.lock", "accounts.redb", "admin-token"]);
}

#[test]
fn a_second_open_is_refused_until_the_first_ends() {
    let fixture = Fixture::new(2);
    let first = fixture.open();
    let refused = fixture.try_open().expect_err("it is in use");
    assert!(matches!(&refused, OpenError::InUse { path } if *path == fixture.dir()));
    let (mut child, mut output) = fixture.child("opening::child_opens", "");
    let mut text = String::new();
    output.read_to_string(&mut text).expect("it is text");
    child.wait().expect("it ends");
    let dir = fixture.dir();
    let expected = format!(
        "child: the data directory {} is in use by another server",
        dir.display()
    );
    assert!(text.contains(&expected), "{text}");
    drop(first);
    // Some other tool that has the file itself open.
    let redb = redb::Database::open(fixture.path("accounts.redb")).expect("it is free");
    let refused = fixture.try_open().expect_err("it is in use");
    assert!(matches!(&refused, OpenError::InUse { path } if *path == fixture.dir()));
    drop(redb);
    fixture.open();
}

/// Another server on the same directory.
#[test]
#[ignore = "run by a_second_open_is_refused_until_the_first_ends"]
fn child_opens() {
    let Some(dir) = child_dir() else { return };
    let opened = larder_accounts::Accounts::open(&dir, NOW, Random::seeded(0).entropy());
    match opened {
        Ok(_) => println!("child: opened"),
        Err(error) => println!("child: {error}"),
    }
}

/// Puts `content` in the place of the database, and expects a refusal that
/// names the file and leaves it as it is.
fn check_damaged(content: &[u8]) {
    let fixture = Fixture::new(3);
    drop(fixture.open());
    std::fs::write(fixture.path("accounts.redb"), content).expect("it can be written");
    let error = fixture.try_open().expect_err("it is damaged");
    let path = fixture.path("accounts.redb");
    assert!(
        matches!(&error, OpenError::Damaged { path: named, .. } if *named == path),
        "{error:?}"
    );
    assert!(error.to_string().contains(&path.display().to_string()));
    assert_eq!(fixture.database_bytes().len(), content.len());
}

#[test]
fn a_damaged_database_is_refused_by_name() {
    let fixture = Fixture::new(4);
    drop(fixture.open());
    let good = fixture.database_bytes();
    check_damaged(b"");
    check_damaged(b"x");
    check_damaged(b"no database at all, but a text of some length\n");
    check_damaged(&[0; 4096]);
    check_damaged(&vec![0xff; 1 << 20]);
    check_damaged(&good[..100]);
    check_damaged(&good[..good.len() / 64]);
}

/// Every damaged byte is either without effect or noticed: what opens shows
/// the last state or, if the newest commit's own header is hit, the one before.
#[test]
fn no_damaged_byte_passes_for_data() {
    let fixture = Fixture::new(5);
    let accounts = fixture.open();
    let mut states = Vec::new();
    for n in 0..4 {
        create(&accounts, &format!("a{n}"));
        states.push(snapshot(&accounts));
    }
    drop(accounts);
    let good = fixture.database_bytes();
    let used: Vec<usize> = (0..good.len()).filter(|at| good[*at] != 0).collect();
    let (mut refused, mut older) = (0, 0);
    for _ in 0..150 {
        let mut bad = good.clone();
        // Half in the header, where the structure is.
        let at = match fixture.random.once_in(2) {
            true => fixture.random.below(512),
            false => used[fixture.random.below(used.len())],
        };
        bad[at] ^= 1 << fixture.random.below(8);
        std::fs::write(fixture.path("accounts.redb"), &bad).expect("it can be written");
        match fixture.try_open() {
            Ok(accounts) => {
                let state = snapshot(&accounts);
                let at = states.iter().position(|known| *known == state);
                assert!(at.is_some(), "byte {at:?} made {state}");
                older += usize::from(at != Some(states.len() - 1));
            }
            Err(OpenError::Damaged { .. }) => refused += 1,
            Err(error) => panic!("byte {at}: {error:?}"),
        }
    }
    println!("{refused} refused, {older} opened at an earlier commit");
    assert!(refused > 0);
}

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

fn check_format(format: &str) -> OpenError {
    let fixture = Fixture::new(6);
    drop(fixture.open());
    let redb = redb::Database::open(fixture.path("accounts.redb")).expect("it is good");
    let transaction = redb.begin_write().expect("it is free");
    transaction
        .open_table(META)
        .expect("it is there")
        .insert("format", format.as_bytes())
        .expect("there is room");
    transaction.commit().expect("it is written");
    drop(redb);
    fixture.try_open().expect_err("the format is not known")
}

#[test]
fn other_formats_are_refused() {
    let newer = check_format("2");
    assert!(matches!(
        newer,
        OpenError::NewerFormat {
            found: 2,
            known: 1,
            ..
        }
    ));
    for nonsense in ["0", "", "one"] {
        let error = check_format(nonsense);
        assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    }
}

#[test]
fn a_creation_cut_short_begins_again() {
    let fixture = Fixture::new(7);
    std::fs::create_dir(fixture.dir()).expect("a directory");
    for file in ["accounts.redb.new", "admin-token.new"] {
        std::fs::write(fixture.path(file), b"half").expect("it can be written");
    }
    let accounts = fixture.open();
    assert_eq!(accounts.admin_token().state, AdminTokenState::Created);
    assert!(accounts.verify(&fixture.admin_secret(), NOW).is_ok());
    assert!(!fixture.path("accounts.redb.new").exists());
}

#[test]
fn what_cannot_be_made_says_where() {
    let fixture = Fixture::new(8);
    std::fs::write(fixture.dir(), b"a file in the way").expect("it can be written");
    let error = fixture.try_open().expect_err("it is no directory");
    assert!(matches!(&error, OpenError::Io { path, .. } if *path == fixture.dir()));
}
