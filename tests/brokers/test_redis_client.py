"""Connections to Redis: what callers get, and how soon, when a server refuses, stalls, dies, is cut off, or is another one than before."""

from __future__ import annotations

import os
import select
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import _parsers as parsers

from stem_iso.brokers.redis.client import client as links_module
from stem_iso.brokers.redis.client import connection
from stem_iso.brokers.redis.client import scripts as scripts_module
from stem_iso.brokers.redis.client.address import Access, Node, parse
from stem_iso.brokers.redis.client.client import BlockingConnection, Command, Links, ScriptCall, connect
from stem_iso.brokers.redis.client.cluster import slot_map, slot_of
from stem_iso.brokers.redis.client.connection import Wire, unfit
from stem_iso.errors import BrokerUnavailable
from tests.servers.cluster import Cluster
from tests.servers.proxy import Proxy
from tests.servers.server import BOUND, Server, until

Start = Callable[..., Server]
SOON = 5.0  # seconds until a producer has heard, whatever is wrong
AT_ONCE = 3.0  # well below BUDGET, the wait that a fault would cost
P = "si:{q}"


def linked(url: str) -> Links:
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
def heard(says: str, within: float = SOON) -> Iterator[None]:
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable) as caught:
        yield
    assert says in str(caught.value), str(caught.value)
    assert time.monotonic() - began < within


def readable(parked: BlockingConnection) -> list[Any]:
    """Its next answers; polled as a worker would."""
    deadline = time.monotonic() + BOUND
    while time.monotonic() < deadline:
        if found := parked.answers():
            return found
        select.select([parked], [], [], 1.0)
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
    links = linked(redis_url)
    asked = [
        ScriptCall("double", P, (4,)),
        Command(P, ("SET", f"{P}:x", b"\x00\xff")),
        ScriptCall("put", P, ("a",)),
        Command(P, ("GET", f"{P}:x")),
    ]
    assert links.run(asked) == [8, b"OK", 1, b"\x00\xff"]
    assert links.call("double", P, 1.5) == 3
    assert links.run([]) == []


def test_a_server_that_forgot_its_scripts_is_given_them_again(redis_url: str) -> None:
    links = linked(redis_url)
    links.call("double", P, 1)
    links.command(P, "SCRIPT", "FLUSH")
    assert links.run(
        [ScriptCall("double", P, (2,)), ScriptCall("put", P, ("a",)), Command(P, ("PING",)), ScriptCall("double", P, (3,))]
    ) == [
        4,
        1,
        b"PONG",
        6,
    ]


def test_one_refusal_among_answers_leaves_the_connection_in_step(redis_url: str) -> None:
    links = linked(redis_url)
    with heard("rong number of args", within=AT_ONCE):
        links.run([ScriptCall("double", P, (2,)), ScriptCall("wrong", P), ScriptCall("put", P, ("a",))])
    assert links.run([ScriptCall("double", P, (3,)), ScriptCall("put", P, ("b",))]) == [6, 2]


def test_megabytes_go_and_come(redis_url: str) -> None:
    links, blob = linked(redis_url), os.urandom(5_000_000)
    asked = [Command(P, ("SET", f"{P}:{number}", blob)) for number in range(4)]
    asked += [Command(P, ("GET", f"{P}:{number}")) for number in range(4)]
    assert links.run(asked)[4:] == [blob] * 4


def test_an_interrupted_question_leaves_its_answer_to_nobody(proxied: Proxy) -> None:
    links = linked(proxied.url)
    links.call("double", P, 1)
    proxied.stall()

    class Interrupted(BaseException): ...

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Interrupted):
            links.call("double", P, 2)
    finally:
        signal.signal(signal.SIGALRM, before)
    proxied.resume()
    assert links.call("double", P, 3) == 6


# -- servers that will not do --------------------------------------------------------------------------------------------------------------


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with heard("refused", within=AT_ONCE):
        linked(f"redis://127.0.0.1:{port}").call("double", P, 1)
    with heard("No such file", within=AT_ONCE):
        linked("unix:///nowhere/redis.sock").call("double", P, 1)
    with heard("nowhere.invalid"):
        linked("redis://nowhere.invalid").call("double", P, 1)


@pytest.mark.slow
def test_a_frozen_server_is_heard_of_in_time_and_used_again_when_it_thaws(server: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = server()
    links = linked(frozen.url)
    links.call("put", P, "a")
    frozen.freeze()
    with heard("did not answer in time (4 s; what was asked may have been done"):
        links.call("put", P, "b")
    monkeypatch.setattr(links_module, "BUDGET", 0.5)
    with heard("in time", within=AT_ONCE):  # a new connection: the kernel accepts it
        links.call("put", P, "b")
    frozen.thaw()
    assert links.call("put", P, "b") == 2


@pytest.mark.slow
def test_a_host_that_swallows_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        full = [socket.socket() for _ in range(4)]  # its queue of connections is full: further SYNs are dropped
        for each in full:
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        with heard("no connection in time"):
            linked(f"redis://127.0.0.1:{listener.getsockname()[1]}").call("double", P, 1)
        for each in full:
            each.close()


def test_an_answer_that_dawdles_is_waited_for_within_the_bound(proxied: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    links = linked(proxied.url)
    with monkeypatch.context() as hasty:
        hasty.setattr(links_module, "BUDGET", 0.25)
        links.call("double", P, 1)  # the connection is not in haste for good
    proxied.delay(0.3)
    assert links.call("double", P, 2) == 4


def test_a_cut_before_the_question_goes_unnoticed(proxied: Proxy) -> None:
    links = linked(proxied.url)
    links.call("put", P, "a")
    proxied.cut()
    assert links.call("put", P, "b") == 2


@pytest.mark.parametrize("after", [0, 1])
def test_a_cut_before_or_within_the_answer_asks_again(proxied: Proxy, after: int) -> None:
    links = linked(proxied.url)
    links.call("put", P, "a")
    proxied.cut_answer(after)
    assert links.run([ScriptCall("put", P, ("b",)), ScriptCall("put", P, ("c",))]) == [3, 3]  # the second time both are there already
    assert proxied.cuts == 1


def test_a_server_killed_and_started_again_is_used_again(server: Start) -> None:
    mortal = server(aof="always")
    links = linked(mortal.url)
    links.call("put", P, "a")
    mortal.kill()
    with heard("refused", within=AT_ONCE):
        links.call("put", P, "b")
    mortal.start()
    assert links.call("put", P, "b") == 2


@pytest.mark.parametrize(
    ("version", "policy", "says"), [("6.0.16", "", "6.2 or later"), ("5.0", "", "6.2"), ("7.2", "volatile-ttl", "volatile-ttl")]
)
def test_an_unfit_server_is_told_by_its_info(version: str, policy: str, says: str) -> None:
    assert says in str(unfit(version, policy))


@pytest.mark.parametrize(("version", "policy"), [("6.2.0", "noeviction"), ("7.0.15", ""), ("", ""), ("10.0.1", "noeviction")])
def test_a_fit_server_is_not_complained_of(version: str, policy: str) -> None:
    assert unfit(version, policy) is None


def test_an_evicting_server_is_refused_until_it_is_told_otherwise(server: Start) -> None:
    evicting = server("--maxmemory-policy", "allkeys-lru")
    links = linked(evicting.url)
    for _ in range(2):
        with heard(
            "allkeys-lru: it may throw queued tasks away when memory runs short; run CONFIG SET maxmemory-policy noeviction", within=AT_ONCE
        ):
            links.call("double", P, 1)
    evicting.do("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert links.call("double", P, 1) == 2


def test_a_full_server_says_that_it_is_full(server: Start) -> None:
    full = server()
    links = linked(full.url)
    links.call("put", P, "a")
    full.do("CONFIG", "SET", "maxmemory", 1)  # of any version, less than it has
    with heard("has reached maxmemory", within=AT_ONCE):
        links.call("put", P, "b")
    full.do("CONFIG", "SET", "maxmemory", 0)
    assert links.call("put", P, "b") == 2


def test_a_replica_says_that_it_is_none_of_ours(server: Start) -> None:
    master, replica = server("--repl-diskless-sync-delay", "0"), server()
    replica.do("REPLICAOF", "127.0.0.1", master.port)
    links = linked(replica.url)
    until(lambda: b"master_link_status:up" in replica.do("INFO", "replication"), "the replica follows")  # type: ignore[operator]
    with heard("is a replica: give the URL of the master", within=AT_ONCE):
        links.call("put", P, "a")
    replica.do("REPLICAOF", "NO", "ONE")
    assert links.call("put", P, "a") == 1


def test_a_master_that_became_a_replica_behind_a_name_is_looked_for_again(server: Start) -> None:
    old, new = server(), server()
    with Proxy(old) as name:
        links = linked(name.url)
        assert links.call("put", P, "a") == 1
        old.do("REPLICAOF", "127.0.0.1", new.port)
        name.lead_to(new)
        with heard("is a replica", within=AT_ONCE):
            links.call("put", P, "b")
        assert links.call("put", P, "b") == 1


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
def test_a_server_that_is_not_there_is_told_with_what_to_look_at(server: Start, url: str, way_out: str) -> None:
    used = server().url.rpartition(":")[2].partition("/")[0]
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        with heard(way_out):
            linked(url.format(unused=bound.getsockname()[1], used=used)).call("double", P, 1)


def test_passwords_and_rights(server: Start) -> None:
    guarded = server()
    guarded.do("CONFIG", "SET", "requirepass", "hunter2")
    with heard("check user and password", within=AT_ONCE):
        linked(guarded.url).call("double", P, 1)
    with heard("check user and password", within=AT_ONCE):
        linked(guarded.url.replace("://", "://:wrong@")).call("double", P, 1)
    admin = linked(guarded.url.replace("://", "://:hunter2@"))
    assert "hunter2" not in admin.url
    admin.command(P, "ACL", "SETUSER", "ann", "on", ">pa/ss@", "~si:*", "resetchannels", "&si:*", "+@all", "-@admin", "-@dangerous")
    ann = linked(guarded.url.replace("://", "://ann:pa%2Fss%40@"))
    assert ann.call("put", P, "a") == 1  # INFO is refused to her, and she works all the same
    with heard("ACL", within=AT_ONCE):
        ann.command("x", "SET", "x", 1)
    assert ann.call("put", P, "b") == 2


def test_a_password_is_in_no_error(server: Start) -> None:
    guarded = server()
    guarded.do("CONFIG", "SET", "requirepass", "other")
    links = linked(guarded.url.replace("://", "://:hunter2@"))
    with pytest.raises(BrokerUnavailable) as caught:
        links.call("double", P, 1)
    told: BaseException | None = caught.value
    while told is not None:
        assert "hunter2" not in repr(told)
        told = told.__cause__ or told.__context__
    assert "hunter2" not in repr(links.address)


def test_databases_are_apart(server: Start) -> None:
    one = server()
    first, second = linked(one.url), linked(one.url.replace("/0", "/3"))
    assert (first.call("put", P, "a"), second.call("put", P, "b")) == (1, 1)
    assert first.bell != second.bell


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
    links = linked(f"rediss://localhost:{tls.port}/0?ssl_ca_certs={certificates}/authority.pem")
    assert links.call("double", P, 2) == 4
    parked = links.park(P, "BLPOP", f"{P}:g", 5)
    assert parked.answers() == []
    links.command(P, "RPUSH", f"{P}:g", "x")
    assert readable(parked) == [[b"si:{q}:g", b"x"]]
    parked.close()


def test_tls_that_is_not_trusted_says_what_to_give(tls: TlsFront, server: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    with heard("ssl_ca_certs=PATH", within=AT_ONCE):
        linked(f"rediss://localhost:{tls.port}").call("double", P, 2)
    with heard("no file /nowhere.pem", within=AT_ONCE):
        linked(f"rediss://localhost:{tls.port}?ssl_ca_certs=/nowhere.pem").call("double", P, 2)
    assert linked(f"rediss://localhost:{tls.port}?ssl_cert_reqs=none").call("double", P, 2) == 4
    monkeypatch.setattr(links_module, "BUDGET", 0.5)
    with heard("does it speak TLS on this port", within=AT_ONCE):
        linked(f"rediss://127.0.0.1:{server().port}").call("double", P, 2)


# -- parked --------------------------------------------------------------------------------------------------------------------------------


def test_a_parked_connection_wakes_and_is_asked_again(redis_url: str) -> None:
    links = linked(redis_url)
    parked = links.park(P, "BLPOP", f"{P}:g", 0.05)
    assert readable(parked) == [None]
    parked.write("BLPOP", f"{P}:g", 5)
    assert parked.answers() == []
    links.command(P, "RPUSH", f"{P}:g", "x")
    assert readable(parked) == [[b"si:{q}:g", b"x"]]
    parked.close()
    with heard("closed", within=AT_ONCE):
        parked.fileno()


def test_a_bell_is_heard_by_every_subscriber(redis_url: str) -> None:
    links = linked(redis_url)
    hearing = [links.park(None, "SUBSCRIBE", links.bell) for _ in range(2)]
    for parked in hearing:
        assert readable(parked) == [[b"subscribe", links.bell.encode(), 1]]
    links.command(P, "PUBLISH", links.bell, b"x" * 200_000)
    for parked in hearing:
        assert readable(parked) == [[b"message", links.bell.encode(), b"x" * 200_000]]
        parked.close()


def test_a_parked_connection_that_is_cut_says_so(proxied: Proxy) -> None:
    links = linked(proxied.url)
    parked = links.park(P, "BLPOP", f"{P}:g", 30)
    proxied.cut()
    with heard("closed", within=AT_ONCE):
        readable(parked)


def test_a_sleeper_wakes_by_a_push_by_time_and_by_a_loss(proxied: Proxy) -> None:
    links, other = linked(proxied.url), linked(proxied.url)
    other.command(P, "RPUSH", f"{P}:e", "x")
    links.sleep(f"{P}:e", 30)
    assert other.command(P, "LLEN", f"{P}:e") == 0
    began = time.monotonic()
    links.sleep(f"{P}:e", 0.05)
    assert 0.04 < time.monotonic() - began < 2
    sleeper = Thread(target=links.sleep, args=(f"{P}:e", 30))
    sleeper.start()
    until(lambda: "blocked_clients:1" in str(other.command(P, "INFO", "clients")), "it sleeps")
    proxied.cut()
    sleeper.join(BOUND)
    assert not sleeper.is_alive()


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
    """What a server would be to a parked connection, by hand: it says what a test tells it to."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            polite = Thread(target=self._greet, args=(listener,))
            polite.start()
            port: int = listener.getsockname()[1]
            self.parked = BlockingConnection(Wire(Node("127.0.0.1", port), Access(), time.monotonic() + BOUND, inspect=False), lambda: None)
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
        self.parked.close()


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
        found += peer.parked.answers()
    while len(found) < len(answers):
        found += readable(peer.parked)
    assert found == answers


def test_an_answer_that_stops_in_its_middle_is_not_waited_for(peer: Peer) -> None:
    for part in (b"*2\r\n", b"$200000\r\n", b"x" * 100_000):
        peer.say(part)
        peer.parked.poll(BOUND)
        began = time.monotonic()
        assert peer.parked.answers() == []
        assert time.monotonic() - began < SOON
    peer.say(b"x" * 100_000 + b"\r\n:7\r\n")
    assert readable(peer.parked) == [[b"x" * 200_000, 7]]


@pytest.mark.parametrize("end", [b"", b"*2\r\n$1\r\n"])
def test_what_came_whole_before_the_end_of_a_connection_counts(peer: Peer, end: bytes) -> None:
    peer.say(b":1\r\n:2\r\n" + end)
    peer.socket.close()
    found: list[Any] = []
    with heard("closed", within=1):
        while True:
            found += readable(peer.parked)
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
def test_what_a_parked_connection_is_refused_ends_it(peer: Peer, answer: bytes, says: str) -> None:
    peer.say(answer)
    with heard(says, within=1):
        readable(peer.parked)
    assert not peer.parked.open


# -- forks ---------------------------------------------------------------------------------------------------------------------------------


def test_a_forked_child_asks_for_itself_and_leaves_the_parents_session_alone(redis_url: str) -> None:
    links = linked(redis_url)
    parked = links.park(P, "BLPOP", f"{P}:g", 30)
    mine = links.command(P, "CLIENT", "ID")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            told = links.command(P, "CLIENT", "ID")
            os.write(write, f"{told} {parked.open}".encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    theirs, still = os.read(read, 100).decode().split()
    assert int(theirs) != mine
    assert still == "False"
    assert links.command(P, "CLIENT", "ID") == mine
    links.command(P, "RPUSH", f"{P}:g", "x")
    assert readable(parked) == [[b"si:{q}:g", b"x"]]
    parked.close()
    os.close(read)
    os.close(write)


def test_a_child_that_outlives_its_parent_does_not_keep_the_parents_place_at_a_list(redis_url: str) -> None:
    """Else the server would hand a wake-up to a connection behind which nobody sits."""
    outer = linked(redis_url)
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        try:
            os.close(write)
            links = linked(redis_url)
            parked = links.park(P, "BLPOP", f"{P}:g", 30)
            until(lambda: "blocked_clients:1" in str(links.command(P, "INFO", "clients")), "it is parked")
            if os.fork() == 0:
                os.read(read, 1)  # until the test is over, or its process
            elif parked.open:
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    os.close(read)
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(parent, 0)[1]) == -signal.SIGKILL
        until(lambda: "blocked_clients:0" in str(outer.command(P, "INFO", "clients")), "the dead parent's place is free", 5)
    finally:
        os.close(write)


# -- a cluster -----------------------------------------------------------------------------------------------------------------------------

KEYS = [f"si:{{q{number}}}" for number in range(12)]


def test_a_run_over_all_masters_is_answered_in_order(cluster: Cluster) -> None:
    links = linked(cluster.url)
    assert {cluster.master_of(key).port for key in KEYS} == {node.port for node in cluster.masters()}
    assert links.run([ScriptCall("double", key, (number,)) for number, key in enumerate(KEYS)]) == [2 * number for number in range(12)]
    assert [links.call("put", key, "a") for key in KEYS] == [1] * 12
    assert links.run([Command(key, ("HLEN", f"{key}:m")) for key in KEYS]) == [1] * 12
    links.close()


def test_scheme_and_server_that_do_not_fit_are_told_apart(cluster: Cluster, server: Start) -> None:
    with heard("write redis+cluster://", within=AT_ONCE):
        single = linked(f"redis://127.0.0.1:{cluster.nodes[0].port}")
        for key in KEYS:
            single.call("put", key, "a")
    alone = server()
    with heard(f"write redis://127.0.0.1:{alone.port}", within=AT_ONCE):
        linked(alone.url.replace("redis", "redis+cluster", 1)).call("put", P, "a")


@pytest.mark.slow
def test_a_frozen_master_is_heard_of_in_time_and_its_replica_found(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    links = linked(cluster.url)
    links.run([ScriptCall("put", key, ("a",)) for key in KEYS])
    frozen = cluster.master_of(KEYS[0])
    monkeypatch.setattr(links_module, "BUDGET", 0.5)
    frozen.freeze()
    try:
        with heard("in time", within=AT_ONCE):
            links.run([ScriptCall("put", key, ("b",)) for key in KEYS])

        def served() -> bool:
            try:
                return links.call("put", KEYS[0], "c") >= 2
            except BrokerUnavailable:
                return False

        until(served, "its replica serves")
    finally:
        frozen.thaw()


@pytest.mark.slow
def test_a_master_that_is_killed_is_failed_over_within_a_call_or_two(cluster: Cluster) -> None:
    links = linked(cluster.url)
    parked = links.park(KEYS[0], "BLPOP", f"{KEYS[0]}:g", 30)
    links.run([ScriptCall("put", key, ("a",)) for key in KEYS])
    cluster.master_of(KEYS[0]).kill()
    with heard("closed", within=AT_ONCE):
        readable(parked)

    def served() -> bool:
        began = time.monotonic()
        try:
            return bool(links.run([ScriptCall("put", key, ("b",)) for key in KEYS]))
        except BrokerUnavailable:
            assert time.monotonic() - began < SOON
            return False

    until(served, "its replica serves")
    parked = links.park(KEYS[0], "BLPOP", f"{KEYS[0]}:g", 30)
    links.command(KEYS[0], "RPUSH", f"{KEYS[0]}:g", "x")
    assert readable(parked) == [[f"{KEYS[0]}:g".encode(), b"x"]]


def test_a_slot_that_moves_is_closed_and_found_where_it_has_gone(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    links, key = linked(cluster.url), KEYS[0]
    links.call("put", key, "a")
    links.run([Command(key, ("SET", f"{key}:{name}", name)) for name in "xy"])
    slot = links.slot(key)
    source = cluster.master_of(key)
    target = next(node for node in cluster.masters() if node is not source)
    names = {node: node.do("CLUSTER", "MYID").decode() for node in (source, target)}  # type: ignore[attr-defined]
    target.do("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
    source.do("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
    target.do("CONFIG", "SET", "cluster-node-timeout", 1500)
    source.do("MIGRATE", "127.0.0.1", target.port, f"{key}:x", 0, 5000)
    parked = links.park(key, "BLPOP", f"{key}:g", 30)
    for budget in (1.0, 1.02, 1.04):  # half of its keys have gone: whichever of the two nodes spoke last
        with monkeypatch.context() as hasty, heard("being moved", within=AT_ONCE):
            hasty.setattr(links_module, "BUDGET", budget)
            links.call("put", key, "b")
    assert links.run([Command(key, ("GET", f"{key}:x")), Command(key, ("GET", f"{key}:y"))]) == [b"x", b"y"]
    source.do("MIGRATE", "127.0.0.1", target.port, f"{key}:m", 0, 5000)
    source.do("MIGRATE", "127.0.0.1", target.port, f"{key}:y", 0, 5000)
    for node in (target, source):
        node.do("CLUSTER", "SETSLOT", slot, "NODE", names[target])
    with heard("", within=AT_ONCE):
        readable(parked)  # the server sends it away
    parked = links.park(key, "BLPOP", f"{key}:g", 30)
    assert parked.answers() == []
    assert target.do("RPUSH", f"{key}:g", "x") == 1
    assert readable(parked) == [[f"{key}:g".encode(), b"x"]]
    assert links.call("put", key, "b") == 2
