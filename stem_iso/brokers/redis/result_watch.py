"""Waits for results: one thread for one id, or one thread for many ids. Both register a token at the task and read a list of their own.

    one id     poll ─ ended ─> answer                            who ends a task ── RPUSH <P>:e:<token> ── for each token of the id
                 └ register token ─> poll ─> BLPOP, a slice ─┐
                        ^────────────────────────────────────┘

    many ids   new ids ── poll ─ unended ─> register token ─> poll again ─┐      one token for all of them, one list per slot,
                 ^                                                        v      one connection on which a BLPOP was left
                 └──────────────────── select <── BLPOP, unanswered <─────┘

Rules
 1. The token is registered before the poll that is slept on, so an end between the two is seen by the poll or wakes the sleeper.
 2. A slice is short: what a failover took along (a registration, a wake-up) costs one slice. After each slice all ids are registered and
    polled once more.
 3. A wake-up never says what has ended: all ids are polled, in a round trip of some hundreds each.
 4. Who stops waiting takes the token along. The token of one that was killed goes with the end of the task, and the list that is then
    pushed to for nobody after a minute.
"""

from __future__ import annotations

import selectors
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import TypeVar

from stem_iso.brokers.base import StatusRecord
from stem_iso.brokers.redis.driver.blocking import GRACE, BlockingConnection
from stem_iso.brokers.redis.driver.client import RedisClient, ScriptCall, ServerCommand
from stem_iso.brokers.redis.keys import own_key, queue_key
from stem_iso.brokers.redis.status import QueueCache, StatusReader
from stem_iso.errors import BrokerUnavailable

T = TypeVar("T")

SLICE = 2  # seconds


# -- one id ----------------------------------------------------------------------------------------------------------------------------


def wait_until(
    client: RedisClient, slot: Callable[[], str], id: str, poll: Callable[[], T | None], late: Callable[[], str], timeout: float | None
) -> T:
    """What `poll` answers, as soon as it answers. `slot`: of the task, or of the group, once that has been found.

    Raises TimeoutError, what `poll` raises, and BrokerUnavailable.
    """
    deadline = inf if timeout is None else time.monotonic() + timeout
    if (found := poll()) is not None:
        return found
    if deadline <= time.monotonic():
        raise TimeoutError(late())
    where, token = slot(), uuid.uuid4().hex
    try:
        while True:
            client.call("add_waiter", where, id, token)
            if (found := poll()) is not None:
                return found
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(late())
            client.wait_for_push(f"{where}:e:{token}", min(left, float(SLICE)))
    finally:
        with suppress(BrokerUnavailable):  # the token goes with the end of the task; the answer, or the error on its way, matters more
            client.call("remove_waiter", where, id, token)


# -- many ids --------------------------------------------------------------------------------------------------------------------------


class RedisResultWatch:
    """See `stem_iso.brokers.base.ResultWatch`."""

    interval = float(SLICE)

    def __init__(self, client: RedisClient, statuses: StatusReader, queue_cache: QueueCache) -> None:
        self._client, self._statuses, self._queue_cache = client, statuses, queue_cache
        self._token = uuid.uuid4().hex
        self._slots: dict[str, str] = {}  # id -> where its token lies
        self._lines: dict[str, _TokenConnection] = {}  # by slot; of one server: one, by ""
        self._selector = selectors.DefaultSelector()
        self._polled_all_at = 0.0
        self._reached = True  # the last poll has reached the server

    def fileno(self) -> int:
        """Of all connections together. Where the system has none for that (Windows), of one: the others are polled after a slice."""
        together = getattr(self._selector, "fileno", None)
        if together is not None:
            return int(together())
        return next(iter(self._lines.values())).fileno()

    def poll(self, waits: Mapping[str, str | None]) -> dict[str, StatusRecord | None]:
        self._reached = False
        woken = self._take_wake_ups()
        new = [id for id in waits if id not in self._slots]
        if gone := [id for id in self._slots if id not in waits]:
            self._unregister(gone)
            woken = True  # a wake-up for another may have gone with them
        found = self._ended(new, waits)
        self._register([id for id in new if id not in found])
        again = [id for id in new if id not in found]
        if woken or time.monotonic() - self._polled_all_at >= SLICE:
            self._register([id for id in self._slots if id not in again])
            self._polled_all_at = time.monotonic()
            again = list(self._slots)
        found |= self._ended(again, waits)
        for id in found:
            self._slots.pop(id, None)  # its registration went with its end
        self._request_wake_ups()
        self._reached = True
        return found

    def _ended(self, ids: Sequence[str], waits: Mapping[str, str | None]) -> dict[str, StatusRecord | None]:
        by_queue: dict[str | None, list[str]] = {}
        for id in ids:
            by_queue.setdefault(waits[id], []).append(id)
        found: dict[str, StatusRecord | None] = {}
        for queue, some in by_queue.items():
            records = zip(some, self._statuses.statuses(some, queue), strict=True)
            found |= {id: record for id, record in records if record is None or record.state.terminal}
        return found

    def _register(self, ids: Sequence[str]) -> None:
        for id in ids:
            where = self._queue_cache.get(id)  # as of the poll just now; a group is in no queue
            self._slots[id] = own_key(id) if where is None else queue_key(where)
        self._client.run([ScriptCall("add_waiter", self._slots[id], (id, self._token)) for id in ids])

    def _unregister(self, ids: Iterable[str]) -> None:
        self._client.run([ScriptCall("remove_waiter", self._slots.pop(id), (id, self._token)) for id in ids])

    # -- the lists ----------------------------------------------------------------------------------------------------------------------

    def _take_wake_ups(self) -> bool:
        """Whether anything was pushed. What else lies in the lists is dropped: the poll that comes now sees what it is about."""
        pushed = {key for line in self._lines.values() for key in line.pushed()}
        if pushed:
            self._client.run([ServerCommand(key, ("DEL", key)) for key in pushed])
        return bool(pushed)

    def _request_wake_ups(self) -> None:
        lists: dict[str, set[str]] = {}
        for slot in set(self._slots.values()):
            lists.setdefault(slot if self._client.clustered else "", set()).add(f"{slot}:e:{self._token}")
        for name in self._lines.keys() - lists.keys():
            self._lines.pop(name).close()
        for name, keys in lists.items():
            if name in self._lines and not keys <= self._lines[name].keys:
                self._lines.pop(name).close()
                self._polled_all_at = 0.0  # what the old one was just given
            if name not in self._lines:
                self._lines[name] = _TokenConnection(self._client, keys, self._selector)
            self._lines[name].request()

    def close(self) -> None:
        if self._reached:  # else nobody should wait for a server that is away: they go with the ends of the tasks
            with suppress(BrokerUnavailable):
                self._unregister(list(self._slots))
        for line in self._lines.values():
            line.close()
        self._selector.close()


class _TokenConnection:
    """One connection, on which the next push to some lists is asked for."""

    def __init__(self, client: RedisClient, keys: set[str], selector: selectors.BaseSelector) -> None:
        self.keys = keys
        self._connection: BlockingConnection = client.open_blocking(min(keys))
        self._due = 0.0  # when silence is a dead server; 0: nothing is asked
        self._selector = selector
        self._registered = self._connection.fileno()
        selector.register(self._registered, selectors.EVENT_READ)

    def fileno(self) -> int:
        return self._registered

    def request(self) -> None:
        if not self._due:
            self._connection.write("BLPOP", *sorted(self.keys), SLICE)
            self._due = time.monotonic() + SLICE + GRACE

    def pushed(self) -> list[str]:
        """The lists that were pushed to."""
        answers = self._connection.answers()
        if answers:
            self._due = 0.0
        elif self._due and time.monotonic() > self._due:
            raise BrokerUnavailable("the server is silent")
        return [answer[0].decode() for answer in answers if isinstance(answer, list)]

    def close(self) -> None:
        # Before the connection goes: the number may be another's as soon as it has gone.
        self._selector.unregister(self._registered)
        self._connection.close()
