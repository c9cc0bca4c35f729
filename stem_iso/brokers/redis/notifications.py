"""Wake-ups of a worker: one descriptor over connections on which a blocking command was left.

    publish, retry, give back ── LPUSH <P>:g, at most one ──> BLPOP, left by a worker with idle seats     new work: one worker wakes
    revoke, purge, schedules ─── PUBLISH bell ──────────────> SUBSCRIBE, by every worker                  orders, news: all of them look

Rules
 1. The wake-up token says "look", never what. Who looks and leaves work behind passes it on (`exchange` does), so no work waits for a busy
    worker.
 2. It is only asked for while seats are idle. One that comes when all of them are taken goes back, and is not asked for again until then.
 3. A look comes first, the asking after it: what was published between the two has left its token.
 4. A connection that breaks is made anew, at most once a second, and `changed()` then says True: what rang meanwhile was not heard. Nothing
    of this raises. The server answers each BLPOP within `ASK` seconds, and each PING: silence is taken for a dead peer.

Not promised: that the token survives a worker that dies between its pop and its look. The work then waits for the next publish, or for
somebody's `reclaim`, which leaves one where work is ready and none lies.
"""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from contextlib import suppress

from stem_iso.brokers.redis.client.blocking import BlockingConnection
from stem_iso.brokers.redis.client.client import Links, ScriptCall
from stem_iso.brokers.redis.keys import REGISTRY, queue_key
from stem_iso.errors import BrokerUnavailable

ASK = 5  # seconds
PATIENCE = 3.0  # beyond them
MEND_EVERY = 1.0
BELL = ""


class _WatchConnection:
    """One connection, made when it is first wanted. `keys`: the queues whose tokens it asks for; none: it is subscribed to the channel."""

    def __init__(self, links: Links, keys: Sequence[str], epoll: select.epoll) -> None:
        self._links, self._keys, self._epoll = links, keys, epoll
        self._parked: BlockingConnection | None = None
        self._asked = False
        self._due = 0.0  # asked: taken for dead by then; not asked, the channel: to be asked whether it lives
        self._mend_at = 0.0

    def made(self, now: float) -> bool:
        """Whether it had to be made, and could be."""
        if self._parked is not None or now < self._mend_at:
            return False
        self._mend_at, self._asked, self._due = now + MEND_EVERY, False, 0.0
        try:
            self._parked = self._links.park(self._keys[0] if self._keys else REGISTRY)
            if not self._keys:
                self._parked.write("SUBSCRIBE", self._links.bell)
        except BrokerUnavailable:
            self.close()
            return False
        self._epoll.register(self._parked.fileno(), select.EPOLLIN)
        return True

    def ask(self, now: float) -> None:
        """For the tokens, where that is not done already; of the channel, now and then, whether it still answers."""
        if self._parked is None or self._asked or (not self._keys and now < self._due):
            return
        words: tuple[str | int, ...] = ("BLPOP", *(f"{key}:g" for key in self._keys), ASK) if self._keys else ("PING",)
        try:
            self._parked.write(*words)
        except BrokerUnavailable:
            self.close()
            return
        self._asked, self._due = True, now + ASK + PATIENCE

    def heard(self, now: float) -> list[str]:
        """What rang: keys of queues whose tokens are ours now, or BELL."""
        if self._parked is None:
            return []
        try:
            answers = self._parked.answers()
        except BrokerUnavailable:
            self.close()
            return []
        rang: list[str] = []
        for answer in answers:
            if isinstance(answer, list) and answer[0] == b"message":
                rang.append(BELL)
            elif self._keys:
                self._asked = False
                if isinstance(answer, list):
                    rang.append(answer[0].decode().removesuffix(":g"))
            elif isinstance(answer, list) and answer[0] == b"pong":
                self._asked, self._due = False, now + ASK
        if self._asked and now > self._due:
            self.close()
        return rang

    @property
    def asked(self) -> set[str]:
        return set(self._keys) if self._asked else set()

    def close(self) -> None:
        parked, self._parked = self._parked, None
        if parked is not None:
            parked.close()  # which takes it out of the epoll


class RedisWatch:
    """See `stem_iso.brokers.base.Watch`. The broker calls `exchanged` after each exchange."""

    interval = 1.0

    def __init__(self, links: Links, queues: Sequence[str]) -> None:
        self._links = links
        self._epoll = select.epoll()
        keys = [queue_key(queue) for queue in queues]
        together = [[key] for key in keys] if links.clustered else [keys]
        self._bell = _WatchConnection(links, [], self._epoll)
        self._lines = [self._bell, *(_WatchConnection(links, some, self._epoll) for some in together if some)]
        self._held: set[str] = set()  # tokens that came and were not looked after
        self._idle = True
        for line in self._lines:
            line.made(time.monotonic())
        self._ask()

    def fileno(self) -> int:
        return self._epoll.fileno()

    def changed(self) -> bool:
        now = time.monotonic()
        rang = {key for line in self._lines for key in line.heard(now)}
        self._held |= rang - {BELL}
        mended = [line for line in self._lines if line.made(now)]
        if not self._idle:
            self._put_back()
            rang &= {BELL}
        self._ask()
        return bool(rang or mended)

    def exchanged(self, looked: bool, idle: bool) -> None:
        """`looked`: it wanted something; `idle`: it got less than that, so there is nothing more."""
        if looked:
            self._held.clear()
        self._idle = idle
        if not idle:
            self._put_back()
        self._ask()

    def close(self) -> None:
        self._idle = False
        for line in self._lines:
            self._held |= line.asked  # whether a token came just now is not known, and a look at an empty queue does no harm
            line.close()
        self._put_back()
        self._epoll.close()

    def _ask(self) -> None:
        now = time.monotonic()
        for line in self._lines:
            if self._idle or line is self._bell:
                line.ask(now)

    def _put_back(self) -> None:
        held, self._held = self._held, set()
        if not held:
            return
        with suppress(BrokerUnavailable):  # as of one that died with it: `reclaim` leaves it again
            self._links.run([ScriptCall("baton", key) for key in sorted(held)])
