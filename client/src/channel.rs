//! The connection that calls share, and what is the same for all of them:
//! credential, deadline, dry run. The only file that knows which library
//! carries the calls, with [`crate::status`] and the two streams.

#[allow(dead_code, reason = "a part of a channel that is not put together yet")]
mod address;
#[allow(dead_code, reason = "a part of a channel that is not put together yet")]
mod backoff;
#[allow(dead_code, reason = "a part of a channel that is not put together yet")]
mod balancer;
#[allow(dead_code, reason = "a part of a channel that is not put together yet")]
mod balancing;
#[allow(dead_code, reason = "a part of a channel that is not put together yet")]
mod call;
#[allow(dead_code, reason = "a part of a channel that is not put together yet")]
mod dial;
#[allow(dead_code, reason = "a part of a channel that is not put together yet")]
mod driver;
#[allow(dead_code, reason = "a part of a channel that is not put together yet")]
mod ends;
#[allow(dead_code, reason = "a part of a channel that is not put together yet")]
mod health;
#[allow(dead_code, reason = "a part of a channel that is not put together yet")]
mod hedge;
#[allow(dead_code, reason = "a part of a channel that is not put together yet")]
mod lane;
#[allow(dead_code, reason = "a part of a channel that is not put together yet")]
mod open;
#[allow(dead_code, reason = "a part of a channel that is not put together yet")]
mod outlier;
#[allow(dead_code, reason = "a part of a channel that is not put together yet")]
mod pick;
#[allow(dead_code, reason = "a part of a channel that is not put together yet")]
mod pick_first;
#[allow(dead_code, reason = "a part of a channel that is not put together yet")]
mod resolve_schedule;
#[allow(dead_code, reason = "a part of a channel that is not put together yet")]
mod resolver;
#[allow(dead_code, reason = "a part of a channel that is not put together yet")]
mod retry;
#[allow(dead_code, reason = "a part of a channel that is not put together yet")]
mod service_config;
#[allow(dead_code, reason = "a part of a channel that is not put together yet")]
mod subchannel;
#[allow(dead_code, reason = "a part of a channel that is not put together yet")]
mod throttle;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use buffa::view::{MessageView, OwnedView};
use connectrpc::client::{
    CallOptions, ClientConfig as WireConfig, Http2Connection, Http2ConnectionBuilder, UnaryResponse,
};
use connectrpc::{CompressionRegistry, ConnectError, Protocol};
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue, USER_AGENT};
use larder_api::accounts_v1::AccountServiceClient;
use larder_api::cache_v1::CacheServiceClient;
use larder_api::channelz_v1::ChannelzClient;
use larder_api::{talk, wire};

use crate::accounts::Accounts;
use crate::config::{ClientConfig, Endpoint};
use crate::connector::Connector;
use crate::error::{Error, Repeat};
pub(crate) use crate::interceptor::ReplyBody;
use crate::interceptor::Transport;
use crate::status;
use crate::talk::Talk;
pub use balancing::{Balancing, OutlierEjection, RingHash};
pub(crate) use resolver::SystemResolver;
pub use resolver::{Addresses, Resolver};
pub(crate) use service_config::ServiceConfig;

/// Calls that wait for the connection at a time; more wait for a place.
const MAX_WAITING_CALLS: usize = 1024;

/// The connection is asked for a sign of life this often while calls are under
/// way: a network that swallows packets is noticed within two of them.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// How long that sign may take.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The library's own limit on connecting stands behind the connector's, and
/// only bounds the exchange of HTTP/2 prefaces.
const PREFACE_GRACE: Duration = Duration::from_secs(2);

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
    pub(crate) cache: CacheServiceClient<Transport>,
    pub(crate) accounts: AccountServiceClient<Transport>,
    pub(crate) talk: talk::CacheClient<Transport>,
    pub(crate) channelz: ChannelzClient<Transport>,
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
        config.check()?;
        let connector = Connector::new(&config)?;
        let base = connector.base_uri();
        let connection = builder(&config)
            .connect_with_connector(dialer(connector), base.clone())
            .await
            .map_err(|error| status::from_call(&error, Repeat::Read))?;
        Self::over(connection, config, base)
    }

    /// Connects when the first call needs it. Must be called inside a `tokio`
    /// runtime, which then drives the connection.
    ///
    /// # Errors
    ///
    /// If the configuration is wrong or unsafe.
    pub fn lazy(config: ClientConfig) -> Result<Self, Error> {
        config.check()?;
        let connector = Connector::new(&config)?;
        let base = connector.base_uri();
        let connection = builder(&config).lazy_with_connector(dialer(connector), base.clone());
        Self::over(connection, config, base)
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

    fn over(
        connection: Http2Connection,
        config: ClientConfig,
        base: http::Uri,
    ) -> Result<Self, Error> {
        let wire_config = WireConfig::new(base)
            .with_protocol(Protocol::Grpc)
            // An empty registry offers and accepts no compression: a cache's
            // values are small or compressed already, and a reply cannot
            // expand in memory.
            .with_compression(CompressionRegistry::new())
            .with_default_max_message_size(config.max_reply_bytes)
            .with_default_headers(headers(&config)?);
        let connection = connection.shared(MAX_WAITING_CALLS);
        let transport = Transport::new(connection, config.interceptors.clone());
        Ok(Self {
            channel: Arc::new(Channel {
                cache: CacheServiceClient::new(transport.clone(), wire_config.clone()),
                accounts: AccountServiceClient::new(transport.clone(), wire_config.clone()),
                talk: talk::CacheClient::new(transport.clone(), wire_config.clone()),
                channelz: ChannelzClient::new(transport, wire_config),
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

    /// Options of a unary call.
    pub(crate) fn unary_options(&self) -> CallOptions {
        self.mark(CallOptions::default().with_timeout(self.timeout))
    }

    /// Options of a stream: only a whole-stream deadline goes to the server.
    pub(crate) fn stream_options(&self) -> CallOptions {
        let options = CallOptions::default();
        self.mark(match self.channel.stream_deadline {
            Some(deadline) => options.with_timeout(deadline),
            None => options,
        })
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

    fn mark(&self, options: CallOptions) -> CallOptions {
        match self.mode {
            Mode::Real => options,
            // Beside the field `validate_only`: a server checks both.
            Mode::DryRun => options.with_header(wire::DRY_RUN, "1"),
        }
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

/// Waits for the answer to a unary call. Boxed, which costs an allocation a
/// call: as an `async fn` over the generated clients' futures it is not provably
/// `Send`, and no call could be spawned.
pub(crate) fn answer<'a, V>(
    call: impl Future<Output = Result<UnaryResponse<OwnedView<V>>, ConnectError>> + Send + 'a,
    repeat: Repeat,
) -> Pin<Box<dyn Future<Output = Result<V::Owned, Error>> + Send + 'a>>
where
    V: MessageView<'static>,
{
    Box::pin(async move {
        let response = call
            .await
            .map_err(|error| status::from_call(&error, repeat))?;
        Ok(response.into_owned())
    })
}

fn builder(config: &ClientConfig) -> Http2ConnectionBuilder {
    Http2Connection::builder()
        .establishment_timeout(config.connect_timeout.saturating_add(PREFACE_GRACE))
        // Said outright, for the library's defaults are those of HTTP/2: 64
        // KiB, which halves the speed of large values.
        .initial_stream_window_size(wire::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(wire::CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
}

fn dialer(
    connector: Connector,
) -> impl tower::Service<
    http::Uri,
    Response = crate::connector::Stream,
    Error = crate::connector::ConnectFailure,
    Future: Send + 'static,
> + Send
+ 'static {
    tower::service_fn(move |_: http::Uri| connector.clone().open())
}

fn headers(config: &ClientConfig) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    headers.insert(
        USER_AGENT,
        HeaderValue::from_static(concat!("larder-rust/", env!("CARGO_PKG_VERSION"))),
    );
    if let Some(token) = &config.token {
        headers.insert(AUTHORIZATION, token.header()?);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests;
