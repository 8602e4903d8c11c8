"""Encrypted connections."""

import grpc
import pytest
import trustme

from harness import PATIENCE_S, talk, talk_grpc
from harness import larder as command


class Files:
    """Certificates where a server reads them."""

    def __init__(self, folder, authority: trustme.CA):
        issued = authority.issue_cert("127.0.0.1", "localhost")
        self.cert, self.key, self.ca = folder / "cert", folder / "key", folder / "ca"
        issued.cert_chain_pems[0].write_to_path(self.cert)
        issued.private_key_pem.write_to_path(self.key)
        authority.cert_pem.write_to_path(self.ca)
        self.serve = ["--tls-cert", str(self.cert), "--tls-key", str(self.key)]


@pytest.fixture
def files(tmp_path, authority) -> Files:
    """Files of a server's certificate."""
    return Files(tmp_path, authority)


def check(server, credentials: grpc.ChannelCredentials, *, works: bool) -> None:
    """Asserts that calls get through with these credentials, or that none does."""
    cache = talk_grpc.CacheStub(server.channel(credentials))
    request = talk.StoreReq(key="gopher", val=b"con")
    if works:
        cache.Store(request, timeout=PATIENCE_S)
    else:
        with pytest.raises(grpc.RpcError) as raised:
            cache.Store(request, timeout=PATIENCE_S)
        assert raised.value.code() == grpc.StatusCode.UNAVAILABLE


def trusting(authority: trustme.CA, client: trustme.LeafCert | None = None):
    """Credentials of a client that trusts an authority, and may have a certificate."""
    if client is None:
        return grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    return grpc.ssl_channel_credentials(
        authority.cert_pem.bytes(),
        client.private_key_pem.bytes(),
        client.cert_chain_pems[0].bytes(),
    )


def test_a_client_trusts_only_the_right_authority(larder, files, authority):
    server = larder(*files.serve, "--anonymous", "default")
    check(server, trusting(authority), works=True)
    check(server, trusting(trustme.CA()), works=False)
    with pytest.raises(grpc.RpcError) as raised:
        server.talk().Get(talk.GetReq(key="gopher"), timeout=PATIENCE_S)
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE


def test_a_server_trusts_only_the_right_clients(larder, files, authority):
    server = larder(*files.serve, "--anonymous", "default", "--client-ca", str(files.ca))
    check(server, trusting(authority, authority.issue_cert("client")), works=True)
    check(server, trusting(authority, trustme.CA().issue_cert("client")), works=False)
    check(server, trusting(authority), works=False)


def test_the_command_speaks_tls_too(larder, files):
    server = larder(*files.serve, "--anonymous", "default")
    options = ["--ca", str(files.ca)]
    url = f"https://{server.address}"

    def run(*arguments: str):
        return command(*arguments, "--server", url)

    assert run("set", "k", "v", *options).returncode == 0
    assert run("get", "k", *options).stdout.rstrip(b"\n") == b"v"
    assert run("get", "k").returncode == 1
    assert run("get", "k", "--insecure").stdout.rstrip(b"\n") == b"v"
