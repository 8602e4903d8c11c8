//! The one connection of a client: made when a call needs it, and again when it is gone.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use larder_api::wire;
use larder_transport::client::{Config, Connection, Keepalive, Readiness};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::connector::{ConnectFailure, Connector};

/// Calls that wait for the connection at a time; more fail.
const MAX_WAITING_CALLS: usize = 1024;

/// The connection is asked for a sign of life this often while calls are under
/// way: a network that swallows packets is noticed within two of them.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// How long that sign may take.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a server that was connected to may take to say its settings.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes a connection, and keeps it.
pub(crate) struct Link {
    connector: Connector,
    config: Config,
    state: Arc<Mutex<State>>,
}

enum State {
    /// There is none.
    Idle,
    /// Somebody makes one; all who need it wait for the same.
    Dialing(watch::Receiver<Option<Dialed>>),
    /// There is one, or was.
    Up(Connection),
}

type Dialed = Result<Connection, Arc<ConnectFailure>>;

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum NoLink {
    Failed(Arc<ConnectFailure>),
    /// The call's time was up first.
    Deadline,
}

impl Link {
    pub(crate) fn new(connector: Connector, max_reply_bytes: usize) -> Self {
        let config = Config {
            stream_window_bytes: wire::STREAM_WINDOW_BYTES,
            connection_window_bytes: wire::CONNECTION_WINDOW_BYTES,
            max_message_bytes: max_reply_bytes,
            max_waiting_calls: MAX_WAITING_CALLS,
            greeting_timeout: GREETING_TIMEOUT,
            keepalive: Some(Keepalive {
                interval: KEEPALIVE_INTERVAL,
                timeout: KEEPALIVE_TIMEOUT,
                without_calls: false,
            }),
            ..Config::default()
        };
        Self {
            connector,
            config,
            state: Arc::new(Mutex::new(State::Idle)),
        }
    }

    /// The connection, once there is one.
    pub(crate) async fn connection(&self, deadline: Option<Instant>) -> Result<Connection, NoLink> {
        let mut dialed = match self.look() {
            Ok(connection) => return Ok(connection),
            Err(dialed) => dialed,
        };
        let waiting = dialed.wait_for(Option::is_some);
        let found = match deadline {
            None => waiting.await,
            Some(deadline) => tokio::time::timeout_at(deadline, waiting)
                .await
                .map_err(|_| NoLink::Deadline)?,
        };
        match found.as_deref() {
            Ok(Some(Ok(connection))) => Ok(connection.clone()),
            Ok(Some(Err(failure))) => Err(NoLink::Failed(Arc::clone(failure))),
            // The runtime that dialed has ended.
            Ok(None) | Err(_) => {
                *lock(&self.state) = State::Idle;
                let why = "the runtime that made the connection has ended";
                Err(NoLink::Failed(Arc::new(ConnectFailure::new(
                    "no connection",
                    std::io::Error::other(why),
                ))))
            }
        }
    }

    /// The connection, if it takes calls; else where it is to come from.
    fn look(&self) -> Result<Connection, watch::Receiver<Option<Dialed>>> {
        let mut state = lock(&self.state);
        match &*state {
            State::Up(connection)
                if !matches!(
                    connection.readiness(),
                    Readiness::Closing | Readiness::Closed
                ) =>
            {
                return Ok(connection.clone());
            }
            State::Dialing(dialed) => return Err(dialed.clone()),
            State::Up(_) | State::Idle => {}
        }
        let (tell, dialed) = watch::channel(None);
        *state = State::Dialing(dialed.clone());
        drop(state);
        let (connector, config) = (self.connector.clone(), self.config.clone());
        let state = Arc::clone(&self.state);
        // Whoever asked first may give up; the others go on waiting.
        tokio::spawn(async move {
            let made = dial(connector, config).await;
            *lock(&state) = match &made {
                Ok(connection) => State::Up(connection.clone()),
                Err(_) => State::Idle,
            };
            tell.send_replace(Some(made));
        });
        Err(dialed)
    }
}

async fn dial(connector: Connector, config: Config) -> Dialed {
    let stream = connector.open().await?;
    let (connection, driver) = Connection::start(stream, config);
    tokio::spawn(driver);
    connection
        .ready()
        .await
        .map_err(|closed| ConnectFailure::new("no HTTP/2", closed))?;
    Ok(connection)
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
