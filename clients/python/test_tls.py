"""Encrypted connections, certificates that are exchanged, and callers known by theirs."""

import datetime
import json
import socket
import ssl
import time

import grpc
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from harness import (
    PATIENCE_S,
    accounts,
    accounts_grpc,
    bearer,
    cache,
    cache_grpc,
    refused,
    talk,
    talk_grpc,
)
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


def crl(authority: trustme.CA, *revoked: trustme.LeafCert) -> bytes:
    """A list of revoked certificates."""
    now = datetime.datetime.now(datetime.UTC)
    key = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(now - datetime.timedelta(days=1))
        .next_update(now + datetime.timedelta(days=1))
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False
        )
    )
    for leaf in revoked:
        cert = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(cert.serial_number)
            .revocation_date(now - datetime.timedelta(hours=1))
            .build()
        )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def wait_for(what, server) -> None:
    """Waits until something holds; the server looks at its files each second."""
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end, server.stderr()
        time.sleep(0.05)


def shown(server, authority: trustme.CA) -> bytes:
    """The certificate that the server shows."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    host, port = server.address.rsplit(":", 1)
    with (
        socket.create_connection((host, int(port)), PATIENCE_S) as raw,
        context.wrap_socket(raw, server_hostname=host) as secured,
    ):
        return secured.getpeercert(binary_form=True)


def test_a_new_certificate_is_shown_and_a_broken_one_is_not(larder, files, authority, tmp_path):
    (tmp_path / "config").write_text("[tls]\nreload_seconds = 1\n")
    server = larder(*files.serve, "--anonymous", "default", "--config", str(tmp_path / "config"))
    first = shown(server, authority)
    # A connection that lasts serves calls all the while.
    lasting = talk_grpc.CacheStub(server.channel(trusting(authority)))
    lasting.Store(talk.StoreReq(key="k", val=b"v"), timeout=PATIENCE_S)

    files.cert.write_text("half a certificate")
    wait_for(lambda: "new certificates are refused" in server.stderr(), server)
    assert shown(server, authority) == first
    other = authority.issue_cert("127.0.0.1")
    other.cert_chain_pems[0].write_to_path(files.cert)
    wait_for(lambda: "is not the key of the certificate" in server.stderr(), server)
    assert shown(server, authority) == first
    other.private_key_pem.write_to_path(files.key)
    wait_for(lambda: shown(server, authority) != first, server)
    assert "certificates replaced" in server.stderr()
    assert lasting.Get(talk.GetReq(key="k"), timeout=PATIENCE_S).val == b"v"
    check(server, trusting(authority), works=True)


def test_a_certificate_that_cannot_be_used_is_refused_at_the_start(files, authority):
    def refusal() -> str:
        finished = command("serve", "--listen", "127.0.0.1:0", *files.serve)
        assert finished.returncode == 1
        return finished.stderr.decode()

    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    expired = authority.issue_cert("127.0.0.1", not_before=past, not_after=past.replace(month=2))
    expired.cert_chain_pems[0].write_to_path(files.cert)
    expired.private_key_pem.write_to_path(files.key)
    assert "tls_cert" in refusal()
    assert "expired at Feb  1" in refusal()
    authority.issue_cert("127.0.0.1").cert_chain_pems[0].write_to_path(files.cert)
    assert "is not the key of the certificate" in refusal()


def test_a_certificate_stands_for_an_account_until_it_is_revoked(
    larder, files, authority, tmp_path
):
    web = authority.issue_cert("web.team.example")
    ops = authority.issue_cert("ops.example", common_name="ops")
    (tmp_path / "crl").write_bytes(crl(authority))
    (tmp_path / "config").write_text(
        "[tls]\nreload_seconds = 1\nclient_certificates = 'optional'\n"
        "[[tls.account]]\ndns = '*.team.example'\naccount = 'team'\nkey_prefixes = ['mine/']\n"
        "[[tls.account]]\ncommon_name = 'ops'\naccount = 'default'\nactions = ['admin']\n"
        f"[audit]\nfile = '{tmp_path}/audit'\nfailures_per_second = 3\n"
    )
    server = larder(
        *files.serve,
        *("--client-ca", str(files.ca), "--client-crl", str(tmp_path / "crl")),
        *("--config", str(tmp_path / "config")),
    )
    admin = accounts_grpc.AccountServiceStub(server.channel(trusting(authority, ops)))
    stub = cache_grpc.CacheServiceStub(server.channel(trusting(authority, web)))
    request = cache.SetRequest(key=b"mine/k", value=b"v")
    with refused("UNAUTHENTICATED", "TOKEN_INVALID"):
        stub.Set(request, timeout=PATIENCE_S)
    account = accounts.CreateAccountRequest(account_id="team")
    admin.CreateAccount(account, timeout=PATIENCE_S)
    stub.Set(request, timeout=PATIENCE_S)
    with refused("PERMISSION_DENIED", "SCOPE_DENIED"):
        stub.Set(cache.SetRequest(key=b"k"), timeout=PATIENCE_S)
    # A token wins: a bad one is not made good by the certificate.
    with refused("UNAUTHENTICATED", "TOKEN_INVALID"):
        stub.Set(request, metadata=bearer("nobody-made-this"), timeout=PATIENCE_S)
    token = accounts.CreateTokenRequest(parent="accounts/default", secret="imported-secret")
    made = admin.CreateToken(token, timeout=PATIENCE_S)
    get = cache.GetRequest(key=b"mine/k")
    assert stub.Get(get, timeout=PATIENCE_S).HasField("hit")
    assert stub.Get(get, metadata=bearer(made.secret), timeout=PATIENCE_S).HasField("miss")

    # The connection lasts, and is not trusted any longer.
    (tmp_path / "crl").write_bytes(crl(authority, web))
    wait_for(lambda: "certificates replaced" in server.stderr(), server)
    with refused("UNAUTHENTICATED", "TOKEN_INVALID") as refusal:
        while True:
            stub.Get(get, timeout=PATIENCE_S)
    assert "client certificate" in refusal.message
    check(server, trusting(authority, web), works=False)

    lines = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    [created] = [line for line in lines if line["action"].endswith("/CreateAccount")]
    assert created["actor"].startswith("certificate ")
    assert "CN=ops" in created["actor"]
    assert created["account"] == "default"
    assert (created["resource"], created["outcome"]) == ("accounts/team", "OK")
    [token_line] = [line for line in lines if line["action"].endswith("/CreateToken")]
    assert token_line["resource"] == made.token.name
    assert any(line.get("reason") == "TOKEN_INVALID" for line in lines)
    assert any(line["action"] == "reload_certificates" for line in lines)
    text = (tmp_path / "audit").read_text() + server.stderr()
    for secret in ("imported-secret", "nobody-made-this", server.admin_token):
        assert secret not in text


def test_callers_who_are_turned_away_fill_no_disk(larder, tmp_path):
    (tmp_path / "config").write_text(
        f"[audit]\nfile = '{tmp_path}/audit'\nfailures_per_second = 1\n"
    )
    server = larder("--config", str(tmp_path / "config"), "--log-format", "off")
    stub = server.cache()
    for _ in range(300):
        with refused("UNAUTHENTICATED", "TOKEN_INVALID"):
            stub.Get(cache.GetRequest(key=b"k"), metadata=bearer("guessed"), timeout=PATIENCE_S)
    server.stop()
    lines = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    told = [line for line in lines if line.get("reason") == "TOKEN_INVALID"]
    assert 0 < len(told) < 100
    assert len(told) + sum(line.get("suppressed", 0) for line in lines) == 300
    assert "drain" in [line["action"] for line in lines]


def test_clear_text_does_not_leave_the_machine_unasked():
    def refusal(*arguments: str) -> str:
        finished = command(*arguments)
        assert finished.returncode == 1
        return finished.stderr.decode()

    everywhere = ["--listen", "0.0.0.0:0"]
    assert "--allow-clear-text" in refusal("serve", *everywhere)
    assert "--allow-clear-text" in refusal("accounts", "serve", *everywhere)
    assert "https://" in refusal("serve", "--accounts", "http://accounts.example:5052")
