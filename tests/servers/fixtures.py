"""What tests ask for. A server for the whole run is emptied before each test; one that is hurt is a test's own.

Each of these runs a test once for every version that is found, and fails for one that is wanted and missing (`finding`).

redis_url       a server for the whole run (or the one of STEM_ISO_TEST_REDIS_URL), emptied
cluster         three masters, shared by the tests of a version, whole and emptied
server          a function: Server(...), for this test alone
proxied         a Proxy before such a server
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from tests.servers.cluster import Cluster
from tests.servers.finding import MISSING, Binary, binaries, named, versions
from tests.servers.proxy import Proxy
from tests.servers.server import Server

GIVEN = os.environ.get("STEM_ISO_TEST_REDIS_URL", "")


def found(version: str) -> Binary:
    binary = named(version)
    if binary is None:
        pytest.fail(MISSING.format(wanted=version), pytrace=False)
    return binary


@contextmanager
def broker_of(kind: str, folder: Path, *, oldest: bool = False) -> Iterator[str]:
    """A URL, for a rule of workers that holds on each kind of broker, not on each version: "sqlite", or "redis", the newest there is, or
    the oldest that is served."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/jobs.db"
        return
    server = Server(binaries()[-1 if oldest else 0] if binaries() else found(versions()[0]))
    try:
        yield server.url
    finally:
        server.close()


@pytest.fixture(scope="session", params=versions())
def binary(request: pytest.FixtureRequest) -> Binary:
    return found(request.param)


@pytest.fixture(scope="session", params=["given"] if GIVEN else versions())
def shared_redis(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "given":
        with redis.Redis.from_url(GIVEN) as plain:
            assert plain.dbsize() == 0, (
                "the database of STEM_ISO_TEST_REDIS_URL is not empty: name another one, it is flushed between tests"
            )
        yield GIVEN
        return
    server = Server(found(request.param))
    yield server.url
    server.close()


@pytest.fixture
def redis_url(shared_redis: str) -> str:
    with redis.Redis.from_url(shared_redis) as plain:
        plain.flushdb()
    return shared_redis


@pytest.fixture(scope="session")
def shared_cluster(binary: Binary) -> Iterator[Cluster]:
    cluster = Cluster(binary)
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Cluster:
    if not shared_cluster.whole():
        shared_cluster.heal()
    shared_cluster.flush()
    return shared_cluster


@pytest.fixture
def server(binary: Binary) -> Iterator[Callable[..., Server]]:
    """`server(*options, aof="always")`: options as Server takes them."""
    started: list[Server] = []

    def start(*options: str, aof: str = "") -> Server:
        started.append(Server(binary, *options, aof=aof))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def proxied(server: Callable[..., Server]) -> Iterator[Proxy]:
    with Proxy(server()) as proxy:
        yield proxy
