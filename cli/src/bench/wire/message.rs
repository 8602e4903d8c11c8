//! Requests and answers of the contracts, as protobuf by hand: what a load needs
//! of them is a handful of fields.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};

use super::super::mix::Operation;
use super::super::stats::{ErrorKind, Outcome};
use super::Request;
use super::api::{Api, Calls};

/// What stands before a message in gRPC: a byte that says whether it is
/// compressed, and its length.
pub(super) const PREFIX_BYTES: usize = 5;

/// Wire types of protobuf.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;
const FIXED_32: u64 = 5;

/// Writes the length-prefixed message of a call up to its value, which the
/// caller appends: it is the last field. Returns that value.
pub(super) fn write_request<'a>(
    calls: &'a Calls,
    request: Request<'_>,
    out: &mut Vec<u8>,
) -> &'a [u8] {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    let key_field = match calls.api {
        Api::Rpc | Api::Redis => 1,
        Api::V1 => {
            write_bytes(1, calls.namespace.as_bytes(), out);
            2
        }
    };
    write_bytes(key_field, request.key, out);
    let value: &[u8] = match request.operation {
        Operation::Set => {
            write_tag(key_field + 1, BYTES, out);
            write_varint(length(&calls.value), out);
            &calls.value
        }
        Operation::Incr => {
            write_tag(key_field + 1, VARINT, out);
            write_varint(1, out);
            &[]
        }
        Operation::Get | Operation::Del => &[],
    };
    let message = out.len() - start - PREFIX_BYTES + value.len();
    let prefix = u32::try_from(message).unwrap_or(u32::MAX).to_be_bytes();
    out[start + 1..start + PREFIX_BYTES].copy_from_slice(&prefix);
    value
}

/// What an answer says: `message` is without its prefix.
pub(super) fn outcome(
    calls: &Calls,
    operation: Operation,
    key_bytes: usize,
    message: &[u8],
) -> Result<Outcome, ErrorKind> {
    match operation {
        Operation::Get => {
            let found = match calls.api {
                Api::V1 => field(message, 1).map(|entry| field(entry, 2).unwrap_or_default()),
                // An empty value is not written at all.
                Api::Rpc | Api::Redis => Some(field(message, 1).unwrap_or_default()),
            };
            found.map_or(Ok(Outcome::Miss), |value| read(calls, value.len()))
        }
        Operation::Set => Ok(Outcome::Written(key_bytes + calls.value.len())),
        Operation::Del | Operation::Incr => Ok(Outcome::Done),
    }
}

/// A value of so many bytes was read: good if they are as many as are written.
pub(super) fn read(calls: &Calls, bytes: usize) -> Result<Outcome, ErrorKind> {
    if bytes == calls.value.len() {
        Ok(Outcome::Hit(bytes))
    } else {
        Err(("DATA_LOSS", Some("VALUE_LENGTH".into())))
    }
}

/// The reason in a `grpc-status-details-bin`: the `ErrorInfo` among the details
/// of a `google.rpc.Status`.
pub(super) fn reason(details: &[u8]) -> Option<String> {
    let status = BASE64_STANDARD_NO_PAD
        .decode(details)
        .or_else(|_| BASE64_STANDARD.decode(details))
        .ok()?;
    fields(&status).find_map(|(number, detail)| {
        let is_info = number == 3 && field(detail, 1)?.ends_with(b"google.rpc.ErrorInfo");
        let reason = field(field(detail, 2).filter(|_| is_info)?, 1)?;
        String::from_utf8(reason.to_vec()).ok()
    })
}

/// The first field of that number, if it is one of bytes.
pub(in crate::bench) fn field(message: &[u8], number: u64) -> Option<&[u8]> {
    fields(message).find_map(|(each, value)| (each == number).then_some(value))
}

/// The fields of bytes, up to the first that cannot be read.
fn fields(mut message: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    std::iter::from_fn(move || {
        loop {
            let (tag, rest) = read_varint(message)?;
            let skip = match tag & 7 {
                VARINT => {
                    message = read_varint(rest)?.1;
                    continue;
                }
                FIXED_64 => 8,
                FIXED_32 => 4,
                BYTES => {
                    let (length, rest) = read_varint(rest)?;
                    let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                    message = rest;
                    return Some((tag >> 3, value));
                }
                _ => return None,
            };
            message = rest.split_at_checked(skip)?.1;
        }
    })
}

fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (turn, &byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * turn);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[turn + 1..]));
        }
    }
    None
}

pub(in crate::bench) fn write_bytes(number: u64, bytes: &[u8], out: &mut Vec<u8>) {
    write_tag(number, BYTES, out);
    write_varint(length(bytes), out);
    out.extend_from_slice(bytes);
}

fn write_tag(number: u64, wire_type: u64, out: &mut Vec<u8>) {
    write_varint(number << 3 | wire_type, out);
}

fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::api::tests::calls;
    use super::*;

    fn written(api: Api, operation: Operation) -> Vec<u8> {
        let calls = Calls {
            value: vec![7; 3].into(),
            ..calls(api)
        };
        let request = Request {
            operation,
            key: b"k1",
            index: 1,
        };
        let mut out = Vec::new();
        let value = write_request(&calls, request, &mut out).to_vec();
        out.extend(value);
        out
    }

    #[test]
    fn requests() {
        for (api, operation, bytes) in [
            (Api::Rpc, Operation::Get, &b"\0\0\0\0\x04\x0a\x02k1"[..]),
            (
                Api::Rpc,
                Operation::Set,
                b"\0\0\0\0\x09\x0a\x02k1\x12\x03\x07\x07\x07",
            ),
            (
                Api::V1,
                Operation::Get,
                b"\0\0\0\0\x0b\x0a\x05bench\x12\x02k1",
            ),
            (
                Api::V1,
                Operation::Incr,
                b"\0\0\0\0\x0d\x0a\x05bench\x12\x02k1\x18\x01",
            ),
        ] {
            assert_eq!(written(api, operation), bytes, "{api:?} {operation:?}");
        }
    }

    #[test]
    fn answers() {
        let value_of = |count: u8| [vec![10, count], vec![7; count.into()]].concat();
        let hit = |count: u8| {
            // A version before the value: fields come in any order.
            let entry = [
                vec![0x21, 1, 2, 3, 4, 5, 6, 7, 8, 18, count],
                vec![7; count.into()],
            ];
            let entry = entry.concat();
            [vec![10, u8::try_from(entry.len()).unwrap()], entry].concat()
        };
        let wrong = || Err(("DATA_LOSS", Some("VALUE_LENGTH".to_owned())));
        for (api, message, expected) in [
            (Api::Rpc, value_of(100), Ok(Outcome::Hit(100))),
            (Api::Rpc, value_of(99), wrong()),
            (Api::Rpc, Vec::new(), wrong()),
            (Api::V1, hit(100), Ok(Outcome::Hit(100))),
            (Api::V1, hit(3), wrong()),
            (Api::V1, vec![18, 0], Ok(Outcome::Miss)),
            (Api::V1, Vec::new(), Ok(Outcome::Miss)),
        ] {
            let found = outcome(&calls(api), Operation::Get, 16, &message);
            assert_eq!(found, expected, "{api:?} {message:?}");
        }
        let set = outcome(&calls(Api::V1), Operation::Set, 16, &[]);
        assert_eq!(set, Ok(Outcome::Written(116)));
    }

    #[test]
    fn the_reason_of_an_error() {
        let url = b"type.googleapis.com/google.rpc.ErrorInfo";
        let mut info = Vec::new();
        write_bytes(1, b"RATE_LIMITED", &mut info);
        let mut any = Vec::new();
        write_bytes(1, url, &mut any);
        write_bytes(2, &info, &mut any);
        let mut status = vec![8, 8];
        write_bytes(2, b"slow down", &mut status);
        write_bytes(3, &any, &mut status);
        for text in [
            BASE64_STANDARD.encode(&status),
            BASE64_STANDARD_NO_PAD.encode(&status),
        ] {
            assert_eq!(reason(text.as_bytes()).as_deref(), Some("RATE_LIMITED"));
        }
        assert_eq!(reason(b"!"), None);
        assert_eq!(reason(b""), None);
    }
}
