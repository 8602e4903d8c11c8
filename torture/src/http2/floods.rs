//! Frames that cost the client little, and the server more.

use larder_transport::frame::{Kind, SettingId, write_ping, write_settings, write_window_update};

use super::{Attack, Attacking, CALM, Ends, Outcome, Pace, Target, attack, flood};
use crate::calls;
use crate::wire::{Wire, frame, open_request, request};

pub(super) const ATTACKS: &[Attack] = &[
    attack("pings", "PING", CALM, |target| {
        plain(target, |out, _| write_ping(out, 0, *b"torture!"))
    }),
    attack("settings", "empty SETTINGS", CALM, |target| {
        plain(target, |out, _| write_settings(out, &[]))
    }),
    attack(
        "settings-windows",
        "SETTINGS that move the windows of a thousand streams",
        CALM,
        |target| Box::pin(settings_windows(target)),
    ),
    attack("window-updates", "WINDOW_UPDATE by 1", CALM, |target| {
        plain(target, |out, _| write_window_update(out, 0, 1))
    }),
    attack("priorities", "PRIORITY", CALM, |target| {
        plain(target, |out, stream| {
            frame(out, Kind::PRIORITY, 0, stream, &[0; 5]);
        })
    }),
    attack(
        "unknown-frames",
        "frames of no known type",
        CALM,
        |target| plain(target, |out, _| frame(out, Kind(0x77), 0, 0, &[])),
    ),
    attack("empty-data", "DATA without content", CALM, |target| {
        on_one_call(target, &[])
    }),
    attack("padding", "DATA of nothing but padding", CALM, |target| {
        on_one_call(target, &[3, 0, 0, 0])
    }),
    attack("empty-headers", "HEADERS without a field", CALM, |target| {
        plain(target, |out, stream| {
            frame(out, Kind::HEADERS, 5, stream, &[]);
        })
    }),
    attack(
        "stray-frames",
        "window updates for calls that are over",
        CALM,
        |target| {
            let block = calls::grpc_block(calls::GET, &[]);
            let message = calls::get(calls::SMALL);
            let mut before = Vec::new();
            request(&mut before, 1, &block, &message);
            Box::pin(async move {
                flood(&target, Pace::FAST, &before, |out, _| {
                    write_window_update(out, 1, 1);
                })
                .await
            })
        },
    ),
    attack(
        "streams",
        "many more calls than allowed, before the settings are read",
        CALM,
        |target| Box::pin(streams(target)),
    ),
    attack(
        "calls",
        "ordinary calls, as fast as one connection takes them",
        Ends::Never,
        |target| Box::pin(calls_without_end(target)),
    ),
];

fn plain(target: Target, write: fn(&mut Vec<u8>, u32)) -> Attacking {
    Box::pin(async move { flood(&target, Pace::FAST, &[], write).await })
}

/// `DATA` on a call whose request goes on; with a payload, it is padding.
fn on_one_call(target: Target, payload: &'static [u8]) -> Attacking {
    let mut before = Vec::new();
    open_request(&mut before, 1, &calls::grpc_block(calls::GET, &[]));
    let flags = if payload.is_empty() { 0 } else { 8 };
    Box::pin(async move {
        flood(&target, Pace::FAST, &before, |out, _| {
            frame(out, Kind::DATA, flags, 1, payload);
        })
        .await
    })
}

async fn settings_windows(target: Target) -> anyhow::Result<Outcome> {
    let block = calls::grpc_block(calls::GET, &[]);
    let mut before = Vec::new();
    // Below the first event's.
    open_request(&mut before, 1, &block);
    for number in 1..1000 {
        open_request(&mut before, 1 + 2 * number, &block);
    }
    flood(&target, Pace::FAST, &before, |out, stream| {
        let window = 1000 + stream % 16;
        write_settings(out, &[(SettingId::INITIAL_WINDOW_SIZE, window)]);
    })
    .await
}

/// All in one write; nothing is read until then.
async fn streams(target: Target) -> anyhow::Result<Outcome> {
    const STREAMS: u32 = 20_000;
    let block = calls::grpc_block(calls::GET, &[]);
    let mut bytes = Vec::new();
    for number in 0..STREAMS {
        open_request(&mut bytes, 1 + 2 * number, &block);
    }
    let mut outcome = Outcome::default();
    while tokio::time::Instant::now() < target.until {
        let mut wire = Wire::greeted(target.address, &[]).await?;
        wire.send(&bytes).await;
        let patience = std::time::Duration::from_secs(2);
        wire.read_until(patience, |came| came.ending.is_some())
            .await;
        let events = wire
            .came
            .last_stream
            .map_or(STREAMS, |last| last.div_ceil(2));
        outcome.count(&mut wire, events.into());
    }
    Ok(outcome)
}

async fn calls_without_end(target: Target) -> anyhow::Result<Outcome> {
    let block = calls::grpc_block(calls::GET, &[]);
    let message = calls::get(calls::SMALL);
    let mut wire = Wire::greeted(target.address, &[]).await?;
    let (mut sent, mut bytes) = (0_u32, Vec::new());
    while tokio::time::Instant::now() < target.until && !wire.is_over() {
        bytes.clear();
        for _ in 0..64 {
            request(&mut bytes, 1 + 2 * sent, &block, &message);
            sent += 1;
        }
        // The connection's window: what was taken is given back.
        write_window_update(&mut bytes, 0, 64 * 32);
        wire.send(&bytes).await;
        let least = u64::from(sent).saturating_sub(512);
        let patience = std::time::Duration::from_secs(10);
        wire.read_until(patience, |came| came.answered() >= least)
            .await;
    }
    let mut outcome = Outcome::default();
    outcome.notes.push(format!("{:?}", wire.came.answers));
    outcome.count(&mut wire, sent.into());
    Ok(outcome)
}
