"""Servers for the tests; each ends with exit status 0, or its test fails."""

from collections.abc import Callable, Iterator

import pytest
import trustme

from harness import Larder


@pytest.fixture
def larder() -> Iterator[Callable[..., Larder]]:
    """Starts servers that end with the test."""
    started: list[Larder] = []

    def start(*arguments: str, **options: object) -> Larder:
        started.append(Larder(*arguments, **options))
        return started[-1]

    yield start
    try:
        for server in started:
            if server.process.poll() is None:
                server.stop()
    finally:
        for server in started:
            server.kill()


@pytest.fixture(scope="module")
def server() -> Iterator[Larder]:
    """A server that the tests of one file share; each uses an account or keys of its own."""
    server = Larder()
    try:
        yield server
        server.stop()
    finally:
        server.kill()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Signs the certificates of servers and clients."""
    return trustme.CA()
