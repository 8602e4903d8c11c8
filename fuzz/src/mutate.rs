//! Changes of an input, as libFuzzer makes them, and some that know what a frame
//! is.

use larder_transport::frame::{FrameHead, PREFACE};

use crate::random::Random;

/// Words that chance would take long to find.
const WORDS: [&[u8]; 20] = [
    PREFACE,
    b"GET / HTTP/1.1\r\n",
    b":method",
    b":path",
    b":authority",
    b"POST",
    b"/t.T/Echo",
    b"/t.T/Later",
    b"/t.T/Stream",
    b"application/grpc",
    b"grpc-timeout",
    b"content-length",
    b"trailers",
    b"\0\0\0\x04\x01\0\0\0\0",
    b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08",
    b"\0\0\x04\x08\0\0\0\0\0\x7f\xff\xff\xff",
    b"\x3f\xe1\x1f",
    b"\xff\xff\xff\xff\x0f",
    b"\x7f\xff\xff\xff",
    b"\0\0\0\0\x05",
];

/// Numbers at the edges of something.
const EDGES: [u32; 14] = [
    0,
    1,
    2,
    5,
    127,
    128,
    255,
    16_384,
    16_385,
    65_535,
    65_536,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
];

/// Changes `data` in one to eight places; it stays within `max_bytes`.
pub fn mutate(data: &mut Vec<u8>, other: &[u8], random: &mut Random, max_bytes: usize) {
    let changes = 1 << random.below(4);
    for _ in 0..changes {
        if data.is_empty() {
            let count = 1 + random.below(16);
            data.extend(random.bytes(count));
        }
        match random.below(12) {
            0 => flip(data, random),
            1 => {
                let place = random.below(data.len());
                data[place] = random.byte();
            }
            2 => edge(data, random),
            3 => {
                let (from, to) = range(data.len(), random);
                data.drain(from..to);
            }
            4 => {
                let (from, to) = range(data.len(), random);
                let part = data[from..to].to_vec();
                insert(data, &part, random);
            }
            5 => {
                let word = WORDS[random.below(WORDS.len())];
                insert(data, word, random);
            }
            6 => {
                let word = WORDS[random.below(WORDS.len())];
                overwrite(data, word, random);
            }
            7 if !other.is_empty() => {
                let (from, to) = range(other.len(), random);
                insert(data, &other[from..to], random);
            }
            8 => {
                let count = random.below(8);
                let bytes = random.bytes(count);
                insert(data, &bytes, random);
            }
            9 | 10 => frames(data, random),
            _ => {
                let place = random.below(data.len());
                data[place] = data[place].wrapping_add([1, 255][random.below(2)]);
            }
        }
        data.truncate(max_bytes);
    }
}

fn flip(data: &mut [u8], random: &mut Random) {
    let place = random.below(data.len());
    data[place] ^= 1 << random.below(8);
}

fn edge(data: &mut [u8], random: &mut Random) {
    let bytes = EDGES[random.below(EDGES.len())].to_be_bytes();
    let width = [1, 2, 3, 4][random.below(4)];
    let place = random.below(data.len());
    for (to, from) in data[place..].iter_mut().zip(&bytes[4 - width..]) {
        *to = *from;
    }
}

fn range(length: usize, random: &mut Random) -> (usize, usize) {
    let from = random.below(length);
    let most = [4, 64, length][random.below(3)].min(length - from);
    (
        from,
        from + 1 + random.below(most.max(1)).min(length - from - 1),
    )
}

fn insert(data: &mut Vec<u8>, part: &[u8], random: &mut Random) {
    let place = random.below(data.len() + 1);
    data.splice(place..place, part.iter().copied());
}

fn overwrite(data: &mut [u8], part: &[u8], random: &mut Random) {
    let place = random.below(data.len());
    for (to, from) in data[place..].iter_mut().zip(part) {
        *to = *from;
    }
}

/// Whole frames are left out, sent twice, swapped, or given another head.
fn frames(data: &mut Vec<u8>, random: &mut Random) {
    let found = find_frames(data);
    if found.is_empty() {
        return flip(data, random);
    }
    let (from, to) = found[random.below(found.len())];
    match random.below(6) {
        0 => drop(data.drain(from..to)),
        1 => {
            let frame = data[from..to].to_vec();
            let times = [1, 1, 1, 20][random.below(4)];
            data.splice(to..to, frame.repeat(times));
        }
        2 => {
            let frame: Vec<u8> = data.drain(from..to).collect();
            let found = find_frames(data);
            let place = found
                .get(random.below(found.len().max(1)))
                .map_or(data.len(), |&(from, _)| from);
            data.splice(place..place, frame);
        }
        3 => data[from + 3] = random.byte() % 12,
        4 => data[from + 4] ^= 1 << [0, 2, 3, 5, 7][random.below(5)],
        _ => data[from + 8] = random.byte() % 16,
    }
}

/// Where the frames stand.
fn find_frames(data: &[u8]) -> Vec<(usize, usize)> {
    let mut from = if data.starts_with(PREFACE) {
        PREFACE.len()
    } else {
        0
    };
    let mut found = Vec::new();
    while let Some(head) = FrameHead::parse(&data[from..]) {
        let to = from + FrameHead::BYTES + head.length as usize;
        if to > data.len() {
            break;
        }
        found.push((from, to));
        from = to;
    }
    found
}
