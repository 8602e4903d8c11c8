//! Where a server is, as text and as parts.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use http::Uri;

use crate::error::Error;

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(Place);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// `http://HOST:PORT`.
    ClearText(Uri),
    /// `https://HOST:PORT`.
    Tls(Uri),
    /// `unix:PATH`.
    Unix(PathBuf),
}

impl Endpoint {
    /// Parses `http://HOST[:PORT]`, `https://HOST[:PORT]`, `unix:PATH`, or gRPC's
    /// `dns:///HOST[:PORT]`, which is clear text until
    /// [`with_tls`](crate::ClientConfig::with_tls) says otherwise, and whose port is 443 if none
    /// is given (`naming.md`).
    ///
    /// # Errors
    ///
    /// If it is none of these, or carries a user, a query or a fragment.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if let Some(name) = text.strip_prefix("dns:") {
            return Self::parse_name(name);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(Error::configuration("unix: needs the path of a socket"));
            }
            return Ok(Self(Place::Unix(PathBuf::from(path))));
        }
        let uri: Uri = text
            .parse()
            .map_err(|error| bad_url(&format!("cannot be understood: {error}")))?;
        let authority = uri.authority().ok_or_else(|| bad_url("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad_url("must not name a user; give a token instead"));
        }
        if uri.query().is_some() || text.contains('#') {
            return Err(bad_url("must not have a query or a fragment"));
        }
        match uri.scheme_str() {
            Some("http") => Ok(Self(Place::ClearText(uri))),
            Some("https") => Ok(Self(Place::Tls(uri))),
            _ => Err(bad_url("must begin with http://, https:// or unix:")),
        }
    }

    /// The name of `dns:[//AUTHORITY/]HOST[:PORT]`.
    fn parse_name(text: &str) -> Result<Self, Error> {
        let name = match text.strip_prefix("//") {
            None => text,
            Some(rest) => match rest.split_once('/') {
                Some(("", name)) => name,
                Some(_) => {
                    return Err(bad_url(
                        "names a DNS server; the system's are asked, so write dns:///HOST:PORT",
                    ));
                }
                None => return Err(bad_url("must have three slashes, as in dns:///HOST:PORT")),
            },
        };
        if name.contains('/') {
            return Err(bad_url("has a path"));
        }
        let endpoint = Self::parse(&format!("http://{name}"))?;
        match &endpoint.0 {
            Place::ClearText(uri) if uri.port().is_none() => {
                Self::parse(&format!("http://{name}:443"))
            }
            _ => Ok(endpoint),
        }
    }

    /// One endpoint, or those of gRPC's `ipv4:ADDRESS:PORT,...` and
    /// `ipv6:[ADDRESS]:PORT,...`.
    pub(crate) fn parse_list(text: &str) -> Result<Vec<Self>, Error> {
        let scheme = ["ipv4:", "ipv6:"].into_iter();
        let Some(list) = scheme.into_iter().find_map(|it| text.strip_prefix(it)) else {
            return Ok(vec![Self::parse(text)?]);
        };
        let is_v6 = text.starts_with("ipv6:");
        let parse = |address: &str| {
            let parsed: SocketAddr = address
                .parse()
                .map_err(|_| bad_url(&format!("has {address:?}, which is no address and port")))?;
            match parsed.is_ipv6() == is_v6 {
                true => Self::parse(&format!("http://{parsed}")),
                false => Err(bad_url("has an address of the other family")),
            }
        };
        list.split(',').map(parse).collect()
    }

    pub(crate) fn secured(self) -> Result<Self, Error> {
        match self.0 {
            Place::ClearText(uri) => {
                let uri = uri.to_string().replacen("http://", "https://", 1);
                Self::parse(&uri)
            }
            place => Ok(Self(place)),
        }
    }

    /// True if what is sent stays on this machine.
    pub fn is_loopback(&self) -> bool {
        match &self.0 {
            Place::Unix(_) => true,
            Place::ClearText(uri) | Place::Tls(uri) => uri.host().is_some_and(is_loopback_host),
        }
    }

    /// Its host, without the brackets of an IPv6 address, and its port; `None` for a Unix
    /// socket.
    pub fn host_and_port(&self) -> Option<(&str, u16)> {
        let (uri, default) = match &self.0 {
            Place::ClearText(uri) => (uri, 80),
            Place::Tls(uri) => (uri, 443),
            Place::Unix(_) => return None,
        };
        let port = uri.port_u16().unwrap_or(default);
        Some((bare(uri.host().unwrap_or_default()), port))
    }

    /// The path of a Unix socket.
    pub fn socket_path(&self) -> Option<&Path> {
        match &self.0 {
            Place::Unix(path) => Some(path),
            Place::ClearText(_) | Place::Tls(_) => None,
        }
    }

    /// True if the server shows a certificate.
    pub const fn is_tls(&self) -> bool {
        matches!(self.0, Place::Tls(_))
    }

    pub(crate) const fn place(&self) -> &Place {
        &self.0
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::ClearText(uri) | Place::Tls(uri) => {
                f.write_str(uri.to_string().trim_end_matches('/'))
            }
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

pub(crate) fn bad_url(problem: &str) -> Error {
    Error::configuration(format!("the server's URL {problem}"))
}

/// A host without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Loopback addresses, and the name that RFC 6761 keeps for them.
fn is_loopback_host(host: &str) -> bool {
    let bare = bare(host);
    bare.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for (text, shown, loopback) in [
            ("http://127.0.0.1:5051", "http://127.0.0.1:5051", true),
            ("http://127.1.2.3:1/", "http://127.1.2.3:1", true),
            ("http://LOCALHOST:5051", "http://LOCALHOST:5051", true),
            ("http://[::1]:5051", "http://[::1]:5051", true),
            (
                "http://[::ffff:127.0.0.1]:1",
                "http://[::ffff:127.0.0.1]:1",
                true,
            ),
            (
                "http://localhost.evil.example",
                "http://localhost.evil.example",
                false,
            ),
            ("https://cache.example", "https://cache.example", false),
            ("http://10.0.0.1:5051", "http://10.0.0.1:5051", false),
            ("unix:/run/larder.sock", "unix:/run/larder.sock", true),
            ("unix:///run/larder.sock", "unix:/run/larder.sock", true),
            ("dns:///cache:5051", "http://cache:5051", false),
            ("dns:cache:5051", "http://cache:5051", false),
            ("dns:///localhost", "http://localhost:443", true),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(endpoint.to_string(), shown);
            assert_eq!(endpoint.is_loopback(), loopback, "{text}");
        }
        for text in [
            "",
            "127.0.0.1:5051",
            "ftp://x",
            "unix:",
            "http://u:p@h/",
            "http://h/?q",
            "/path",
            "http://h/#f",
            "dns://8.8.8.8/cache:5051",
            "dns://cache",
            "dns:///",
            "dns:///cache/x",
        ] {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
    }
}
