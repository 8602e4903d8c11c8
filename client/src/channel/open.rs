//! From a configuration to a channel: nothing is connected to before a call asks.

use std::sync::Arc;

use larder_api::wire;
use larder_transport::client::{BadField, Config, RequestHead, Scheme};
use larder_transport::gzip;
use rand::TryRngCore as _;

use super::balancer::{Balancer, Settings};
use super::balancing::{Balancing, Policy};
use super::call::Balanced;
use super::dial::{Dialer, Tls};
use super::driver::{Driver, Parts};
use super::health::WATCH;
use super::lane::Counts;
use super::resolver::{Name, Names};
use super::throttle::Throttle;
use crate::config::ClientConfig;
use crate::endpoint::{Endpoint, Place};
use crate::error::Error;
use crate::tls::{server_name, tls_config};

/// How this client names itself.
const USER_AGENT: &str = concat!("larder-rust/", env!("CARGO_PKG_VERSION"));

/// The head of the calls of one method to one server, with what is the same for all calls.
pub(crate) fn head(
    config: &ClientConfig,
    endpoint: &Endpoint,
    path: &str,
) -> Result<RequestHead, Error> {
    let (scheme, authority) = target(endpoint);
    let make = || {
        let mut head = RequestHead::new(scheme, &authority, path)?
            .with("user-agent", USER_AGENT.as_bytes())?;
        if config.compression.is_some() {
            head = head.with("grpc-accept-encoding", gzip::NAME.as_bytes())?;
        }
        match &config.token {
            // The same for all calls of the connection, so its peer may keep it.
            Some(token) => {
                let bearer = format!("Bearer {}", token.expose());
                head.with("authorization", bearer.as_bytes())
            }
            None => Ok(head),
        }
    };
    make().map_err(|bad: BadField| Error::configuration(format!("the server's name: {bad}")))
}

/// Opens a channel. Must be called inside a `tokio` runtime, which then drives it.
pub(crate) fn open(config: &ClientConfig) -> Result<Balanced, Error> {
    let service = &config.service_config;
    let balancing = config
        .balancing
        .clone()
        .or_else(|| service.balancing.clone())
        .unwrap_or_else(Balancing::pick_first);
    let hashes_keys = matches!(balancing.policy, Policy::RingHash(_));
    let counts = Counts {
        in_flight: counts_in_flight(&balancing.policy),
        outcomes: balancing.ejection.is_some(),
    };
    let seed = rand::rngs::OsRng.try_next_u64().unwrap_or_default();
    let settings = Settings {
        balancing,
        watches_health: service.health_service.is_some(),
        max_connections: service.max_connections,
    };
    let balancer = Balancer::new(settings, seed);
    let health = match (&service.health_service, balancer.watches_health()) {
        (Some(service), true) => {
            let heads = config.endpoints().map(|it| head(config, it, WATCH));
            Some((heads.collect::<Result<_, _>>()?, service.clone()))
        }
        _ => None,
    };
    let names = config.endpoints().map(name).collect();
    let (picker, asks) = Driver::start(Parts {
        balancer,
        names: Names::new(names, Arc::clone(&config.resolver.0)),
        dialer: dialer(config)?,
        counts,
        max_connections: service.max_connections,
        health,
        start: usize::try_from(seed >> 32).unwrap_or_default(),
    });
    let throttle = service.throttle.map(Throttle::new);
    Ok(Balanced::new(picker, asks, throttle, hashes_keys))
}

const fn counts_in_flight(policy: &Policy) -> bool {
    match policy {
        Policy::PickFirst { .. } | Policy::RoundRobin => false,
        Policy::LeastRequest { .. } => true,
        Policy::RingHash(ring) => ring.balance_percent > 0,
    }
}

fn dialer(config: &ClientConfig) -> Result<Dialer, Error> {
    let needs_tls = |endpoint: &Endpoint| matches!(endpoint.place(), Place::Tls(_));
    let shared = match config.endpoints().any(needs_tls) {
        true => Some(Arc::new(tls_config(config)?)),
        false => None,
    };
    let tls = config.endpoints().map(|endpoint| {
        let (Place::Tls(uri), Some(config)) = (endpoint.place(), &shared) else {
            return Ok(None);
        };
        let name = server_name(uri)?;
        Ok(Some(Tls {
            config: Arc::clone(config),
            name,
        }))
    });
    Ok(Dialer {
        tls: tls.collect::<Result<_, Error>>()?,
        config: Config {
            stream_window_bytes: wire::STREAM_WINDOW_BYTES,
            connection_window_bytes: wire::CONNECTION_WINDOW_BYTES,
            max_message_bytes: config.max_reply_bytes,
            takes_gzip: config.compression.is_some(),
            greeting_timeout: config.connect_timeout,
            keepalive: Some(config.keepalive),
            ..Config::default()
        },
        timeout: config.connect_timeout,
    })
}

fn name(endpoint: &Endpoint) -> Name {
    let (uri, default_port) = match endpoint.place() {
        Place::Unix(path) => return Name::Unix(path.clone()),
        Place::ClearText(uri) => (uri, 80),
        Place::Tls(uri) => (uri, 443),
    };
    let host = uri.host().unwrap_or_default().to_owned();
    Name::Host(host, uri.port_u16().unwrap_or(default_port))
}

fn target(endpoint: &Endpoint) -> (Scheme, String) {
    let authority = |uri: &http::Uri| {
        let authority = uri.authority().map(ToString::to_string);
        authority.unwrap_or_default()
    };
    match endpoint.place() {
        // A socket has no name; servers take this one as loopback.
        Place::Unix(_) => (Scheme::Http, "localhost".into()),
        Place::ClearText(uri) => (Scheme::Http, authority(uri)),
        Place::Tls(uri) => (Scheme::Https, authority(uri)),
    }
}
