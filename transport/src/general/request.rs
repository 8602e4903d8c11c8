//! RFC 9113, section 8.3.1: a head in the types of the `http` crate.

use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

use super::body::Body;
use crate::hpack::Fields;
use crate::message::Head;

/// The request; `None` if the types of `http` have no word for it.
pub(super) fn of(head: &Head, body: Body) -> Option<Request<Body>> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::from_bytes(head.method()).ok()?;
    *request.uri_mut() = uri(head)?;
    *request.version_mut() = Version::HTTP_2;
    append(request.headers_mut(), head.metadata())?;
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

fn uri(head: &Head) -> Option<Uri> {
    let path = PathAndQuery::try_from(head.path()).ok()?;
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(path);
    if let Some(authority) = head.authority()
        && !authority.is_empty()
        && head.path() != b"*"
    {
        parts.authority = Some(authority.try_into().ok()?);
        parts.scheme = Some(Scheme::try_from(head.scheme()).ok()?);
    }
    Uri::from_parts(parts).ok()
}
