//! The attacks: each on a server of its own, beside a victim, and with bounds that
//! it must not pass.
//!
//! | file | what |
//! |---|---|
//! | `resets.rs` | rapid reset (CVE-2023-44487), resets that the server is made to send (CVE-2025-8671) |
//! | `floods.rs` | frames that cost little to send |
//! | `blocks.rs` | header blocks: without end, or larger than they look |
//! | `windows.rs` | answers that nobody takes |
//! | `content.rs` | messages that lie about their length |
//! | `connections.rs` | many connections that do nothing, or never finish |
//! | `ordinary.rs` | traffic that is like an attack, and is none |
//! | `trial.rs` | one attack, measured |

mod blocks;
mod connections;
mod content;
mod floods;
mod ordinary;
mod resets;
mod trial;
mod windows;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use anyhow::bail;
use larder_transport::error_codes::ErrorCode;
use tokio::time::Instant;

use crate::server::{Process, Program};
use crate::wire::{Ending, Wire};

/// How large the attacks are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Of each.
    pub(crate) duration: Duration,
    /// Of those that make many.
    pub(crate) connections: usize,
}

/// What an attack knows of its target.
#[derive(Debug, Clone)]
struct Target {
    address: SocketAddr,
    size: Size,
    /// When to stop.
    until: Instant,
    /// The server's process, to look at.
    process: Process,
}

/// What an attack came to.
#[derive(Default)]
struct Outcome {
    /// Frames, requests or connections: whatever the attack is made of.
    events: u64,
    connections: u64,
    /// How the server ended connections, and how often.
    endings: BTreeMap<Ending, u64>,
    /// Events on the first connection that the server ended.
    events_until_end: Option<u64>,
    /// For people.
    notes: Vec<String>,
    /// What should not have been.
    failures: Vec<String>,
    /// Connections that stay until the server has recovered.
    held: Vec<Wire>,
}

impl Outcome {
    /// A connection is over, or left alone.
    fn count(&mut self, wire: &mut Wire, events: u64) {
        self.events += events;
        self.connections += 1;
        if let Some(ending) = wire.came.ending.take() {
            *self.endings.entry(ending).or_default() += 1;
            self.events_until_end.get_or_insert(events);
        }
    }

    fn check(&mut self, good: bool, otherwise: impl FnOnce() -> String) {
        if !good {
            self.failures.push(otherwise());
        }
    }
}

type Attacking = Pin<Box<dyn Future<Output = anyhow::Result<Outcome>>>>;

/// How the server must end the connections of an attack.
#[derive(Debug, Clone, Copy)]
enum Ends {
    /// All of them, with one of these codes.
    With(&'static [ErrorCode]),
    /// None: it is within the limits.
    Never,
    /// As it likes; the attack says itself what is wrong.
    Anyhow,
}

const CALM: Ends = Ends::With(&[ErrorCode::ENHANCE_YOUR_CALM]);

struct Attack {
    name: &'static str,
    about: &'static str,
    ends: Ends,
    /// Open files of the server.
    max_open_files: usize,
    /// It needs what only `larder` does.
    only_larder: bool,
    run: fn(Target) -> Attacking,
}

const MANY_FILES: usize = 20_000;
const FEW_FILES: usize = 100;
/// A server that takes no connection: its queue is full.
const CONNECT_PATIENCE: Duration = Duration::from_millis(100);

const fn attack(
    name: &'static str,
    about: &'static str,
    ends: Ends,
    run: fn(Target) -> Attacking,
) -> Attack {
    Attack {
        name,
        about,
        ends,
        max_open_files: MANY_FILES,
        only_larder: false,
        run,
    }
}

const LISTS: &[&[Attack]] = &[
    resets::ATTACKS,
    floods::ATTACKS,
    blocks::ATTACKS,
    windows::ATTACKS,
    content::ATTACKS,
    connections::ATTACKS,
    ordinary::ATTACKS,
];

fn attacks() -> impl Iterator<Item = &'static Attack> {
    LISTS.iter().copied().flatten()
}

/// Prints the names.
#[allow(clippy::print_stdout, reason = "the output of a command")]
pub(crate) fn list() {
    for attack in attacks() {
        println!("{:<28} {}", attack.name, attack.about);
    }
}

/// Runs attacks, all if none is named, and prints what they came to. False if one
/// passed its bounds.
///
/// # Errors
/// The server or the victim cannot be started, or a name is unknown.
#[allow(clippy::print_stdout, reason = "the output of a command")]
pub(crate) fn run(program: &Program, size: Size, names: &[String]) -> anyhow::Result<bool> {
    for name in names {
        if !attacks().any(|attack| attack.name == name) {
            bail!("there is no attack {name:?}; --list shows them");
        }
    }
    let chosen =
        attacks().filter(|attack| names.is_empty() || names.iter().any(|n| n == attack.name));
    let (mut tried, mut failed) = (0, Vec::new());
    for attack in chosen {
        if attack.only_larder && !matches!(program, Program::Larder(_)) {
            println!(
                "{:<28} left out: only larder does what it needs",
                attack.name
            );
            continue;
        }
        let verdict = trial::run(attack, program, size)?;
        println!("{}", verdict.text);
        tried += 1;
        if !verdict.failures.is_empty() {
            failed.push(attack.name);
        }
    }
    println!(
        "{tried} attacks, {} failed {}",
        failed.len(),
        failed.join(", ")
    );
    Ok(failed.is_empty())
}

/// How a flood goes.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Events written at once.
    batch: u32,
    /// Events a second; `None`: as fast as they are taken.
    per_second: Option<u32>,
}

impl Pace {
    const FAST: Self = Self {
        batch: 32,
        per_second: None,
    };
}

/// Connects, sends one event after the other until the server ends the connection,
/// and connects again, until the time is over. `write` gets the number of the
/// event on its connection, and the first stream that no other event has:
/// events have four streams each.
async fn flood(
    target: &Target,
    pace: Pace,
    before: &[u8],
    mut write: impl FnMut(&mut Vec<u8>, u32),
) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut bytes = Vec::new();
    while Instant::now() < target.until {
        let mut wire = Wire::greeted(target.address, &[]).await?;
        wire.send(before).await;
        let started = Instant::now();
        let mut events = 0;
        while !wire.is_over() && Instant::now() < target.until {
            bytes.clear();
            for _ in 0..pace.batch {
                write(&mut bytes, 1 + 8 * events);
                events += 1;
            }
            wire.send(&bytes).await;
            if let Some(per_second) = pace.per_second {
                let due = Duration::from_secs(1) * events / per_second;
                tokio::time::sleep_until(started + due).await;
            } else if outcome.connections == 0 {
                // The first goes slowly enough to see what ends it, and when.
                tokio::time::sleep(A_MOMENT).await;
            }
            wire.read();
        }
        // What was sent may still be on its way.
        wire.read_until(200 * A_MOMENT, |came| came.ending.is_some())
            .await;
        outcome.count(&mut wire, events.into());
    }
    Ok(outcome)
}

/// Enough for the server to have read what was sent.
const A_MOMENT: Duration = Duration::from_millis(1);
