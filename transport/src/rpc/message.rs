//! gRPC over HTTP/2, "Length-Prefixed-Message": a flag, four bytes of length, and
//! the message.

use std::borrow::Cow;

use super::refusal::Refusal;

/// Bytes before a message.
pub(super) const PREFIX_BYTES: usize = 5;

/// What is known of a message by what has come of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress<'a> {
    /// More must come.
    Incomplete,
    /// It is here.
    Complete(&'a [u8]),
}

/// Reads the one message of a request.
///
/// # Errors
/// It is refused by its prefix, before its content is there.
#[inline]
pub(super) fn read(content: &[u8], max_bytes: usize) -> Result<Progress<'_>, Refusal> {
    let Some((&[flag, a, b, c, d], rest)) = content.split_first_chunk() else {
        return Ok(Progress::Incomplete);
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if flag != 0 {
        let why = match flag {
            1 => "a compressed message without grpc-encoding",
            _ => "the compressed flag of a message must be 0 or 1",
        };
        return Err(Refusal::Malformed(why.into()));
    }
    if length > max_bytes {
        return Err(Refusal::TooLarge {
            bytes: length,
            max: max_bytes,
        });
    }
    match rest.len().cmp(&length) {
        std::cmp::Ordering::Less => Ok(Progress::Incomplete),
        std::cmp::Ordering::Equal => Ok(Progress::Complete(rest)),
        std::cmp::Ordering::Greater => {
            let why = "more than the one message of this method";
            Err(Refusal::Cardinality(why.into()))
        }
    }
}

/// The message, if `content` is one as it usually comes.
pub(super) fn whole(content: &[u8]) -> Option<&[u8]> {
    match read(content, content.len()) {
        Ok(Progress::Complete(message)) => Some(message),
        _ => None,
    }
}

/// Why a request that has ended is not complete.
pub(super) const fn cut_short(content: &[u8]) -> Refusal {
    if content.is_empty() {
        Refusal::Cardinality(Cow::Borrowed("a request without a message"))
    } else {
        Refusal::Malformed(Cow::Borrowed("a message that ends too early"))
    }
}

/// Writes the prefix of the message that begins [`PREFIX_BYTES`] after `start`
/// and ends with `out`.
#[inline]
pub(super) fn write_prefix(out: &mut [u8], start: usize) {
    let length = out.len() - start - PREFIX_BYTES;
    // A longer one cannot be held by a buffer that is bounded.
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    out[start + 1..start + PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::status::Code;
    use super::*;

    #[test]
    fn a_message_is_judged_by_its_prefix() {
        let check = |content: &[u8], expected: Result<Progress<'_>, Code>| {
            assert_eq!(read(content, 3).map_err(|why| why.status().code), expected);
        };
        let whole = b"\0\0\0\0\x03abc";
        for cut in 0..whole.len() {
            check(&whole[..cut], Ok(Progress::Incomplete));
        }
        check(whole, Ok(Progress::Complete(b"abc")));
        check(b"\0\0\0\0\0", Ok(Progress::Complete(b"")));
        check(b"\0\0\0\0\0x", Err(Code::UNIMPLEMENTED));
        check(b"\0\xff\xff\xff\xff", Err(Code::RESOURCE_EXHAUSTED));
        check(b"\0\0\0\0\x04", Err(Code::RESOURCE_EXHAUSTED));
        check(b"\x01\0\0\0\0", Err(Code::INTERNAL));
    }
}
