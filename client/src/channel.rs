//! The connection that calls share, and what is the same for all of them:
//! credential, deadline, dry run.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use larder_api::wire;
use larder_transport::client::{BadField, RequestHead, Scheme};

use crate::accounts::Accounts;
use crate::config::{ClientConfig, Endpoint, Place};
use crate::connector::Connector;
use crate::error::{Error, Repeat};
use crate::interceptor::Interceptors;
use crate::link::Link;
use crate::method::Heads;
use crate::status;
use crate::talk::Talk;

/// How this client names itself.
const USER_AGENT: &str = concat!("larder-rust/", env!("CARGO_PKG_VERSION"));

/// A client of one server. Cloning it is cheap; all clones share a connection.
///
/// The methods that change how calls are made, such as
/// [`in_namespace`](Self::in_namespace), give back another client on the same
/// connection.
#[derive(Clone)]
pub struct Client {
    pub(crate) channel: Arc<Channel>,
    pub(crate) namespace: Arc<str>,
    pub(crate) timeout: Duration,
    pub(crate) mode: Mode,
}

/// Whether mutations have their effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Real,
    DryRun,
}

pub(crate) struct Channel {
    pub(crate) link: Link,
    pub(crate) heads: Heads,
    /// Of calls that have no effect.
    pub(crate) dry_heads: Heads,
    pub(crate) interceptors: Interceptors,
    pub(crate) stream_deadline: Option<Duration>,
    endpoint: Endpoint,
}

impl Client {
    /// Connects now, and reconnects by itself whenever a call needs it.
    ///
    /// # Errors
    ///
    /// If the configuration is wrong or unsafe, or the server cannot be
    /// reached ([`Error::is_connect`]).
    pub async fn connect(config: ClientConfig) -> Result<Self, Error> {
        let client = Self::over(config)?;
        let connected = client.channel.link.connection(None).await;
        connected.map_err(|no| status::from_lost(no.into(), Repeat::Read))?;
        Ok(client)
    }

    /// Connects when the first call needs it. Must be called inside a `tokio`
    /// runtime, which then drives the connection.
    ///
    /// # Errors
    ///
    /// If the configuration is wrong or unsafe.
    pub fn lazy(config: ClientConfig) -> Result<Self, Error> {
        Self::over(config)
    }

    /// The same client, in another namespace; empty means `default`.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self {
            namespace: Arc::from(namespace),
            ..self.clone()
        }
    }

    /// The same client, with another time for each call.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self {
            timeout,
            ..self.clone()
        }
    }

    /// The same client, whose mutations check everything and change nothing.
    /// A server that does not know dry runs is found out: its answer becomes
    /// an error that [`may_have_applied`](Error::may_have_applied).
    #[must_use]
    pub fn dry_run(&self) -> Self {
        Self {
            mode: Mode::DryRun,
            ..self.clone()
        }
    }

    /// The control plane, for administrators.
    pub fn accounts(&self) -> Accounts {
        Accounts::new(self.clone())
    }

    /// The talk's own contract, `rpc.Cache`.
    pub fn talk(&self) -> Talk {
        Talk::new(self.clone())
    }

    /// Where the server is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.channel.endpoint
    }

    fn over(config: ClientConfig) -> Result<Self, Error> {
        config.check()?;
        let connector = Connector::new(&config)?;
        let [heads, dry_heads] = [Mode::Real, Mode::DryRun].map(|mode| heads(&config, mode));
        Ok(Self {
            channel: Arc::new(Channel {
                link: Link::new(connector, config.max_reply_bytes),
                heads: heads?,
                dry_heads: dry_heads?,
                interceptors: config.interceptors,
                stream_deadline: config.stream_deadline,
                endpoint: config.endpoint,
            }),
            namespace: Arc::from(config.namespace),
            timeout: config.timeout,
            mode: Mode::Real,
        })
    }

    pub(crate) fn namespace(&self) -> String {
        self.namespace.as_ref().into()
    }

    pub(crate) fn is_dry_run(&self) -> bool {
        self.mode == Mode::DryRun
    }

    /// Refuses an answer that does not confirm a dry run.
    pub(crate) fn confirm(&self, validated_only: bool) -> Result<(), Error> {
        if self.is_dry_run() && !validated_only {
            return Err(Error::protocol(
                "the server did not confirm the dry run; it may have carried out the call",
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &self.channel.endpoint)
            .field("namespace", &self.namespace)
            .field("timeout", &self.timeout)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// What the calls of every method have in common.
fn heads(config: &ClientConfig, mode: Mode) -> Result<Heads, Error> {
    let (scheme, authority) = match config.endpoint.place() {
        Place::ClearText(uri) => (Scheme::Http, uri.authority()),
        Place::Tls(uri) => (Scheme::Https, uri.authority()),
        Place::Unix(_) => (Scheme::Http, None),
    };
    // A socket has no name; servers take this one as loopback.
    let authority = authority.map_or("localhost", |it| it.as_str());
    let bearer = config
        .token
        .as_ref()
        .map(|token| format!("Bearer {}", token.expose()));
    let head = |path| {
        let mut head = RequestHead::new(scheme, authority, path)?;
        head = head.with("user-agent", USER_AGENT.as_bytes())?;
        if let Some(bearer) = &bearer {
            // The same for all calls of the connection, so its peer may keep it.
            head = head.with("authorization", bearer.as_bytes())?;
        }
        match mode {
            Mode::Real => Ok(head),
            // Beside the field `validate_only`: a server checks both.
            Mode::DryRun => head.with(wire::DRY_RUN, b"1"),
        }
    };
    let wrong = |error: BadField| Error::configuration(format!("the server's name: {error}"));
    Heads::new(head).map_err(wrong)
}
