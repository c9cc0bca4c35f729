"""Pool of a producer's brokers, each lent to one thread at a time; and the configuration by which they are opened.

    Stem(url, options) ──> BrokerConfig ── open ──> BrokerPool
    with pool.borrow() as broker:      an idle one, else a new one; back among the idle afterwards
        broker.publish(...)

Rules
 1. No lock: idle brokers wait in a deque, whose append and pop are atomic, so a fork in the middle leaves nothing locked in the child.
 2. A forked child starts with none, and holds on to the inherited ones without ever touching them: closing an inherited connection, or
    letting it be collected, could end the parent's.
 3. As many are open as threads that ever used one at the same time.
 4. URL, options, and the folder that a relative path means are resolved once, when the application is made.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, unquote

from stem_iso.brokers.url import open_broker, parse_url, refuse_elsewhere
from stem_iso.client.app_location import current_app
from stem_iso.errors import BrokerUnavailable

if TYPE_CHECKING:
    from stem_iso.brokers.base import Broker
    from stem_iso.brokers.sqlite.in_memory import MemoryStore

L = TypeVar("L")

LEAST_SECRET = 8  # characters


class BrokerPool:
    def __init__(self, open: Callable[[], Broker]) -> None:
        self._open, self._pid = open, os.getpid()
        self._idle: deque[Broker] = deque()  # owned by whoever popped it
        self._opened: list[Broker] = []  # every one of this process, so that none is collected in a child
        self._inherited: list[Broker] = []  # never touched again

    def borrow(self) -> Loan:
        return Loan(self)

    def take(self) -> tuple[Broker, int]:
        """One that is idle, else a new one; and the process that it is of. It goes back by `give_back`."""
        if self._pid != os.getpid():
            self._after_fork()
        try:
            return self._idle.pop(), self._pid
        except IndexError:
            broker = self._open()
        self._opened.append(broker)
        return broker, self._pid

    def give_back(self, broker: Broker, pid: int) -> None:
        if pid == self._pid:
            self._idle.append(broker)

    def close(self) -> None:
        """Close the idle ones; one that is lent is closed by nobody, and collected with this object."""
        if self._pid != os.getpid():
            self._after_fork()
        while self._idle:
            broker = self._idle.pop()
            self._opened.remove(broker)
            broker.close()

    def _after_fork(self) -> None:
        self._inherited += self._opened
        self._opened, self._idle, self._pid = [], deque(), os.getpid()


class Loan:
    """`with pool.borrow() as broker`. A class, because a generator takes four times as long, and every enqueue borrows."""

    __slots__ = ("_broker", "_pid", "_pool")

    def __init__(self, pool: BrokerPool) -> None:
        self._pool = pool

    def __enter__(self) -> Broker:
        self._broker, self._pid = self._pool.take()
        return self._broker

    def __exit__(self, *_: object) -> None:
        self._pool.give_back(self._broker, self._pid)


class Listeners:
    """What listens at the broker for all threads and loops of a process: one of each kind, made at its first use."""

    def __init__(self, open: Callable[[], Broker]) -> None:
        self._open = open
        self._made: dict[Any, Any] = {}  # by kind

    def of(self, kind: Callable[[Callable[[], Broker]], L]) -> L:
        # setdefault decides between threads that come at once.
        found: L = self._made.get(kind) or self._made.setdefault(kind, kind(self._open))
        return found

    def close(self) -> None:
        """They end when nobody uses them any more."""
        for listener in list(self._made.values()):
            listener.close()


class BrokerConfig:
    """Resolved once, when the application is made; nothing is opened by that. Raises InvalidOptions."""

    def __init__(self, url: str | None, overrides: Mapping[str, Any]) -> None:
        self.in_code = url is not None
        self.url, self.folder = _configured() if url is None else url, os.getcwd()
        # What the application said; it holds on another URL too.
        self.overrides = {name: value for name, value in overrides.items() if value is not None}
        self.address, self.options = parse_url(self.url, self.overrides)
        self.in_use = False  # whether a broker was opened by it: from then on, the application stays there
        self.in_isolate = False  # set by the boot of an isolate, before any handler runs
        self.withheld = False  # whether what leaves this process, or came into it, is the URL for people alone: `withhold`
        self._store: MemoryStore | None = None  # made by the first thread that opens a `memory://` broker, shared by all

    @property
    def shown(self) -> str:
        """For people: without options and passwords."""
        if self.address.scheme == "sqlite":
            return f"sqlite:///{os.path.join(self.folder, self.address.path)}"
        return f"{self.address.scheme}://{self.address.path}"

    @property
    def public(self) -> str:
        """The URL as others may have it: its options, and no password."""
        query = "&".join(f"{quote(name)}={quote(value)}" for name, value in self.address.options.items())
        return f"{self.shown}{'&' if '?' in self.shown else '?'}{query}" if query else self.shown

    def withhold(self, secrets: Sequence[str]) -> None:
        """No isolate is to have the URL where it is, or holds, what one of these variables says."""
        values = [value for name in secrets if (value := os.environ.get(name))]
        self.withheld = self.withheld or "STEM_ISO_BROKER" in secrets or any(_holds(self.url, value) for value in values)

    def open(self) -> Broker:
        """A broker for one thread; it opens nothing before its first use. Raises BrokerUnavailable."""
        self.in_use = True
        if self.withheld and self.in_isolate:
            raise BrokerUnavailable(
                f"{self.shown}: the way in is a secret of the worker's (--secret-env): enqueue and revoke by the context"
            )
        return open_broker(self.url, self.options, cwd=self.folder, store=self._shared_store())

    def _shared_store(self) -> MemoryStore | None:
        if self.address.scheme != "memory":
            return None
        if self.in_isolate or current_app.get(None) is not None:
            raise BrokerUnavailable("memory:// lives in the worker's process, out of reach here: enqueue and revoke by the context")
        refuse_elsewhere("memory")
        from stem_iso.brokers.sqlite.in_memory import MemoryStore

        if self._store is None:
            # setdefault decides between threads that come at once: all get the store of the first.
            self._store = vars(self).setdefault("_first_store", MemoryStore())
        return self._store


def _holds(url: str, secret: str) -> bool:
    """Whether one is in the other: a variable may say the whole URL, or its password alone; what is shorter is found by chance."""
    before, at, _ = url.partition("://")[2].rpartition("@")
    password = unquote(before.partition(":")[2]) if at else ""
    return secret == url or (password != "" and password in secret) or (len(secret) >= LEAST_SECRET and secret in unquote(url))


def _configured() -> str:
    from stem_iso.config import broker_url

    return broker_url()
