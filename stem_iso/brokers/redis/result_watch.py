"""Ends of many tasks for one thread: one token for all of them, one list per slot, one connection on which a BLPOP was left.

    new ids ── look ─ going on ─> register token ─> look again ─┐         who ends a task ── RPUSH <P>:e:<token>
         ^                                                      v                                  │
         └───────────────────────────────── epoll <── BLPOP, left on a connection <────────────────┘

A wake-up says "look", never at what: all are looked at, in a round trip of some hundreds each. Behind it all are registered and looked
at each `SLICE` seconds: what a failover took along (a registration, a ring) costs no more than that.
"""

from __future__ import annotations

import select
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from stem_iso.brokers.base import StatusRecord
from stem_iso.brokers.redis.client.blocking import GRACE, BlockingConnection
from stem_iso.brokers.redis.client.client import Command, Links, ScriptCall
from stem_iso.brokers.redis.keys import own_key, queue_key
from stem_iso.brokers.redis.status import Memory, StatusReader
from stem_iso.errors import BrokerUnavailable

SLICE = 2  # seconds


class TokenEnds:
    """See `stem_iso.brokers.base.Ends`."""

    interval = float(SLICE)

    def __init__(self, links: Links, statuses: StatusReader, memory: Memory) -> None:
        self._links, self._statuses, self._memory = links, statuses, memory
        self._token = uuid.uuid4().hex
        self._slots: dict[str, str] = {}  # id -> where its token lies
        self._lines: dict[str, _EndsConnection] = {}  # by slot; of one server: one, by ""
        self._epoll = select.epoll()
        self._looked = 0.0
        self._reached = True  # the last look has reached the server

    def fileno(self) -> int:
        return self._epoll.fileno()

    def look(self, waits: Mapping[str, str | None]) -> dict[str, StatusRecord | None]:
        self._reached = False
        rang = self._heard()
        fresh = [id for id in waits if id not in self._slots]
        if gone := [id for id in self._slots if id not in waits]:
            self._unregister(gone)
            rang = True  # a ring for another may have gone with them
        found = self._ended(fresh, waits)
        self._register([id for id in fresh if id not in found])
        asked = [id for id in fresh if id not in found]
        if rang or time.monotonic() - self._looked >= SLICE:
            self._register([id for id in self._slots if id not in asked])
            self._looked = time.monotonic()
            asked = list(self._slots)
        found |= self._ended(asked, waits)
        for id in found:
            self._slots.pop(id, None)  # its registration went with its end
        self._ask()
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
            where = self._memory.get(id)  # as of the look just now; a group is in no queue
            self._slots[id] = own_key(id) if where is None else queue_key(where)
        self._links.run([ScriptCall("wait", self._slots[id], (id, self._token)) for id in ids])

    def _unregister(self, ids: Iterable[str]) -> None:
        self._links.run([ScriptCall("unwait", self._slots.pop(id), (id, self._token)) for id in ids])

    # -- the lists ----------------------------------------------------------------------------------------------------------------------

    def _heard(self) -> bool:
        """Whether anything rang. What else lies in the lists is dropped: the look that comes now sees what it is about."""
        rang = {key for line in self._lines.values() for key in line.heard()}
        if rang:
            self._links.run([Command(key, ("DEL", key)) for key in rang])
        return bool(rang)

    def _ask(self) -> None:
        lists: dict[str, set[str]] = {}
        for slot in set(self._slots.values()):
            lists.setdefault(slot if self._links.clustered else "", set()).add(f"{slot}:e:{self._token}")
        for name in self._lines.keys() - lists.keys():
            self._lines.pop(name).close()
        for name, keys in lists.items():
            if name in self._lines and not keys <= self._lines[name].keys:
                self._lines.pop(name).close()
                self._looked = 0.0  # what the old one was just given
            if name not in self._lines:
                self._lines[name] = _EndsConnection(self._links, keys, self._epoll)
            self._lines[name].ask()

    def close(self) -> None:
        if self._reached:  # else nobody should wait for a server that is away: they go with the ends of the tasks
            with suppress(BrokerUnavailable):
                self._unregister(list(self._slots))
        for line in self._lines.values():
            line.close()
        self._epoll.close()


class _EndsConnection:
    """One connection, on which the next ring of some lists is asked for."""

    def __init__(self, links: Links, keys: set[str], epoll: select.epoll) -> None:
        self.keys = keys
        self._parked: BlockingConnection = links.park(min(keys))
        self._due = 0.0  # when silence is a dead server; 0: nothing is asked
        epoll.register(self._parked.fileno(), select.EPOLLIN)

    def ask(self) -> None:
        if not self._due:
            self._parked.write("BLPOP", *sorted(self.keys), SLICE)
            self._due = time.monotonic() + SLICE + GRACE

    def heard(self) -> list[str]:
        answers = self._parked.answers()
        if answers:
            self._due = 0.0
        elif self._due and time.monotonic() > self._due:
            raise BrokerUnavailable("the server is silent")
        return [answer[0].decode() for answer in answers if isinstance(answer, list)]

    def close(self) -> None:
        self._parked.close()  # which takes it out of the epoll
