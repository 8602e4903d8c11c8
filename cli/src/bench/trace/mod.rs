//! Traces of real requests: files, compressed or not, read as a stream. Memory
//! does not grow with the file.

mod compression;
mod parse;

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::ValueEnum;

use self::parse::Parser;
pub(super) use self::parse::TraceError;

/// Read at a time, bytes.
const BUFFER_BYTES: usize = 64 << 10;

/// One request of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    /// What is asked for.
    pub(super) key: u64,
    /// How large it is, bytes, where the format tells.
    pub(super) size: Option<u64>,
}

/// How a trace is written, once it is no longer compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum TraceFormat {
    /// Text: `FIRST COUNT IGNORED NUMBER`, a line for COUNT keys from FIRST on (ARC)
    Lis,
    /// 32-bit big-endian keys (cache2k)
    I32be,
    /// Text: a key a line, `*` is no request (LIRS)
    Ids,
    /// Text with a header that names a column `lbn` and perhaps `size` (libCacheSim)
    Csv,
}

/// A trace that is being read.
pub(super) struct Trace {
    parser: Parser<Box<dyn BufRead>>,
    read_bytes: Arc<AtomicU64>,
    file_bytes: u64,
}

impl TraceFormat {
    /// By the name's ending, in front of that of a compression.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let (name, _) = compression::split(&name);
        let (_, ending) = name.rsplit_once('.')?;
        Self::from_str(ending, true).ok()
    }
}

impl fmt::Display for TraceFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lis => "lis",
            Self::I32be => "i32be",
            Self::Ids => "ids",
            Self::Csv => "csv",
        })
    }
}

impl Trace {
    /// Opens a file. Its name tells how it is compressed.
    ///
    /// # Errors
    ///
    /// If it cannot be opened, or its beginning is not what its name says.
    pub(super) fn open(path: &Path, format: TraceFormat) -> Result<Self, TraceError> {
        let file = std::fs::File::open(path)?;
        let file_bytes = file.metadata()?.len();
        let read_bytes = Arc::new(AtomicU64::new(0));
        let counted = Counted {
            from: file,
            bytes: Arc::clone(&read_bytes),
        };
        let name = path.to_string_lossy().to_ascii_lowercase();
        let (_, compression) = compression::split(&name);
        let plain =
            compression::reader(compression, BufReader::with_capacity(BUFFER_BYTES, counted))?;
        Ok(Self {
            parser: Parser::new(format, plain)?,
            read_bytes,
            file_bytes,
        })
    }

    /// Bytes of the file: read so far, and all.
    pub(super) fn progress(&self) -> (u64, u64) {
        (self.read_bytes.load(Ordering::Relaxed), self.file_bytes)
    }
}

impl Iterator for Trace {
    type Item = Result<Request, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.parser.next()
    }
}

/// Counts what was read.
struct Counted<R> {
    from: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        let bytes = u64::try_from(read).unwrap_or_default();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn formats_by_name() {
        for (name, format) in [
            ("oltp.lis.zst", Some(TraceFormat::Lis)),
            ("dir.csv/web07.i32be.xz", Some(TraceFormat::I32be)),
            ("sprite.ids.gz", Some(TraceFormat::Ids)),
            ("cloud.csv", Some(TraceFormat::Csv)),
            ("CLOUD.CSV.GZ", Some(TraceFormat::Csv)),
            ("trace.zst", None),
            ("trace.txt.gz", None),
            ("lis", None),
            ("", None),
        ] {
            assert_eq!(TraceFormat::of(Path::new(name)), format, "{name}");
        }
    }

    #[test]
    fn compressed_files_are_read_and_cut_ones_refused() {
        let dir = tempfile::tempdir().unwrap();
        let text: String = (0..5_000).map(|id| format!("{}\n", id % 97)).collect();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        let gzip = gzip.finish().unwrap();
        // Two members one after the other are one file.
        let twice = [gzip.clone(), gzip.clone()].concat();
        let zstd = zstd::encode_all(text.as_bytes(), 1).unwrap();
        for (name, bytes, requests) in [
            ("a.ids", text.as_bytes(), Some(5_000)),
            ("a.ids.gz", &gzip, Some(5_000)),
            ("b.ids.gz", &twice, Some(10_000)),
            ("a.ids.zst", &zstd, Some(5_000)),
            ("cut.ids.gz", &gzip[..gzip.len() - 20], None),
            ("cut.ids.zst", &zstd[..zstd.len() - 5], None),
            ("wrong.ids.zst", &gzip, None),
            ("wrong.ids.gz", &zstd, None),
            ("wrong.ids.xz", &zstd, None),
            ("empty.ids", b"", Some(0)),
        ] {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let read = Trace::open(&path, TraceFormat::Ids)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>);
            assert_eq!(read.ok().map(|all| all.len()), requests, "{name}");
        }
        assert!(Trace::open(&dir.path().join("missing.ids"), TraceFormat::Ids).is_err());
    }

    #[test]
    fn an_xz_file_is_read() {
        // "7\n8\n*\n7\n", as xz 5 writes it.
        let bytes: &[u8] = XZ;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.ids.xz");
        std::fs::write(&path, bytes).unwrap();
        let keys: Vec<_> = Trace::open(&path, TraceFormat::Ids)
            .unwrap()
            .map(|request| request.unwrap().key)
            .collect();
        assert_eq!(keys, [7, 8, 7]);
        std::fs::write(&path, &bytes[..bytes.len() - 30]).unwrap();
        let mut cut = Trace::open(&path, TraceFormat::Ids).unwrap();
        assert!(cut.any(|request| request.is_err()));
    }

    /// A small file of the real tool.
    const XZ: &[u8] = &[
        0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x04, 0xe6, 0xd6, 0xb4, 0x46, 0x02, 0x00, 0x21,
        0x01, 0x16, 0x00, 0x00, 0x00, 0x74, 0x2f, 0xe5, 0xa3, 0x01, 0x00, 0x07, 0x37, 0x0a, 0x38,
        0x0a, 0x2a, 0x0a, 0x37, 0x0a, 0x00, 0xf5, 0x1d, 0x14, 0xec, 0x93, 0x2e, 0xc8, 0x93, 0x00,
        0x01, 0x20, 0x08, 0xbb, 0x19, 0xd9, 0xbb, 0x1f, 0xb6, 0xf3, 0x7d, 0x01, 0x00, 0x00, 0x00,
        0x00, 0x04, 0x59, 0x5a,
    ];
}
