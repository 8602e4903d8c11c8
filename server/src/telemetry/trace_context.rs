//! W3C Trace Context: `traceparent` and `tracestate` as they come and go.
//!
//! Read as the recommendation says (<https://www.w3.org/TR/trace-context/>, sections 3.2 and 3.3): a
//! `traceparent` that is not exactly right counts as none, and restarts the trace; a `tracestate`
//! that is not right is dropped, and the trace goes on.

use std::fmt::Write as _;

use crate::layers::admit::Fields;

pub(crate) const TRACEPARENT: &str = "traceparent";
pub(crate) const TRACESTATE: &str = "tracestate";

/// Length of a `traceparent` of version 00, bytes.
const VERSION_00_BYTES: usize = 55;
/// Section 3.3.1.1: list-members of a `tracestate`.
const MAX_STATE_MEMBERS: usize = 32;
/// Section 3.3.1.5: what has to be passed on of a `tracestate`, bytes.
const MAX_STATE_BYTES: usize = 512;
/// Section 3.3.1.5: list-members above this go first, bytes.
const LARGE_MEMBER_BYTES: usize = 128;
/// Section 3.2.2.5: the caller may have recorded the call.
const SAMPLED: u8 = 0x01;
/// Level 2, section 3.2.2.5.2: the low seven bytes of the trace id are random.
const RANDOM: u8 = 0x02;

/// Which trace a call is part of. Never all zero.
pub(crate) type TraceId = [u8; 16];
/// Which part of it. Never all zero.
pub(crate) type SpanId = [u8; 8];

/// A place in a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TraceContext {
    pub(crate) trace_id: TraceId,
    /// The caller's span, or for what goes out the server's.
    pub(crate) span_id: SpanId,
    flags: u8,
    /// `tracestate`; empty if there is none.
    pub(crate) state: Box<str>,
}

impl TraceContext {
    /// The beginning of a trace that is recorded; its id is random.
    pub(crate) fn root(trace_id: TraceId, span_id: SpanId) -> Self {
        Self {
            trace_id,
            span_id,
            flags: SAMPLED | RANDOM,
            state: "".into(),
        }
    }

    /// What the head of a request says; `None` if it says nothing, or nothing right.
    pub(crate) fn read(fields: &impl Fields) -> Option<Self> {
        let mut values = fields.values(TRACEPARENT);
        let (trace_id, span_id, flags) = parse_parent(values.next()?)?;
        if values.next().is_some() {
            return None;
        }
        Some(Self {
            trace_id,
            span_id,
            flags,
            state: read_state(fields).unwrap_or_default(),
        })
    }

    pub(crate) const fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    pub(crate) const fn flags(&self) -> u8 {
        self.flags
    }

    /// Another span of the same trace.
    pub(crate) fn with_span(&self, span_id: SpanId) -> Self {
        Self {
            span_id,
            ..self.clone()
        }
    }

    /// `traceparent`, in version 00.
    pub(crate) fn to_parent(&self) -> String {
        format!(
            "00-{}-{}-{:02x}",
            hex(&self.trace_id),
            hex(&self.span_id),
            self.flags
        )
    }
}

/// Lower-case digits, as identifiers are written.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Section 3.2.2: version, trace-id, parent-id and flags.
fn parse_parent(text: &[u8]) -> Option<(TraceId, SpanId, u8)> {
    let head = text.get(..VERSION_00_BYTES)?;
    if [2, 35, 52].into_iter().any(|dash| head[dash] != b'-') {
        return None;
    }
    let [version] = unhex::<1>(&head[..2])?;
    let is_whole = match version {
        0 => text.len() == VERSION_00_BYTES,
        0xff => false,
        // Section 3.2.4: later versions may add to the end, after a dash.
        _ => text.get(VERSION_00_BYTES).is_none_or(|next| *next == b'-'),
    };
    let trace_id = unhex::<16>(&head[3..35])?;
    let span_id = unhex::<8>(&head[36..52])?;
    let [flags] = unhex::<1>(&head[53..])?;
    let is_good = is_whole && trace_id != [0; 16] && span_id != [0; 8];
    // Flags that are not known are not passed on.
    is_good.then_some((trace_id, span_id, flags & (SAMPLED | RANDOM)))
}

/// Lower-case hexadecimal digits, as the recommendation insists.
fn unhex<const BYTES: usize>(text: &[u8]) -> Option<[u8; BYTES]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; BYTES];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Section 3.3.1: all `tracestate` fields as one list. `None`: one of its members is wrong, and so
/// the whole of it.
fn read_state(fields: &impl Fields) -> Option<Box<str>> {
    let mut members: Vec<&str> = Vec::new();
    for field in fields.values(TRACESTATE) {
        for member in std::str::from_utf8(field).ok()?.split(',') {
            let member = member.trim_matches([' ', '\t']);
            if member.is_empty() {
                continue;
            }
            let key = state_key(member)?;
            let is_twice = members.iter().any(|known| state_key(known) == Some(key));
            if is_twice || members.len() == MAX_STATE_MEMBERS {
                return None;
            }
            members.push(member);
        }
    }
    let bytes = |members: &[&str]| -> usize { members.iter().map(|member| member.len() + 1).sum() };
    if bytes(&members) > MAX_STATE_BYTES + 1 {
        members.retain(|member| member.len() <= LARGE_MEMBER_BYTES);
        while bytes(&members) > MAX_STATE_BYTES + 1 {
            members.pop();
        }
    }
    Some(members.join(",").into())
}

/// Section 3.3.1.3: the key of a list-member, if key and value are as they must be.
fn state_key(member: &str) -> Option<&str> {
    let (key, value) = member.split_once('=')?;
    let is_start = |byte: u8| byte.is_ascii_lowercase();
    let is_part = |byte: u8| is_start(byte) || byte.is_ascii_digit() || b"_-*/".contains(&byte);
    let is_name = |text: &[u8], most: usize, digits_first: bool| {
        let first = text.first().copied();
        let begins = first.is_some_and(|b| is_start(b) || digits_first && b.is_ascii_digit());
        begins && text.len() <= most && text.iter().all(|byte| is_part(*byte))
    };
    let key_is_good = match key.split_once('@') {
        None => is_name(key.as_bytes(), 256, false),
        Some((tenant, system)) => {
            is_name(tenant.as_bytes(), 241, true) && is_name(system.as_bytes(), 14, false)
        }
    };
    // "=" and "," are no part of a value, and it does not end with a blank.
    let is_char = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'=';
    let value_is_good =
        (1..=256).contains(&value.len()) && value.bytes().all(is_char) && !value.ends_with(' ');
    (key_is_good && value_is_good).then_some(key)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn head(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut head = HeaderMap::new();
        for (name, value) in fields {
            head.append(*name, value.parse().expect("a header value"));
        }
        head
    }

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_parent_is_exactly_right_or_none() {
        let check = |value: &str, expected: Option<&str>| {
            let read = TraceContext::read(&head(&[(TRACEPARENT, value)]));
            let written = read.map(|context| context.to_parent());
            assert_eq!(written.as_deref(), expected, "{value:?}");
        };
        check(GOOD, Some(GOOD));
        let unsampled = GOOD.replace("-01", "-00");
        check(&unsampled, Some(&unsampled));
        // Flags that nobody knows yet are not passed on.
        check(
            &GOOD.replace("-01", "-ff"),
            Some(&GOOD.replace("-01", "-03")),
        );
        // A later version is read as far as this one goes.
        check(&GOOD.replacen("00-", "cc-", 1), Some(GOOD));
        check(
            &format!("{}-more", GOOD.replacen("00-", "cc-", 1)),
            Some(GOOD),
        );
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-more"),
            &format!("{GOOD}0"),
            &format!("{}x", GOOD.replacen("00-", "cc-", 1)),
            &GOOD.replacen("00-", "ff-", 1),
            &GOOD.replacen("00-", "0x-", 1),
            &GOOD.to_uppercase(),
            &GOOD.replace('4', "g"),
            &GOOD.replace('-', "_"),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &format!(" {}", &GOOD[1..]),
        ] {
            check(bad, None);
        }
        let twice = head(&[(TRACEPARENT, GOOD), (TRACEPARENT, GOOD)]);
        assert_eq!(TraceContext::read(&twice), None);
        assert_eq!(TraceContext::read(&head(&[(TRACESTATE, "a=1")])), None);
    }

    #[test]
    fn a_wrong_state_is_dropped_and_the_trace_goes_on() {
        let check = |values: &[&str], expected: &str| {
            let mut fields = vec![(TRACEPARENT, GOOD)];
            fields.extend(values.iter().map(|value| (TRACESTATE, *value)));
            let read = TraceContext::read(&head(&fields)).expect("a trace");
            assert_eq!(&*read.state, expected, "{values:?}");
        };
        check(&[], "");
        check(
            &["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"],
            "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
        );
        check(&["a=1 ,\t b=2,,"], "a=1,b=2");
        check(&["a=1", "b=2"], "a=1,b=2");
        check(&["1tenant@system=x y"], "1tenant@system=x y");
        for bad in [
            "a", "=1", "a=", "A=1", "1=1", "a=1=2", "a@=1", "@a=1", "t@1s=1", "a b=1",
        ] {
            check(&[bad], "");
            check(&["x=1", bad], "");
        }
        check(&["a=1", "a=2"], "");
        let many: Vec<String> = (0..33).map(|n| format!("k{n}=1")).collect();
        check(&[&many.join(",")], "");
        check(&[&many[..32].join(",")], &many[..32].join(","));
        // Long members go first, then the last.
        let long = format!("long={}", "x".repeat(200));
        let short: Vec<String> = (0..10)
            .map(|n| format!("k{n}={}", "y".repeat(47)))
            .collect();
        check(&[&long, &short.join(",")], &short.join(","));
        check(
            &[&short.join(","), &format!("z={}", "y".repeat(100))],
            &short.join(","),
        );
    }
}
