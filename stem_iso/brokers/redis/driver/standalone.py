"""Client of one Redis server, and the choice between it and the client of a cluster.

A connection that broke since its last use is replaced once, at once: the server may have closed it for being idle. A new one that breaks is
BrokerUnavailable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stem_iso.brokers.redis.driver.address import Address, Node
from stem_iso.brokers.redis.driver.client import Batch, RedisClient, Request, forgotten, refusals
from stem_iso.brokers.redis.driver.connection import ConnectionLost, RedisConnection
from stem_iso.brokers.redis.driver.errors import PASSING, Refusal


def connect(address: Address) -> RedisClient:
    """Opens nothing."""
    from stem_iso.brokers.redis.driver.cluster import ClusterClient

    return ClusterClient(address) if address.cluster else StandaloneClient(address)


class StandaloneClient(RedisClient):
    clustered = False

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._connection: RedisConnection | None = None

    def close(self) -> None:
        super().close()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def slot(self, key: str) -> int:
        return 0

    def _connected(self, key: str) -> RedisConnection | None:
        return self._connection

    def _run(self, calls: Sequence[Request], deadline: float) -> list[Any]:
        answers = self._send(calls, deadline)
        if not refusals(answers):
            return answers
        if again := forgotten(answers):
            self._opened(deadline).loaded.clear()
            for place, answer in zip(again, self._send([calls[each] for each in again], deadline), strict=True):
                answers[place] = answer
        if any(isinstance(answer, Refusal) and answer.code in PASSING for answer in answers):
            self.close()
        return answers

    def _send(self, calls: Sequence[Request], deadline: float) -> list[Any]:
        for _ in range(2):
            connection = self._opened(deadline)
            fresh = connection.fresh
            try:
                batch = Batch(connection, calls, deadline)
                self._sent = True
                return batch.read()
            except ConnectionLost as lost:
                self._connection = None
                if fresh or lost.late:
                    raise
            except BaseException:  # answers are still to come on it: nobody may read them as his own
                self.close()
                raise
        raise ConnectionLost("the connection breaks again and again")

    def _opened(self, deadline: float) -> RedisConnection:
        if self._connection is not None and self._connection.hung_up():
            self._connection.close()
        if self._connection is None or not self._connection.open:
            self._connection = RedisConnection(self.address.nodes[0], self.address.access, deadline)
            self.connected += 1
        return self._connection

    def _node(self, key: str | None, deadline: float) -> Node:
        return self.address.nodes[0]

    def _mark_stale(self) -> None: ...
