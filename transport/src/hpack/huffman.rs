//! RFC 7541, section 5.2 and appendix B: Huffman code.
//!
//! The code is canonical: codes of one length are consecutive numbers in the
//! order of their symbols, and the first of each length follows from the last
//! of the length before. So the lengths say everything, and the decoder's table
//! is computed from them when this file is compiled.
//!
//! The decoder is a state machine that takes four bits at a time. A state is an
//! inner node of the code's tree; as no code is shorter than five bits, four
//! bits end at most one symbol.

use super::HpackError;

const SYMBOLS: usize = 257;
const EOS: usize = 256;
/// A tree with 257 leaves has 256 inner nodes.
const NODES: usize = SYMBOLS - 1;

/// Appendix B: the length in bits of each symbol's code; the last is EOS.
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

const CODES: [u32; SYMBOLS] = codes();

const fn codes() -> [u32; SYMBOLS] {
    let mut codes = [0; SYMBOLS];
    let mut next: u32 = 0;
    let mut length = 5;
    while length <= 30 {
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] == length {
                codes[symbol] = next;
                next += 1;
            }
            symbol += 1;
        }
        next <<= 1;
        length += 1;
    }
    codes
}

/// The code's tree: below [`NODES`] an inner node, from there on a symbol.
struct Tree {
    children: [[usize; 2]; NODES],
    /// On the path of EOS and at most seven bits deep: here a string may end,
    /// as its padding is "the most significant bits of the code for EOS".
    may_end: [bool; NODES],
}

const fn tree() -> Tree {
    const NONE: usize = usize::MAX;
    let mut children = [[NONE; 2]; NODES];
    let mut may_end = [false; NODES];
    may_end[0] = true;
    let mut nodes = 1;
    let mut symbol = 0;
    while symbol < SYMBOLS {
        let mut at = 0;
        let mut ones = true;
        let mut depth = LENGTHS[symbol];
        while depth > 0 {
            depth -= 1;
            let bit = (CODES[symbol] >> depth & 1) as usize;
            ones = ones && bit == 1;
            if depth == 0 {
                children[at][bit] = NODES + symbol;
            } else {
                if children[at][bit] == NONE {
                    children[at][bit] = nodes;
                    may_end[nodes] = ones && LENGTHS[symbol] - depth <= 7;
                    nodes += 1;
                }
                at = children[at][bit];
            }
        }
        symbol += 1;
    }
    assert!(nodes == NODES, "the code is complete");
    Tree { children, may_end }
}

/// What four bits lead to.
#[derive(Clone, Copy)]
struct Step {
    next: u8,
    symbol: u8,
    effect: Effect,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    None,
    Emit,
    Fail,
}

static TREE: Tree = tree();
static STEPS: [[Step; 16]; NODES] = steps();

#[expect(
    clippy::cast_possible_truncation,
    reason = "nodes and symbols but EOS are below 256, and this runs in the compiler"
)]
const fn steps() -> [[Step; 16]; NODES] {
    let tree = tree();
    let nothing = Step {
        next: 0,
        symbol: 0,
        effect: Effect::None,
    };
    let mut steps = [[nothing; 16]; NODES];
    let mut state = 0;
    while state < NODES {
        let mut bits = 0;
        while bits < 16 {
            let mut step = nothing;
            let mut at = state;
            let mut left = 4;
            while left > 0 {
                left -= 1;
                at = tree.children[at][bits >> left & 1];
                if at == NODES + EOS {
                    step.effect = Effect::Fail;
                    at = 0;
                    left = 0;
                } else if at >= NODES {
                    step.effect = Effect::Emit;
                    step.symbol = (at - NODES) as u8;
                    at = 0;
                }
            }
            step.next = at as u8;
            steps[state][bits] = step;
            bits += 1;
        }
        state += 1;
    }
    steps
}

/// Appends what `input` stands for.
pub(super) fn decode(input: &[u8], out: &mut Vec<u8>) -> Result<(), HpackError> {
    out.reserve(input.len() * 8 / 5);
    let mut state = 0_u8;
    for byte in input {
        for bits in [byte >> 4, byte & 0xf] {
            let step = STEPS[usize::from(state)][usize::from(bits)];
            match step.effect {
                Effect::None => {}
                Effect::Emit => out.push(step.symbol),
                Effect::Fail => return Err(HpackError::Huffman),
            }
            state = step.next;
        }
    }
    if TREE.may_end[usize::from(state)] {
        Ok(())
    } else {
        Err(HpackError::Huffman)
    }
}

#[cfg(test)]
pub(super) fn encode(octets: &[u8]) -> Vec<u8> {
    let (mut bits, mut count, mut out) = (0_u64, 0, Vec::new());
    for &octet in octets {
        let symbol = usize::from(octet);
        bits = bits << LENGTHS[symbol] | u64::from(CODES[symbol]);
        count += u32::from(LENGTHS[symbol]);
        while count >= 8 {
            count -= 8;
            out.push((bits >> count).to_le_bytes()[0]);
        }
    }
    if count > 0 {
        out.push((bits << (8 - count)).to_le_bytes()[0] | 0xff >> count);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(input: &[u8]) -> Result<Vec<u8>, HpackError> {
        let mut out = Vec::new();
        decode(input, &mut out).map(|()| out)
    }

    #[test]
    fn the_code_is_that_of_appendix_b() {
        let check = |symbol: usize, code| assert_eq!(CODES[symbol], code, "{symbol}");
        check(0, 0x1ff8);
        check(usize::from(b'0'), 0x0);
        check(usize::from(b'a'), 0x3);
        check(usize::from(b'~'), 0x1ffd);
        check(200, 0x3ff_ffe2);
        check(255, 0x3ff_ffee);
        check(EOS, 0x3fff_ffff);
    }

    #[test]
    fn every_pair_of_octets_survives() {
        for a in 0..=255 {
            for b in 0..=255 {
                assert_eq!(decoded(&encode(&[a, b])), Ok(vec![a, b]));
            }
        }
    }

    #[test]
    fn padding_is_ones_and_shorter_than_a_byte() {
        // '0' is five zero bits, so three bits of padding follow.
        assert_eq!(decoded(&[0b0000_0111]), Ok(b"0".to_vec()));
        for wrong in 0..7 {
            assert_eq!(decoded(&[wrong]), Err(HpackError::Huffman), "{wrong}");
        }
        assert_eq!(decoded(&[0x07, 0xff]), Err(HpackError::Huffman));
        assert_eq!(decoded(&[0xff]), Err(HpackError::Huffman));
        assert_eq!(decoded(&[]), Ok(vec![]));
    }

    #[test]
    fn eos_is_refused() {
        assert_eq!(decoded(&[0xff; 4]), Err(HpackError::Huffman));
        assert_eq!(decoded(&[0xff; 40]), Err(HpackError::Huffman));
    }
}
