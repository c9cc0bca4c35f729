"""Wake-ups of a worker: one descriptor over connections on which a blocking command was left.

    publish, retry, give back ── RPUSH <P>:g, at most one ──> BLPOP, left by a worker with idle seats     new work: one worker wakes
    revoke, purge, schedules ─── PUBLISH channel ───────────> SUBSCRIBE, by every worker                  revokes, news: all of them wake

Rules
 1. The wake-up token never says what there is. Who fetches and leaves work behind passes the token on (`exchange` does), so no work waits
    for a busy worker.
 2. A token is only asked for while seats are idle. One that comes when all seats are taken is put back, and none is asked for until then.
 3. The fetch comes first, the request of a token after it: what was published between the two has left its token.
 4. A connection that breaks is opened anew, at most once a second, and `changed()` then says True: what was notified meanwhile was lost.
    Nothing of this raises. The server answers each BLPOP within `BLOCK` seconds, and each PING: silence is taken for a dead peer.

Not promised: that the token survives a worker that dies between its pop and its fetch. The work then waits for the next publish, or for
somebody's `reclaim`, which leaves one where work is ready and none lies.
"""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from contextlib import suppress

from stem_iso.brokers.redis.driver.blocking import BlockingConnection
from stem_iso.brokers.redis.driver.client import RedisClient, ScriptCall
from stem_iso.brokers.redis.keys import REGISTRY, queue_key
from stem_iso.errors import BrokerUnavailable

BLOCK = 5  # seconds
PATIENCE = 3.0  # beyond them
REOPEN_EVERY = 1.0
CHANNEL = ""


class _WatchConnection:
    """A connection, opened when it is first wanted. `keys`: the queues whose tokens it asks for; none: it is subscribed to the channel."""

    def __init__(self, client: RedisClient, keys: Sequence[str], epoll: select.epoll) -> None:
        self._client, self._keys, self._epoll = client, keys, epoll
        self._connection: BlockingConnection | None = None
        self._requested = False
        self._due = 0.0  # requested: taken for dead by then; not requested, the channel: the next PING
        self._reopen_at = 0.0

    def opened(self, now: float) -> bool:
        """Whether it had to be opened, and could be."""
        if self._connection is not None or now < self._reopen_at:
            return False
        self._reopen_at, self._requested, self._due = now + REOPEN_EVERY, False, 0.0
        try:
            self._connection = self._client.open_blocking(self._keys[0] if self._keys else REGISTRY)
            if not self._keys:
                self._connection.write("SUBSCRIBE", self._client.channel)
        except BrokerUnavailable:
            self.close()
            return False
        self._epoll.register(self._connection.fileno(), select.EPOLLIN)
        return True

    def request(self, now: float) -> None:
        """The tokens, where that is not done already; of the channel, now and then, whether it still answers."""
        if self._connection is None or self._requested or (not self._keys and now < self._due):
            return
        words: tuple[str | int, ...] = ("BLPOP", *(f"{key}:g" for key in self._keys), BLOCK) if self._keys else ("PING",)
        try:
            self._connection.write(*words)
        except BrokerUnavailable:
            self.close()
            return
        self._requested, self._due = True, now + BLOCK + PATIENCE

    def notified(self, now: float) -> list[str]:
        """Keys of queues whose tokens are ours now, and CHANNEL where a message came."""
        if self._connection is None:
            return []
        try:
            answers = self._connection.answers()
        except BrokerUnavailable:
            self.close()
            return []
        found: list[str] = []
        for answer in answers:
            if isinstance(answer, list) and answer[0] == b"message":
                found.append(CHANNEL)
            elif self._keys:
                self._requested = False
                if isinstance(answer, list):
                    found.append(answer[0].decode().removesuffix(":g"))
            elif isinstance(answer, list) and answer[0] == b"pong":
                self._requested, self._due = False, now + BLOCK
        if self._requested and now > self._due:
            self.close()
        return found

    @property
    def requested(self) -> set[str]:
        return set(self._keys) if self._requested else set()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()  # which takes it out of the epoll


class RedisWorkWatch:
    """See `stem_iso.brokers.base.WorkWatch`. The broker calls `exchanged` after each exchange."""

    interval = 1.0

    def __init__(self, client: RedisClient, queues: Sequence[str]) -> None:
        self._client = client
        self._epoll = select.epoll()
        keys = [queue_key(queue) for queue in queues]
        together = [[key] for key in keys] if client.clustered else [keys]
        self._subscription = _WatchConnection(client, [], self._epoll)
        self._lines = [self._subscription, *(_WatchConnection(client, some, self._epoll) for some in together if some)]
        self._tokens: set[str] = set()  # that came, and no fetch followed yet
        self._idle = True
        for line in self._lines:
            line.opened(time.monotonic())
        self._request()

    def fileno(self) -> int:
        return self._epoll.fileno()

    def changed(self) -> bool:
        now = time.monotonic()
        notified = {key for line in self._lines for key in line.notified(now)}
        self._tokens |= notified - {CHANNEL}
        reopened = [line for line in self._lines if line.opened(now)]
        if not self._idle:
            self._put_back()
            notified &= {CHANNEL}
        self._request()
        return bool(notified or reopened)

    def exchanged(self, fetched: bool, idle: bool) -> None:
        """`fetched`: it wanted something; `idle`: it got less than that, so there is nothing more."""
        if fetched:
            self._tokens.clear()
        self._idle = idle
        if not idle:
            self._put_back()
        self._request()

    def close(self) -> None:
        self._idle = False
        for line in self._lines:
            self._tokens |= line.requested  # whether a token came just now is not known, and fetching from an empty queue does no harm
            line.close()
        self._put_back()
        self._epoll.close()

    def _request(self) -> None:
        now = time.monotonic()
        for line in self._lines:
            if self._idle or line is self._subscription:
                line.request(now)

    def _put_back(self) -> None:
        tokens, self._tokens = self._tokens, set()
        if not tokens:
            return
        with suppress(BrokerUnavailable):  # as of one that died with it: `reclaim` leaves it again
            self._client.run([ScriptCall("pass_token", key) for key in sorted(tokens)])
