"""The access log must never hold up a call, whatever becomes of its reader."""

import subprocess

import grpc
import pytest

from harness import LARDER, PATIENCE_S, environment, talk, talk_grpc

# More lines than a pipe holds (64 KiB), at about 200 bytes each.
CALLS = 2000


@pytest.mark.parametrize("reader", ["never reads", "has gone"])
def test_calls_go_on_when_the_log_is_not_read(tmp_path, reader):
    server = subprocess.Popen(
        [LARDER, "serve", "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        address = server.stdout.readline().removeprefix("listening on ").strip()
        if reader == "has gone":
            server.stderr.close()
        with grpc.insecure_channel(address) as channel:
            cache = talk_grpc.CacheStub(channel)
            for number in range(CALLS):
                cache.Store(talk.StoreReq(key=f"k{number}", val=b"v"), timeout=PATIENCE_S)
        server.terminate()
        assert server.wait(PATIENCE_S) == 0
    finally:
        server.kill()
        server.wait(PATIENCE_S)
