//! RFC 9113, section 8: what a field section may hold, and the head of a request.

use crate::hpack::{Changes, Fields};

/// Fields whose values differ from call to call of one client, or of one proxy.
pub const VARYING_FIELDS: [&str; 4] =
    ["authorization", "grpc-timeout", "traceparent", "tracestate"];

/// Why a head is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadFault {
    /// It is malformed (section 8.1.1), and how.
    Malformed(&'static str),
    /// It is larger than `SETTINGS_MAX_HEADER_LIST_SIZE` (section 10.5.1).
    TooLarge {
        /// The most that is taken, bytes.
        max: u32,
    },
}

impl HeadFault {
    /// The status of HTTP that says so.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            // RFC 6585, section 5.
            Self::TooLarge { .. } => 431,
        }
    }
}

/// The head of a request (section 8.3.1), checked.
#[derive(Debug, Default)]
pub struct Head {
    pub(crate) fields: Fields,
    /// Where the pseudo-header fields stand among the fields.
    pseudo: [Option<u16>; Pseudo::COUNT],
    pseudo_count: usize,
    content_length: Option<u64>,
}

#[derive(Clone, Copy)]
enum Pseudo {
    Method,
    Scheme,
    Path,
    Authority,
}

impl Pseudo {
    const COUNT: usize = 4;

    fn of(name: &[u8]) -> Option<Self> {
        Some(match name {
            b":method" => Self::Method,
            b":scheme" => Self::Scheme,
            b":path" => Self::Path,
            b":authority" => Self::Authority,
            _ => return None,
        })
    }
}

impl Head {
    /// `:method`.
    #[must_use]
    pub fn method(&self) -> &[u8] {
        self.pseudo(Pseudo::Method).unwrap_or_default()
    }

    /// `:scheme`.
    #[must_use]
    pub fn scheme(&self) -> &[u8] {
        self.pseudo(Pseudo::Scheme).unwrap_or_default()
    }

    /// `:path`, with its query.
    #[inline]
    #[must_use]
    pub fn path(&self) -> &[u8] {
        self.pseudo(Pseudo::Path).unwrap_or_default()
    }

    /// `:authority`.
    #[must_use]
    pub fn authority(&self) -> Option<&[u8]> {
        self.pseudo(Pseudo::Authority)
    }

    /// Bytes of content that the client announced.
    #[must_use]
    pub const fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// The fields after the pseudo-header fields, in their order.
    pub fn metadata(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        (self.pseudo_count..self.fields.len()).map_while(|index| self.fields.at(index))
    }

    /// The first value of a field; `name` is in lower case. Looks through them.
    #[inline]
    #[must_use]
    pub fn value(&self, name: &[u8]) -> Option<&[u8]> {
        self.metadata()
            .find_map(|(each, value)| (each == name).then_some(value))
    }

    #[inline]
    fn pseudo(&self, which: Pseudo) -> Option<&[u8]> {
        let index = self.pseudo[which as usize]?;
        self.fields.at(usize::from(index)).map(|(_, value)| value)
    }

    /// Checks fields that are those of `known`, which was checked, but for some
    /// values of [`VARYING_FIELDS`].
    ///
    /// # Errors
    /// The request is malformed (section 8.1.1).
    #[inline]
    pub(crate) fn check_like(
        &mut self,
        known: &Self,
        changes: &Changes,
    ) -> Result<(), &'static str> {
        self.pseudo = known.pseudo;
        self.pseudo_count = known.pseudo_count;
        self.content_length = known.content_length;
        changes.iter().try_for_each(|(_, value)| check_value(value))
    }

    /// Checks the decoded fields as a request's.
    ///
    /// # Errors
    /// The request is malformed (section 8.1.1).
    pub(crate) fn check(&mut self) -> Result<(), &'static str> {
        let Self {
            fields,
            pseudo,
            pseudo_count,
            content_length,
        } = self;
        *pseudo = [None; Pseudo::COUNT];
        *pseudo_count = 0;
        *content_length = None;
        for (index, (name, value)) in fields.iter().enumerate() {
            if name.first() == Some(&b':') {
                let which = Pseudo::of(name).ok_or("an unknown pseudo-header field")?;
                if *pseudo_count != index {
                    return Err("a pseudo-header field after a field");
                }
                check_value(value)?;
                *pseudo_count += 1;
                // At most five stand before this fails.
                let index = u16::try_from(index).unwrap_or(u16::MAX);
                if pseudo[which as usize].replace(index).is_some() {
                    return Err("a pseudo-header field twice");
                }
            } else {
                check_field(name, value)?;
                if name == b"content-length" {
                    let length =
                        parse_length(value).ok_or("a content-length of other than digits")?;
                    if content_length
                        .replace(length)
                        .is_some_and(|other| other != length)
                    {
                        return Err("two values of content-length");
                    }
                }
            }
        }
        self.check_target()
    }

    /// Section 8.3.1, and section 8.5 for `CONNECT`.
    fn check_target(&self) -> Result<(), &'static str> {
        let method = self
            .pseudo(Pseudo::Method)
            .ok_or("a request without :method")?;
        let (scheme, path) = (self.pseudo(Pseudo::Scheme), self.pseudo(Pseudo::Path));
        if method == b"CONNECT" {
            return match (scheme, path, self.authority()) {
                (None, None, Some(_)) => Ok(()),
                _ => Err("a CONNECT with other than :authority"),
            };
        }
        scheme.ok_or("a request without :scheme")?;
        let path = path.ok_or("a request without :path")?;
        let asterisk = path == b"*" && method == b"OPTIONS";
        if path.first() != Some(&b'/') && !asterisk {
            return Err("a :path that does not begin with a slash");
        }
        if !is_token(method) || path.iter().any(|byte| !byte.is_ascii_graphic()) {
            return Err("a :method or :path with octets that it cannot have");
        }
        if let Some(authority) = self.authority() {
            if authority.contains(&b'@') {
                return Err("an :authority with user information");
            }
            if let Some(host) = self.value(b"host")
                && !host.eq_ignore_ascii_case(authority)
            {
                return Err("a host that is not the :authority");
            }
        }
        Ok(())
    }
}

/// Checks decoded fields as trailers (section 8.1).
pub(crate) fn check_trailers(fields: &Fields) -> Result<(), &'static str> {
    for (name, value) in fields.iter() {
        if name.first() == Some(&b':') {
            return Err("a pseudo-header field in trailers");
        }
        check_field(name, value)?;
    }
    Ok(())
}

/// Checks one field (section 8.2).
#[inline]
pub(crate) fn check_field(name: &[u8], value: &[u8]) -> Result<(), &'static str> {
    if name.is_empty() || !name.iter().all(|&octet| NAME_OCTETS[octet as usize]) {
        return Err("a field name with octets that it cannot have");
    }
    check_value(value)?;
    // Section 8.2.2.
    match name {
        b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding" | b"upgrade" => {
            Err("a connection-specific field")
        }
        b"te" if !value.eq_ignore_ascii_case(b"trailers") => Err("a te other than trailers"),
        _ => Ok(()),
    }
}

/// Section 8.2.1.
#[inline]
fn check_value(value: &[u8]) -> Result<(), &'static str> {
    let blank = |octet: Option<&u8>| matches!(octet, Some(b' ' | b'\t'));
    if blank(value.first()) || blank(value.last()) {
        return Err("a field value with a blank around it");
    }
    // No short cut: the loop without one is several octets at a time.
    let bad = value
        .iter()
        .fold(false, |bad, octet| bad | matches!(octet, 0 | b'\r' | b'\n'));
    if bad {
        return Err("a field value with NUL, CR or LF");
    }
    Ok(())
}

/// Section 8.2.1: octets of a name are those of a token (RFC 9110, section
/// 5.6.2) in lower case. It lets more through, and asks to be strict.
static NAME_OCTETS: [bool; 256] = {
    const OTHERS: &[u8] = b"!#$%&'*+-.^_`|~";
    let mut allowed = [false; 256];
    let mut letter = b'a';
    while letter <= b'z' {
        allowed[letter as usize] = true;
        letter += 1;
    }
    let mut digit = b'0';
    while digit <= b'9' {
        allowed[digit as usize] = true;
        digit += 1;
    }
    let mut other = 0;
    while other < OTHERS.len() {
        allowed[OTHERS[other] as usize] = true;
        other += 1;
    }
    allowed
};

fn is_token(text: &[u8]) -> bool {
    let lower = |octet: &u8| NAME_OCTETS[octet.to_ascii_lowercase() as usize];
    !text.is_empty() && text.iter().all(lower)
}

fn parse_length(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, &octet| {
        let digit = octet.is_ascii_digit().then(|| u64::from(octet - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hpack::{Decoder, write_literal};

    const GOOD: &[(&str, &str)] = &[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/a.B/C"),
    ];

    fn head(fields: &[(&str, &str)]) -> Head {
        let mut block = Vec::new();
        for (name, value) in fields {
            write_literal(&mut block, name.as_bytes(), value.as_bytes());
        }
        let mut head = Head::default();
        Decoder::new(0)
            .decode(&block, &mut head.fields, 1 << 20)
            .unwrap();
        head
    }

    #[test]
    fn a_good_head_is_taken_apart() {
        let mut head = head(&[
            (":scheme", "http"),
            (":authority", "Host:1"),
            (":path", "/a.B/C?d"),
            (":method", "POST"),
            ("te", "trailers"),
            ("host", "host:1"),
            ("content-length", "12"),
            ("content-length", "12"),
        ]);
        head.check().unwrap();
        assert_eq!(head.method(), b"POST");
        assert_eq!(head.scheme(), b"http");
        assert_eq!(head.path(), b"/a.B/C?d");
        assert_eq!(head.authority(), Some(&b"Host:1"[..]));
        assert_eq!(head.content_length(), Some(12));
        assert_eq!(head.metadata().count(), 4);
        assert_eq!(head.value(b"te"), Some(&b"trailers"[..]));
        assert_eq!(head.value(b":path"), None);
    }

    #[test]
    fn a_malformed_field_is_refused() {
        for field in [
            ("", "x"),
            ("Upper", "x"),
            ("with space", "x"),
            ("with:colon", "x"),
            ("ctl\x01", "x"),
            ("a", "nul\0"),
            ("a", "cr\r"),
            ("a", "l\nf"),
            ("a", " before"),
            ("a", "after\t"),
            ("connection", "close"),
            ("proxy-connection", "x"),
            ("keep-alive", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "gzip"),
            (":path", "/late"),
            (":unknown", "x"),
            (":status", "200"),
            ("content-length", "1x"),
            ("content-length", ""),
            ("content-length", "99999999999999999999"),
        ] {
            let fields: Vec<_> = GOOD.iter().copied().chain([("a", "b"), field]).collect();
            assert!(head(&fields).check().is_err(), "{field:?}");
            let name = field.0;
            if !name.starts_with("content-length") {
                assert!(check_trailers(&head(&[field]).fields).is_err(), "{field:?}");
            }
        }
    }

    #[test]
    fn the_pseudo_header_fields_are_complete_and_fit() {
        let check = |fields: &[(&str, &str)], good: bool| {
            assert_eq!(head(fields).check().is_ok(), good, "{fields:?}");
        };
        check(GOOD, true);
        for left_out in 0..GOOD.len() {
            let mut fields = GOOD.to_vec();
            fields.remove(left_out);
            check(&fields, false);
        }
        for twice in GOOD {
            let fields: Vec<_> = GOOD.iter().chain([twice]).copied().collect();
            check(&fields, false);
        }
        let with = |method, path| [(":method", method), (":scheme", "http"), (":path", path)];
        check(&with("OPTIONS", "*"), true);
        check(&with("GET", "*"), false);
        check(&with("GET", ""), false);
        check(&with("GET", "a"), false);
        check(&with("GET", "/a b"), false);
        check(&with("G ET", "/"), false);
        check(&with("", "/"), false);
        check(&[(":method", "CONNECT"), (":authority", "a:1")], true);
        check(&[(":method", "CONNECT")], false);
        check(&with("CONNECT", "/"), false);
        let more = |field| GOOD.iter().copied().chain(field).collect::<Vec<_>>();
        check(&more([(":authority", "u@a"), ("a", "b")]), false);
        check(&more([(":authority", "a"), ("host", "b")]), false);
        check(
            &more([("content-length", "1"), ("content-length", "2")]),
            false,
        );
    }
}
