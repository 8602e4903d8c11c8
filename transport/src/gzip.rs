//! gRPC's `compression.md`, with gzip (RFC 1952): one message made smaller, and made
//! whole again within a limit.
//!
//! Who may compress what, and tells whom so, is decided elsewhere: in the client's
//! role by `client/`, on the server by the handler, which uses this and
//! [`Reply::compressed`](crate::rpc::Reply::compressed).

use std::cell::RefCell;
use std::fmt;

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// The name of it in `grpc-encoding` and `grpc-accept-encoding`.
pub const NAME: &str = "gzip";

/// The first level that makes its own Huffman codes: a quarter less than level 1 for half
/// as much time again, where level 6 gains a tenth more for three times as much.
const LEVEL: u32 = 2;
/// RFC 1951: distances of up to 32 KiB, 2^15.
const WINDOW_BITS: u8 = 15;
/// RFC 1952, section 2.3.1: `ID1`, `ID2`, and deflate.
const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
/// What is made at a time of a message that is too large.
const SCRATCH_BYTES: usize = 16 << 10;
/// RFC 1951: what deflate can make of one byte at the most. A block of 258-byte
/// repeats takes two bits for each, and nothing does better.
const MOST_BYTES_OF_ONE: usize = 1032;

thread_local! {
    /// It is large, and made ready again by a fraction of what it takes to make.
    static DEFLATE: RefCell<Compress> =
        RefCell::new(Compress::new_gzip(Compression::new(LEVEL), WINDOW_BITS));
}

/// Why a message has no content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is larger than it may be when it is whole.
    TooLarge {
        /// What it says of itself, bytes.
        bytes: usize,
        /// The most that is taken.
        max: usize,
    },
    /// It is no gzip, or cut short, or other than it says: its length or its checksum.
    Malformed,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes, max } => write!(
                f,
                "a compressed message of {bytes} bytes when it is whole; at most {max} are taken"
            ),
            Self::Malformed => f.write_str(MALFORMED),
        }
    }
}

impl std::error::Error for Refused {}

pub(crate) const MALFORMED: &str = "a compressed message that is no gzip, or not whole";

/// Compresses a message. `None`: it would not be smaller.
///
/// Takes memory for the message once more while it runs, of which what is not needed
/// is given back, and about 300 KiB for each thread that has ever compressed. Measured
/// by `examples/gzip_cost.rs`: 4 to 6 ns for each byte of JSON from 4 KiB on, 12 ns at
/// 1 KiB, and 10 to 25 ns for bytes that cannot be compressed. [`decompress`] took 1 to
/// 2 ns for each byte that it made.
#[must_use]
pub fn compress(message: &[u8]) -> Option<Vec<u8>> {
    let most = message.len().checked_sub(1)?;
    let mut out = Vec::with_capacity(most);
    let done = DEFLATE.with_borrow_mut(|deflate| {
        deflate.reset();
        deflate.compress_vec(message, &mut out, FlushCompress::Finish)
    });
    // The space that there is ends before one that is not smaller does.
    let is_whole = matches!(done, Ok(Status::StreamEnd));
    out.shrink_to_fit();
    is_whole.then_some(out)
}

/// Makes a compressed message whole: one member of RFC 1952, and nothing after it.
///
/// What it says of its length (`ISIZE`, section 2.3.1) bounds what is set aside, and
/// what is made of it: no byte above that is, and nothing at all is kept if that is more
/// than `max`, or more than so few bytes can come to. A bomb costs no more time than a
/// message of `max` bytes does, and 16 KiB.
///
/// # Errors
/// Why it has no content.
pub fn decompress(message: &[u8], max: usize) -> Result<Bytes, Refused> {
    let Some(&size) = message.last_chunk() else {
        return Err(Refused::Malformed);
    };
    let bytes = u32::from_le_bytes(size) as usize;
    let is_likely =
        message.starts_with(&MAGIC) && bytes <= message.len().saturating_mul(MOST_BYTES_OF_ONE);
    if !is_likely {
        return Err(Refused::Malformed);
    }
    if bytes > max {
        // The last four bytes of one that is cut short say anything.
        return Err(match goes_beyond(message, max) {
            true => Refused::TooLarge { bytes, max },
            false => Refused::Malformed,
        });
    }
    // One more, for a decoder that is to find the end of nothing.
    let mut out = Vec::with_capacity(bytes + 1);
    let mut inflate = Decompress::new_gzip(WINDOW_BITS);
    let done = inflate.decompress_vec(message, &mut out, FlushDecompress::Finish);
    let is_whole = matches!(done, Ok(Status::StreamEnd))
        && inflate.total_in() == message.len() as u64
        && out.len() == bytes;
    if !is_whole {
        return Err(Refused::Malformed);
    }
    Ok(out.into())
}

/// Whether a message is larger than `max` when it is whole: by making it so, and keeping
/// none of it.
#[cold]
fn goes_beyond(message: &[u8], max: usize) -> bool {
    let mut inflate = Decompress::new_gzip(WINDOW_BITS);
    let mut scratch = Vec::with_capacity(SCRATCH_BYTES);
    let mut left = message;
    while inflate.total_out() <= max as u64 {
        scratch.clear();
        let before = (inflate.total_in(), inflate.total_out());
        let went = inflate.decompress_vec(left, &mut scratch, FlushDecompress::None);
        let read = usize::try_from(inflate.total_in() - before.0).unwrap_or(usize::MAX);
        left = left.get(read..).unwrap_or_default();
        let goes_on = matches!(went, Ok(Status::Ok | Status::BufError));
        if !goes_on || before == (inflate.total_in(), inflate.total_out()) {
            break;
        }
    }
    inflate.total_out() > max as u64
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn text(bytes: usize) -> Vec<u8> {
        let words = b"the quick brown fox jumps over the lazy dog and goes home ";
        words.iter().copied().cycle().take(bytes).collect()
    }

    /// Bytes that nothing makes smaller.
    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        (0..bytes).map(|_| next()).collect()
    }

    #[test]
    fn what_is_compressed_is_smaller_and_comes_back() {
        for bytes in [100, 1000, 65_536, 1 << 20] {
            let message = text(bytes);
            let packed = compress(&message).unwrap();
            assert!(packed.len() < bytes, "{bytes}");
            assert_eq!(decompress(&packed, bytes).unwrap(), message);
            // As others read it.
            let mut read = Vec::new();
            let mut decoder = flate2::bufread::GzDecoder::new(&*packed);
            decoder.read_to_end(&mut read).unwrap();
            assert_eq!(read, message);
            let refused = Refused::TooLarge {
                bytes,
                max: bytes - 1,
            };
            assert_eq!(decompress(&packed, bytes - 1), Err(refused));
        }
    }

    #[test]
    fn what_would_not_be_smaller_stays() {
        for message in [noise(0), noise(1), text(17), noise(1000), noise(100_000)] {
            assert_eq!(compress(&message), None, "{} bytes", message.len());
        }
        // What came before leaves nothing behind.
        assert!(compress(&text(100)).is_some());
    }

    #[test]
    fn what_others_compress_is_read() {
        for level in [0, 1, 6, 9] {
            for message in [text(0), text(1), noise(1000), text(100_000)] {
                let mut packed = Vec::new();
                let level = Compression::new(level);
                let mut encoder = flate2::GzBuilder::new()
                    .filename("a name")
                    .comment("and more")
                    .read(&*message, level);
                encoder.read_to_end(&mut packed).unwrap();
                assert_eq!(decompress(&packed, 100_000).unwrap(), message);
            }
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        let message = text(10_000);
        let packed = compress(&message).unwrap();
        let check = |name: &str, packed: &[u8]| {
            let refused = decompress(packed, 1 << 30);
            assert_eq!(refused, Err(Refused::Malformed), "{name}");
        };
        for cut in 0..packed.len() {
            // The four bytes before the cut may say anything of the length.
            for max in [0, 10_000, 1 << 30] {
                let refused = decompress(&packed[..cut], max);
                let is_beyond = matches!(refused, Err(Refused::TooLarge { .. }));
                assert!(refused.is_err() && (!is_beyond || max == 0), "{cut} {max}");
            }
        }
        check("no gzip", &text(100));
        check("more after it", &[&packed[..], &packed[..]].concat());
        let end = packed.len();
        let with = |at: usize, byte: u8| {
            let mut packed = packed.clone();
            packed[at] ^= byte;
            packed
        };
        check("another checksum", &with(end - 8, 1));
        check("another length", &with(end - 4, 1));
        check("a shorter length", &with(end - 3, 0x20));
        check("a length beyond reach", &with(end - 2, 0xff));
        check("another method", &with(2, 1));
    }

    #[test]
    fn a_bomb_is_refused_by_what_it_says_or_makes_no_more_than_that() {
        let message = vec![0; 8 << 20];
        let packed = compress(&message).unwrap();
        assert!(packed.len() < 64 << 10);
        let (bytes, max) = (message.len(), 1 << 20);
        let refused = Refused::TooLarge { bytes, max };
        assert_eq!(decompress(&packed, max), Err(refused));
        assert_eq!(decompress(&packed, bytes).unwrap(), message);
        let mut humble = packed;
        let end = humble.len();
        humble[end - 4..].copy_from_slice(&100_u32.to_le_bytes());
        assert_eq!(decompress(&humble, max), Err(Refused::Malformed));
    }
}
