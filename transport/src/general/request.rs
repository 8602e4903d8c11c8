//! RFC 9113, section 8.3.1: a head in the types of the `http` crate.

use http::header::{COOKIE, HOST};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

use super::Received;
use super::body::Body;
use crate::hpack::Fields;
use crate::message::Head;

/// The request; `None` if the types of `http` have no word for it.
pub(super) fn of(head: &Head, body: Body, received: Received) -> Option<Request<Body>> {
    let mut request = Request::new(body);
    request.extensions_mut().insert(received);
    *request.method_mut() = Method::from_bytes(head.method()).ok()?;
    *request.uri_mut() = uri(head)?;
    *request.version_mut() = Version::HTTP_2;
    append(request.headers_mut(), head.metadata())?;
    name_host(head, &mut request)?;
    join_cookies(request.headers_mut())?;
    Some(request)
}

/// The trailers, as far as the types of `http` have words for them.
pub(super) fn trailers(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::new();
    append(&mut map, fields.iter()).map_or_else(HeaderMap::new, |()| map)
}

fn append<'a>(
    map: &mut HeaderMap,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> Option<()> {
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name).ok()?;
        map.try_append(name, HeaderValue::from_bytes(value).ok()?)
            .ok()?;
    }
    Some(())
}

/// RFC 9113, section 8.2.3: crumbs of a cookie "MUST be concatenated into a single
/// octet string using the two-octet delimiter" before they are passed on.
fn join_cookies(map: &mut HeaderMap) -> Option<()> {
    let mut crumbs = map.get_all(COOKIE).iter();
    if let (Some(_), Some(_)) = (crumbs.next(), crumbs.next()) {
        let all: Vec<&[u8]> = map
            .get_all(COOKIE)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        let whole = HeaderValue::from_bytes(&all.join(&b"; "[..])).ok()?;
        map.insert(COOKIE, whole);
    }
    Some(())
}

fn uri(head: &Head) -> Option<Uri> {
    let path = PathAndQuery::try_from(head.path()).ok()?;
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(path);
    if let Some(authority) = head.authority()
        && let Ok(authority) = authority.try_into()
        && head.path() != b"*"
    {
        parts.authority = Some(authority);
        parts.scheme = Some(Scheme::try_from(head.scheme()).ok()?);
    }
    Uri::from_parts(parts).ok()
}

/// An `:authority` that is none for the types of `http` is told as `host`: clients of
/// gRPC make one of the path of a Unix socket, or of a list of addresses.
fn name_host(head: &Head, request: &mut Request<Body>) -> Option<()> {
    if let Some(authority) = head.authority()
        && !authority.is_empty()
        && request.uri().authority().is_none()
        && !request.headers().contains_key(HOST)
    {
        let host = HeaderValue::from_bytes(authority).ok()?;
        request.headers_mut().insert(HOST, host);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::super::body::Incoming;
    use super::*;
    use crate::connection::End;

    #[test]
    fn an_authority_of_any_form_is_told() {
        let check = |authority: &str, expected: Option<&str>, host: Option<&str>| {
            let mut head = crate::testing::head(&[
                (":method", "POST"),
                (":scheme", "http"),
                (":path", "/a.B/C"),
                (":authority", authority),
            ]);
            head.check().unwrap();
            let (_incoming, body) = Incoming::new(End::Stream, None, Waker::noop().clone());
            let request = of(&head, body, Received(crate::testing::start())).unwrap();
            let told = request.uri().authority().map(ToString::to_string);
            assert_eq!(told.as_deref(), expected, "{authority}");
            let given = request.headers().get(HOST).map(|it| it.to_str().unwrap());
            assert_eq!(given, host, "{authority}");
        };
        check("localhost:1", Some("localhost:1"), None);
        check("[::1]:1", Some("[::1]:1"), None);
        check("", None, None);
        for odd in ["127.0.0.1:1,127.0.0.1:2", "unix:/tmp/x", "%2Ftmp%2Fx.sock"] {
            let as_uri = http::uri::Authority::try_from(odd).is_ok();
            check(odd, as_uri.then_some(odd), (!as_uri).then_some(odd));
        }
    }

    #[test]
    fn crumbs_of_a_cookie_are_joined() {
        let check = |crumbs: &[&str], expected: &[&str]| {
            let fields = crumbs
                .iter()
                .map(|crumb| (&b"cookie"[..], crumb.as_bytes()));
            let mut map = HeaderMap::new();
            append(&mut map, fields.chain([(&b"a"[..], &b"b"[..])])).unwrap();
            join_cookies(&mut map).unwrap();
            let cookies: Vec<_> = map.get_all(COOKIE).iter().collect();
            assert_eq!(cookies, expected);
            assert_eq!(map["a"], "b");
        };
        check(&[], &[]);
        check(&["a=b"], &["a=b"]);
        check(&["a=b", "c=d", "e=f"], &["a=b; c=d; e=f"]);
    }
}
