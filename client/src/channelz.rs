//! `grpc.channelz.v1`: what a server says of itself and of its connections, on its admin listener.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use larder_api::channelz_v1 as wire;
use larder_api::channelz_v1::{address, security};
use larder_api::protobuf::Timestamp;

use crate::client::Client;
use crate::convert::count;
use crate::error::{Error, Repeat};
use crate::method;

/// Asks about servers and their connections. To be made of a client of the admin listener.
#[derive(Debug, Clone)]
pub struct Channelz(Client);

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStatus {
    /// Its number.
    pub id: i64,
    /// What it calls itself.
    pub name: String,
    /// Calls that began.
    pub calls_started: u64,
    /// Calls that ended with [`Code::Ok`](crate::Code::Ok).
    pub calls_succeeded: u64,
    /// Calls that ended otherwise.
    pub calls_failed: u64,
    /// When the last one began.
    pub last_call_started: Option<SystemTime>,
    /// Where it listens.
    pub listeners: Vec<String>,
}

/// A connection of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketStatus {
    /// Its number.
    pub id: i64,
    /// The server's end.
    pub local: String,
    /// The client's end.
    pub remote: String,
    /// What it is encrypted with; `None`: it is clear text.
    pub cipher_suite: Option<String>,
    /// Streams that the client opened.
    pub streams_started: u64,
    /// Streams that both ends ended.
    pub streams_succeeded: u64,
    /// Streams that either end reset.
    pub streams_failed: u64,
    /// Messages of responses.
    pub messages_sent: u64,
    /// Messages of requests.
    pub messages_received: u64,
    /// Signs of life that the server asked for.
    pub keepalives_sent: u64,
    /// When the client opened the last stream.
    pub last_stream_started: Option<SystemTime>,
}

/// Connections of a server, as far as they were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Sockets {
    /// In the order in which they were made.
    pub sockets: Vec<SocketStatus>,
    /// There are more.
    pub more: bool,
}

impl Client {
    /// What the server says of itself: for a client of an admin listener.
    pub fn channelz(&self) -> Channelz {
        Channelz(self.clone())
    }
}

impl Channelz {
    /// The servers behind the listener, as many as it tells at once: larder is one.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached, or does not serve channelz there.
    pub async fn servers(&self) -> Result<Vec<ServerStatus>, Error> {
        let request = wire::GetServersRequest::default();
        let reply = self
            .0
            .call(method::GET_SERVERS, &request, Repeat::Read)
            .await?;
        Ok(reply.server.into_iter().map(server).collect())
    }

    /// Up to `most` connections of a server. Those that end meanwhile are left out.
    ///
    /// # Errors
    ///
    /// As [`servers`](Self::servers), and if there is no such server.
    pub async fn sockets(&self, server_id: i64, most: usize) -> Result<Sockets, Error> {
        let mut found = Sockets::default();
        let mut from = 0;
        loop {
            let left = most - found.sockets.len();
            let request = wire::GetServerSocketsRequest {
                server_id,
                start_socket_id: from,
                max_results: i64::try_from(left).unwrap_or(i64::MAX),
                ..wire::GetServerSocketsRequest::default()
            };
            let page = self
                .0
                .call(method::GET_SERVER_SOCKETS, &request, Repeat::Read)
                .await?;
            for socket in &page.socket_ref {
                from = socket.socket_id.saturating_add(1);
                if found.sockets.len() == most {
                    break;
                }
                found.sockets.extend(self.socket(socket.socket_id).await?);
            }
            found.more = !page.end;
            if page.end || page.socket_ref.is_empty() || found.sockets.len() >= most {
                return Ok(found);
            }
        }
    }

    /// One connection; `None` if it has ended.
    ///
    /// # Errors
    ///
    /// As [`servers`](Self::servers).
    pub async fn socket(&self, socket_id: i64) -> Result<Option<SocketStatus>, Error> {
        let request = wire::GetSocketRequest {
            socket_id,
            ..wire::GetSocketRequest::default()
        };
        match self
            .0
            .call(method::GET_SOCKET, &request, Repeat::Read)
            .await
        {
            Ok(reply) => Ok(reply.socket.into_option().map(status)),
            Err(error) if error.code() == crate::Code::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn server(server: wire::Server) -> ServerStatus {
    let name = server.r#ref.into_option().unwrap_or_default();
    let data = server.data.into_option().unwrap_or_default();
    ServerStatus {
        id: name.server_id,
        name: name.name,
        calls_started: count(data.calls_started),
        calls_succeeded: count(data.calls_succeeded),
        calls_failed: count(data.calls_failed),
        last_call_started: time(data.last_call_started_timestamp.as_option()),
        listeners: server.listen_socket.into_iter().map(|it| it.name).collect(),
    }
}

fn status(socket: wire::Socket) -> SocketStatus {
    let name = socket.r#ref.into_option().unwrap_or_default();
    let data = socket.data.into_option().unwrap_or_default();
    SocketStatus {
        id: name.socket_id,
        local: Shown(socket.local.as_option()).to_string(),
        remote: Shown(socket.remote.as_option()).to_string(),
        cipher_suite: socket.security.into_option().map(cipher_suite),
        streams_started: count(data.streams_started),
        streams_succeeded: count(data.streams_succeeded),
        streams_failed: count(data.streams_failed),
        messages_sent: count(data.messages_sent),
        messages_received: count(data.messages_received),
        keepalives_sent: count(data.keep_alives_sent),
        last_stream_started: time(data.last_remote_stream_created_timestamp.as_option()),
    }
}

fn cipher_suite(security: wire::Security) -> String {
    let suite = match security.model {
        Some(security::Model::Tls(tls)) => match tls.cipher_suite {
            Some(
                security::tls::CipherSuite::StandardName(name)
                | security::tls::CipherSuite::OtherName(name),
            ) => Some(name),
            None => None,
        },
        _ => None,
    };
    suite.unwrap_or_else(|| "unknown".to_owned())
}

fn time(stamp: Option<&Timestamp>) -> Option<SystemTime> {
    let stamp = stamp?;
    let since = Duration::new(
        u64::try_from(stamp.seconds).ok()?,
        u32::try_from(stamp.nanos).ok()?,
    );
    SystemTime::UNIX_EPOCH.checked_add(since)
}

/// An address, for people.
struct Shown<'a>(Option<&'a wire::Address>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.and_then(|it| it.address.as_ref()) {
            Some(address::Address::TcpipAddress(tcp)) => match ip(&tcp.ip_address) {
                Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", tcp.port),
                Some(ip) => write!(f, "{ip}:{}", tcp.port),
                None => f.write_str("unknown"),
            },
            Some(address::Address::UdsAddress(unix)) => match unix.filename.is_empty() {
                true => f.write_str("unix"),
                false => write!(f, "unix:{}", unix.filename),
            },
            Some(address::Address::OtherAddress(other)) => f.write_str(&other.name),
            None => f.write_str("unknown"),
        }
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}
