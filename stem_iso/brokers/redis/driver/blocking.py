"""Connection with a blocking command: its answer is polled for and not waited for. BLPOP until there is an item, SUBSCRIBE for good.

    blocking = client.open_blocking(key, "BLPOP", key, 2)   written; nothing waits
    poll.register(blocking.fileno(), POLLIN)
    blocking.answers()   -> [] nothing whole yet            [[key, item]]       [None] the BLPOP ran out
    blocking.write("BLPOP", key, 2)                         again, on the same connection
    blocking.request(2, "BLPOP", key, 2)                    the same, and waits for its answer

Its owner says how long an answer may stay away: a server that vanished is not noticed here before the keepalive of the system does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from stem_iso.brokers.readiness import wait_readable
from stem_iso.brokers.redis.driver.connection import ConnectionLost, RedisConnection, Word
from stem_iso.brokers.redis.driver.errors import Refusal
from stem_iso.errors import BrokerUnavailable

SEND = 1.0  # seconds to hand a few bytes to the system
GRACE = 2.0  # seconds that the answer to a blocking command may be late: a server that does not even answer then is taken for dead


class BlockingConnection:
    """Owned by one thread. `on_lost`: called when it was sent elsewhere, or lost its server. After BrokerUnavailable: open another."""

    def __init__(self, connection: RedisConnection, on_lost: Callable[[], None]) -> None:
        self._connection, self._on_lost = connection, on_lost

    def fileno(self) -> int:
        """For poll: readable when an answer, or the end of the connection, is there. Raises BrokerUnavailable once closed."""
        try:
            return self._connection.fileno()
        except OSError as error:
            raise BrokerUnavailable(f"{self._connection.node}: {error}") from error

    def write(self, *words: Word) -> None:
        try:
            self._connection.write([words], time.monotonic() + SEND)
        except ConnectionLost as lost:
            raise BrokerUnavailable(f"{self._connection.node}: {lost.args[0]}") from lost

    def answers(self) -> list[Any]:
        """All whole answers that have arrived; it never waits. Raises BrokerUnavailable where the server refused, or has gone."""
        found: list[Any] = []
        try:
            for answer in self._connection.arrived():
                if isinstance(answer, Refusal):
                    self._connection.close()
                    raise ConnectionLost(answer.reason)
                found.append(answer)
        except ConnectionLost as lost:
            self._on_lost()
            if not found:  # what came before the end counts, and the next read tells of the end
                raise BrokerUnavailable(f"{self._connection.node}: {lost.args[0]}") from lost
        return found

    def request(self, seconds: float, *words: Word) -> list[Any]:
        """What a command answers that blocks for `seconds` at most; nothing where even that did not come, and the connection is closed."""
        self.write(*words)
        deadline = time.monotonic() + seconds + GRACE
        while not (answers := self.answers()):
            if (left := deadline - time.monotonic()) <= 0:
                self.close()
                break
            self.poll(left)
        return answers

    def poll(self, seconds: float) -> None:
        """Wait until it is readable, at most so long."""
        wait_readable([self.fileno()], seconds)

    @property
    def open(self) -> bool:
        return self._connection.open

    def close(self) -> None:
        self._connection.close()
