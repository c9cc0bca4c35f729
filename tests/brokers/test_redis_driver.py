"""Connections to Redis: what callers get, and how soon, when a server refuses, stalls, dies, is cut off, or is another one than before."""

from __future__ import annotations

import os
import select
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import _parsers as parsers

from stem_iso.brokers.redis.driver import client as client_module
from stem_iso.brokers.redis.driver import connection
from stem_iso.brokers.redis.driver import scripts as scripts_module
from stem_iso.brokers.redis.driver.address import Access, Node, parse
from stem_iso.brokers.redis.driver.blocking import BlockingConnection
from stem_iso.brokers.redis.driver.client import RedisClient, ScriptCall, ServerCommand
from stem_iso.brokers.redis.driver.cluster import slot_map, slot_of
from stem_iso.brokers.redis.driver.connection import RedisConnection, unfit
from stem_iso.brokers.redis.driver.standalone import connect
from stem_iso.errors import BrokerUnavailable
from tests.servers.cluster import Cluster
from tests.servers.proxy import Proxy
from tests.servers.server import BOUND, Server, until

Start = Callable[..., Server]
SOON = 5.0  # seconds until a producer has its answer, whatever is wrong
AT_ONCE = 3.0  # well below BUDGET, the wait that a fault would cost
P = "si:{q}"


def connected_to(url: str) -> RedisClient:
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    return connect(parse(scheme, place, dict(pair.split("=") for pair in query.split("&") if pair)))


@pytest.fixture(autouse=True)
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Scripts of these tests, behind a common part."""
    (tmp_path / "common.lua").write_text("local function twice(number) return 2 * number end")
    (tmp_path / "double.lua").write_text("return twice(tonumber(ARGV[1]))")
    (tmp_path / "put.lua").write_text("redis.call('HSET', KEYS[1] .. ':m', ARGV[1], '1') return redis.call('HLEN', KEYS[1] .. ':m')")
    (tmp_path / "wrong.lua").write_text("return redis.call('HSET', KEYS[1])")
    monkeypatch.setattr(scripts_module, "FOLDER", tmp_path)
    scripts_module.script.cache_clear()
    yield
    scripts_module.script.cache_clear()


@contextmanager
def refused(says: str, within: float = SOON) -> Iterator[None]:
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable) as caught:
        yield
    assert says in str(caught.value), str(caught.value)
    assert time.monotonic() - began < within


def readable(blocking: BlockingConnection) -> list[Any]:
    """Its next answers; polled as a worker would."""
    deadline = time.monotonic() + BOUND
    while time.monotonic() < deadline:
        if found := blocking.answers():
            return found
        select.select([blocking], [], [], 1.0)
    raise AssertionError("nothing came")


# -- slots (pure) --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "slot"),
    [("123456789", 0x31C3), ("foo", 12182), ("foo{}{bar}", 8363), ("foo{{bar}}zap", 4015), ("foo{bar}{zap}", 5061), ("", 0)],
)
def test_a_key_has_the_slot_of_the_cluster_specification(key: str, slot: int) -> None:
    assert slot_of(key) == slot


def test_a_slot_that_no_node_has_is_known_as_such() -> None:
    found = slot_map([[0, 99, [b"a", 1, b"id"], [b"", 2, b"id"]], [200, 299, [None, 3, b"id"]]], Node("asked", 9))
    assert [found.master(slot) for slot in (0, 99, 100, 199, 200, 300)] == [Node("a", 1)] * 2 + [None] * 2 + [Node("asked", 3), None]
    assert found.nodes == (Node("a", 1), Node("asked", 2), Node("asked", 3))


# -- asking --------------------------------------------------------------------------------------------------------------------------------


def test_scripts_and_commands_are_answered_in_order(redis_url: str) -> None:
    client = connected_to(redis_url)
    asked = [
        ScriptCall("double", P, (4,)),
        ServerCommand(P, ("SET", f"{P}:x", b"\x00\xff")),
        ScriptCall("put", P, ("a",)),
        ServerCommand(P, ("GET", f"{P}:x")),
    ]
    assert client.run(asked) == [8, b"OK", 1, b"\x00\xff"]
    assert client.call("double", P, 1.5) == 3
    assert client.run([]) == []


def test_a_server_that_forgot_its_scripts_is_given_them_again(redis_url: str) -> None:
    client = connected_to(redis_url)
    client.call("double", P, 1)
    client.command(P, "SCRIPT", "FLUSH")
    assert client.run(
        [ScriptCall("double", P, (2,)), ScriptCall("put", P, ("a",)), ServerCommand(P, ("PING",)), ScriptCall("double", P, (3,))]
    ) == [
        4,
        1,
        b"PONG",
        6,
    ]


def test_one_refusal_among_answers_leaves_the_connection_in_step(redis_url: str) -> None:
    client = connected_to(redis_url)
    with refused("rong number of args", within=AT_ONCE):
        client.run([ScriptCall("double", P, (2,)), ScriptCall("wrong", P), ScriptCall("put", P, ("a",))])
    assert client.run([ScriptCall("double", P, (3,)), ScriptCall("put", P, ("b",))]) == [6, 2]


def test_megabytes_go_and_come(redis_url: str) -> None:
    client, blob = connected_to(redis_url), os.urandom(5_000_000)
    asked = [ServerCommand(P, ("SET", f"{P}:{number}", blob)) for number in range(4)]
    asked += [ServerCommand(P, ("GET", f"{P}:{number}")) for number in range(4)]
    assert client.run(asked)[4:] == [blob] * 4


def test_an_interrupted_question_leaves_its_answer_to_nobody(proxied: Proxy) -> None:
    client = connected_to(proxied.url)
    client.call("double", P, 1)
    proxied.stall()

    class Interrupted(BaseException): ...

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Interrupted):
            client.call("double", P, 2)
    finally:
        signal.signal(signal.SIGALRM, before)
    proxied.resume()
    assert client.call("double", P, 3) == 6


# -- servers that will not do --------------------------------------------------------------------------------------------------------------


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with refused("refused", within=AT_ONCE):
        connected_to(f"redis://127.0.0.1:{port}").call("double", P, 1)
    with refused("No such file", within=AT_ONCE):
        connected_to("unix:///nowhere/redis.sock").call("double", P, 1)
    with refused("nowhere.invalid"):
        connected_to("redis://nowhere.invalid").call("double", P, 1)


@pytest.mark.slow
def test_a_frozen_server_is_noticed_in_time_and_used_again_when_it_thaws(server: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = server()
    client = connected_to(frozen.url)
    client.call("put", P, "a")
    frozen.freeze()
    with refused("did not answer in time (4 s; what was asked may have been done"):
        client.call("put", P, "b")
    monkeypatch.setattr(client_module, "BUDGET", 0.5)
    with refused("in time", within=AT_ONCE):  # a new connection: the kernel accepts it
        client.call("put", P, "b")
    frozen.thaw()
    assert client.call("put", P, "b") == 2


@pytest.mark.slow
def test_a_host_that_swallows_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        full = [socket.socket() for _ in range(4)]  # its queue of connections is full: further SYNs are dropped
        for each in full:
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        with refused("no connection in time"):
            connected_to(f"redis://127.0.0.1:{listener.getsockname()[1]}").call("double", P, 1)
        for each in full:
            each.close()


def test_an_answer_that_dawdles_is_waited_for_within_the_bound(proxied: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connected_to(proxied.url)
    with monkeypatch.context() as hasty:
        hasty.setattr(client_module, "BUDGET", 0.25)
        client.call("double", P, 1)  # the connection is not in haste for good
    proxied.delay(0.3)
    assert client.call("double", P, 2) == 4


def test_a_cut_before_the_question_goes_unnoticed(proxied: Proxy) -> None:
    client = connected_to(proxied.url)
    client.call("put", P, "a")
    proxied.cut()
    assert client.call("put", P, "b") == 2


@pytest.mark.parametrize("after", [0, 1])
def test_a_cut_before_or_within_the_answer_asks_again(proxied: Proxy, after: int) -> None:
    client = connected_to(proxied.url)
    client.call("put", P, "a")
    proxied.cut_answer(after)
    assert client.run([ScriptCall("put", P, ("b",)), ScriptCall("put", P, ("c",))]) == [3, 3]  # the second time both are there already
    assert proxied.cuts == 1


def test_a_server_killed_and_started_again_is_used_again(server: Start) -> None:
    mortal = server(aof="always")
    client = connected_to(mortal.url)
    client.call("put", P, "a")
    mortal.kill()
    with refused("refused", within=AT_ONCE):
        client.call("put", P, "b")
    mortal.start()
    assert client.call("put", P, "b") == 2


@pytest.mark.parametrize(
    ("version", "policy", "says"), [("6.0.16", "", "6.2 or later"), ("5.0", "", "6.2"), ("7.2", "volatile-ttl", "volatile-ttl")]
)
def test_an_unfit_server_is_recognized_by_its_info(version: str, policy: str, says: str) -> None:
    assert says in str(unfit(version, policy))


@pytest.mark.parametrize(("version", "policy"), [("6.2.0", "noeviction"), ("7.0.15", ""), ("", ""), ("10.0.1", "noeviction")])
def test_a_fit_server_is_not_complained_of(version: str, policy: str) -> None:
    assert unfit(version, policy) is None


def test_an_evicting_server_is_refused_until_it_is_configured_otherwise(server: Start) -> None:
    evicting = server("--maxmemory-policy", "allkeys-lru")
    client = connected_to(evicting.url)
    for _ in range(2):
        with refused(
            "allkeys-lru: it may throw queued tasks away when memory runs short; run CONFIG SET maxmemory-policy noeviction", within=AT_ONCE
        ):
            client.call("double", P, 1)
    evicting.do("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert client.call("double", P, 1) == 2


def test_a_full_server_says_that_it_is_full(server: Start) -> None:
    full = server()
    client = connected_to(full.url)
    client.call("put", P, "a")
    full.do("CONFIG", "SET", "maxmemory", 1)  # of any version, less than it has
    with refused("has reached maxmemory", within=AT_ONCE):
        client.call("put", P, "b")
    full.do("CONFIG", "SET", "maxmemory", 0)
    assert client.call("put", P, "b") == 2


def test_a_replica_says_that_it_is_none_of_ours(server: Start) -> None:
    master, replica = server("--repl-diskless-sync-delay", "0"), server()
    replica.do("REPLICAOF", "127.0.0.1", master.port)
    client = connected_to(replica.url)
    until(lambda: b"master_link_status:up" in replica.do("INFO", "replication"), "the replica follows")  # type: ignore[operator]
    with refused("is a replica: give the URL of the master", within=AT_ONCE):
        client.call("put", P, "a")
    replica.do("REPLICAOF", "NO", "ONE")
    assert client.call("put", P, "a") == 1


def test_a_master_that_became_a_replica_behind_a_name_is_looked_for_again(server: Start) -> None:
    old, new = server(), server()
    with Proxy(old) as name:
        client = connected_to(name.url)
        assert client.call("put", P, "a") == 1
        old.do("REPLICAOF", "127.0.0.1", new.port)
        name.lead_to(new)
        with refused("is a replica", within=AT_ONCE):
            client.call("put", P, "b")
        assert client.call("put", P, "b") == 1


# -- who comes -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "way_out"),
    [
        ("redis://127.0.0.1:{unused}", "is the server started, and does it listen on this address?"),
        ("redis://no-such-host.invalid", "is it spelt right"),
        ("unix:///no/such/redis.sock", "with this path as `unixsocket` in its redis.conf?"),
        ("redis://127.0.0.1:{used}/99", "write one below its `databases`"),
    ],
)
def test_a_server_that_is_not_there_is_reported_with_what_to_check(server: Start, url: str, way_out: str) -> None:
    used = server().url.rpartition(":")[2].partition("/")[0]
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        with refused(way_out):
            connected_to(url.format(unused=bound.getsockname()[1], used=used)).call("double", P, 1)


def test_passwords_and_rights(server: Start) -> None:
    guarded = server()
    guarded.do("CONFIG", "SET", "requirepass", "hunter2")
    with refused("check user and password", within=AT_ONCE):
        connected_to(guarded.url).call("double", P, 1)
    with refused("check user and password", within=AT_ONCE):
        connected_to(guarded.url.replace("://", "://:wrong@")).call("double", P, 1)
    admin = connected_to(guarded.url.replace("://", "://:hunter2@"))
    assert "hunter2" not in admin.url
    admin.command(P, "ACL", "SETUSER", "ann", "on", ">pa/ss@", "~si:*", "resetchannels", "&si:*", "+@all", "-@admin", "-@dangerous")
    ann = connected_to(guarded.url.replace("://", "://ann:pa%2Fss%40@"))
    assert ann.call("put", P, "a") == 1  # INFO is refused to her, and she works all the same
    with refused("ACL", within=AT_ONCE):
        ann.command("x", "SET", "x", 1)
    assert ann.call("put", P, "b") == 2


def test_a_password_is_in_no_error(server: Start) -> None:
    guarded = server()
    guarded.do("CONFIG", "SET", "requirepass", "other")
    client = connected_to(guarded.url.replace("://", "://:hunter2@"))
    with pytest.raises(BrokerUnavailable) as caught:
        client.call("double", P, 1)
    error: BaseException | None = caught.value
    while error is not None:
        assert "hunter2" not in repr(error)
        error = error.__cause__ or error.__context__
    assert "hunter2" not in repr(client.address)


def test_databases_are_apart(server: Start) -> None:
    one = server()
    first, second = connected_to(one.url), connected_to(one.url.replace("/0", "/3"))
    assert (first.call("put", P, "a"), second.call("put", P, "b")) == (1, 1)
    assert first.channel != second.channel


# -- TLS -----------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    own = authority.issue_cert("localhost", "127.0.0.1")
    own.private_key_and_cert_chain_pem.write_to_path(str(folder / "own.pem"))
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    return folder


class TlsFront:
    """TLS before a server that speaks none: not every redis-server is built with it."""

    def __init__(self, server: Server, certificates: Path) -> None:
        self._server, self._context = server, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificates / "own.pem")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                raw = self._listener.accept()[0]
            except OSError:
                return
            Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        try:
            with (
                self._context.wrap_socket(raw, server_side=True) as client,
                socket.create_connection(("127.0.0.1", self._server.port)) as to,
            ):
                while True:
                    ready = [client] if client.pending() else select.select([client, to], [], [])[0]
                    for one, other in ((client, to), (to, client)):
                        if one in ready:
                            if not (data := one.recv(65_536)):
                                return
                            other.sendall(data)
        except OSError:
            raw.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def tls(server: Start, certificates: Path) -> Iterator[TlsFront]:
    front = TlsFront(server(), certificates)
    yield front
    front.close()


def test_tls_with_a_trusted_authority(tls: TlsFront, certificates: Path) -> None:
    client = connected_to(f"rediss://localhost:{tls.port}/0?ssl_ca_certs={certificates}/authority.pem")
    assert client.call("double", P, 2) == 4
    blocking = client.open_blocking(P, "BLPOP", f"{P}:g", 5)
    assert blocking.answers() == []
    client.command(P, "RPUSH", f"{P}:g", "x")
    assert readable(blocking) == [[b"si:{q}:g", b"x"]]
    blocking.close()


def test_tls_that_is_not_trusted_says_what_to_give(tls: TlsFront, server: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    with refused("ssl_ca_certs=PATH", within=AT_ONCE):
        connected_to(f"rediss://localhost:{tls.port}").call("double", P, 2)
    with refused("no file /nowhere.pem", within=AT_ONCE):
        connected_to(f"rediss://localhost:{tls.port}?ssl_ca_certs=/nowhere.pem").call("double", P, 2)
    assert connected_to(f"rediss://localhost:{tls.port}?ssl_cert_reqs=none").call("double", P, 2) == 4
    monkeypatch.setattr(client_module, "BUDGET", 0.5)
    with refused("does it speak TLS on this port", within=AT_ONCE):
        connected_to(f"rediss://127.0.0.1:{server().port}").call("double", P, 2)


# -- blocking ------------------------------------------------------------------------------------------------------------------------------


def test_a_blocking_connection_answers_and_takes_another_command(redis_url: str) -> None:
    client = connected_to(redis_url)
    blocking = client.open_blocking(P, "BLPOP", f"{P}:g", 0.05)
    assert readable(blocking) == [None]
    blocking.write("BLPOP", f"{P}:g", 5)
    assert blocking.answers() == []
    client.command(P, "RPUSH", f"{P}:g", "x")
    assert readable(blocking) == [[b"si:{q}:g", b"x"]]
    blocking.close()
    with refused("closed", within=AT_ONCE):
        blocking.fileno()


def test_a_message_reaches_every_subscriber(redis_url: str) -> None:
    client = connected_to(redis_url)
    subscribed = [client.open_blocking(None, "SUBSCRIBE", client.channel) for _ in range(2)]
    for blocking in subscribed:
        assert readable(blocking) == [[b"subscribe", client.channel.encode(), 1]]
    client.command(P, "PUBLISH", client.channel, b"x" * 200_000)
    for blocking in subscribed:
        assert readable(blocking) == [[b"message", client.channel.encode(), b"x" * 200_000]]
        blocking.close()


def test_a_blocking_connection_that_is_cut_says_so(proxied: Proxy) -> None:
    client = connected_to(proxied.url)
    blocking = client.open_blocking(P, "BLPOP", f"{P}:g", 30)
    proxied.cut()
    with refused("closed", within=AT_ONCE):
        readable(blocking)


def test_a_sleeper_wakes_by_a_push_by_time_and_by_a_loss(proxied: Proxy) -> None:
    client, other = connected_to(proxied.url), connected_to(proxied.url)
    other.command(P, "RPUSH", f"{P}:e", "x")
    client.wait_for_push(f"{P}:e", 30)
    assert other.command(P, "LLEN", f"{P}:e") == 0
    began = time.monotonic()
    client.wait_for_push(f"{P}:e", 0.05)
    assert 0.04 < time.monotonic() - began < 2
    waiter = Thread(target=client.wait_for_push, args=(f"{P}:e", 30))
    waiter.start()
    until(lambda: "blocked_clients:1" in str(other.command(P, "INFO", "clients")), "it sleeps")
    proxied.cut()
    waiter.join(BOUND)
    assert not waiter.is_alive()


# -- answers that are not waited for -------------------------------------------------------------------------------------------------------

ANSWERS: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=50), lambda one: st.lists(one, max_size=4), max_leaves=12
)


def spoken(answer: Any) -> bytes:
    match answer:
        case None:
            return b"$-1\r\n"
        case int():
            return b":%d\r\n" % answer
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(answer), answer)
        case _:
            return b"*%d\r\n" % len(answer) + b"".join(map(spoken, answer))


class Peer:
    """What a server would be to a blocking connection, by hand: it sends what a test makes it send."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            polite = Thread(target=self._greet, args=(listener,))
            polite.start()
            port: int = listener.getsockname()[1]
            self.blocking = BlockingConnection(
                RedisConnection(Node("127.0.0.1", port), Access(), time.monotonic() + BOUND, inspect=False), lambda: None
            )
            polite.join()

    def _greet(self, listener: socket.socket) -> None:
        self.socket = listener.accept()[0]
        for _ in range(2):  # redis-py names itself and its version, one at a time
            self.socket.recv(1 << 16)
            self.say(b"+OK\r\n")

    def say(self, data: bytes) -> None:
        self.socket.sendall(data)

    def close(self) -> None:
        self.socket.close()
        self.blocking.close()


@pytest.fixture(params=["_HiredisParser", "_RESP2Parser"])
def peer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    raw = connection._raw

    def parsed(*args: Any) -> Any:
        made = raw(*args)
        made.set_parser(getattr(parsers, request.param))
        return made

    monkeypatch.setattr(connection, "_raw", parsed)
    peer = Peer()
    yield peer
    peer.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ANSWERS, min_size=1, max_size=5), st.lists(st.integers(0, 200), max_size=6))
def test_answers_are_the_same_however_their_bytes_arrive(peer: Peer, answers: list[Any], cuts: list[int]) -> None:
    stream = b"".join(map(spoken, answers))
    places = [0, *sorted(each for each in cuts if each < len(stream)), len(stream)]
    found = []
    for first, last in pairwise(places):
        peer.say(stream[first:last])
        found += peer.blocking.answers()
    while len(found) < len(answers):
        found += readable(peer.blocking)
    assert found == answers


def test_an_answer_that_stops_in_its_middle_is_not_waited_for(peer: Peer) -> None:
    for part in (b"*2\r\n", b"$200000\r\n", b"x" * 100_000):
        peer.say(part)
        peer.blocking.poll(BOUND)
        began = time.monotonic()
        assert peer.blocking.answers() == []
        assert time.monotonic() - began < SOON
    peer.say(b"x" * 100_000 + b"\r\n:7\r\n")
    assert readable(peer.blocking) == [[b"x" * 200_000, 7]]


@pytest.mark.parametrize("end", [b"", b"*2\r\n$1\r\n"])
def test_what_came_whole_before_the_end_of_a_connection_counts(peer: Peer, end: bytes) -> None:
    peer.say(b":1\r\n:2\r\n" + end)
    peer.socket.close()
    found: list[Any] = []
    with refused("closed", within=1):
        while True:
            found += readable(peer.blocking)
    assert found == [1, 2]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"-MOVED 1 127.0.0.1:7\r\n", "node of a cluster"),
        (b"-LOADING it loads\r\n", "loading its data"),
        (b"-NOPERM no\r\n", "may not do that"),
        (b"?\r\n", "rotocol "),
        (b":x\r\n", ""),
    ],
)
def test_what_a_blocking_connection_is_refused_ends_it(peer: Peer, answer: bytes, says: str) -> None:
    peer.say(answer)
    with refused(says, within=1):
        readable(peer.blocking)
    assert not peer.blocking.open


# -- forks ---------------------------------------------------------------------------------------------------------------------------------


def test_a_forked_child_asks_for_itself_and_leaves_the_parents_session_alone(redis_url: str) -> None:
    client = connected_to(redis_url)
    blocking = client.open_blocking(P, "BLPOP", f"{P}:g", 30)
    mine = client.command(P, "CLIENT", "ID")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            client_id = client.command(P, "CLIENT", "ID")
            os.write(write, f"{client_id} {blocking.open}".encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    theirs, still = os.read(read, 100).decode().split()
    assert int(theirs) != mine
    assert still == "False"
    assert client.command(P, "CLIENT", "ID") == mine
    client.command(P, "RPUSH", f"{P}:g", "x")
    assert readable(blocking) == [[b"si:{q}:g", b"x"]]
    blocking.close()
    os.close(read)
    os.close(write)


def test_a_child_that_outlives_its_parent_does_not_keep_the_parents_place_at_a_list(redis_url: str) -> None:
    """Else the server would hand a wake-up to a connection behind which nobody sits."""
    outer = connected_to(redis_url)
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        try:
            os.close(write)
            client = connected_to(redis_url)
            blocking = client.open_blocking(P, "BLPOP", f"{P}:g", 30)
            until(lambda: "blocked_clients:1" in str(client.command(P, "INFO", "clients")), "it blocks")
            if os.fork() == 0:
                os.read(read, 1)  # until the test is over, or its process
            elif blocking.open:
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    os.close(read)
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(parent, 0)[1]) == -signal.SIGKILL
        until(lambda: "blocked_clients:0" in str(outer.command(P, "INFO", "clients")), "the dead parent's place is free", 5)
    finally:
        os.close(write)


def test_a_fork_while_another_thread_connects_leaves_no_copy_in_the_child() -> None:
    """Else the child keeps the parent's session alive, and nobody in the child knows of it."""
    forking = Event()
    os.register_at_fork(before=forking.set)  # the last that is registered is asked first
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made: list[RedisConnection] = []
        node = Node("127.0.0.1", listener.getsockname()[1])
        connecting = Thread(target=lambda: made.append(RedisConnection(node, Access(db=3), time.monotonic() + BOUND, inspect=False)))
        connecting.start()
        peer, (_, port) = listener.accept()
        assert peer.recv(1 << 16), "it has begun to log in"
        answering = Thread(target=answer_all, args=(peer, forking))
        answering.start()
        child = os.fork()
        if child == 0:
            os._exit(1 if port in bound_ports() else 0)
        status = os.waitpid(child, 0)[1]
        connecting.join()
        made[0].close()
        answering.join()
        peer.close()
    assert status == 0, "the child has the socket"


def answer_all(peer: socket.socket, begin: Event) -> None:
    begin.wait(BOUND)
    peer.sendall(b"+OK\r\n")
    while asked := peer.recv(1 << 16):
        peer.sendall(b"+OK\r\n" * asked.count(b"\r\n*") + b"+OK\r\n")


def bound_ports() -> set[int]:
    """Of the sockets of this process that are connected."""
    ports = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError), socket.socket(fileno=os.dup(int(name))) as one:
            if one.family == socket.AF_INET and one.getpeername():
                ports.add(one.getsockname()[1])
    return ports


# -- a cluster -----------------------------------------------------------------------------------------------------------------------------

KEYS = [f"si:{{q{number}}}" for number in range(12)]


def test_a_run_over_all_masters_is_answered_in_order(cluster: Cluster) -> None:
    client = connected_to(cluster.url)
    assert {cluster.master_of(key).port for key in KEYS} == {node.port for node in cluster.masters()}
    assert client.run([ScriptCall("double", key, (number,)) for number, key in enumerate(KEYS)]) == [2 * number for number in range(12)]
    assert [client.call("put", key, "a") for key in KEYS] == [1] * 12
    assert client.run([ServerCommand(key, ("HLEN", f"{key}:m")) for key in KEYS]) == [1] * 12
    client.close()


def test_scheme_and_server_that_do_not_fit_are_distinguished(cluster: Cluster, server: Start) -> None:
    with refused("write redis+cluster://", within=AT_ONCE):
        single = connected_to(f"redis://127.0.0.1:{cluster.nodes[0].port}")
        for key in KEYS:
            single.call("put", key, "a")
    alone = server()
    with refused(f"write redis://127.0.0.1:{alone.port}", within=AT_ONCE):
        connected_to(alone.url.replace("redis", "redis+cluster", 1)).call("put", P, "a")


@pytest.mark.slow
def test_a_frozen_master_is_noticed_in_time_and_its_replica_found(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connected_to(cluster.url)
    client.run([ScriptCall("put", key, ("a",)) for key in KEYS])
    frozen = cluster.master_of(KEYS[0])
    monkeypatch.setattr(client_module, "BUDGET", 0.5)
    frozen.freeze()
    try:
        with refused("in time", within=AT_ONCE):
            client.run([ScriptCall("put", key, ("b",)) for key in KEYS])

        def served() -> bool:
            try:
                return client.call("put", KEYS[0], "c") >= 2
            except BrokerUnavailable:
                return False

        until(served, "its replica serves", 60)  # it is elected by servers that a busy machine starves
    finally:
        frozen.thaw()


@pytest.mark.slow
def test_a_master_that_is_killed_is_failed_over_within_a_call_or_two(cluster: Cluster) -> None:
    client = connected_to(cluster.url)
    blocking = client.open_blocking(KEYS[0], "BLPOP", f"{KEYS[0]}:g", 30)
    client.run([ScriptCall("put", key, ("a",)) for key in KEYS])
    cluster.master_of(KEYS[0]).kill()
    with refused("closed", within=AT_ONCE):
        readable(blocking)

    def served() -> bool:
        began = time.monotonic()
        try:
            return bool(client.run([ScriptCall("put", key, ("b",)) for key in KEYS]))
        except BrokerUnavailable:
            assert time.monotonic() - began < SOON
            return False

    until(served, "its replica serves")
    blocking = client.open_blocking(KEYS[0], "BLPOP", f"{KEYS[0]}:g", 30)
    client.command(KEYS[0], "RPUSH", f"{KEYS[0]}:g", "x")
    assert readable(blocking) == [[f"{KEYS[0]}:g".encode(), b"x"]]


def says_that_it_moves(client: RedisClient, key: str) -> bool:
    """Or, where the machine had no time for the last turn, that there was no answer."""
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=r"being moved|did not answer in time") as caught:
        client.call("put", key, "b")
    assert time.monotonic() - began < AT_ONCE
    return "being moved" in str(caught.value)


def test_a_slot_that_moves_is_closed_and_found_where_it_has_gone(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    client, key = connected_to(cluster.url), KEYS[0]
    client.call("put", key, "a")
    client.run([ServerCommand(key, ("SET", f"{key}:{name}", name)) for name in "xy"])
    slot = client.slot(key)
    source = cluster.master_of(key)
    target = next(node for node in cluster.masters() if node is not source)
    names = {node: node.do("CLUSTER", "MYID").decode() for node in (source, target)}  # type: ignore[attr-defined]
    target.do("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
    source.do("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
    target.do("CONFIG", "SET", "cluster-node-timeout", 1500)
    source.do("MIGRATE", "127.0.0.1", target.port, f"{key}:x", 0, 5000)
    blocking = client.open_blocking(key, "BLPOP", f"{key}:g", 30)
    for budget in (1.0, 1.02, 1.04):  # half of its keys have gone: whichever of the two nodes spoke last
        with monkeypatch.context() as hasty:
            hasty.setattr(client_module, "BUDGET", budget)
            until(lambda: says_that_it_moves(client, key), "a refusal that no pause of the machine has cut short")
    assert client.run([ServerCommand(key, ("GET", f"{key}:x")), ServerCommand(key, ("GET", f"{key}:y"))]) == [b"x", b"y"]
    source.do("MIGRATE", "127.0.0.1", target.port, f"{key}:m", 0, 5000)
    source.do("MIGRATE", "127.0.0.1", target.port, f"{key}:y", 0, 5000)
    for node in (target, source):
        node.do("CLUSTER", "SETSLOT", slot, "NODE", names[target])
    with refused("", within=AT_ONCE):
        readable(blocking)  # the server sends it away
    blocking = client.open_blocking(key, "BLPOP", f"{key}:g", 30)
    assert blocking.answers() == []
    assert target.do("RPUSH", f"{key}:g", "x") == 1
    assert readable(blocking) == [[f"{key}:g".encode(), b"x"]]
    assert client.call("put", key, "b") == 2
