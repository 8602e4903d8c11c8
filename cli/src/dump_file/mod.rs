//! The file that `larder dump` writes and `larder load` reads.
//!
//! Binary, because a cache holds bytes: text would have to escape or inflate
//! them, and a file that no program can half understand is not edited by
//! accident. It is written and read front to back, holding one block.
//!
//! ```text
//! file    = head block* end
//! head    = 89 "LARDER" 0D 0A 1A 0A, version 01          12 bytes
//! block   = "B", length of payload u32, payload, checksum
//! payload = entry+
//! entry   = length of key u32, length of value u32, flags u32,
//!           expiry: seconds i64 and nanoseconds u32 since 1970 (UTC),
//!           or 0 and FFFFFFFF for never; key; value
//! end     = "E", number of entries u64, checksum
//! ```
//!
//! Numbers are little-endian. Each checksum is the SHA-256 of the checksum
//! before it (of the head, for the first) and of all bytes since, so that a
//! block that is damaged, missing, doubled or out of place is noticed before
//! any of its entries is used. A file without its end was cut off. The head is
//! made like that of PNG: a transfer that changes line ends or drops the
//! eighth bit spoils it.
//!
//! Versions of the entries and their account are not kept: a load writes anew.

mod reader;
mod writer;

pub(crate) use reader::{DumpReader, ReadError};
pub(crate) use writer::DumpWriter;

/// What every file begins with; the last byte is the version of the format.
const HEAD: [u8; 12] = *b"\x89LARDER\r\n\x1a\n\x01";

/// Begins a block.
const BLOCK: u8 = b'B';

/// Begins the end.
const END: u8 = b'E';

/// Bytes of an entry beside its key and value.
const ENTRY_HEAD_BYTES: usize = 24;

/// Bytes of a checksum.
const CHECKSUM_BYTES: usize = 32;

/// A block ends once it holds this much, bytes; an entry is never split.
const BLOCK_BYTES: usize = 256 << 10;

/// Largest payload of a block, bytes. Far more than a server lets a value be,
/// and what a hostile file can make a reader hold.
const MAX_PAYLOAD_BYTES: usize = 256 << 20;

/// Nanoseconds that mean "never".
const NEVER: u32 = u32::MAX;

const _: () = assert!(BLOCK_BYTES < MAX_PAYLOAD_BYTES);

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use larder_client::Entry;

    use super::*;

    fn entries() -> Vec<Entry> {
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_900_000_000, 999_999_999);
        let early = SystemTime::UNIX_EPOCH - Duration::new(3, 250_000_000);
        vec![
            Entry::new("plain", "value"),
            Entry::new(&b"\0\xff\n"[..], &b"\x89LARDER\r\n\x1a\nBE"[..]).with_flags(u32::MAX),
            Entry::new("empty", "").with_expire_time(Some(time)),
            Entry::new("old", "x").with_expire_time(Some(early)),
            Entry::new("epoch", "x").with_expire_time(Some(SystemTime::UNIX_EPOCH)),
        ]
    }

    fn write(entries: &[Entry], block_bytes: usize) -> Vec<u8> {
        let mut writer = DumpWriter::with_block_bytes(Vec::new(), block_bytes).unwrap();
        for entry in entries {
            writer.push(entry).unwrap();
        }
        writer.finish().unwrap()
    }

    fn read(file: &[u8]) -> Result<Vec<Entry>, ReadError> {
        let mut reader = DumpReader::new(file)?;
        let mut entries = Vec::new();
        while let Some(block) = reader.next_block()? {
            entries.extend(block);
        }
        Ok(entries)
    }

    #[test]
    fn round_trip() {
        for block_bytes in [1, 60, BLOCK_BYTES] {
            assert_eq!(read(&write(&entries(), block_bytes)).unwrap(), entries());
        }
        assert_eq!(read(&write(&[], BLOCK_BYTES)).unwrap(), []);
        let large = vec![
            Entry::new("k", vec![7; 3 << 20]),
            Entry::new("l", vec![8; 300 << 10]),
        ];
        assert_eq!(read(&write(&large, BLOCK_BYTES)).unwrap(), large);
    }

    #[test]
    fn the_format_does_not_change() {
        use sha2::{Digest as _, Sha256};
        let entry = Entry::new("k", "vv").with_flags(5);
        let file = write(&[entry], BLOCK_BYTES);
        let mut expected = b"\x89LARDER\r\n\x1a\n\x01".to_vec();
        let mut block = b"B\x1b\0\0\0\x01\0\0\0\x02\0\0\0\x05\0\0\0".to_vec();
        block.extend(b"\0\0\0\0\0\0\0\0\xff\xff\xff\xffkvv");
        let before = Sha256::digest(&expected);
        let checksum = Sha256::digest([&before[..], &block].concat());
        expected.extend(block);
        expected.extend(checksum);
        let end = b"E\x01\0\0\0\0\0\0\0";
        expected.extend(end);
        expected.extend(Sha256::digest([&checksum[..], end].concat()));
        assert_eq!(file, expected);
    }

    #[test]
    fn every_truncation_is_noticed() {
        for block_bytes in [1, BLOCK_BYTES] {
            let file = write(&entries(), block_bytes);
            for length in 0..file.len() {
                assert!(read(&file[..length]).is_err(), "{length} of {}", file.len());
            }
            let mut longer = file.clone();
            longer.push(0);
            assert!(read(&longer).is_err());
        }
    }

    #[test]
    fn every_damage_is_noticed() {
        let file = write(&entries(), 1);
        for at in 0..file.len() {
            for bit in 0..8 {
                let mut damaged = file.clone();
                damaged[at] ^= 1 << bit;
                assert!(read(&damaged).is_err(), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn no_entry_of_a_damaged_block_is_given_out() {
        let mut file = write(&entries(), BLOCK_BYTES);
        let value = file.windows(5).position(|bytes| bytes == b"value").unwrap();
        file[value] = b'V';
        let mut reader = DumpReader::new(&file[..]).unwrap();
        assert!(matches!(reader.next_block(), Err(ReadError::Damaged(_))));
    }

    #[test]
    fn doubled_and_missing_blocks_are_noticed() {
        let file = write(&entries()[..3], 1);
        let block = |at: usize| {
            let length = u32::from_le_bytes(file[at + 1..at + 5].try_into().unwrap());
            at..at + 5 + usize::try_from(length).unwrap() + CHECKSUM_BYTES
        };
        let first = block(HEAD.len());
        let second = block(first.end);
        let without = [&file[..second.start], &file[second.end..]].concat();
        assert!(read(&without).is_err());
        let doubled = [&file[..second.end], &file[second.start..]].concat();
        assert!(read(&doubled).is_err());
    }

    /// A file may claim any length: nothing is allocated on its word.
    #[test]
    fn hostile_lengths_are_bounded() {
        for length in [
            0,
            1,
            23,
            MAX_PAYLOAD_BYTES,
            MAX_PAYLOAD_BYTES + 1,
            0xffff_ffff,
        ] {
            let mut file = HEAD.to_vec();
            file.push(BLOCK);
            file.extend(u32::try_from(length).unwrap().to_le_bytes());
            file.extend([0; 100]);
            assert!(read(&file).is_err(), "{length}");
        }
        // A payload with a true checksum, whose entry claims too much.
        use sha2::{Digest as _, Sha256};
        for (key, value) in [(u32::MAX, u32::MAX), (0, u32::MAX), (1, 1), (u32::MAX, 0)] {
            let mut block = vec![BLOCK];
            block.extend(25u32.to_le_bytes());
            block.extend(key.to_le_bytes());
            block.extend(value.to_le_bytes());
            block.extend([0; 17]);
            let mut file = HEAD.to_vec();
            let checksum = Sha256::digest([&Sha256::digest(HEAD)[..], &block].concat());
            file.extend(block);
            file.extend(checksum);
            assert!(
                matches!(read(&file), Err(ReadError::Damaged(_))),
                "{key} {value}"
            );
        }
    }

    #[test]
    fn other_files_are_named_as_such() {
        assert!(matches!(read(b"hello, world"), Err(ReadError::NotADump)));
        assert!(matches!(read(b"{}"), Err(ReadError::NotADump)));
        let mut newer = write(&[], BLOCK_BYTES);
        newer[11] = 2;
        assert!(matches!(read(&newer), Err(ReadError::Version(2))));
        assert!(matches!(read(&HEAD), Err(ReadError::CutOff { entries: 0 })));
    }
}
