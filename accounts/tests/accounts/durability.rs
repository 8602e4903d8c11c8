//! What was acknowledged is there after any end of the process.

use std::io::{BufRead as _, Read as _};

use larder_accounts::{
    AccountError, AccountSettings, Accounts, CreatedToken, NewToken, TokenError,
};
use larder_model::Mode;

use crate::fixture::{
    Fixture, NOW, Random, account_name, all_tokens, child_dir, create, snapshot, token,
};

/// The number behind `marker` in a child's line.
fn number(line: &str, marker: &str) -> Option<usize> {
    line.split_once(marker)?.1.trim().parse().ok()
}

#[test]
fn a_killed_server_keeps_what_it_acknowledged() {
    let fixture = Fixture::new(90);
    for round in 1..=3 {
        let (mut child, mut output) = fixture.child("durability::child_writes", "");
        let mut acknowledged = 0;
        let mut line = String::new();
        while acknowledged < round * 20 && output.read_line(&mut line).expect("text") > 0 {
            acknowledged = number(&line, "acknowledged ").unwrap_or(acknowledged);
            line.clear();
        }
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        let mut rest = String::new();
        output.read_to_string(&mut rest).expect("it is text");
        for line in rest.lines() {
            acknowledged = number(line, "acknowledged ").unwrap_or(acknowledged);
        }
        assert!(acknowledged >= round * 20, "the child said too little");
        let accounts = fixture.open();
        for n in 1..=acknowledged {
            let account = account_name(&format!("a{n}"));
            assert_eq!(all_tokens(&accounts, &account).len(), 1, "{n}");
        }
        assert!(accounts.verify(&fixture.admin_secret(), NOW).is_ok());
    }
}

/// Makes accounts with a token each until it is killed.
#[test]
#[ignore = "run by a_killed_server_keeps_what_it_acknowledged"]
fn child_writes() {
    let Some(dir) = child_dir() else { return };
    // Each child has its own ids.
    let random = Random::seeded(std::process::id().into());
    let accounts = Accounts::open(&dir, NOW, random.entropy()).expect("it is free");
    for n in 1.. {
        let name = account_name(&format!("a{n}"));
        if accounts.account(&name).is_none() {
            let settings = AccountSettings::default();
            accounts
                .create_account(name.clone(), settings, Mode::Apply)
                .expect("there is room");
        }
        if all_tokens(&accounts, &name).is_empty() {
            token(&accounts, name.as_str(), NewToken::default());
        }
        println!("acknowledged {n}");
    }
}

#[test]
fn a_reopened_directory_is_the_same() {
    let fixture = Fixture::new(91);
    let accounts = fixture.open();
    for n in 0..20 {
        let name = format!("a{n}");
        create(&accounts, &name);
        token(&accounts, &name, NewToken::default());
    }
    let before = snapshot(&accounts);
    let image = fixture.crash_image();
    drop(accounts);
    assert_eq!(snapshot(&fixture.open()), before);
    let image = fixture.open_at(&image).expect("the image is good");
    assert_eq!(snapshot(&image), before);
}

/// A full disk refuses changes and nothing else, and what it refused is not
/// there afterwards; with room again, changes go through without a restart.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_refuses_changes_and_recovers() {
    let fixture = Fixture::new(92);
    drop(fixture.open());
    // POSIX counts in blocks of 512 bytes; past the limit, writes fail.
    let blocks = fixture.database_bytes().len() / 512 * 2;
    let shell = format!("trap '' XFSZ; ulimit -S -f {blocks};");
    let (mut child, mut output) = fixture.child("durability::child_fills", &shell);
    let mut line = String::new();
    while !line.contains("full") && output.read_line(&mut line).expect("text") > 0 {}
    let lifted = std::process::Command::new("prlimit")
        .args(["--fsize=unlimited", "--pid", &child.id().to_string()])
        .status();
    assert!(lifted.expect("util-linux is there").success());
    drop(child.stdin.take());
    let mut rest = String::new();
    output.read_to_string(&mut rest).expect("it is text");
    assert!(child.wait().expect("it ends").success(), "{line}{rest}");
    let kept = rest.lines().find_map(|line| number(line, "kept "));
    let accounts = fixture.open();
    let found = all_tokens(&accounts, &account_name("default")).len();
    assert_eq!(Some(found), kept);
}

/// Makes tokens until the disk is full, and goes on when it is told to.
#[cfg(target_os = "linux")]
#[test]
#[ignore = "run by a_full_disk_refuses_changes_and_recovers"]
fn child_fills() {
    let Some(dir) = child_dir() else { return };
    let accounts = Accounts::open(&dir, NOW, Random::seeded(93).entropy()).expect("it is free");
    let default = account_name("default");
    let mut made = Vec::new();
    let make = || {
        let new = NewToken {
            key_prefixes: (0..8)
                .map(|first| [vec![first], vec![b'x'; 1_023]].concat())
                .collect(),
            ..NewToken::default()
        };
        accounts.create_token(&default, new, NOW, Mode::Apply)
    };
    let error = loop {
        match make() {
            Ok(token) => made.push(token),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, TokenError::Database(_)), "{error:?}");
    let check = |made: &[CreatedToken]| {
        // The administrator's is one more.
        assert_eq!(all_tokens(&accounts, &default).len(), made.len() + 1);
        for token in made {
            assert!(accounts.verify(token.secret.expose(), NOW).is_ok());
        }
    };
    check(&made);
    assert!(matches!(make(), Err(TokenError::Database(_))));
    check(&made);
    // The file is read again for this one, which the disk is not asked for.
    let there = accounts.create_account(default.clone(), AccountSettings::default(), Mode::Apply);
    assert!(
        matches!(there, Err(AccountError::AlreadyExists)),
        "{there:?}"
    );
    assert!(accounts.writes().is_failing, "the disk is full still");
    println!("full");
    std::io::stdin()
        .read_line(&mut String::new())
        .expect("text");
    made.push(make().expect("there is room again"));
    assert!(!accounts.writes().is_failing);
    check(&made);
    println!("kept {}", made.len() + 1);
}
