//! Whom a client certificate names (RFC 5280, sections 4.1.2.6 and 4.2.1.6), and
//! the patterns that such names are compared with.

use std::time::Duration;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The names in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Names {
    /// The subject, for people.
    pub(crate) subject: String,
    /// The subject's common name, where it has exactly one.
    pub(crate) common_name: Option<String>,
    /// Subject alternative names: host names, in lower case.
    pub(crate) dns: Vec<String>,
    /// Subject alternative names: URIs, such as a SPIFFE id.
    pub(crate) uri: Vec<String>,
    /// When it ends, since 1970.
    pub(crate) not_after: Duration,
}

impl Names {
    /// Reads a certificate; `None` if it is none, which a handshake rules out.
    pub(crate) fn read(der: &[u8]) -> Option<Self> {
        let (_, cert) = X509Certificate::from_der(der).ok()?;
        let mut common = cert.subject().iter_common_name();
        let common_name = match (common.next(), common.next()) {
            (Some(only), None) => only.as_str().ok().map(str::to_owned),
            _ => None,
        };
        let mut names = Self {
            subject: cert.subject().to_string(),
            common_name,
            not_after: Duration::from_secs(
                u64::try_from(cert.validity().not_after.timestamp()).unwrap_or(0),
            ),
            ..Self::default()
        };
        let alternative = cert.subject_alternative_name().ok().flatten();
        for name in alternative.iter().flat_map(|san| &san.value.general_names) {
            match name {
                GeneralName::DNSName(name) => names.dns.push(name.to_ascii_lowercase()),
                GeneralName::URI(uri) => names.uri.push((*uri).to_owned()),
                _ => {}
            }
        }
        Some(names)
    }

    /// What the log calls its holder: the URI that says most, else the subject.
    pub(crate) fn holder(&self) -> &str {
        self.uri.first().unwrap_or(&self.subject)
    }
}

/// A name, or names, that a certificate must have. `*` stands for any characters
/// within one part of it: between two slashes of a URI, between two dots of a
/// host name, anywhere in a common name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamePattern {
    /// The subject's common name.
    CommonName(String),
    /// A host name among the subject alternative names; case does not matter.
    Dns(String),
    /// A URI among the subject alternative names.
    Uri(String),
}

impl NamePattern {
    /// True if one of the names is meant.
    pub(crate) fn matches(&self, names: &Names) -> bool {
        match self {
            Self::CommonName(pattern) => {
                let name = names.common_name.as_deref();
                name.is_some_and(|name| part_matches(pattern, name))
            }
            Self::Dns(pattern) => {
                let pattern = pattern.to_ascii_lowercase();
                names
                    .dns
                    .iter()
                    .any(|name| parts_match(&pattern, name, '.'))
            }
            Self::Uri(pattern) => names.uri.iter().any(|uri| parts_match(pattern, uri, '/')),
        }
    }
}

fn parts_match(pattern: &str, name: &str, separator: char) -> bool {
    let (mut patterns, mut parts) = (pattern.split(separator), name.split(separator));
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) if part_matches(pattern, part) => {}
            _ => return false,
        }
    }
}

/// Takes what stands before the first `*`, then each piece between two at its
/// first place, and what stands after the last one at the end.
fn part_matches(pattern: &str, part: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == part;
    };
    let Some(mut left) = part.strip_prefix(first) else {
        return false;
    };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for piece in middle.split('*') {
        match left.find(piece) {
            Some(at) => left = &left[at + piece.len()..],
            None => return false,
        }
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stays_within_its_part() {
        let names = Names {
            common_name: Some("reader 7".into()),
            dns: vec!["web.shop.example".into()],
            uri: vec!["spiffe://example/ns/shop/sa/web".into()],
            ..Names::default()
        };
        let check = |pattern: NamePattern, expected: bool| {
            assert_eq!(pattern.matches(&names), expected, "{pattern:?}");
        };
        for (pattern, expected) in [
            ("reader 7", true),
            ("reader *", true),
            ("*", true),
            ("*7", true),
            ("r*d*7", true),
            ("r*7*7", false),
            ("reader", false),
            ("", false),
        ] {
            check(NamePattern::CommonName(pattern.into()), expected);
        }
        for (pattern, expected) in [
            ("WEB.shop.example", true),
            ("*.shop.example", true),
            ("web.*.example", true),
            ("*.example", false),
            ("*", false),
            ("*.*.*.*", false),
        ] {
            check(NamePattern::Dns(pattern.into()), expected);
        }
        for (pattern, expected) in [
            ("spiffe://example/ns/shop/sa/web", true),
            ("spiffe://example/ns/*/sa/web", true),
            ("spiffe://example/ns/*/sa/*", true),
            ("spiffe://example/ns/*", false),
            ("spiffe://*/web", false),
            ("spiffe://example/ns/shop/sa/webb", false),
            ("spiffe://other/ns/shop/sa/web", false),
        ] {
            check(NamePattern::Uri(pattern.into()), expected);
        }
    }
}
