//! The client: the channel that calls share, and what is the same for all of them: credential,
//! deadline, dry run.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use larder_api::wire;
use larder_transport::client::RequestHead;
use tokio::time::Instant;

use crate::accounts::Accounts;
use crate::call::Lost;
use crate::channel::{self, Balanced, MethodConfig, Wait};
use crate::config::ClientConfig;
use crate::endpoint::Endpoint;
use crate::error::{Error, Repeat};
use crate::fill::Flights;
use crate::interceptor::Interceptors;
use crate::method::{self, PerMethod};
use crate::near::NearCaches;
use crate::status;
use crate::talk::Talk;

/// A client of one server, or of several. Cloning it is cheap; all clones share their connections.
///
/// The methods that change how calls are made, such as
/// [`in_namespace`](Self::in_namespace), give back another client on the same
/// connections.
#[derive(Clone)]
pub struct Client {
    pub(crate) channel: Arc<Channel>,
    pub(crate) namespace: Arc<str>,
    pub(crate) timeout: Duration,
    pub(crate) mode: Mode,
    /// By when all calls have to be over.
    pub(crate) until: Option<Instant>,
    /// `None`: as the service config says.
    pub(crate) wait: Option<Wait>,
    /// `traceparent` of all calls.
    pub(crate) trace: Option<Arc<str>>,
    /// The one server of a ring that all calls go to, by its address.
    pub(crate) server: Option<Arc<str>>,
}

/// Whether mutations have their effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Real,
    DryRun,
}

/// What all clones share.
pub(crate) struct Channel {
    pub(crate) balanced: Balanced,
    pub(crate) methods: PerMethod<Arc<MethodConfig>>,
    /// Of calls whose messages go as they are.
    pub(crate) heads: ByMode,
    pub(crate) compression: Option<Compressed>,
    pub(crate) interceptors: Interceptors,
    pub(crate) stream_deadline: Option<Duration>,
    pub(crate) near: NearCaches,
    flights: Arc<Flights>,
    endpoint: Endpoint,
}

/// The heads of all methods, by target.
pub(crate) struct ByMode {
    real: Vec<PerMethod<RequestHead>>,
    /// Of calls that have no effect.
    dry: Vec<PerMethod<RequestHead>>,
}

/// Which messages are compressed.
pub(crate) struct Compressed {
    /// Those of so many bytes and more.
    pub(crate) above: usize,
    /// Of the calls that have such.
    pub(crate) heads: ByMode,
}

impl Client {
    /// Connects now, and reconnects by itself whenever a call needs it. Gives up
    /// when no server can be reached, unless the service config has
    /// `waitForReady` for all methods.
    ///
    /// # Errors
    ///
    /// If the configuration is wrong or unsafe, or no server can be reached
    /// ([`Error::is_connect`]).
    pub async fn connect(config: ClientConfig) -> Result<Self, Error> {
        let client = Self::over(config)?;
        let ready = client.ready(method::GET_SERVER_INFO).await;
        ready.map_err(|unreached| status::from_lost(Lost::Unreached(unreached), Repeat::Read))?;
        Ok(client)
    }

    /// Connects when the first call needs it. Must be called inside a `tokio`
    /// runtime, which then drives the connections.
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

    /// The same client, all of whose calls end by an instant, or sooner if their
    /// own time is up: what is left of a call that this program serves.
    /// Streams too.
    ///
    /// It is given rather than taken from the task around it, for it has to hold
    /// in tasks that are spawned as well. Of two such instants the earlier holds.
    #[must_use]
    pub fn within(&self, deadline: std::time::Instant) -> Self {
        let deadline = Instant::from_std(deadline);
        Self {
            until: Some(self.until.map_or(deadline, |until| until.min(deadline))),
            ..self.clone()
        }
    }

    /// The same client, whose calls wait for a server while none can be reached,
    /// until their time is up: gRPC's [wait for ready]. Without it a call waits
    /// only for the first attempts to connect.
    ///
    /// [wait for ready]: https://github.com/grpc/grpc/blob/master/doc/wait-for-ready.md
    #[must_use]
    pub fn wait_for_ready(&self) -> Self {
        Self {
            wait: Some(Wait::ForReady),
            ..self.clone()
        }
    }

    /// The same client, whose calls are part of a trace: they carry this
    /// `traceparent` (W3C Trace Context), which names the span that makes them.
    ///
    /// # Errors
    ///
    /// If it is none of version 00: `00-`, 32 and 16 hexadecimal digits that are
    /// not all 0, and 2 of flags.
    pub fn traced(&self, traceparent: &str) -> Result<Self, Error> {
        if !is_traceparent(traceparent) {
            return Err(Error::configuration(format!(
                "{traceparent:?} is no traceparent"
            )));
        }
        Ok(Self {
            trace: Some(traceparent.into()),
            ..self.clone()
        })
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

    /// Where the server is; the first, if there are several.
    pub fn endpoint(&self) -> &Endpoint {
        &self.channel.endpoint
    }

    fn over(config: ClientConfig) -> Result<Self, Error> {
        config.check()?;
        let compressed = |above| -> Result<_, Error> {
            let heads = ByMode::new(&config, RequestHead::compressed)?;
            Ok(Compressed { above, heads })
        };
        let service = &config.service_config;
        let methods = |path| Ok::<_, Error>(Arc::clone(service.methods.of(path)));
        Ok(Self {
            channel: Arc::new(Channel {
                balanced: channel::open(&config)?,
                methods: PerMethod::new(methods)?,
                heads: ByMode::new(&config, |head| head)?,
                compression: config.compression.map(compressed).transpose()?,
                interceptors: config.interceptors,
                stream_deadline: config.stream_deadline,
                near: NearCaches::default(),
                flights: Arc::default(),
                endpoint: config.endpoint,
            }),
            namespace: Arc::from(config.namespace),
            timeout: config.timeout,
            mode: Mode::Real,
            until: None,
            wait: None,
            trace: None,
            server: None,
        })
    }

    /// The values that are being made, for all clones.
    pub(crate) fn flights(&self) -> Arc<Flights> {
        Arc::clone(&self.channel.flights)
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

impl ByMode {
    /// Each as `finish` leaves it.
    fn new(config: &ClientConfig, finish: fn(RequestHead) -> RequestHead) -> Result<Self, Error> {
        let of_mode = |mode| -> Result<Vec<_>, Error> {
            let endpoints = config.endpoints();
            endpoints
                .map(|it| heads(config, it, mode, finish))
                .collect()
        };
        Ok(Self {
            real: of_mode(Mode::Real)?,
            dry: of_mode(Mode::DryRun)?,
        })
    }

    pub(crate) fn of(&self, mode: Mode) -> &[PerMethod<RequestHead>] {
        match mode {
            Mode::Real => &self.real,
            Mode::DryRun => &self.dry,
        }
    }
}

/// The heads of all methods' calls to one server.
fn heads(
    config: &ClientConfig,
    endpoint: &Endpoint,
    mode: Mode,
    finish: fn(RequestHead) -> RequestHead,
) -> Result<PerMethod<RequestHead>, Error> {
    PerMethod::new(|path| {
        let head = finish(channel::head(config, endpoint, path)?);
        match mode {
            Mode::Real => Ok(head),
            // Beside the field `validate_only`: a server checks both.
            Mode::DryRun => head
                .with(wire::DRY_RUN, b"1")
                .map_err(|bad| Error::configuration(bad.to_string())),
        }
    })
}

/// W3C Trace Context, section 3.2.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let is_hex = |part: &str, length: usize| {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        part.len() == length && part.bytes().all(digit)
    };
    let is_id = |part: &str, length| is_hex(part, length) && part.bytes().any(|byte| byte != b'0');
    match parts[..] {
        ["00", trace, span, flags] => is_id(trace, 32) && is_id(span, 16) && is_hex(flags, 2),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparents() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_traceparent(good));
        for bad in [
            "",
            "00",
            &good[1..],
            &good.replace("00-", "01-"),
            &good.replace('f', "F"),
            &good.replace("00f067aa0ba902b7", "0000000000000000"),
            &format!("{good}-x"),
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }
}
