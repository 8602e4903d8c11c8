//! RFC 7541, section 5.1: integer representation.

use super::HpackError;

/// Longest continuation: four bytes of seven bits reach 2^28, and no index,
/// length or table size that this decoder takes is near it.
const MAX_CONTINUATION_BYTES: u32 = 4;

/// Reads an integer whose first `prefix` bits (1 to 8) stand in the low bits of
/// the first byte of `input`. Returns it with what follows.
#[inline]
pub(super) fn decode(input: &[u8], prefix: u32) -> Result<(usize, &[u8]), HpackError> {
    let (&first, rest) = input.split_first().ok_or(HpackError::Truncated)?;
    let mask = 0xff_u8 >> (8 - prefix);
    let value = first & mask;
    if value < mask {
        return Ok((usize::from(value), rest));
    }
    continued(usize::from(mask), rest)
}

fn continued(mut value: usize, mut rest: &[u8]) -> Result<(usize, &[u8]), HpackError> {
    for turn in 0..MAX_CONTINUATION_BYTES {
        let (&byte, after) = rest.split_first().ok_or(HpackError::Truncated)?;
        rest = after;
        value += usize::from(byte & 0x7f) << (7 * turn);
        if byte & 0x80 == 0 {
            return Ok((value, rest));
        }
    }
    Err(HpackError::IntegerTooLarge)
}

/// Writes `value` with a prefix of `prefix` bits (1 to 8); `pattern` has the
/// bits before it.
#[inline]
pub(super) fn encode(out: &mut Vec<u8>, value: usize, prefix: u32, pattern: u8) {
    let mask = 0xff_u8 >> (8 - prefix);
    match u8::try_from(value) {
        Ok(small) if small < mask => out.push(pattern | small),
        _ => {
            out.push(pattern | mask);
            let mut rest = value - usize::from(mask);
            while rest >= 0x80 {
                out.push(0x80 | low_seven(rest));
                rest >>= 7;
            }
            out.push(low_seven(rest));
        }
    }
}

fn low_seven(value: usize) -> u8 {
    value.to_le_bytes()[0] & 0x7f
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_appendix_c_1() {
        let check = |value, prefix, bytes: &[u8]| {
            let mut out = Vec::new();
            encode(&mut out, value, prefix, 0);
            assert_eq!(out, bytes);
            assert_eq!(decode(bytes, prefix), Ok((value, &[][..])));
        };
        check(10, 5, &[0x0a]);
        check(1337, 5, &[0x1f, 0x9a, 0x0a]);
        check(42, 8, &[0x2a]);
    }

    #[test]
    fn every_value_survives_and_every_truncation_is_found() {
        let values = (0..600).chain([16_383, 16_384, 65_535, 1 << 20, (1 << 28) - 1]);
        for value in values {
            for prefix in 1..=8 {
                let mut out = Vec::new();
                encode(&mut out, value, prefix, 0);
                assert_eq!(decode(&out, prefix), Ok((value, &[][..])));
                for cut in 0..out.len() {
                    assert_eq!(decode(&out[..cut], prefix), Err(HpackError::Truncated));
                }
            }
        }
    }

    #[test]
    fn an_integer_has_a_limit() {
        let long = [0x1f, 0x80, 0x80, 0x80, 0x80, 0x00];
        assert_eq!(decode(&long, 5), Err(HpackError::IntegerTooLarge));
        let zeros = [0x1f, 0x80, 0x80, 0x80, 0x00];
        assert_eq!(decode(&zeros, 5), Ok((31, &[][..])));
    }
}
