//! However the bytes are cut, a conversation is the same.

use super::*;
use crate::testing::Random;

/// A valid conversation of calls that overlap.
pub(super) fn conversation(random: &mut Random) -> Vec<u8> {
    let mut bytes = greeting(&[(SettingId::MAX_FRAME_SIZE, 20_000)]);
    let mut open: Vec<u32> = Vec::new();
    let mut next = 1;
    for _ in 0..60 {
        let pick = random.below(open.len().max(1));
        match (random.below(9), open.get(pick).copied()) {
            (0..=2, _) | (_, None) => {
                let fields = block(REQUEST);
                let (one, two) = fields.split_at(random.below(fields.len()));
                if random.below(2) == 0 {
                    bytes.extend(raw(Kind::HEADERS, 0, next, one));
                    bytes.extend(raw(Kind::CONTINUATION, 4, next, two));
                } else {
                    bytes.extend(headers(next, End::Open));
                }
                open.push(next);
                next += 2;
            }
            (3..=5, Some(id)) => {
                let length = 1 + random.below(300);
                bytes.extend(data(id, &random.bytes(length), End::Open));
            }
            (6, Some(id)) => {
                bytes.extend(data(id, b"last", End::Stream));
                open.swap_remove(pick);
            }
            (7, Some(id)) => {
                bytes.extend(raw(Kind::HEADERS, 5, id, &block(&[("a", "b")])));
                open.swap_remove(pick);
            }
            (_, Some(id)) => {
                bytes.extend(reset(id));
                open.swap_remove(pick);
            }
        }
        if random.below(10) == 0 {
            write_ping(&mut bytes, 0, *b"pingping");
        }
    }
    bytes
}

/// Gives `bytes` in pieces; what was sent, and what the application saw.
fn run(bytes: &[u8], mut piece: impl FnMut() -> usize) -> (Vec<u8>, Vec<String>) {
    let mut connection = connection(Limits::default());
    let mut held: Vec<u8> = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(piece().min(rest.len()));
        held.extend_from_slice(now);
        rest = later;
        let received = connection.receive(&held, start());
        assert!(!received.more);
        held.drain(..received.consumed);
    }
    assert!(connection.failure().is_none(), "{:?}", connection.failure());
    let out = std::mem::take(connection.output_mut());
    (out, std::mem::take(&mut connection.app().events))
}

#[test]
fn any_chunking_gives_the_same() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let bytes = conversation(&mut random);
        let whole = run(&bytes, || usize::MAX);
        assert!(whole.1.len() > 5);
        assert_eq!(run(&bytes, || 1), whole, "seed {seed}");
        assert_eq!(run(&bytes, || 1 + random.below(40)), whole, "seed {seed}");
        assert_eq!(run(&bytes, || 1 + random.below(4000)), whole, "seed {seed}");
    }
}

#[test]
fn a_turn_is_bounded_and_nothing_is_lost() {
    let mut random = Random::new(5);
    let bytes = conversation(&mut random);
    let whole = run(&bytes, || usize::MAX);
    let mut connection = connection(Limits {
        max_frames_per_turn: 2,
        ..Limits::default()
    });
    let mut rest = &bytes[..];
    let mut turns = 0;
    loop {
        let received = connection.receive(rest, start());
        rest = &rest[received.consumed..];
        turns += 1;
        if !received.more {
            break;
        }
    }
    assert!(turns > 30 && rest.is_empty());
    assert_eq!(*connection.output_mut(), whole.0);
}

#[test]
fn a_full_output_stops_the_reading() {
    let mut connection = greeted(Limits {
        max_output_bytes: 1000,
        ..Limits::default()
    });
    let calls: Vec<u8> = (0..200)
        .flat_map(|i| headers(2 * i + 1, End::Stream))
        .collect();
    let received = connection.receive(&calls, start());
    assert!(received.more && received.consumed < calls.len());
    assert!(connection.output_mut().len() < 1100);
    let again = connection.receive(&calls[received.consumed..], start());
    assert_eq!((again.consumed, again.more), (0, true));
    connection.output_mut().clear();
    connection.wrote(0, start());
    assert!(
        connection
            .receive(&calls[received.consumed..], start())
            .consumed
            > 0
    );
}
