//! Traffic that is like an attack, and is none: it must never be ended.

use std::time::Duration;

use larder_transport::error_codes::ErrorCode;
use larder_transport::frame::{
    Kind, SettingId, flag, write_ping, write_reset, write_window_update,
};
use tokio::time::Instant;

use super::{Attack, Ends, Outcome, Target, attack};
use crate::calls;
use crate::wire::{Wire, frame, open_request, request, whole_request};

const PATIENCE: Duration = Duration::from_secs(10);
/// Calls at a time.
const BURST: u32 = 1000;

pub(super) const ATTACKS: &[Attack] = &[
    attack(
        "ordinary-deadlines",
        "1,000 calls whose deadlines pass together, and that are reset together",
        Ends::Never,
        |target| Box::pin(deadlines(target)),
    ),
    attack(
        "ordinary-bursts",
        "1,000 calls at once, each ended by an empty DATA frame of its own",
        Ends::Never,
        |target| Box::pin(bursts(target)),
    ),
    attack(
        "ordinary-large",
        "200 large answers asked for at once, by a client that takes them",
        Ends::Never,
        |target| Box::pin(large(target)),
    ),
    attack(
        "ordinary-probes",
        "a PING for each round trip with content, as clients measure bandwidth",
        Ends::Never,
        |target| Box::pin(probes(target)),
    ),
    attack(
        "ordinary-few-resets",
        "200 requests taken back, and then silence",
        Ends::Never,
        |target| Box::pin(few_resets(target)),
    ),
];

/// Every second, as often as the time allows.
async fn deadlines(target: Target) -> anyhow::Result<Outcome> {
    let block = calls::grpc_block(calls::GET, &[("grpc-timeout", "200m")]);
    let mut outcome = Outcome::default();
    let mut wire = Wire::greeted(target.address, &[]).await?;
    let mut next = 1;
    let mut round = Instant::now();
    loop {
        let mut bytes = Vec::new();
        let streams: Vec<u32> = (0..BURST).map(|number| next + 2 * number).collect();
        next += 2 * BURST;
        for &stream in &streams {
            open_request(&mut bytes, stream, &block);
        }
        wire.send(&bytes).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        bytes.clear();
        for &stream in &streams {
            write_reset(&mut bytes, stream, ErrorCode::CANCEL);
        }
        wire.send(&bytes).await;
        wire.read();
        outcome.events += u64::from(BURST);
        round += Duration::from_secs(1);
        if round >= target.until || wire.is_over() {
            break;
        }
        tokio::time::sleep_until(round).await;
    }
    one_more_call(&mut outcome, &mut wire, next).await;
    outcome.count(&mut wire, 0);
    Ok(outcome)
}

/// The connection is as good as before.
async fn one_more_call(outcome: &mut Outcome, wire: &mut Wire, stream: u32) {
    let mut bytes = Vec::new();
    let message = calls::get(calls::SMALL);
    request(
        &mut bytes,
        stream,
        &calls::grpc_block(calls::GET, &[]),
        &message,
    );
    wire.came.answers.clear();
    wire.send(&bytes).await;
    let ok = |came: &crate::wire::Came| came.answers.contains_key("0");
    let answered = wire.read_until(PATIENCE, ok).await;
    outcome.check(answered, || {
        format!("no answer afterwards: {:?}", wire.came)
    });
}

async fn bursts(target: Target) -> anyhow::Result<Outcome> {
    let block = calls::grpc_block(calls::GET, &[]);
    let message = calls::get(calls::SMALL);
    let mut outcome = Outcome::default();
    let mut wire = Wire::greeted(target.address, &[]).await?;
    let mut next = 1;
    while Instant::now() < target.until && !wire.is_over() {
        let streams: Vec<u32> = (0..BURST).map(|number| next + 2 * number).collect();
        next += 2 * BURST;
        let mut bytes = Vec::new();
        for &stream in &streams {
            open_request(&mut bytes, stream, &block);
        }
        for &stream in &streams {
            frame(&mut bytes, Kind::DATA, 0, stream, &message);
            frame(&mut bytes, Kind::DATA, flag::END_STREAM, stream, &[]);
        }
        write_window_update(&mut bytes, 0, BURST * 32);
        wire.send(&bytes).await;
        outcome.events += u64::from(BURST);
        let all = outcome.events;
        wire.read_until(PATIENCE, |came| came.answered() >= all)
            .await;
    }
    let ok = wire.came.answers.get("0").copied().unwrap_or(0);
    let all = outcome.events;
    outcome.check(ok == all, || format!("{ok} of {all}: {:?}", wire.came));
    outcome.count(&mut wire, 0);
    Ok(outcome)
}

async fn large(target: Target) -> anyhow::Result<Outcome> {
    const CALLS: u32 = 200;
    let block = calls::grpc_block(calls::GET, &[]);
    let message = calls::get(calls::LARGE);
    let mut outcome = Outcome::default();
    let open = [(SettingId::INITIAL_WINDOW_SIZE, 1 << 24)];
    let mut wire = Wire::greeted(target.address, &open).await?;
    let mut next = 1;
    while Instant::now() < target.until && !wire.is_over() {
        let mut bytes = Vec::new();
        write_window_update(&mut bytes, 0, 1 << 24);
        for _ in 0..CALLS {
            request(&mut bytes, next, &block, &message);
            next += 2;
            outcome.events += 1;
        }
        let all = outcome.events;
        wire.send(&bytes).await;
        wire.read_until(PATIENCE, |came| came.answered() >= all)
            .await;
    }
    let ok = wire.came.answers.get("0").copied().unwrap_or(0);
    let all = outcome.events;
    outcome.check(ok == all, || format!("{ok} of {all}: {:?}", wire.came));
    outcome.count(&mut wire, 0);
    Ok(outcome)
}

async fn probes(target: Target) -> anyhow::Result<Outcome> {
    let block = calls::grpc_block(calls::GET, &[]);
    let message = calls::get(calls::SMALL);
    let mut outcome = Outcome::default();
    let mut wire = Wire::greeted(target.address, &[]).await?;
    let mut next = 1;
    while Instant::now() < target.until && !wire.is_over() {
        let mut bytes = Vec::new();
        write_ping(&mut bytes, 0, *b"bandwith");
        request(&mut bytes, next, &block, &message);
        write_window_update(&mut bytes, 0, 32);
        next += 2;
        outcome.events += 1;
        let all = outcome.events;
        wire.send(&bytes).await;
        wire.read_until(PATIENCE, |came| came.answered() >= all && came.pongs >= all)
            .await;
    }
    let ok = wire.came.answers.get("0").copied().unwrap_or(0);
    let all = outcome.events;
    outcome.check(ok == all, || format!("{ok} of {all}: {:?}", wire.came));
    outcome.count(&mut wire, 0);
    Ok(outcome)
}

/// What they leave behind is nothing: the trial looks at the processor.
async fn few_resets(target: Target) -> anyhow::Result<Outcome> {
    let block = calls::block("/nowhere", &[]);
    let mut outcome = Outcome::default();
    let mut wire = Wire::greeted(target.address, &[]).await?;
    let mut bytes = Vec::new();
    for number in 0..200 {
        whole_request(&mut bytes, 1 + 2 * number, &block);
        write_reset(&mut bytes, 1 + 2 * number, ErrorCode::CANCEL);
    }
    wire.send(&bytes).await;
    outcome.count(&mut wire, 200);
    outcome.held.push(wire);
    Ok(outcome)
}
