//! The calls of `rpc.Cache` and one of `larder.cache.v1`, as bytes. Attackers show no token: a
//! server that listens on this machine alone asks for none.

use larder_transport::hpack::write_literal;

/// `/rpc.Cache/Get`.
pub(crate) const GET: &str = "/rpc.Cache/Get";
/// `/rpc.Cache/Store`.
pub(crate) const STORE: &str = "/rpc.Cache/Store";

/// `/larder.cache.v1.CacheService/Dump`.
pub(crate) const DUMP: &str = "/larder.cache.v1.CacheService/Dump";

/// The key of a small value.
pub(crate) const SMALL: &str = "small";
/// The key of a value of [`LARGE_BYTES`].
pub(crate) const LARGE: &str = "large";
/// Bytes of the large value.
pub(crate) const LARGE_BYTES: usize = 64 * 1024;

/// The field block of a gRPC request.
pub(crate) fn grpc_block(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let usual = [("content-type", "application/grpc"), ("te", "trailers")];
    block(path, &[&usual, more].concat())
}

/// The field block of a `POST` that no lane of gRPC takes.
pub(crate) fn block(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    let usual = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
    ];
    for (name, value) in usual.iter().chain(more) {
        write_literal(&mut block, name.as_bytes(), value.as_bytes());
    }
    block
}

/// A `GetReq`, with its prefix.
pub(crate) fn get(key: &str) -> Vec<u8> {
    prefixed(&field(1, key.as_bytes()))
}

/// A `StoreReq`, with its prefix.
pub(crate) fn store(key: &str, value: &[u8]) -> Vec<u8> {
    prefixed(&[field(1, key.as_bytes()), field(2, value)].concat())
}

/// A message of gRPC with its prefix.
pub(crate) fn prefixed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0], &length.to_be_bytes()[..], message].concat()
}

/// A field of bytes; none if they are empty, as proto3 has it.
pub(crate) fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if !bytes.is_empty() {
        out.push(number << 3 | 2);
        let mut length = bytes.len();
        while length >= 0x80 {
            out.push(length.to_le_bytes()[0] | 0x80);
            length >>= 7;
        }
        out.push(length.to_le_bytes()[0]);
        out.extend_from_slice(bytes);
    }
    out
}
