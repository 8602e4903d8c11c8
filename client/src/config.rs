//! Where the server is, and how a client presents itself.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use larder_transport::client::Keepalive;

use crate::channel::{Balancing, Resolver, ServiceConfig, SystemResolver};
use crate::endpoint::{Endpoint, Place, bad_url};
use crate::error::Error;
use crate::interceptor::{Interceptor, Interceptors};

/// Time for a call if nothing else is said: long for a cache, short for a
/// person who waits at a terminal.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time to reach the server: name, TCP and TLS together. Shorter than
/// [`DEFAULT_TIMEOUT`], so that an unreachable server is reported as such.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Largest reply, bytes: a full batch of 3 MiB and one more value of 3 MiB,
/// with room to spare.
const DEFAULT_MAX_REPLY_BYTES: usize = 16 << 20;

/// A network that swallows packets is noticed within two intervals (gRFC A8).
const DEFAULT_KEEPALIVE: Keepalive = Keepalive {
    interval: Duration::from_secs(30),
    timeout: Duration::from_secs(10),
    without_calls: false,
};

/// A bearer credential. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// Certificates of authorities, in PEM.
#[derive(Clone, Default)]
pub struct CaCertificates(pub(crate) Vec<u8>);

/// A client certificate chain and its key, in PEM. `Debug` shows neither.
#[derive(Clone)]
pub struct ClientIdentity {
    pub(crate) chain_pem: Vec<u8>,
    pub(crate) key_pem: Vec<u8>,
}

/// How to reach a server. Nothing is opened before a
/// [`Client`](crate::Client) is made of it.
#[derive(Debug, Clone)]
#[must_use]
pub struct ClientConfig {
    pub(crate) endpoint: Endpoint,
    pub(crate) others: Vec<Endpoint>,
    pub(crate) service_config: Arc<ServiceConfig>,
    pub(crate) balancing: Option<Balancing>,
    pub(crate) resolver: SharedResolver,
    pub(crate) keepalive: Keepalive,
    pub(crate) authorities: Option<CaCertificates>,
    pub(crate) identity: Option<ClientIdentity>,
    pub(crate) server_check: ServerCheck,
    pub(crate) token: Option<Token>,
    pub(crate) clear_text_token: ClearTextToken,
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) stream_deadline: Option<Duration>,
    pub(crate) namespace: String,
    pub(crate) max_reply_bytes: usize,
    /// From how many bytes on messages are compressed; `None`: not at all.
    pub(crate) compression: Option<usize>,
    pub(crate) interceptors: Interceptors,
}

/// Finds the addresses of names.
#[derive(Clone)]
pub(crate) struct SharedResolver(pub(crate) Arc<dyn Resolver>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerCheck {
    Verify,
    Skip,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClearTextToken {
    LoopbackOnly,
    Anywhere,
}

impl Token {
    /// A token from its secret.
    ///
    /// # Errors
    ///
    /// If it is empty or cannot stand in a header.
    pub fn new(secret: impl Into<String>) -> Result<Self, Error> {
        let secret = secret.into();
        if secret.is_empty() {
            return Err(Error::configuration("the token is empty"));
        }
        // Only visible ASCII can stand after `Bearer `.
        if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::configuration(
                "the token has characters that cannot be sent (spaces, line ends or non-ASCII)",
            ));
        }
        Ok(Self(secret))
    }

    /// Shows the secret. Take care where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl CaCertificates {
    /// Authorities from PEM.
    pub fn from_pem(pem: impl Into<Vec<u8>>) -> Self {
        Self(pem.into())
    }

    /// Authorities from a PEM file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        read(path).map(Self)
    }
}

impl fmt::Debug for CaCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CaCertificates({} bytes)", self.0.len())
    }
}

impl ClientIdentity {
    /// A certificate chain and its key from PEM.
    pub fn from_pem(chain_pem: impl Into<Vec<u8>>, key_pem: impl Into<Vec<u8>>) -> Self {
        Self {
            chain_pem: chain_pem.into(),
            key_pem: key_pem.into(),
        }
    }

    /// A certificate chain and its key from PEM files.
    ///
    /// # Errors
    ///
    /// If one of the files cannot be read.
    pub fn from_files(chain: &Path, key: &Path) -> Result<Self, Error> {
        Ok(Self::from_pem(read(chain)?, read(key)?))
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientIdentity(…)")
    }
}

impl fmt::Debug for SharedResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a resolver")
    }
}

impl ClientConfig {
    /// The server at `http://HOST[:PORT]`, `https://HOST[:PORT]` or
    /// `unix:PATH`, or the servers at `dns:///HOST[:PORT]`,
    /// `ipv4:ADDRESS:PORT,...` or `ipv6:[ADDRESS]:PORT,...`, with the defaults:
    /// no token, 5 s for a call, 3 s to connect, the default namespace, the
    /// platform's certificate authorities, and the service config that every
    /// gRPC client of larder loads: the first address that can be reached has
    /// all calls, and what may be repeated is tried up to four times.
    ///
    /// # Errors
    ///
    /// If the URL is of another form.
    pub fn new(server: &str) -> Result<Self, Error> {
        let mut endpoints = Endpoint::parse_list(server)?.into_iter();
        let endpoint = endpoints.next().ok_or_else(|| bad_url("is empty"))?;
        Ok(Self {
            endpoint,
            others: endpoints.collect(),
            service_config: Arc::new(ServiceConfig::standard()),
            balancing: None,
            resolver: SharedResolver(Arc::new(SystemResolver)),
            keepalive: DEFAULT_KEEPALIVE,
            authorities: None,
            identity: None,
            server_check: ServerCheck::Verify,
            token: None,
            clear_text_token: ClearTextToken::LoopbackOnly,
            timeout: DEFAULT_TIMEOUT,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            stream_deadline: None,
            namespace: String::new(),
            max_reply_bytes: DEFAULT_MAX_REPLY_BYTES,
            compression: None,
            interceptors: Interceptors::default(),
        })
    }

    /// Another server, beside those there are: as [`new`](Self::new) has it.
    /// Each is verified by its own name, and each gets the token.
    ///
    /// # Errors
    ///
    /// If the URL is of another form.
    pub fn and_server(mut self, server: &str) -> Result<Self, Error> {
        self.others.extend(Endpoint::parse_list(server)?);
        Ok(self)
    }

    /// Which of several addresses a call goes to; without it the service config
    /// says, and that is [`Balancing::pick_first`] by default. All but that one
    /// watch the servers' health (`healthCheckConfig` of the service config).
    pub fn with_balancing(mut self, balancing: Balancing) -> Self {
        self.balancing = Some(balancing);
        self
    }

    /// Another [service config] than the one that comes with larder, as JSON:
    /// `loadBalancingConfig`, `methodConfig` with `timeout`, `waitForReady`,
    /// `retryPolicy` and `hedgingPolicy`, `retryThrottling`,
    /// `healthCheckConfig`, `connectionScaling`. It stands in place of the
    /// default as a whole. Fields that are not known are passed over.
    ///
    /// Whatever it says, a call is sent again only if that can do no harm: an
    /// increment or a conditional write only with a request id.
    ///
    /// # Errors
    ///
    /// If it is no JSON, or a value is wrong; the message has its path.
    ///
    /// [service config]: https://github.com/grpc/grpc/blob/master/doc/service_config.md
    pub fn with_service_config(mut self, json: &str) -> Result<Self, Error> {
        self.service_config = Arc::new(ServiceConfig::parse(json)?);
        Ok(self)
    }

    /// What finds the addresses of names, in place of the system.
    pub fn with_resolver(mut self, resolver: impl Resolver) -> Self {
        self.resolver = SharedResolver(Arc::new(resolver));
        self
    }

    /// After how much silence a connection with calls under way is asked for a
    /// sign of life, and how long that may take before the connection is given
    /// up (gRFC A8): 30 s and 10 s by default. An interval below 10 s counts as
    /// 10 s, for servers end connections that ask too often.
    pub fn with_keepalive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.keepalive = Keepalive {
            interval,
            timeout,
            ..self.keepalive
        };
        self
    }

    /// TLS for every server that was given without, as `dns:///` names are.
    ///
    /// # Errors
    ///
    /// If that makes no URL.
    pub fn with_tls(mut self) -> Result<Self, Error> {
        self.endpoint = self.endpoint.secured()?;
        let others = std::mem::take(&mut self.others).into_iter();
        self.others = others.map(Endpoint::secured).collect::<Result<_, _>>()?;
        Ok(self)
    }

    /// Trust these authorities in place of the platform's.
    pub fn with_authorities(mut self, authorities: CaCertificates) -> Self {
        self.authorities = Some(authorities);
        self
    }

    /// Present this certificate to the server.
    pub fn with_identity(mut self, identity: ClientIdentity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Accept any certificate of the server. Whoever stands between can then
    /// read and change everything, the token included.
    pub fn dangerously_accept_any_certificate(mut self) -> Self {
        self.server_check = ServerCheck::Skip;
        self
    }

    /// Send this token with every call.
    pub fn with_token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    /// Send the token over clear text to other machines too. Whoever stands
    /// between can then read it.
    pub fn allow_clear_text_token(mut self) -> Self {
        self.clear_text_token = ClearTextToken::Anywhere;
        self
    }

    /// Time for a unary call, and for each wait for a part of a stream.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Time to reach the server: name, TCP and TLS together.
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Time for a dump or load as a whole; without it they may take as long
    /// as they make progress.
    pub fn with_stream_deadline(mut self, deadline: Duration) -> Self {
        self.stream_deadline = Some(deadline);
        self
    }

    /// The namespace of calls; empty means `default`.
    pub fn with_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Compress request messages of at least so many bytes by gzip, those of a load one by
    /// one, and let servers compress their replies; by default neither. A message that
    /// would not be smaller is sent as it is.
    ///
    /// It pays on slow networks, for values that are text: not inside a data centre, and
    /// not for values that are compressed already. It takes the caller's task 4 to 6 ns
    /// for each byte of JSON that is compressed (12 ns at 1 KiB), 10 to 25 ns for each of a
    /// message that is no smaller then, and 1 to 2 ns for each that is made whole; a call
    /// is compressed once, however many attempts it takes. Servers of larder take a
    /// compressed request on another, dearer way than others, so 1 KiB is about the least
    /// that is worth it, and 16 KiB a good start. What they compress of their replies is a
    /// setting of theirs, `compression.answers_above`.
    ///
    /// [`with_max_reply_bytes`](Self::with_max_reply_bytes) holds for a reply as it comes
    /// and when it is whole.
    pub fn with_compression_above(mut self, bytes: usize) -> Self {
        self.compression = Some(bytes);
        self
    }

    /// Largest reply message, bytes; default 16 MiB.
    pub fn with_max_reply_bytes(mut self, bytes: usize) -> Self {
        self.max_reply_bytes = bytes;
        self
    }

    /// What is told of every call, after those given before. Without any, calls cost nothing
    /// more.
    pub fn with_interceptor(mut self, interceptor: impl Interceptor) -> Self {
        self.interceptors.push(Arc::new(interceptor));
        self
    }

    /// Where the server is; the first, if there are several.
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// All servers, in the order in which they were given.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        std::iter::once(&self.endpoint).chain(&self.others)
    }

    /// Refuses what would betray a secret or cannot work.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let keepalive = [self.keepalive.interval, self.keepalive.timeout];
        let times = [self.timeout, self.connect_timeout].into_iter();
        if times.chain(keepalive).any(|time| time.is_zero()) {
            return Err(Error::configuration("a timeout must be more than nothing"));
        }
        let is_clear = |endpoint: &Endpoint| matches!(endpoint.place(), Place::ClearText(_));
        if self
            .endpoints()
            .any(|endpoint| is_clear(endpoint) && !endpoint.is_loopback())
            && self.token.is_some()
            && self.clear_text_token == ClearTextToken::LoopbackOnly
        {
            return Err(Error::configuration(
                "the token would cross the network in clear text; use https://, or allow it explicitly",
            ));
        }
        if self.endpoints().any(is_clear) && (self.identity.is_some() || self.authorities.is_some())
        {
            return Err(Error::configuration(
                "certificates were given for a server without TLS; use https://",
            ));
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| {
        Error::configuration(format!("cannot read {}: {error}", path.display())).with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_servers() {
        let shown = |config: &ClientConfig| {
            let all = config.endpoints().map(ToString::to_string);
            all.collect::<Vec<_>>().join(" ")
        };
        let config = ClientConfig::new("ipv4:127.0.0.1:1,127.0.0.2:2").unwrap();
        let config = config.and_server("ipv6:[::1]:3").unwrap();
        assert_eq!(
            shown(&config),
            "http://127.0.0.1:1 http://127.0.0.2:2 http://[::1]:3"
        );
        let config = config.and_server("dns:///cache:5051").unwrap();
        let token = Token::new("s3cret").unwrap();
        assert!(config.clone().with_token(token.clone()).check().is_err());
        let config = config.with_tls().unwrap().with_token(token);
        assert!(config.check().is_ok());
        assert!(shown(&config).ends_with("https://cache:5051"));
        for text in [
            "ipv4:",
            "ipv4:[::1]:1",
            "ipv4:1.2.3.4",
            "ipv6:1.2.3.4:5",
            "ipv4:1.2.3.4:5,",
        ] {
            assert!(ClientConfig::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_token_stays_off_the_wire_in_clear_text() {
        let config = |server: &str| {
            ClientConfig::new(server)
                .unwrap()
                .with_token(Token::new("s3cret").unwrap())
        };
        assert!(config("http://10.0.0.1:5051").check().is_err());
        assert!(
            config("http://10.0.0.1:5051")
                .allow_clear_text_token()
                .check()
                .is_ok()
        );
        assert!(config("http://127.0.0.1:5051").check().is_ok());
        assert!(config("https://10.0.0.1:5051").check().is_ok());
        assert!(config("unix:/run/l").check().is_ok());
        assert!(
            ClientConfig::new("http://10.0.0.1:5051")
                .unwrap()
                .check()
                .is_ok()
        );
    }

    #[test]
    fn secrets_do_not_show() {
        let config = ClientConfig::new("https://h")
            .unwrap()
            .with_token(Token::new("s3cret").unwrap())
            .with_identity(ClientIdentity::from_pem("s3cret", "s3cret"));
        assert!(!format!("{config:?}").contains("s3cret"));
    }

    #[test]
    fn tokens_are_headers() {
        for bad in ["", "a b", "a\n", "ä"] {
            assert!(Token::new(bad).is_err(), "{bad:?}");
        }
        assert!(Token::new("lt_abc-._~+/=").is_ok());
    }
}
