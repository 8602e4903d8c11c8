//! What a browser may do: the check of `Host` that defeats DNS rebinding, and
//! cross-origin requests (Fetch standard, "CORS protocol").

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use larder_api::errors::Reason;
use larder_transport::serve::Peer;

use crate::failure::Failure;
use crate::live::Live;

/// Longest time a browser may remember an answer to a preflight.
const PREFLIGHT_MAX_AGE: HeaderValue = HeaderValue::from_static("7200");
const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("GET, POST");
const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, connect-protocol-version, connect-timeout-ms, dry-run, \
     grpc-timeout, traceparent, tracestate, x-grpc-web, x-user-agent",
);
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static(
    "dry-run, grpc-message, grpc-retry-pushback-ms, grpc-status, grpc-status-details-bin, \
     larder-skipped, trailer-grpc-retry-pushback-ms",
);

/// Who may call from a browser.
pub(crate) struct OriginPolicy {
    /// Origins whose pages may call, as they were configured.
    pub(crate) allowed: Live<Vec<String>>,
    /// Anonymous calls are answered on loopback: then a page of the web must not
    /// be able to make them under a name of its own.
    pub(crate) guard_host: bool,
}

impl OriginPolicy {
    /// Refuses a request that a foreign page made, or made possible.
    pub(crate) fn check<B>(&self, request: &Request<B>, peer: Peer) -> Result<(), Failure> {
        let host = authority(request);
        if !self.answers_to(host, peer) {
            let message = format!(
                "an anonymous server on loopback answers to localhost and 127.0.0.1, not to `{}`",
                host.unwrap_or_default()
            );
            return Err(Failure::new(Reason::HostDenied, message));
        }
        match request.headers().get(header::ORIGIN) {
            None => Ok(()),
            Some(origin) if self.allows(origin, host) => Ok(()),
            Some(_) => Err(Failure::new(
                Reason::HostDenied,
                "pages of this origin may not call; see --cors-origin",
            )),
        }
    }

    /// False if a server on loopback is called by a name that somebody else may
    /// have given it.
    pub(crate) fn answers_to(&self, host: Option<&str>, peer: Peer) -> bool {
        // No page reaches a Unix socket.
        let guard = self.guard_host && matches!(peer, Peer::Tcp(_));
        !guard || host.is_some_and(is_loopback_name)
    }

    fn allows(&self, origin: &HeaderValue, host: Option<&str>) -> bool {
        let origin = origin.as_bytes();
        let same = host.is_some_and(|host| {
            [b"http://".as_slice(), b"https://"]
                .iter()
                .any(|scheme| origin.strip_prefix(*scheme) == Some(host.as_bytes()))
        });
        same || self.allowed.iter().any(|one| one.as_bytes() == origin)
    }

    /// The answer to a preflight; `None` if the request is none.
    pub(crate) fn preflight<B, R: Default>(&self, request: &Request<B>) -> Option<Response<R>> {
        let asked = request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if request.method() != Method::OPTIONS || !asked {
            return None;
        }
        let mut response = Response::new(R::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS);
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE);
        Some(response)
    }

    /// Tells the browser that the page may read the answer.
    pub(crate) fn allow(&self, origin: Option<HeaderValue>, headers: &mut HeaderMap) {
        if let Some(origin) = origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
            headers.append(header::VARY, HeaderValue::from(header::ORIGIN));
        }
    }
}

fn authority<B>(request: &Request<B>) -> Option<&str> {
    match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => request.headers().get(header::HOST)?.to_str().ok(),
    }
}

/// True for `localhost` and loopback addresses, with or without a port, and lists of
/// them, which clients of gRPC with several addresses send and no browser can.
fn is_loopback_name(authority: &str) -> bool {
    authority.split(',').all(is_one_loopback_name)
}

fn is_one_loopback_name(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority
            .rsplit_once(':')
            .map_or(authority, |(host, _)| host),
    };
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_loopback() {
        for good in [
            "localhost",
            "LOCALHOST:5051",
            "127.0.0.1",
            "127.0.0.1:80",
            "127.8.9.1:1",
            "[::1]:5051",
            "127.0.0.1:1,127.0.0.1:2",
        ] {
            assert!(is_loopback_name(good), "{good}");
        }
        for bad in [
            "",
            "example.com",
            "example.com:5051",
            "localhost.example.com",
            "10.0.0.1",
            "[::2]",
            "127.0.0.1.nip.io",
            "127.0.0.1,example.com",
            "127.0.0.1,",
        ] {
            assert!(!is_loopback_name(bad), "{bad}");
        }
    }
}
