//! What a caller offers to read: `grpc-accept-encoding` of gRPC's `compression.md`, and
//! what Connect has in its place.

use http::{HeaderMap, HeaderValue};
use larder_transport::gzip;

/// gRPC's and gRPC-Web's; a unary call's of Connect; a stream's of Connect.
const FIELDS: [&str; 3] = [
    "grpc-accept-encoding",
    "accept-encoding",
    "connect-accept-encoding",
];

/// True if gzip is among the names in the value of such a field. A name with a weight is
/// no offer: `gzip;q=0` is the contrary of one.
pub(crate) fn names_gzip(value: &[u8]) -> bool {
    let mut names = value.split(|&octet| octet == b',');
    names.any(|name| name.trim_ascii() == gzip::NAME.as_bytes())
}

/// Leaves of what a caller offers what both lanes know, and says so where it offers
/// nothing: connectrpc would take the encoding of a request for an offer, and has zstd.
pub(crate) fn narrow(head: &mut HeaderMap) {
    for name in FIELDS {
        let mut values = head.get_all(name).iter();
        let value = match values.any(|value| names_gzip(value.as_bytes())) {
            true => gzip::NAME,
            false => "identity",
        };
        head.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_offered_by_its_name() {
        let check = |value: &str, offers: bool| {
            assert_eq!(names_gzip(value.as_bytes()), offers, "{value:?}");
            let mut head = HeaderMap::new();
            head.append(FIELDS[0], HeaderValue::from_static("zstd"));
            head.append(FIELDS[0], value.parse().expect("a value"));
            narrow(&mut head);
            let expected = if offers { "gzip" } else { "identity" };
            assert_eq!(head.get_all(FIELDS[0]).iter().count(), 1);
            assert_eq!(head[FIELDS[0]], expected, "{value:?}");
            assert_eq!(head[FIELDS[1]], "identity");
        };
        check("gzip", true);
        check("identity, deflate, gzip", true);
        check("identity,gzip,deflate", true);
        check("", false);
        check("identity", false);
        check("zstd, br", false);
        check("GZIP", false);
        check("gzip;q=0", false);
        check("xgzip, gzipx", false);
    }
}
