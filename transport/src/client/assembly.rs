//! gRPC over HTTP/2, "Length-Prefixed-Message": messages put together from the
//! `DATA` that they come in, however it is cut.

use bytes::Bytes;

use super::failed::Failed;
use crate::gzip;

/// Bytes before a message.
pub(super) const PREFIX_BYTES: usize = 5;
/// What is set aside for a message by its prefix alone, bytes: more only as it comes.
const FIRST_BYTES: usize = 64 << 10;

/// "Compressed-Flag".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flag {
    /// The message is as it is.
    Plain = 0,
    /// It is compressed, as `grpc-encoding` says.
    Compressed = 1,
}

/// What a flag of 1 comes to, by what this end offered and `grpc-encoding` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Nothing was offered.
    Unasked,
    /// The answer names none.
    Identity,
    /// What was offered.
    Gzip,
    /// Another.
    Unknown,
}

impl Encoding {
    /// What `grpc-encoding` says, if it was asked for.
    pub(super) fn named(self, name: Option<&[u8]>) -> Self {
        match name {
            _ if self == Self::Unasked => self,
            None | Some(b"identity") => Self::Identity,
            Some(name) if name == gzip::NAME.as_bytes() => Self::Gzip,
            Some(_) => Self::Unknown,
        }
    }
}

/// A message as it came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) bytes: Bytes,
    pub(super) flag: Flag,
}

impl Message {
    /// Its content. Not to be asked under a lock: it may take as long as `max` is large.
    ///
    /// # Errors
    /// It is compressed, and no gzip of at most `max` bytes.
    #[inline]
    pub(super) fn open(self, max: usize) -> Result<Bytes, Failed> {
        match self.flag {
            Flag::Plain => Ok(self.bytes),
            Flag::Compressed => {
                gzip::decompress(&self.bytes, max).map_err(|refused| match refused {
                    gzip::Refused::TooLarge { bytes, max } => Failed::TooLarge { bytes, max },
                    gzip::Refused::Malformed => Failed::Protocol(gzip::MALFORMED),
                })
            }
        }
    }
}

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
    /// A message is compressed as it must not be, or larger than `max_bytes`.
    #[inline]
    pub(super) fn push(
        &mut self,
        mut data: &[u8],
        max_bytes: usize,
        encoding: Encoding,
        mut whole: impl FnMut(Message),
    ) -> Result<(), Failed> {
        while !data.is_empty() {
            // Nearly always a message comes whole: then it is copied once.
            if self.seen == 0
                && let Some((&prefix, rest)) = data.split_first_chunk()
            {
                let (flag, length) = read(prefix, max_bytes, encoding)?;
                if let Some((message, rest)) = rest.split_at_checked(length) {
                    let bytes = Bytes::copy_from_slice(message);
                    whole(Message { bytes, flag });
                    data = rest;
                    continue;
                }
            }
            data = self.part(data, max_bytes, encoding)?;
            if self.seen == PREFIX_BYTES && self.left == 0 {
                self.seen = 0;
                let bytes = Bytes::from(std::mem::take(&mut self.bytes));
                let (flag, _) = read(self.prefix, max_bytes, encoding)?;
                whole(Message { bytes, flag });
            }
        }
        Ok(())
    }

    /// Takes a part of a message. Returns what is not of it.
    fn part<'a>(
        &mut self,
        data: &'a [u8],
        max_bytes: usize,
        encoding: Encoding,
    ) -> Result<&'a [u8], Failed> {
        if self.seen < PREFIX_BYTES {
            let most = (PREFIX_BYTES - self.seen).min(data.len());
            let (here, rest) = data.split_at(most);
            self.prefix[self.seen..self.seen + most].copy_from_slice(here);
            self.seen += most;
            if self.seen == PREFIX_BYTES {
                (_, self.left) = read(self.prefix, max_bytes, encoding)?;
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

/// Reads a prefix: whether the message is compressed, and its length.
#[inline]
fn read(
    prefix: [u8; PREFIX_BYTES],
    max: usize,
    encoding: Encoding,
) -> Result<(Flag, usize), Failed> {
    let [flag, length @ ..] = prefix;
    let bytes = u32::from_be_bytes(length) as usize;
    let flag = match (flag, encoding) {
        (0, _) => Flag::Plain,
        (1, Encoding::Gzip) => Flag::Compressed,
        (flag, encoding) => return Err(bad_flag(flag, encoding)),
    };
    match bytes <= max {
        true => Ok((flag, bytes)),
        false => Err(Failed::TooLarge { bytes, max }),
    }
}

/// gRPC's `compression.md`: each of them is INTERNAL.
#[cold]
fn bad_flag(flag: u8, encoding: Encoding) -> Failed {
    Failed::Protocol(match (flag, encoding) {
        (1, Encoding::Unasked) => "a compressed message, which was not asked for",
        (1, Encoding::Unknown) => "a message compressed by an encoding that was not offered",
        (1, _) => "a compressed message without grpc-encoding",
        _ => "a message whose compressed flag is neither 0 nor 1",
    })
}

/// Writes the prefix of the message that begins [`PREFIX_BYTES`] after `start` and
/// ends with `out`. False if it is longer than a prefix can tell.
#[inline]
pub(super) fn write_prefix(out: &mut [u8], start: usize, flag: Flag) -> bool {
    let length = out.len() - start - PREFIX_BYTES;
    let Ok(length) = u32::try_from(length) else {
        return false;
    };
    out[start] = flag as u8;
    out[start + 1..start + PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_whole_however_they_are_cut() {
        let body = b"\0\0\0\0\x03abc\x01\0\0\0\0\0\0\0\0\x01d";
        for chunk in 1..=body.len() {
            let (mut assembly, mut messages) = (Assembly::default(), Vec::new());
            for part in body.chunks(chunk) {
                let keep = |it| messages.push(it);
                assembly.push(part, 3, Encoding::Gzip, keep).unwrap();
            }
            let whole = [
                (&b"abc"[..], Flag::Plain),
                (b"", Flag::Compressed),
                (b"d", Flag::Plain),
            ];
            let expected = whole.map(|(bytes, flag)| Message {
                bytes: Bytes::from_static(bytes),
                flag,
            });
            assert_eq!(messages, expected, "in chunks of {chunk}");
            assert!(!assembly.is_partial());
        }
    }

    #[test]
    fn a_message_is_refused_by_its_prefix() {
        let refuse = |prefix: &[u8], encoding, expected: Failed| {
            for chunk in 1..=prefix.len() {
                let mut assembly = Assembly::default();
                let mut parts = prefix.chunks(chunk);
                let refused = parts.find_map(|part| assembly.push(part, 3, encoding, drop).err());
                assert_eq!(refused.as_ref(), Some(&expected));
            }
        };
        let check = |prefix: &[u8], expected| refuse(prefix, Encoding::Unasked, expected);
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
        refuse(b"\x02\0\0\0\0", Encoding::Gzip, Failed::Protocol(flag));
        let large = Failed::TooLarge { bytes: 4, max: 3 };
        refuse(b"\x01\0\0\0\x04", Encoding::Gzip, large);
        let no_name = Failed::Protocol("a compressed message without grpc-encoding");
        refuse(b"\x01\0\0\0\0", Encoding::Identity, no_name);
        let other = "a message compressed by an encoding that was not offered";
        refuse(b"\x01\0\0\0\0", Encoding::Unknown, Failed::Protocol(other));
    }
}
