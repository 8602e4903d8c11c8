//! Random bytes, and conversations with errors in them: no panic, and no more
//! memory than the limits say.

use super::conversation::conversation;
use super::*;
use crate::testing::Random;

fn feed(connection: &mut Connection<Echo>, random: &mut Random, bytes: &[u8]) {
    let mut held: Vec<u8> = Vec::new();
    let mut rest = bytes;
    let mut ms = 0;
    while !rest.is_empty() {
        let (now, later) = rest.split_at((1 + random.below(2000)).min(rest.len()));
        held.extend_from_slice(now);
        rest = later;
        ms += u64::try_from(random.below(50)).unwrap();
        let received = connection.receive(&held, at(ms));
        assert!(received.consumed <= held.len());
        held.drain(..received.consumed);
        assert!(held.len() <= FrameHead::BYTES + 16_384 + 2000 || received.more);
        if random.below(3) == 0 {
            connection.output_mut().clear();
            connection.wrote(0, at(ms));
        }
        let _ = connection.on_time(at(ms));
        assert!(connection.output_mut().len() < 600_000);
        assert!(connection.streams() <= 1024);
        assert!(connection.core.unsent <= 4 * 1024 * 1024 + 300_000);
    }
}

#[test]
fn random_frames() {
    let mut random = Random::new(17);
    for _ in 0..3000 {
        let mut bytes = greeting(&[]);
        for _ in 0..random.below(40) {
            let kind = Kind(random.byte() % 12);
            let stream = u32::from(random.byte() % 12);
            let length = match random.below(6) {
                0 => random.below(300),
                _ => [0, 4, 5, 6, 8, 12][random.below(6)],
            };
            let mut payload = random.bytes(length);
            if random.below(2) == 0 {
                payload = block(REQUEST);
            }
            let flags = random.byte() & random.byte();
            bytes.extend(raw(kind, flags, stream, &payload));
        }
        feed(&mut connection(Limits::default()), &mut random, &bytes);
    }
}

#[test]
fn conversations_with_errors() {
    for seed in 0..1500 {
        let mut random = Random::new(seed);
        let mut bytes = conversation(&mut random);
        for _ in 0..1 + random.below(8) {
            let place = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[place] = random.byte(),
                1 => bytes[place] ^= 1 << random.below(8),
                2 => {
                    bytes.remove(place);
                }
                _ => bytes.insert(place, random.byte()),
            }
        }
        feed(&mut connection(Limits::default()), &mut random, &bytes);
    }
}

#[test]
fn random_bytes() {
    let mut random = Random::new(23);
    for _ in 0..3000 {
        let length = random.below(400);
        let mut bytes = random.bytes(length);
        if random.below(4) > 0 {
            bytes.splice(0..0, greeting(&[]));
        }
        feed(&mut connection(Limits::default()), &mut random, &bytes);
    }
}
