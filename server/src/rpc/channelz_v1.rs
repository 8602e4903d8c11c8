//! `grpc.channelz.v1` (gRFC A14): what there is to be seen of the server and its connections.
//! Served on the admin listener only.
//!
//! One server, its listeners and its connections. It has no channels, so none are told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use connectrpc::{ConnectError, RequestContext, Response, Router, ServiceRequest, ServiceResult};
use larder_api::channelz_v1 as wire;
use larder_api::channelz_v1::{address, security};
use larder_api::protobuf::Timestamp;
use larder_model::Store;
use larder_transport::registry::{Registry, Socket};
use larder_transport::serve::{Peer, TlsInfo};
use larder_transport::shared::Shared;

use crate::clock;
use crate::core::Core;

/// Elements of a page if the caller does not say, and at the most.
const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

/// The service, for the admin listener.
pub(crate) fn router<S: Store>(core: &Arc<Core<S>>, shared: Arc<Shared>) -> Router {
    Router::new().add_service(Arc::new(ChannelzV1::new(Arc::clone(core), shared)))
}

/// `grpc.channelz.v1.Channelz` of one server.
struct ChannelzV1<S: Store> {
    core: Arc<Core<S>>,
    shared: Arc<Shared>,
    /// The server's number, among those of the sockets.
    id: u64,
}

impl<S: Store> ChannelzV1<S> {
    fn new(core: Arc<Core<S>>, shared: Arc<Shared>) -> Self {
        let id = shared.registry().take_id();
        Self { core, shared, id }
    }

    fn registry(&self) -> &Registry {
        self.shared.registry()
    }

    fn server(&self) -> wire::Server {
        let totals = self.core.telemetry.meters.totals();
        let (succeeded, failed) = totals.calls_ended();
        let (sockets, _) = self.registry().sockets(0, usize::MAX);
        let started = sockets.iter().map(|it| it.last_activity().stream_started);
        let data = wire::ServerData {
            calls_started: signed(totals.calls_started()),
            calls_succeeded: signed(succeeded),
            calls_failed: signed(failed),
            // As far as the connections that last know.
            last_call_started_timestamp: started.max().flatten().map(timestamp).into(),
            ..wire::ServerData::default()
        };
        let listeners = self.registry().listeners();
        wire::Server {
            r#ref: wire::ServerRef {
                server_id: signed(self.id),
                name: concat!("larder ", env!("CARGO_PKG_VERSION")).into(),
                ..wire::ServerRef::default()
            }
            .into(),
            data: data.into(),
            listen_socket: listeners
                .iter()
                .map(|listener| socket_ref(listener.id, &address_name(listener.local)))
                .collect(),
            ..wire::Server::default()
        }
    }

    fn socket(&self, id: i64, is_summary: bool) -> Result<wire::Socket, ConnectError> {
        let unknown = || ConnectError::not_found(format!("there is no socket {id}"));
        let id = u64::try_from(id).map_err(|_| unknown())?;
        if let Some(socket) = self.registry().socket(id) {
            return Ok(connection(&socket, is_summary));
        }
        let listeners = self.registry().listeners();
        let listener = listeners.iter().find(|listener| listener.id == id);
        let listener = listener.ok_or_else(unknown)?;
        Ok(wire::Socket {
            r#ref: socket_ref(id, &address_name(listener.local)).into(),
            local: local_address(listener.local).into(),
            ..wire::Socket::default()
        })
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn socket_ref(id: u64, name: &str) -> wire::SocketRef {
    wire::SocketRef {
        socket_id: signed(id),
        name: name.into(),
        ..wire::SocketRef::default()
    }
}

fn address_name(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "unix".to_owned(), |address| address.to_string())
}

/// A connection. Its counts are of its last turn; those of messages are of the typed lane.
fn connection(socket: &Socket, is_summary: bool) -> wire::Socket {
    let (activity, last) = (socket.activity(), socket.last_activity());
    let time = |at: Option<Instant>| at.map(timestamp).into();
    let data = wire::SocketData {
        streams_started: signed(activity.streams_started),
        streams_succeeded: signed(activity.streams_succeeded),
        streams_failed: signed(activity.streams_failed),
        messages_sent: signed(activity.messages_sent),
        messages_received: signed(activity.messages_received),
        keep_alives_sent: signed(activity.keepalives_sent),
        last_remote_stream_created_timestamp: time(last.stream_started),
        last_message_sent_timestamp: time(last.message_sent),
        last_message_received_timestamp: time(last.message_received),
        ..wire::SocketData::default()
    };
    let remote = match socket.who.peer {
        Peer::Tcp(address) => tcp(address),
        Peer::Unix => unix(),
    };
    // Certificates are long, and a summary leaves them out.
    let security = socket.who.tls.as_ref().filter(|_| !is_summary);
    wire::Socket {
        r#ref: socket_ref(socket.id, &socket.who.peer.to_string()).into(),
        data: data.into(),
        local: local_address(socket.local).into(),
        remote: remote.into(),
        security: security.map(|tls| of_tls(tls)).into(),
        ..wire::Socket::default()
    }
}

fn local_address(address: Option<SocketAddr>) -> wire::Address {
    address.map_or_else(unix, tcp)
}

fn tcp(address: SocketAddr) -> wire::Address {
    let ip_address = match address {
        SocketAddr::V4(address) => address.ip().octets().to_vec(),
        SocketAddr::V6(address) => address.ip().octets().to_vec(),
    };
    let address = address::TcpIpAddress {
        ip_address,
        port: i32::from(address.port()),
        ..address::TcpIpAddress::default()
    };
    wire::Address {
        address: Some(address::Address::TcpipAddress(Box::new(address))),
        ..wire::Address::default()
    }
}

/// A Unix socket: clients give theirs no name.
fn unix() -> wire::Address {
    let address = address::UdsAddress::default();
    wire::Address {
        address: Some(address::Address::UdsAddress(Box::new(address))),
        ..wire::Address::default()
    }
}

fn of_tls(info: &TlsInfo) -> wire::Security {
    // rustls calls the suites of TLS 1.3 by another name than IANA.
    let suite = info.cipher_suite.map(|suite| {
        let name = format!("{suite:?}");
        name.replace("TLS13_", "TLS_")
    });
    let remote = info.peer_certificates.first();
    let tls = security::Tls {
        remote_certificate: remote.map_or_else(Vec::new, |certificate| certificate.to_vec()),
        cipher_suite: suite.map(security::tls::CipherSuite::StandardName),
        ..security::Tls::default()
    };
    wire::Security {
        model: Some(security::Model::Tls(Box::new(tls))),
        ..wire::Security::default()
    }
}

/// On the wall clock, to which the difference from now is added.
fn timestamp(at: Instant) -> Timestamp {
    let ago = clock::instant().saturating_duration_since(at);
    let ago = u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX);
    let nanos = clock::unix_nanos().saturating_sub(ago);
    Timestamp {
        seconds: signed(nanos / 1_000_000_000),
        nanos: i32::try_from(nanos % 1_000_000_000).unwrap_or(0),
        ..Timestamp::default()
    }
}

/// How many elements a page has.
fn page(wanted: i64) -> Result<usize, ConnectError> {
    match usize::try_from(wanted) {
        Ok(0) => Ok(DEFAULT_PAGE),
        Ok(wanted) => Ok(wanted.min(MAX_PAGE)),
        Err(_) => {
            let message = format!("max_results is {wanted}, and must not be negative");
            Err(ConnectError::invalid_argument(message))
        }
    }
}

#[allow(
    refining_impl_trait,
    reason = "the concrete message says more than `impl Encodable`"
)]
impl<S: Store> wire::Channelz for ChannelzV1<S> {
    async fn get_top_channels(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, wire::GetTopChannelsRequest>,
    ) -> ServiceResult<wire::GetTopChannelsResponse> {
        page(request.view().max_results)?;
        Ok(Response::new(wire::GetTopChannelsResponse {
            end: true,
            ..wire::GetTopChannelsResponse::default()
        }))
    }

    async fn get_servers(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, wire::GetServersRequest>,
    ) -> ServiceResult<wire::GetServersResponse> {
        page(request.view().max_results)?;
        let is_asked = request.view().start_server_id <= signed(self.id);
        Ok(Response::new(wire::GetServersResponse {
            server: is_asked.then(|| self.server()).into_iter().collect(),
            end: true,
            ..wire::GetServersResponse::default()
        }))
    }

    async fn get_server(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, wire::GetServerRequest>,
    ) -> ServiceResult<wire::GetServerResponse> {
        self.check_server(request.view().server_id)?;
        Ok(Response::new(wire::GetServerResponse {
            server: self.server().into(),
            ..wire::GetServerResponse::default()
        }))
    }

    async fn get_server_sockets(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, wire::GetServerSocketsRequest>,
    ) -> ServiceResult<wire::GetServerSocketsResponse> {
        let request = request.view();
        self.check_server(request.server_id)?;
        let most = page(request.max_results)?;
        let from = u64::try_from(request.start_socket_id).unwrap_or(0);
        let (sockets, end) = self.registry().sockets(from, most);
        Ok(Response::new(wire::GetServerSocketsResponse {
            socket_ref: sockets
                .iter()
                .map(|socket| socket_ref(socket.id, &socket.who.peer.to_string()))
                .collect(),
            end,
            ..wire::GetServerSocketsResponse::default()
        }))
    }

    async fn get_channel(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, wire::GetChannelRequest>,
    ) -> ServiceResult<wire::GetChannelResponse> {
        let id = request.view().channel_id;
        Err(ConnectError::not_found(format!("there is no channel {id}")))
    }

    async fn get_subchannel(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, wire::GetSubchannelRequest>,
    ) -> ServiceResult<wire::GetSubchannelResponse> {
        let id = request.view().subchannel_id;
        let message = format!("there is no subchannel {id}");
        Err(ConnectError::not_found(message))
    }

    async fn get_socket(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, wire::GetSocketRequest>,
    ) -> ServiceResult<wire::GetSocketResponse> {
        let request = request.view();
        let socket = self.socket(request.socket_id, request.summary)?;
        Ok(Response::new(wire::GetSocketResponse {
            socket: socket.into(),
            ..wire::GetSocketResponse::default()
        }))
    }
}

impl<S: Store> ChannelzV1<S> {
    fn check_server(&self, id: i64) -> Result<(), ConnectError> {
        match id == signed(self.id) {
            true => Ok(()),
            false => Err(ConnectError::not_found(format!("there is no server {id}"))),
        }
    }
}
