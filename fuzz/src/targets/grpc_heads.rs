//! Heads of requests: RFC 9113, section 8, and gRPC over HTTP/2, "Requests".
//! Whether a head is malformed, which lane takes it, and what the handler is told,
//! against a second reading of the rules.

use larder_transport::connection::End;
use larder_transport::error_codes::ErrorCode;
use larder_transport::frame::{PREFACE, write_settings};
use larder_transport::hpack::write_literal;

use crate::features::{note, note_size};
use crate::harness::{Peer, Response, Session, data_frame, headers_frame, prefixed, small_limits};
use crate::input::Input;

type Field = (Vec<u8>, Vec<u8>);

const NAMES: [&str; 24] = [
    ":method",
    ":scheme",
    ":path",
    ":authority",
    ":status",
    "content-type",
    "te",
    "grpc-timeout",
    "grpc-encoding",
    "content-length",
    "host",
    "connection",
    "upgrade",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "x-meta",
    "x-meta-bin",
    "grpc-accept-encoding",
    "user-agent",
    "authorization",
    "cookie",
    "Upper",
    "",
];

const VALUES: [&str; 24] = [
    "POST",
    "GET",
    "CONNECT",
    "OPTIONS",
    "http",
    "/t.T/Head",
    "/t.T/Mirror",
    "*",
    "host",
    "user@host",
    "application/grpc",
    "application/grpc+proto",
    "application/grpc+json",
    "trailers",
    "gzip",
    "identity",
    "5",
    "0",
    "1S",
    "99999999H",
    "20m",
    "7u",
    "9n",
    "",
];

/// A list of fields, which begins as a good request does unless the input says
/// otherwise.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut fields = Vec::new();
    let own = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    let leave_out = input.byte();
    let usual = [
        own(":method", "POST"),
        own(":scheme", "http"),
        own(":path", "/t.T/Head"),
        own("content-type", "application/grpc"),
    ];
    for (place, field) in usual.into_iter().enumerate() {
        if leave_out & 1 << place == 0 {
            fields.push(field);
        }
    }
    while !input.is_empty() && fields.len() < 40 {
        let field = read_field(&mut input);
        let place = if input.one_in(3) {
            input.below(fields.len() + 1)
        } else {
            fields.len()
        };
        fields.insert(place, field);
    }
    check(&fields);
}

fn read_field(input: &mut Input<'_>) -> Field {
    let part = |input: &mut Input<'_>, list: &[&str; 24]| {
        let choice = input.below(32);
        match list.get(choice) {
            Some(text) => text.as_bytes().to_vec(),
            None => {
                let length = input.below(12);
                input.take(length).to_vec()
            }
        }
    };
    (part(input, &NAMES), part(input, &VALUES))
}

fn check(fields: &[Field]) {
    let mut block = Vec::new();
    for (name, value) in fields {
        write_literal(&mut block, name, value);
    }
    let got = answer(&block);
    let expected = expected(fields);
    note(match expected {
        Expected::Malformed => 0,
        Expected::Connect => 1,
        Expected::General => 2,
        Expected::Typed(nanos) => 3 + nanos.leading_zeros(),
    });
    note_size("fields", fields.len());
    match expected {
        Expected::Malformed => {
            assert_eq!(got.reset, Some(ErrorCode::PROTOCOL_ERROR), "{fields:?}");
            // One that only its length makes malformed is reset without an answer.
            assert!(matches!(got.http_status, None | Some(400)), "{fields:?}");
        }
        Expected::Connect => assert_eq!(got.http_status, Some(405)),
        Expected::General => {
            // The types of `http` have no word for everything that is allowed.
            let status = got.http_status;
            assert!(matches!(status, Some(200 | 400)), "{fields:?}: {got:?}");
            assert_eq!(got.grpc_status, None);
        }
        Expected::Typed(0) => assert_eq!(got.grpc_status, Some(4), "{fields:?}"),
        Expected::Typed(nanos) => {
            let nanos = (nanos != u128::MAX).then_some(nanos);
            let mut message = format!("{nanos:?}\n").into_bytes();
            for (name, value) in fields.iter().filter(|(name, _)| !name.starts_with(b":")) {
                message.extend(prefixed(name));
                message.extend(prefixed(value));
            }
            assert_eq!(got.grpc_status, Some(0), "{fields:?}: {got:?}");
            assert!(got.content == prefixed(&message), "{fields:?}: {got:?}");
        }
    }
}

/// Sends the request with an empty message.
fn answer(block: &[u8]) -> Response {
    let mut session = Session::new(small_limits(), Peer::new(None));
    let mut bytes = PREFACE.to_vec();
    write_settings(&mut bytes, &[]);
    headers_frame(&mut bytes, 1, block, End::Open);
    data_frame(&mut bytes, 1, &prefixed(b""), End::Stream);
    session.send(&bytes);
    session.settle();
    assert_eq!(session.failure(), None);
    let response = session.peer.response(1).clone();
    session.lost();
    response
}

#[derive(Debug)]
enum Expected {
    Malformed,
    /// A tunnel, which this server does not make.
    Connect,
    General,
    /// Nanoseconds that the call has; the most if it has no deadline.
    Typed(u128),
}

fn expected(fields: &[Field]) -> Expected {
    if is_malformed(fields) {
        return Expected::Malformed;
    }
    let value = |name: &str| {
        let is_it = |field: &&Field| field.0 == name.as_bytes();
        fields.iter().find(is_it).map(|(_, value)| &value[..])
    };
    if value(":method") == Some(b"CONNECT") {
        return Expected::Connect;
    }
    if value(":method") != Some(b"POST") || value(":path") != Some(b"/t.T/Head") {
        return Expected::General;
    }
    let of = |name: &'static [u8]| {
        fields
            .iter()
            .filter(move |field| field.0 == name)
            .map(|field| &field.1[..])
    };
    let kinds: Vec<&[u8]> = of(b"content-type").collect();
    let is_grpc = matches!(kinds[..], [b"application/grpc" | b"application/grpc+proto"]);
    let plain = of(b"grpc-encoding").all(|encoding| encoding == b"identity");
    let timeouts: Option<Vec<u128>> = of(b"grpc-timeout").map(nanoseconds).collect();
    match (is_grpc && plain, timeouts) {
        (true, Some(timeouts)) if timeouts.len() <= 1 => {
            Expected::Typed(timeouts.first().copied().unwrap_or(u128::MAX))
        }
        _ => Expected::General,
    }
}

fn nanoseconds(text: &[u8]) -> Option<u128> {
    let text = str::from_utf8(text).ok()?;
    let unit = text.chars().last()?;
    let number = &text[..text.len() - unit.len_utf8()];
    let digits = (1..=8).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
    let scale = match unit {
        'H' => 3_600_000_000_000,
        'M' => 60_000_000_000,
        'S' => 1_000_000_000,
        'm' => 1_000_000,
        'u' => 1_000,
        'n' => 1,
        _ => return None,
    };
    let number = number.parse::<u128>().ok().filter(|_| digits)?;
    Some(number * scale)
}

fn is_malformed(fields: &[Field]) -> bool {
    let names: Vec<&[u8]> = fields.iter().map(|field| &field.0[..]).collect();
    let pseudo = names
        .iter()
        .take_while(|name| name.starts_with(b":"))
        .count();
    let all = |name: &'static [u8]| {
        fields
            .iter()
            .filter(move |field| field.0 == name)
            .map(|field| &field.1[..])
    };
    let late = names[pseudo..].iter().any(|name| name.starts_with(b":"));
    let mut seen = names[..pseudo].to_vec();
    seen.sort_unstable();
    let twice = seen.windows(2).any(|two| two[0] == two[1]);
    let known: [&[u8]; 4] = [b":method", b":scheme", b":path", b":authority"];
    let unknown = seen.iter().any(|name| !known.contains(name));
    let bad = fields[pseudo..].iter().any(|(name, value)| {
        let octets = name.iter().all(|octet| {
            octet.is_ascii_lowercase()
                || octet.is_ascii_digit()
                || b"!#$%&'*+-.^_`|~".contains(octet)
        });
        let of_connections: [&[u8]; 5] = [
            b"connection",
            b"proxy-connection",
            b"keep-alive",
            b"transfer-encoding",
            b"upgrade",
        ];
        name.is_empty()
            || !octets
            || of_connections.contains(&&name[..])
            || (name == b"te" && !value.eq_ignore_ascii_case(b"trailers"))
    });
    let value = |(_, value): &Field| {
        let ends = [value.first(), value.last()];
        ends.iter().flatten().any(|octet| b" \t".contains(octet))
            || value.iter().any(|octet| b"\0\r\n".contains(octet))
    };
    late || twice
        || unknown
        || bad
        || fields.iter().any(value)
        || is_wrong_length(
            all(b"content-length"),
            all(b":method").next() == Some(b"CONNECT"),
        )
        || is_wrong_target(fields)
}

/// Section 8.1.1. The request's content is a prefix of five bytes, which nobody
/// looks at after a `CONNECT`.
fn is_wrong_length<'a>(mut values: impl Iterator<Item = &'a [u8]>, connects: bool) -> bool {
    let mut first = None;
    values.any(|value| {
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let text = str::from_utf8(value).unwrap_or_default();
        let number = text.parse::<u64>().ok().filter(|_| digits);
        let first = *first.get_or_insert(number);
        number.is_none() || number != first || !(connects || number == Some(5))
    })
}

/// Sections 8.3.1 and 8.5.
fn is_wrong_target(fields: &[Field]) -> bool {
    let first = |name: &[u8]| {
        let is_it = |field: &&Field| field.0 == name;
        fields.iter().find(is_it).map(|(_, value)| &value[..])
    };
    let (method, path) = (first(b":method"), first(b":path"));
    let (scheme, authority) = (first(b":scheme"), first(b":authority"));
    let Some(method) = method else {
        return true;
    };
    if method == b"CONNECT" {
        return scheme.is_some() || path.is_some() || authority.is_none();
    }
    let (Some(_), Some(path)) = (scheme, path) else {
        return true;
    };
    let token = |octet: &u8| octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(octet);
    let star = method == b"OPTIONS" && path == b"*";
    let foreign = match (authority, first(b"host")) {
        (Some(authority), Some(host)) => !host.eq_ignore_ascii_case(authority),
        _ => false,
    };
    method.is_empty()
        || !method.iter().all(token)
        || !(star || path.starts_with(b"/"))
        || !path.iter().all(u8::is_ascii_graphic)
        || authority.is_some_and(|authority| authority.contains(&b'@'))
        || foreign
}
