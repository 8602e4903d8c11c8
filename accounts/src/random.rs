//! Identifiers from random bytes.

use std::fmt::Write as _;

use larder_model::AccountUid;

/// Random bytes in a token's id: 80 bits, so that ids of an account never meet.
const TOKEN_ID_BYTES: usize = 10;

/// A UUID of version 4 (RFC 9562, section 5.4), as AIP-148 asks for.
pub(crate) fn uid(fill_random: &dyn Fn(&mut [u8])) -> AccountUid {
    let mut bytes = [0; 16];
    fill_random(&mut bytes);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = hex(&bytes);
    AccountUid::new(&format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    ))
}

/// Last part of a token's name.
pub(crate) fn token_id(fill_random: &dyn Fn(&mut [u8])) -> String {
    let mut bytes = [0; TOKEN_ID_BYTES];
    fill_random(&mut bytes);
    hex(&bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
