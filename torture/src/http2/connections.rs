//! Many connections that do nothing, or never finish what they begin.

use std::time::Duration;

use larder_transport::frame::{Kind, PREFACE, write_settings, write_settings_ack};
use tokio::time::Instant;

use super::{Attack, Attacking, CONNECT_PATIENCE, Ends, FEW_FILES, Outcome, Target, attack};
use crate::calls;
use crate::wire::{Wire, frame, open_request, request};

/// Connections that have not finished a request share so many places.
const MAX_UNPROVEN: usize = 1000;
/// And are gone after it, if the attack is as long.
const MAX_LIFE: Duration = Duration::from_secs(15);
/// One connection without a call, in a build without optimisation, bytes.
const MAX_IDLE_BYTES: u64 = 32 * 1024;

pub(super) const ATTACKS: &[Attack] = &[
    attack(
        "slow-silence",
        "connections that say nothing",
        Ends::Anyhow,
        |target| slow(target, Vec::new(), &[]),
    ),
    attack(
        "slow-preface",
        "half a preface, a byte at a time",
        Ends::Anyhow,
        |target| slow(target, PREFACE[..10].to_vec(), &PREFACE[10..20]),
    ),
    attack(
        "slow-greeted",
        "connections that greet, and never call",
        Ends::Anyhow,
        |target| slow(target, greeting(), &[]),
    ),
    attack(
        "slow-headers",
        "header blocks that never end",
        Ends::Anyhow,
        |target| {
            let mut bytes = greeting();
            frame(&mut bytes, Kind::HEADERS, 0, 1, &[0]);
            slow(target, bytes, &[])
        },
    ),
    attack(
        "slow-body",
        "messages that never end, a byte at a time",
        Ends::Anyhow,
        |target| {
            let mut bytes = greeting();
            let block = calls::grpc_block(calls::GET, &[]);
            open_request(&mut bytes, 1, &block);
            frame(&mut bytes, Kind::DATA, 0, 1, b"\0\0\0\x01\0");
            let mut byte = Vec::new();
            frame(&mut byte, Kind::DATA, 0, 1, b"x");
            slow(target, bytes, &byte.repeat(100))
        },
    ),
    attack(
        "idle",
        "connections that have made a call, and rest",
        Ends::Never,
        |target| Box::pin(idle(target)),
    ),
    Attack {
        name: "no-descriptors",
        about: "more connections than the server may have files",
        ends: Ends::Anyhow,
        max_open_files: FEW_FILES,
        only_larder: false,
        run: |target| Box::pin(no_descriptors(target)),
    },
];

fn greeting() -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    write_settings(&mut bytes, &[]);
    write_settings_ack(&mut bytes);
    bytes
}

/// Connects again and again until there are as many as there shall be; each says
/// `first`, and then the rest in ten parts, one a second.
fn slow(target: Target, first: Vec<u8>, rest: &[u8]) -> Attacking {
    let part = rest.len().div_ceil(10).max(1);
    let parts: Vec<Vec<u8>> = rest.chunks(part).map(<[u8]>::to_vec).collect();
    Box::pin(async move {
        let mut outcome = Outcome::default();
        let mut wires = Vec::new();
        for number in 1..=target.size.connections {
            let mut wire = Wire::silent(target.address).await?;
            wire.send(&first).await;
            wires.push((Instant::now(), wire));
            // A full queue would cost a second.
            if number % 50 == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let (mut most_held, mut longest) = (0, Duration::ZERO);
        // Those above the limit are closed when the server gets to them.
        let settled = Instant::now() + Duration::from_millis(300);
        let mut parts = parts.into_iter();
        while Instant::now() < target.until.max(settled) {
            let part = parts.next().unwrap_or_default();
            for (_, wire) in &mut wires {
                wire.send(&part).await;
                wire.read();
            }
            let held = wires.iter().filter(|(_, wire)| !wire.is_over()).count();
            if Instant::now() > settled {
                most_held = most_held.max(held);
            }
            if held > 0 {
                longest = longest.max(wires[0].0.elapsed());
            } else {
                break;
            }
            tokio::time::sleep(Duration::from_millis(350)).await;
        }
        let served = a_new_client(&target).await;
        outcome.notes.push(format!(
            "at most {most_held} held, for {:.1} s; a new client is {}",
            longest.as_secs_f64(),
            if served { "served" } else { "turned away" }
        ));
        outcome.check(most_held <= MAX_UNPROVEN, || {
            format!("{most_held} were held")
        });
        outcome.check(longest <= MAX_LIFE + Duration::from_secs(1), || {
            format!("some were held for {longest:.1?}")
        });
        for (_, mut wire) in wires {
            outcome.count(&mut wire, 1);
            outcome.held.push(wire);
        }
        outcome.events_until_end = None;
        Ok(outcome)
    })
}

/// Whether someone who comes now is answered.
async fn a_new_client(target: &Target) -> bool {
    let Ok(mut wire) = Wire::greeted(target.address, &[]).await else {
        return false;
    };
    let mut bytes = Vec::new();
    let message = calls::get(calls::SMALL);
    request(&mut bytes, 1, &calls::grpc_block(calls::GET, &[]), &message);
    wire.send(&bytes).await;
    wire.read_until(Duration::from_secs(2), |came| came.answered() == 1)
        .await
}

async fn idle(target: Target) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    let before = target.process.rss_bytes();
    let mut bytes = greeting();
    let message = calls::get(calls::SMALL);
    request(&mut bytes, 1, &calls::grpc_block(calls::GET, &[]), &message);
    for _ in 0..target.size.connections {
        let mut wire = Wire::silent(target.address).await?;
        wire.send(&bytes).await;
        let answered = wire
            .read_until(Duration::from_secs(10), |came| came.answered() == 1)
            .await;
        outcome.check(answered, || format!("no answer: {:?}", wire.came));
        outcome.held.push(wire);
    }
    tokio::time::sleep_until(target.until).await;
    let count = u64::try_from(outcome.held.len())?;
    let each = target.process.rss_bytes().saturating_sub(before) / count.max(1);
    outcome.notes.push(format!("{each} bytes for each"));
    outcome.check(each <= MAX_IDLE_BYTES || count < 500, || {
        format!("{each} bytes of memory for each")
    });
    outcome.events = count;
    outcome.connections = count;
    for wire in &mut outcome.held {
        wire.read();
    }
    let over = outcome.held.iter().filter(|wire| wire.is_over()).count();
    outcome.check(over == 0, || format!("{over} were closed"));
    Ok(outcome)
}

/// Out of files, the server waits; it does not spin, and it recovers.
async fn no_descriptors(target: Target) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut wires = Vec::new();
    // Those that are not taken wait in the queue, until that is full, too.
    for _ in 0..3 * FEW_FILES {
        let connecting = Wire::greeted(target.address, &[]);
        match tokio::time::timeout(CONNECT_PATIENCE, connecting).await {
            Ok(wire) => wires.push(wire?),
            Err(_) => break,
        }
    }
    let (began, cpu) = (Instant::now(), target.process.cpu_seconds());
    tokio::time::sleep_until(target.until).await;
    let used = (target.process.cpu_seconds() - cpu) / began.elapsed().as_secs_f64();
    outcome
        .notes
        .push(format!("{used:.2} of a core without files"));
    outcome.check(used < 0.5, || format!("it spins: {used:.2} of a core"));
    outcome.events = u64::try_from(wires.len())?;
    outcome.connections = outcome.events;
    drop(wires);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let served = a_new_client(&target).await;
    outcome.check(served, || {
        "nobody is served when the files are back".to_owned()
    });
    Ok(outcome)
}
