//! gRPC over HTTP/2, "Length-Prefixed-Message": messages put together from the
//! `DATA` that they come in, however it is cut.

use bytes::Bytes;

use super::failed::Failed;

/// Bytes before a message.
pub(super) const PREFIX_BYTES: usize = 5;
/// What is set aside for a message by its prefix alone, bytes: more only as it comes.
const FIRST_BYTES: usize = 64 << 10;

/// A message of which a part has come.
#[derive(Default)]
pub(super) struct Assembly {
    prefix: [u8; PREFIX_BYTES],
    /// How many bytes of the prefix have come.
    seen: usize,
    /// How many of the message have not.
    left: usize,
    bytes: Vec<u8>,
}

impl Assembly {
    /// Takes what came, and gives out the messages that are whole.
    ///
    /// # Errors
    /// A message is compressed, or larger than `max_bytes`.
    #[inline]
    pub(super) fn push(
        &mut self,
        mut data: &[u8],
        max_bytes: usize,
        mut whole: impl FnMut(Bytes),
    ) -> Result<(), Failed> {
        while !data.is_empty() {
            // Nearly always a message comes whole: then it is copied once.
            if self.seen == 0
                && let Some((&prefix, rest)) = data.split_first_chunk()
            {
                let length = length(prefix, max_bytes)?;
                if let Some((message, rest)) = rest.split_at_checked(length) {
                    whole(Bytes::copy_from_slice(message));
                    data = rest;
                    continue;
                }
            }
            data = self.part(data, max_bytes)?;
            if self.seen == PREFIX_BYTES && self.left == 0 {
                self.seen = 0;
                whole(Bytes::from(std::mem::take(&mut self.bytes)));
            }
        }
        Ok(())
    }

    /// Takes a part of a message. Returns what is not of it.
    fn part<'a>(&mut self, data: &'a [u8], max_bytes: usize) -> Result<&'a [u8], Failed> {
        if self.seen < PREFIX_BYTES {
            let most = (PREFIX_BYTES - self.seen).min(data.len());
            let (here, rest) = data.split_at(most);
            self.prefix[self.seen..self.seen + most].copy_from_slice(here);
            self.seen += most;
            if self.seen == PREFIX_BYTES {
                self.left = length(self.prefix, max_bytes)?;
                self.bytes.reserve_exact(self.left.min(FIRST_BYTES));
            }
            return Ok(rest);
        }
        let (here, rest) = data.split_at(self.left.min(data.len()));
        self.bytes.extend_from_slice(here);
        self.left -= here.len();
        Ok(rest)
    }

    /// True if a message has begun and is not whole.
    pub(super) const fn is_partial(&self) -> bool {
        self.seen > 0
    }

    /// Bytes of memory that it holds.
    #[cfg(feature = "fuzzing")]
    pub(super) const fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn clear(&mut self) {
        self.seen = 0;
        self.left = 0;
        self.bytes = Vec::new();
    }
}

fn length(prefix: [u8; PREFIX_BYTES], max: usize) -> Result<usize, Failed> {
    let [flag, length @ ..] = prefix;
    let bytes = u32::from_be_bytes(length) as usize;
    match flag {
        0 if bytes <= max => Ok(bytes),
        0 => Err(Failed::TooLarge { bytes, max }),
        1 => Err(Failed::Protocol(
            "a compressed message, which was not asked for",
        )),
        _ => Err(Failed::Protocol(
            "a message whose compressed flag is neither 0 nor 1",
        )),
    }
}

/// Writes the prefix of the message that begins [`PREFIX_BYTES`] after `start` and
/// ends with `out`. False if it is longer than a prefix can tell.
#[inline]
pub(super) fn write_prefix(out: &mut [u8], start: usize) -> bool {
    let length = out.len() - start - PREFIX_BYTES;
    let Ok(length) = u32::try_from(length) else {
        return false;
    };
    out[start + 1..start + PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_whole_however_they_are_cut() {
        let body = b"\0\0\0\0\x03abc\0\0\0\0\0\0\0\0\0\x01d";
        for chunk in 1..=body.len() {
            let (mut assembly, mut messages) = (Assembly::default(), Vec::new());
            for part in body.chunks(chunk) {
                assembly.push(part, 3, |it| messages.push(it)).unwrap();
            }
            assert_eq!(messages, [&b"abc"[..], b"", b"d"], "in chunks of {chunk}");
            assert!(!assembly.is_partial());
        }
    }

    #[test]
    fn a_message_is_refused_by_its_prefix() {
        let check = |prefix: &[u8], expected: Failed| {
            for chunk in 1..=prefix.len() {
                let mut assembly = Assembly::default();
                let mut parts = prefix.chunks(chunk);
                let refused = parts.find_map(|part| assembly.push(part, 3, drop).err());
                assert_eq!(refused.as_ref(), Some(&expected));
            }
        };
        check(b"\0\0\0\0\x04", Failed::TooLarge { bytes: 4, max: 3 });
        let most = u32::MAX as usize;
        check(
            b"\0\xff\xff\xff\xff",
            Failed::TooLarge {
                bytes: most,
                max: 3,
            },
        );
        let compressed = "a compressed message, which was not asked for";
        check(b"\x01\0\0\0\0", Failed::Protocol(compressed));
        let flag = "a message whose compressed flag is neither 0 nor 1";
        check(b"\x02\0\0\0\0", Failed::Protocol(flag));
    }
}
