"""Redis client: calls of scripts and commands, sent to the servers that have their keys.

    client.run([ScriptCall("publish", P, ...), ServerCommand("si:{q}:g", ("LLEN", "si:{q}:g"))])  ->  answers, in order
                                                                                                     one round trip per node

Rules
 1. A call names a script and ONE key, whose slot is where it runs; the script derives its other keys, of the same slot. A command is routed
    by the key beside its words.
 2. All that is asked is idempotent, because it may be sent twice: after a cut, a redirection, a server that forgot its scripts. Calls to
    one node are carried out in the order given, save those that it refused at first: they follow.
 3. One run, with its connecting, redirecting and sending again, ends within BUDGET: an answer to all, or BrokerUnavailable. Where no answer
    came in time, what was asked may have been done; asking again is harmless.
 4. A script is given to a server before its first call over a connection, in the same write. NOSCRIPT (SCRIPT FLUSH) gives it again.
 5. One object per thread. Connections are opened by first use. In a forked child all are closed, and its own are opened.

Not promised: a bound for the resolver of host names.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from stem_iso.brokers.redis.driver import scripts
from stem_iso.brokers.redis.driver.address import Address, Node
from stem_iso.brokers.redis.driver.blocking import BlockingConnection
from stem_iso.brokers.redis.driver.connection import ConnectionLost, RedisConnection, Word, Words, import_redis
from stem_iso.brokers.redis.driver.errors import Refusal
from stem_iso.errors import BrokerUnavailable

T = TypeVar("T")

BUDGET = 4.0  # seconds of one run; a producer hears within 5
LOST = 0.05  # seconds of a wait whose server is lost: less would be a busy loop


class ScriptCall(NamedTuple):
    """`script`: the stem of a file in scripts/. `key`: KEYS[1], with a hash tag. `args`: ARGV."""

    script: str
    key: str
    args: tuple[Word, ...] = ()


class ServerCommand(NamedTuple):
    """`key` only says which slot; `words` are the whole command."""

    key: str
    words: Words


Request = ScriptCall | ServerCommand


class RedisClient(ABC):
    """To all servers of one address. `url`: for people, without user and password."""

    clustered: bool

    def __init__(self, address: Address) -> None:
        self.address = address
        self.url = address.shown
        self.channel = f"si:{address.access.db}:bell"  # wakes every worker; channels know no databases
        self.connected = 0  # how often: after a new one, what a server was sent may be forgotten
        self._sent = False  # this run has handed something to a server
        self._for_push: tuple[Node, BlockingConnection] | None = None  # kept from one `wait_for_push` to the next

    def run(self, calls: Sequence[Request], seconds: float | None = None) -> list[Any]:
        """The answers (bytes, int, list, None), in the order of `calls`, within `seconds` (BUDGET where nothing is said).

        Raises BrokerUnavailable, after all of them were read; `unsure` where an answer is missing, or some were refused and others done.
        """
        if not calls:
            return []
        self._sent, budget = False, BUDGET if seconds is None else seconds
        if not self.connected:
            import_redis()
        try:
            answers = self._run(calls, time.monotonic() + budget)
        except ConnectionLost as lost:
            raise BrokerUnavailable(self._reason(lost, budget), unsure=self._sent) from lost
        if found := refusals(answers):
            raise BrokerUnavailable(found[0].describe(self.url), unsure=len(found) < len(answers))
        return answers

    def call(self, script: str, key: str, *args: Word) -> Any:
        return self.run([ScriptCall(script, key, args)])[0]

    def command(self, key: str, *words: Word) -> Any:
        return self.run([ServerCommand(key, words)])[0]

    def open_blocking(self, key: str | None, *words: Word) -> BlockingConnection:
        """A connection of its own to the node of `key` (None: any), on which `words` were written without waiting for an answer."""
        import_redis()
        try:
            deadline = time.monotonic() + BUDGET
            node = self._node(key, deadline)
            blocking = BlockingConnection(RedisConnection(node, self.address.access, deadline, inspect=False), self._mark_stale)
        except ConnectionLost as lost:
            self._mark_stale()
            raise BrokerUnavailable(self._reason(lost)) from lost
        if words:
            blocking.write(*words)
        return blocking

    def wait_for_push(self, key: str, seconds: float) -> None:
        """Until somebody pushes to the list `key` (that is taken), at most `seconds`; less where the server is lost: poll again."""
        try:
            self._push_connection(key).request(seconds, "BLPOP", key, max(0.001, seconds))
        except (BrokerUnavailable, ConnectionLost):
            self._close_for_push()
            time.sleep(min(max(0.0, seconds), LOST))  # whoever polls again gets the error, or an answer without being woken
        except BaseException:  # its answer is still to come
            self._close_for_push()
            raise

    def _push_connection(self, key: str) -> BlockingConnection:
        node = self._node(key, time.monotonic() + BUDGET)
        if self._for_push is None or self._for_push[0] != node or not self._for_push[1].open:
            self._close_for_push()
            self._for_push = node, self.open_blocking(key)
        return self._for_push[1]

    def _close_for_push(self) -> None:
        kept, self._for_push = self._for_push, None
        if kept is not None:
            kept[1].close()

    def close(self) -> None:
        """Close what is open; a later use opens anew. Blocking connections are their owners' to close."""
        self._close_for_push()

    def uptime(self, key: str) -> float | None:
        """For how many seconds the server of `key` has been up, by what it said when it was connected to; None where it did not say."""
        connection = self._connected(key)
        return None if connection is None or connection.up_since is None else time.monotonic() - connection.up_since

    @abstractmethod
    def _connected(self, key: str) -> RedisConnection | None: ...

    @abstractmethod
    def slot(self, key: str) -> int:
        """Keys of one slot are on one node, now and always."""

    @abstractmethod
    def _run(self, calls: Sequence[Request], deadline: float) -> list[Any]: ...

    @abstractmethod
    def _node(self, key: str | None, deadline: float) -> Node: ...

    @abstractmethod
    def _mark_stale(self) -> None:
        """A blocking connection was sent elsewhere, or lost its server: what is known of the nodes may be old."""

    def _reason(self, lost: ConnectionLost, budget: float = 0.0) -> str:
        late = f" ({budget:g} s; what was asked may have been done)" if lost.late and budget else ""
        return f"{self.url}: {lost.args[0]}{late}"


class Batch:
    """What one connection was asked in one write, until it is read."""

    def __init__(
        self, connection: RedisConnection, calls: Sequence[Request], deadline: float, closed: bool = False, asking: bool = False
    ) -> None:
        """`closed`: see `cluster`. `asking`: each of the calls is to a slot that this node is being given."""
        self._connection, self._deadline = connection, deadline
        self._loads: list[scripts.Script] = []
        commands: list[Words] = []
        for call in calls:
            script = scripts.script(call.script) if isinstance(call, ScriptCall) else None
            if script is not None and script.digest not in connection.loaded and script not in self._loads:
                self._loads.append(script)
            if asking:
                commands.append(("ASKING",))
            commands.append(_words(call, closed))
        if self._loads:
            commands = [*(("SCRIPT", "LOAD", each.text) for each in self._loads), *commands]
        self._count, self._step = len(calls), 2 if asking else 1
        connection.write(commands, deadline)

    def read(self) -> list[Any]:
        answers = self._connection.read(len(self._loads) + self._count * self._step, self._deadline)
        if not self._loads and self._step == 1:
            return answers
        for script, answer in zip(self._loads, answers, strict=False):
            if isinstance(answer, Refusal):
                return [answer] * self._count
            self._connection.loaded.add(script.digest)
        return answers[len(self._loads) + self._step - 1 :: self._step]


def _words(call: Request, closed: bool) -> Words:
    if isinstance(call, ServerCommand):
        return call.words
    digest = scripts.script(call.script).digest
    if closed:
        return ("EVALSHA", digest, 2, call.key, f"{call.key}:-", *call.args)
    return ("EVALSHA", digest, 1, call.key, *call.args)


def refusals(answers: Sequence[Any]) -> list[Refusal]:
    return [answer for answer in answers if isinstance(answer, Refusal)]


def forgotten(answers: Sequence[Any]) -> list[int]:
    return [place for place, answer in enumerate(answers) if isinstance(answer, Refusal) and answer.code == "NOSCRIPT"]


def round_trips(items: Sequence[T], call_of: Callable[[T], ScriptCall], most: int) -> list[list[T]]:
    """The items in their order, cut so that each round trip arrives within its seconds: at most `most` bytes of arguments, or one item."""
    if len(items) < 2:
        return [list(items)]
    trips: list[list[T]] = [[]]
    size = 0
    for item in items:
        brings = sum(len(word) for word in call_of(item).args if isinstance(word, bytes))
        size += brings
        if size > most and trips[-1]:
            trips.append([])
            size = brings
        trips[-1].append(item)
    return trips
