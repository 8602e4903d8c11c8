"""channelz on the admin listener, as a stock client of gRPC sees it, and as `larder` prints it."""

import datetime
import ipaddress

import grpc
import pytest

from harness import (
    CHANNEL_OPTIONS,
    PATIENCE_S,
    bearer,
    cache,
    channelz,
    channelz_grpc,
    json_of,
    talk,
)
from harness import larder as run


@pytest.fixture
def admin(larder):
    """A server, and a client of its channelz."""
    server = larder("--admin", "127.0.0.1:0")
    with grpc.insecure_channel(server.admin, CHANNEL_OPTIONS) as channel:
        yield server, channelz_grpc.ChannelzStub(channel)


def sockets_of(stub, server_id):
    """All connections of a server, two at a time."""
    found, start = [], 0
    while True:
        request = channelz.GetServerSocketsRequest(
            server_id=server_id, start_socket_id=start, max_results=2
        )
        page = stub.GetServerSockets(request, timeout=PATIENCE_S)
        assert len(page.socket_ref) <= 2
        for ref in page.socket_ref:
            request = channelz.GetSocketRequest(socket_id=ref.socket_id)
            found.append(stub.GetSocket(request, timeout=PATIENCE_S).socket)
        if page.end:
            return found
        start = page.socket_ref[-1].socket_id + 1


def test_servers_and_sockets_are_told_in_pages(admin):
    server, stub = admin
    # Else channels to one address share a connection.
    options = [*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.insecure_channel(server.address, options) for _ in range(5)]
    began = datetime.datetime.now(datetime.UTC)
    for number, channel in enumerate(channels):
        call = channel.unary_unary(
            "/rpc.Cache/Store",
            request_serializer=talk.StoreReq.SerializeToString,
            response_deserializer=talk.StoreResp.FromString,
        )
        for _ in range(number + 1):
            call(talk.StoreReq(key="k", val=b"v"), timeout=PATIENCE_S)
    with pytest.raises(grpc.RpcError):
        server.cache().Get(cache.GetRequest(), timeout=PATIENCE_S)

    top = stub.GetTopChannels(channelz.GetTopChannelsRequest(), timeout=PATIENCE_S)
    assert (list(top.channel), top.end) == ([], True)
    page = stub.GetServers(channelz.GetServersRequest(), timeout=PATIENCE_S)
    [one] = page.server
    assert page.end
    assert (one.data.calls_started, one.data.calls_succeeded, one.data.calls_failed) == (16, 15, 1)
    assert one.data.last_call_started_timestamp.ToDatetime(datetime.UTC) >= began
    request = channelz.GetServerRequest(server_id=one.ref.server_id)
    assert stub.GetServer(request, timeout=PATIENCE_S).server.ref == one.ref

    host, port = server.address.rsplit(":", 1)
    [listener] = one.listen_socket
    found = stub.GetSocket(channelz.GetSocketRequest(socket_id=listener.socket_id)).socket
    assert found.local.tcpip_address.port == int(port)

    sockets = sockets_of(stub, one.ref.server_id)
    assert len(sockets) == 6
    # One stream more for each, and a failed one; each in an order of its own.
    streams = sorted(socket.data.streams_started for socket in sockets)
    assert streams == [1, 1, 2, 3, 4, 5]
    for socket in sockets:
        data = socket.data
        assert data.streams_succeeded == data.streams_started == data.messages_received
        assert data.streams_failed == 0
        assert data.last_remote_stream_created_timestamp.ToDatetime(datetime.UTC) >= began
        assert ipaddress.ip_address(socket.local.tcpip_address.ip_address) == ipaddress.ip_address(
            host
        )
        assert socket.local.tcpip_address.port == int(port)
        assert socket.remote.tcpip_address.port not in (0, int(port))
        assert not socket.HasField("security")
    assert sum(socket.data.messages_sent for socket in sockets) == 15
    for channel in channels:
        channel.close()


def test_what_is_not_there_is_not_found(admin):
    _, stub = admin
    calls = [
        (stub.GetServer, channelz.GetServerRequest(server_id=10_000)),
        (stub.GetServerSockets, channelz.GetServerSocketsRequest(server_id=10_000)),
        (stub.GetSocket, channelz.GetSocketRequest(socket_id=10_000)),
        (stub.GetSocket, channelz.GetSocketRequest(socket_id=-1)),
        (stub.GetChannel, channelz.GetChannelRequest(channel_id=1)),
        (stub.GetSubchannel, channelz.GetSubchannelRequest(subchannel_id=1)),
    ]
    for call, request in calls:
        with pytest.raises(grpc.RpcError) as raised:
            call(request, timeout=PATIENCE_S)
        assert raised.value.code() == grpc.StatusCode.NOT_FOUND, request
    with pytest.raises(grpc.RpcError) as raised:
        stub.GetServers(channelz.GetServersRequest(max_results=-1), timeout=PATIENCE_S)
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_channelz_is_not_served_to_everybody(admin):
    server, _ = admin
    stub = channelz_grpc.ChannelzStub(server.channel())
    with pytest.raises(grpc.RpcError) as raised:
        stub.GetServers(channelz.GetServersRequest(), timeout=PATIENCE_S)
    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_connections_under_tls_say_so(larder, tmp_path, authority):
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    files = [tmp_path / "cert.pem", tmp_path / "key.pem"]
    certificate.cert_chain_pems[0].write_to_path(files[0])
    certificate.private_key_pem.write_to_path(files[1])
    tls = ["--tls-cert", str(files[0]), "--tls-key", str(files[1])]
    server = larder("--admin", "127.0.0.1:0", "--anonymous", "default", *tls)
    pem = authority.cert_pem.bytes()
    channel = server.channel(grpc.ssl_channel_credentials(pem))
    call = channel.unary_unary("/rpc.Cache/Store")
    call(talk.StoreReq(key="k", val=b"v").SerializeToString(), timeout=PATIENCE_S)
    with grpc.insecure_channel(server.admin, CHANNEL_OPTIONS) as admin:
        stub = channelz_grpc.ChannelzStub(admin)
        [one] = stub.GetServers(channelz.GetServersRequest()).server
        [socket] = sockets_of(stub, one.ref.server_id)
    assert socket.security.tls.standard_name.startswith("TLS_")


def test_the_command_prints_both_as_table_and_as_json(admin):
    server, _ = admin
    token = server.account("team")
    server.cache().Set(cache.SetRequest(key=b"k", value=b"v"), metadata=bearer(token))
    table = run("channelz", "--admin", server.admin)
    assert table.returncode == 0, table.stderr
    text = table.stdout.decode()
    for word in ("SOCKET", server.address, "clear text"):
        assert word in text
    told = json_of(run("channelz", "--admin", server.admin, "--json"))
    assert told["listeners"] == [server.address]
    assert told["calls_started"] == told["calls_succeeded"] == 3
    assert all(socket["local"] == server.address for socket in told["sockets"])
    options = [*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(server.address, options) as another:
        grpc.channel_ready_future(another).result(PATIENCE_S)
        few = json_of(run("channelz", "--admin", server.admin, "--json", "--limit", "1"))
    assert (len(few["sockets"]), few["more"]) == (1, True)
    missing = run("channelz", "--admin", server.address)
    assert missing.returncode == 1, missing.stdout
