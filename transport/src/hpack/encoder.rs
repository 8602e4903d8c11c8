//! RFC 7541, section 6: the representations that a server of RPCs writes.
//!
//! Almost every response has the same few fields. Each is inserted into the
//! client's dynamic table the first time and is one byte from then on. All else
//! is a literal without indexing, which means the same wherever it stands: a
//! block of such literals can be written long before it is sent.

use super::{ENTRY_OVERHEAD_BYTES, integer, static_table, string};

/// Table size below which nothing is inserted: room for every [`Repeated`]
/// field, so that none is ever evicted.
const SMALLEST_TABLE_BYTES: u32 = 256;

/// A field that is worth a place in the client's dynamic table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeated {
    /// `content-type: application/grpc`
    ContentTypeGrpc,
    /// `grpc-status: 0`
    GrpcStatusOk,
}

impl Repeated {
    const COUNT: usize = 2;
    const ALL: [Self; Self::COUNT] = [Self::ContentTypeGrpc, Self::GrpcStatusOk];

    pub(crate) const fn field(self) -> (&'static str, &'static str) {
        match self {
            Self::ContentTypeGrpc => ("content-type", "application/grpc"),
            Self::GrpcStatusOk => ("grpc-status", "0"),
        }
    }

    /// Index of the name in the static table; 0 if it has none.
    const fn name_index(self) -> usize {
        match self {
            Self::ContentTypeGrpc => 31,
            Self::GrpcStatusOk => 0,
        }
    }
}

const _: () = {
    let mut bytes = 0;
    let mut index = 0;
    while index < Repeated::COUNT {
        let (name, value) = Repeated::ALL[index].field();
        bytes += name.len() + value.len() + ENTRY_OVERHEAD_BYTES;
        index += 1;
    }
    assert!(bytes <= SMALLEST_TABLE_BYTES as usize);
};

/// The indexed representation (section 6.1) of the newest entry of the dynamic
/// table.
const FIRST_INDEX_BYTE: u8 = 0x80 | 62;
const _: () = assert!(static_table::LENGTH == 61);

/// The sending end of one direction of a connection. Blocks must be sent in the
/// order in which they are written.
#[derive(Debug)]
pub struct Encoder {
    /// For each repeated field, how many were inserted up to and with it.
    inserted_as: [Option<u8>; Repeated::COUNT],
    insertions: u8,
    /// Section 4.2: to be told at the next block's beginning.
    update: Option<u32>,
    /// The table's size as the client knows it.
    table_bytes: u32,
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            inserted_as: [None; Repeated::COUNT],
            insertions: 0,
            update: None,
            table_bytes: 4096,
        }
    }
}

impl Encoder {
    /// Takes over the client's `SETTINGS_HEADER_TABLE_SIZE`. A larger table is
    /// not made use of.
    pub fn set_table_limit(&mut self, limit: u32) {
        if limit < self.table_bytes {
            let size = if limit < SMALLEST_TABLE_BYTES {
                // Everything is evicted, and nothing is inserted from now on.
                self.inserted_as = [None; Repeated::COUNT];
                0
            } else {
                limit
            };
            self.table_bytes = size;
            self.update = Some(size);
        }
    }

    /// Writes what must stand before a block's first field.
    #[inline]
    pub fn begin_block(&mut self, out: &mut Vec<u8>) {
        if let Some(size) = self.update.take() {
            integer::encode(out, size as usize, 5, 0x20);
        }
    }

    /// Writes a repeated field.
    #[inline]
    pub fn write_repeated(&mut self, out: &mut Vec<u8>, field: Repeated) {
        match self.index_byte(field) {
            Some(byte) => out.push(byte),
            None => self.write_first(out, field),
        }
    }

    /// All of a block that holds one repeated field, if it is one byte.
    #[inline]
    pub fn known(&self, field: Repeated) -> Option<u8> {
        match self.update {
            None => self.index_byte(field),
            Some(_) => None,
        }
    }

    /// The indexed representation (section 6.1) of a field that was inserted.
    #[inline]
    fn index_byte(&self, field: Repeated) -> Option<u8> {
        self.inserted_as[field as usize].map(|place| {
            // So few fields are inserted that each index fits the prefix.
            FIRST_INDEX_BYTE + (self.insertions - place)
        })
    }

    fn write_first(&mut self, out: &mut Vec<u8>, field: Repeated) {
        let (name, value) = field.field();
        if self.table_bytes == 0 {
            write_literal(out, name.as_bytes(), value.as_bytes());
            return;
        }
        integer::encode(out, field.name_index(), 6, 0x40);
        if field.name_index() == 0 {
            string::write(out, name.as_bytes());
        }
        string::write(out, value.as_bytes());
        self.insertions += 1;
        self.inserted_as[field as usize] = Some(self.insertions);
    }
}

/// `:status: 200`, indexed.
pub(crate) const STATUS_200: u8 = 0x88;

/// Writes `:status` (section 6.1 where the static table has it).
pub(crate) fn write_status(out: &mut Vec<u8>, status: u16) {
    match status {
        200 => out.push(STATUS_200),
        204 => out.push(0x89),
        206 => out.push(0x8a),
        304 => out.push(0x8b),
        400 => out.push(0x8c),
        404 => out.push(0x8d),
        500 => out.push(0x8e),
        _ => {
            out.push(0x08);
            string::write(out, status.to_string().as_bytes());
        }
    }
}

/// Writes a literal without indexing and with a literal name (section 6.2.2).
/// It means the same in any block. `name` is in lower case.
pub fn write_literal(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.push(0);
    string::write(out, name);
    string::write(out, value);
}

/// Writes a literal that no one on the way may keep in a table (sections 6.2.3 and
/// 7.1.3), with a literal name. `name` is in lower case.
pub fn write_never_indexed(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.push(0x10);
    string::write(out, name);
    string::write(out, value);
}

/// Writes a literal with incremental indexing and with a literal name (section
/// 6.2.1): from now on it is the newest entry of the peer's dynamic table. For
/// clients, whose requests repeat whatever they like; whoever writes it knows the
/// table's limit. `name` is in lower case.
pub fn write_inserted(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.push(0x40);
    string::write(out, name);
    string::write(out, value);
}

/// Writes an entry of the static table (1 to 61) or of the peer's dynamic table
/// (from 62, the newest first) by its index (section 6.1).
#[inline]
pub fn write_indexed(out: &mut Vec<u8>, index: usize) {
    integer::encode(out, index, 7, 0x80);
}

/// Writes a new size of the dynamic table (section 6.3); it stands before a
/// block's first field.
pub fn write_table_size(out: &mut Vec<u8>, bytes: usize) {
    integer::encode(out, bytes, 5, 0x20);
}
