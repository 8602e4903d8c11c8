//! Messages that lie about their length.

use std::io::Write as _;
use std::time::Duration;

use larder_transport::frame::Kind;
use tokio::time::Instant;

use super::{Attack, Ends, MANY_FILES, Outcome, Target, attack};
use crate::calls;
use crate::wire::{Wire, frame, open_request, request};

const PATIENCE: Duration = Duration::from_secs(10);
/// `RESOURCE_EXHAUSTED`.
const EXHAUSTED: &str = "8";

pub(super) const ATTACKS: &[Attack] = &[
    attack(
        "lying-prefix",
        "a message of 4 GiB, announced and never sent",
        Ends::Never,
        |target| Box::pin(lying_prefix(target)),
    ),
    Attack {
        name: "compression-bomb",
        about: "64 MiB of zeros as 64 KiB of gzip",
        ends: Ends::Never,
        max_open_files: MANY_FILES,
        only_larder: true,
        run: |target| Box::pin(compression_bomb(target)),
    },
];

/// Each is refused by its prefix, while the request goes on.
async fn lying_prefix(target: Target) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    let block = calls::grpc_block(calls::GET, &[]);
    let mut wire = Wire::greeted(target.address, &[]).await?;
    let mut events = 0_u32;
    while Instant::now() < target.until && !wire.is_over() {
        let mut bytes = Vec::new();
        for _ in 0..100 {
            let stream = 1 + 2 * events;
            open_request(&mut bytes, stream, &block);
            frame(&mut bytes, Kind::DATA, 0, stream, b"\0\xff\xff\xff\xff");
            events += 1;
        }
        wire.send(&bytes).await;
        let all = u64::from(events);
        if !wire
            .read_until(PATIENCE, |came| came.answered() >= all)
            .await
        {
            break;
        }
    }
    let answers = format!("{:?}", wire.came.answers);
    let refused = wire.came.answers.get(EXHAUSTED).copied();
    outcome.check(refused == Some(events.into()), || {
        format!("not all of them are refused: {answers}")
    });
    outcome.notes.push(answers);
    outcome.count(&mut wire, events.into());
    Ok(outcome)
}

async fn compression_bomb(target: Target) -> anyhow::Result<Outcome> {
    const INFLATED_BYTES: usize = 64 << 20;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![0; 1 << 20];
    for _ in 0..INFLATED_BYTES / zeros.len() {
        gzip.write_all(&zeros)?;
    }
    let mut content = calls::prefixed(&gzip.finish()?);
    // The flag: this message is compressed.
    content[0] = 1;
    let block = calls::grpc_block(calls::GET, &[("grpc-encoding", "gzip")]);
    let mut outcome = Outcome::default();
    let mut wire = Wire::greeted(target.address, &[]).await?;
    let mut events = 0_u32;
    while Instant::now() < target.until && !wire.is_over() {
        let mut bytes = Vec::new();
        request(&mut bytes, 1 + 2 * events, &block, &content);
        events += 1;
        wire.send(&bytes).await;
        let all = u64::from(events);
        if !wire
            .read_until(PATIENCE, |came| came.answered() >= all)
            .await
        {
            break;
        }
    }
    outcome.notes.push(format!("{:?}", wire.came.answers));
    outcome.check(!wire.came.answers.contains_key("0"), || {
        "a bomb was taken".to_owned()
    });
    outcome.count(&mut wire, events.into());
    Ok(outcome)
}
