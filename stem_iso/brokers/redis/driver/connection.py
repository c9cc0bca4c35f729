"""Connection to one server: the only place that imports redis-py, and only when a connection is wanted.

    RedisConnection(node, access, deadline)   connects, logs in, and inspects whether the server will do
    write(commands, deadline)                 all of them in one send
    read(count, deadline)                     their answers, in order; what the server refused is a `Refusal` among them
    arrived()                                 the answers that are whole by now, for a connection whose answers are not waited for

Rules
 1. redis-py connects, speaks TLS and logs in. Where it has hiredis, and there is no TLS, the rest goes by `stream`: redis-py's way is twice
    as long. Else it packs and parses, too. Its retries, health checks, time-outs and RESP3 are off: with its defaults a dead
    server is noticed after a minute, and a publish may be sent twice without our knowing.
 2. Each wait ends at a deadline (monotonic) given by the caller. Not bounded: the resolver of host names, and, where redis-py parses, a
    peer that sends an answer a byte at a time.
 3. After any fault but a refusal the stream of answers is unknown: the connection is closed for good, and `ConnectionLost` says
    what happened.
 4. A forked child closes its copies at once; nothing is sent on them, so the parent's session goes on. Left open they would keep the
    parent's session alive after its death. A fork waits for connections that are being made, a second at most: a socket in the hands of
    another thread is known to nobody, and would stay open in the child.
 5. The version and the eviction policy are inspected whenever a connection is made, since a server can be replaced between two of them.
"""

from __future__ import annotations

import os
import re
import select
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from weakref import WeakSet

from stem_iso.brokers.redis.driver.address import Access, Node
from stem_iso.brokers.redis.driver.errors import Refusal
from stem_iso.brokers.redis.driver.stream import MISSING, PlainStream
from stem_iso.errors import BrokerUnavailable

Word = bytes | str | int | float
Words = tuple[Word, ...]

CONNECT = 2.0  # seconds for one address of a host; a name with two, one of which swallows packets, still leaves time for the other
REST = 1.0  # seconds that a fork waits for connections that are being made
FLOOR = (6, 2)
# A peer that vanished is noticed after 45 s where nothing is sent; where something is, the caller's deadline is sooner.
KEEPALIVE = {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}


class ConnectionLost(Exception):
    """The connection broke, or could not be made: `args[0]` says how. `late`: no answer in time, so what was asked may have been done."""

    def __init__(self, how: str, late: bool = False) -> None:
        super().__init__(how, late)
        self.late = late


class RedisConnection:
    """Used by one thread. `loaded`: digests of scripts that this server was given over this connection."""

    def __init__(self, node: Node, access: Access, deadline: float, inspect: bool = True) -> None:
        """Raises ConnectionLost, and BrokerUnavailable for a server that will not do: too old, or one that evicts."""
        self.node, self.tls = node, access.tls is not None
        self.loaded: set[str] = set()
        self.fresh = True  # nothing has been answered yet
        self.up_since: float | None = None  # the server, monotonic; None where it did not say
        self._raw = _raw(node, access, deadline)
        self._stream: PlainStream | None = None
        with _Seam(self, "connect"), fork_guard().connecting():
            self._raw.connect()
            fork_guard().open.add(self)
            self._stream = _stream(self._raw, self.tls)
        if inspect:
            self._inspect(deadline)

    def write(self, commands: Sequence[Words], deadline: float) -> None:
        try:
            if (stream := self._stream) is not None:
                stream.write(commands, deadline)
            else:
                self._until(deadline)
                self._socket.sendall(b"".join(self._raw.pack_commands(commands)))
        except BaseException as error:  # Ctrl-C too: half of a command may have gone out
            self.on_fault(error, "write")
            raise

    def read(self, count: int, deadline: float) -> list[Any]:
        answers: list[Any] = []
        try:
            for _ in range(count):
                if (stream := self._stream) is not None:
                    answers.append(_checked(stream.answer(deadline)))
                else:
                    self._until(deadline)
                    answers.append(_answer(self._raw))
        except BaseException as error:  # Ctrl-C too: an answer that was asked for is still to come
            self.on_fault(error, "read")
            raise
        self.fresh = False
        return answers

    @property
    def open(self) -> bool:
        return self._raw._sock is not None

    def hung_up(self) -> bool:
        """Whether the peer has closed it, as far as is known here: what was written now would reach nobody."""
        if self._stream is not None:
            return self._stream.hung_up()
        if self.tls or self._raw._sock is None:
            return self._raw._sock is None
        try:
            self._raw._sock.settimeout(0)  # else Python waits before it looks
            return not self._raw._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def fileno(self) -> int:
        return int(self._socket.fileno())

    def arrived(self) -> Iterator[Any]:
        """Each answer that is whole by now; never waits. The parser keeps an answer of which only a part has come for the next time."""
        from ssl import SSLWantReadError

        from redis.exceptions import RedisError

        with _Seam(self, "read"):
            while self._stream is not None:
                if (found := self._stream.arrived()) is MISSING:
                    return
                yield _checked(found)
            self._socket.settimeout(0)
            while True:
                try:
                    answer = _answer(self._raw)
                except RedisError as error:
                    if isinstance(error.__context__, BlockingIOError | SSLWantReadError):
                        return
                    raise
                yield answer

    def close(self) -> None:
        """In a forked child too: only the process that connected shuts the session down."""
        self._stream = None
        self._raw.disconnect()

    def on_fault(self, error: BaseException, what: str) -> None:
        """Close it; what the system and redis-py raise becomes ConnectionLost."""
        self.close()
        from redis.exceptions import RedisError
        from redis.exceptions import TimeoutError as RedisTimeout

        if isinstance(error, (RedisTimeout, TimeoutError)):
            if what == "connect":
                tls = ", does it speak TLS on this port" if self.tls else ""
                raise ConnectionLost(f"no connection in time: is the server alive{tls}, and does a firewall drop packets?") from error
            raise ConnectionLost("the server did not answer in time", late=True) from error
        if isinstance(error, RedisError):
            refusal = _refusal(error)
            raise ConnectionLost(refusal.reason if refusal.known else explained(error)) from error
        if isinstance(error, OSError):
            raise ConnectionLost(error.strerror or str(error)) from error

    @property
    def _socket(self) -> Any:
        if self._raw._sock is None:
            raise ConnectionResetError("the connection is closed")
        return self._raw._sock

    def _until(self, deadline: float) -> None:
        # Never 0, which would mean "do not block": what has arrived already is still taken.
        self._socket.settimeout(max(0.001, deadline - time.monotonic()))

    def _inspect(self, deadline: float) -> None:
        self.write([("INFO", "server"), ("INFO", "memory")], deadline)
        found: dict[bytes, bytes] = {}
        for answer in self.read(2, deadline):
            if isinstance(answer, Refusal):
                if answer.code != "NOPERM":  # a user that may not ask INFO may still do all that a broker does
                    self.close()
                    raise BrokerUnavailable(answer.describe(str(self.node)))
                continue
            found |= dict(line.split(b":", 1) for line in answer.splitlines() if b":" in line)
        self.fresh = True
        if (uptime := found.get(b"uptime_in_seconds", b"")).isdigit():
            self.up_since = time.monotonic() - int(uptime)
        if complaint := unfit(found.get(b"redis_version", b"").decode(), found.get(b"maxmemory_policy", b"").decode()):
            self.close()
            raise BrokerUnavailable(f"{self.node}: {complaint}")


def unfit(version: str, policy: str) -> str | None:
    """Why a server that says this of itself will not do; "" means that it did not say."""
    numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
    if numbers and numbers < FLOOR:
        return f"the server is Redis {version}; stem_iso needs 6.2 or later"
    if policy not in ("", "noeviction"):
        return (
            f"the server's maxmemory-policy is {policy}: it may throw queued tasks away when memory runs short; "
            "run CONFIG SET maxmemory-policy noeviction (and write it into redis.conf)"
        )
    return None


def explained(error: Exception) -> str:
    """What the system (whose error redis-py has in its hand when it raises its own), TLS or the server complains of, with the way out."""
    fault = str(error)
    match error.__context__:
        case socket.gaierror():
            return f"the name of its host is not known here ({fault}): is it spelt right, and does this machine's resolver know it?"
        case ConnectionRefusedError():
            return f"nothing listens there ({fault}): is the server started, and does it listen on this address?"
        case FileNotFoundError():
            return f"there is no such socket ({fault}): is the server started, with this path as `unixsocket` in its redis.conf?"
        case PermissionError():
            return f"this user may not open it ({fault}): look at `unixsocketperm` in the server's redis.conf, or at the firewall"
    if "DB index is out of range" in fault:
        return f"the server has no database of this number ({fault}): write one below its `databases` (16 unless redis.conf says otherwise)"
    if "CERTIFICATE_VERIFY_FAILED" in fault:
        return f"the server's certificate is not trusted ({fault}): give its authority's as ssl_ca_certs=PATH"
    if "WRONG_VERSION_NUMBER" in fault or "record layer failure" in fault:
        return f"the server speaks no TLS on this port ({fault}): write redis://, or give its TLS port"
    return fault


class RedisForkGuard:
    """Asked by the interpreter around every fork. `open`: every open connection of this process, which its child closes."""

    def __init__(self) -> None:
        self._reset()
        if hasattr(os, "register_at_fork"):  # Windows has no forks
            os.register_at_fork(before=self._before, after_in_parent=self._after, after_in_child=self._in_child)

    def _reset(self) -> None:
        self.open: WeakSet[RedisConnection] = WeakSet()
        self._connecting = 0
        self._changed = threading.Condition()  # guards the count; held around a fork, so that nobody begins to connect in the midst of one

    @contextmanager
    def connecting(self) -> Iterator[None]:
        with self._changed:
            self._connecting += 1
        try:
            yield
        finally:
            with self._changed:
                self._connecting -= 1
                self._changed.notify_all()

    def _before(self) -> None:
        self._changed.acquire()
        self._changed.wait_for(lambda: not self._connecting, REST)

    def _after(self) -> None:
        self._changed.release()

    def _in_child(self) -> None:
        inherited = list(self.open)
        self._reset()
        for connection in inherited:
            connection.close()


@cache
def fork_guard() -> RedisForkGuard:
    """One per process, because forks are a matter of the process; registered by the first connection."""
    return RedisForkGuard()


# -- the seam to redis-py ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Seam:
    """`with _Seam(connection, "read"):` any fault closes the connection; what the system and redis-py raise becomes ConnectionLost."""

    connection: RedisConnection
    what: str

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is not None:
            self.connection.on_fault(error, self.what)


def import_redis() -> None:
    """Before a request takes its time: the import is 0.7 s of CPU, most of what a starved machine has for a whole request.

    Raises BrokerUnavailable where the package is missing.
    """
    try:
        import redis.connection  # noqa: F401
    except ImportError as error:
        raise BrokerUnavailable("a redis broker needs the package redis, 5.0 or later: pip install redis") from error


def _raw(node: Node, access: Access, deadline: float) -> Any:
    from redis.backoff import NoBackoff
    from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
    from redis.retry import Retry

    patience = max(0.001, deadline - time.monotonic())
    same: dict[str, Any] = {
        "db": access.db,
        "username": access.user,
        "password": access.password,
        "protocol": 2,
        "socket_timeout": patience,
        "socket_connect_timeout": min(CONNECT, patience),
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
    }
    if node.path is not None:
        return UnixDomainSocketConnection(path=node.path, **same)
    same |= {"host": node.host, "port": node.port, "socket_keepalive": True, "socket_keepalive_options": KEEPALIVE}
    if access.tls is None:
        return Connection(**same)
    tls = access.tls
    for option, path in (("ssl_ca_certs", tls.ca_certs), ("ssl_certfile", tls.certfile), ("ssl_keyfile", tls.keyfile)):
        if path is not None and not os.path.exists(path):
            raise BrokerUnavailable(f"{node}: there is no file {path}, which the broker's URL gives as {option}")
    return SSLConnection(
        ssl_ca_certs=tls.ca_certs,
        ssl_certfile=tls.certfile,
        ssl_keyfile=tls.keyfile,
        ssl_cert_reqs=tls.cert_reqs,
        ssl_check_hostname=tls.check_hostname and tls.cert_reqs != "none",
        **same,
    )


def _stream(raw: Any, tls: bool) -> PlainStream | None:
    """None where redis-py is to read and write."""
    if tls or not hasattr(select, "poll") or "Hiredis" not in type(raw._parser).__name__:
        return None
    import hiredis
    from redis.exceptions import InvalidResponse

    if not hasattr(hiredis, "pack_command"):  # before 3.0
        return None
    reader = hiredis.Reader(protocolError=InvalidResponse, replyError=raw._parser.parse_error, notEnoughData=MISSING)
    return PlainStream(raw._sock, reader, hiredis.pack_command)


def _checked(answer: Any) -> Any:
    """As `_answer`."""
    if not isinstance(answer, Exception):
        return answer
    from redis.exceptions import ResponseError

    if isinstance(answer, ResponseError):
        return _refusal(answer)
    raise answer  # a server that loads its data, or wants a password: for redis-py no answer but a lost connection


def _answer(raw: Any) -> Any:
    from redis.exceptions import InvalidResponse, ResponseError

    try:
        return raw.read_response(disconnect_on_error=False)  # the seam closes, and an answer of which only a part has come is no fault
    except ResponseError as error:
        return _refusal(error)
    except ValueError as error:  # the parser in Python, of a number that is none; hiredis raises InvalidResponse itself
        raise InvalidResponse(f"Protocol error: {error}") from error


def _refusal(error: Exception) -> Refusal:
    """redis-py has cut known codes off their messages, and tells them by class."""
    from redis import exceptions

    codes = {
        exceptions.NoScriptError: "NOSCRIPT",
        exceptions.MovedError: "MOVED",
        exceptions.AskError: "ASK",
        exceptions.TryAgainError: "TRYAGAIN",
        exceptions.MasterDownError: "MASTERDOWN",
        exceptions.ClusterDownError: "CLUSTERDOWN",
        exceptions.ClusterCrossSlotError: "CROSSSLOT",
        exceptions.OutOfMemoryError: "OOM",
        exceptions.ReadOnlyError: "READONLY",
        exceptions.NoPermissionError: "NOPERM",
        exceptions.BusyLoadingError: "LOADING",
        exceptions.AuthenticationError: "WRONGPASS",
    }
    text = str(error)
    code = codes.get(type(error))
    return Refusal(code, text) if code else Refusal.of(text)
