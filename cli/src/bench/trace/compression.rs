//! Files as they lie on the disk, made plain while they are read.

use std::io::{self, BufRead, BufReader};

use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;

/// Memory that a file may ask for to be read, as a power of two of bytes: the
/// window of zstd's strongest level, and what `zstd` itself grants.
const MAX_WINDOW_LOG: u32 = 27;

/// The same for xz, KiB.
const MAX_XZ_KIB: u32 = 1 << (MAX_WINDOW_LOG - 10);

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Zstd,
    Xz,
    Gzip,
}

/// The name without the ending of a compression, and the compression.
pub(super) fn split(name: &str) -> (&str, Compression) {
    [
        (".zst", Compression::Zstd),
        (".xz", Compression::Xz),
        (".gz", Compression::Gzip),
    ]
    .into_iter()
    .find_map(|(ending, compression)| Some((name.strip_suffix(ending)?, compression)))
    .unwrap_or((name, Compression::None))
}

/// Reads what was compressed. Files made of several compressed parts are read
/// to their end.
pub(super) fn reader(
    compression: Compression,
    from: impl BufRead + 'static,
) -> io::Result<Box<dyn BufRead>> {
    Ok(match compression {
        Compression::None => Box::new(from),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(from)?;
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            Box::new(BufReader::with_capacity(super::BUFFER_BYTES, decoder))
        }
        Compression::Xz => {
            let decoder = XzReader::new_mem_limit(from, true, MAX_XZ_KIB);
            Box::new(BufReader::with_capacity(super::BUFFER_BYTES, decoder))
        }
        Compression::Gzip => Box::new(BufReader::with_capacity(
            super::BUFFER_BYTES,
            MultiGzDecoder::new(from),
        )),
    })
}
