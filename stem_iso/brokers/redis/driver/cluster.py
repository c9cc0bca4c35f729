"""Client of a Redis Cluster: each call goes to the master of its key's slot, and on from there until it was carried out or BUDGET is spent.

    run ── group by master ──> write to all, read from all ──┬─> answered
             ^                                               ├─> MOVED                    where its target says; the map is asked for anew
             │                                               ├─> ASK                      its target, after ASKING, for this once
             └──────────── again, in time ───────────────────┼─> NOSCRIPT                 with the script
                                                             ├─> TRYAGAIN, CLUSTERDOWN, READONLY, LOADING    after a pause
                                                             └─> connection lost          after a pause: its replica takes over meanwhile

Rules
 1. Each script touches one slot, and all calls are idempotent: sent again to another node, they do no harm.
 2. A slot that is being moved is closed to scripts. A script derives its keys, so it must not run where half of them have gone. Each call
    names two keys that never exist (KEYS[1], and KEYS[1] with ":-"): the old node then says ASK, the new one TRYAGAIN (two keys, one of
    them missing), and nothing is carried out before the slot has arrived. Plain commands name the one key they touch.
 3. The map of slots is asked for at first use and after any sign that it is old, from whichever node answers; nodes that failed last.
 4. Failover takes what Redis takes (`cluster-node-timeout`, and a vote). A call that meets it waits for BUDGET and then fails; a later
    one finds the new master.

What Redis Cluster itself does not promise: a master that dies takes along what it had not yet handed to its replica. Tasks published in
that moment can be lost, those settled in it can run again.
"""

from __future__ import annotations

import binascii
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from stem_iso.brokers.redis.driver.address import Address, Node
from stem_iso.brokers.redis.driver.client import Batch, RedisClient, Request
from stem_iso.brokers.redis.driver.connection import ConnectionLost, RedisConnection
from stem_iso.brokers.redis.driver.errors import PASSING, Refusal
from stem_iso.errors import BrokerUnavailable

SLOTS = 16_384
PAUSE = 0.05  # seconds before a call is sent again to a cluster that is changing
PATIENT = 3  # turns without a pause
REFRESH = 1.0  # seconds for one node to answer with the map
NO_MASTER = Refusal("CLUSTERDOWN", "no node has this slot")


# -- which node has a key (pure) -------------------------------------------------------------------------------------------------------


def slot_of(key: str) -> int:
    """As the cluster specification says: what stands between the first { and the next }, where that is something, else the whole key."""
    _, opened, rest = key.partition("{")
    tag, closed, _ = rest.partition("}")
    return binascii.crc_hqx((tag if opened and closed and tag else key).encode(), 0) % SLOTS


@dataclass(frozen=True)
class SlotMap:
    """`ranges`: (first, last, master), sorted. `nodes`: all that are known, replicas included."""

    ranges: tuple[tuple[int, int, Node], ...] = ()
    nodes: tuple[Node, ...] = ()

    def master(self, slot: int) -> Node | None:
        """None where no node has the slot, as far as is known."""
        place = bisect_right(self.ranges, slot, key=lambda each: each[0]) - 1
        if place < 0 or slot > self.ranges[place][1]:
            return None
        return self.ranges[place][2]


def slot_map(answer: Sequence[Any], asked: Node) -> SlotMap:
    """From an answer to CLUSTER SLOTS. A node without a host is the one that was asked, or shares its host."""
    ranges = []
    nodes: dict[Node, None] = {}
    for first, last, *members in answer:
        found = [Node((host or b"").decode() or asked.host, port) for host, port, *_ in members]
        nodes |= dict.fromkeys(found)
        ranges.append((first, last, found[0]))
    return SlotMap(tuple(sorted(ranges, key=lambda each: each[0])), tuple(nodes))


# -- calls of a run --------------------------------------------------------------------------------------------------------------------


@dataclass
class _Run:
    """What a run has still to do. `left`: place of a call -> the node that ASK named for it, if one did."""

    calls: Sequence[Request]
    left: dict[int, Node | None]
    answers: list[Any]
    lost: ConnectionLost | None = None  # of this turn
    pause: bool = False
    turns: int = 0
    batches: list[tuple[RedisConnection, list[int], Batch]] = field(default_factory=list)


class ClusterClient(RedisClient):
    clustered = True

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._connections: dict[Node, RedisConnection] = {}
        self._map = SlotMap()
        self._moved_to: Node | None = None  # the node that MOVED named: asked for the map before the others
        self._stale = True
        self._failed: set[Node] = set()  # since the map was asked for

    def close(self) -> None:
        super().close()
        connections, self._connections = self._connections, {}
        for connection in connections.values():
            connection.close()

    def slot(self, key: str) -> int:
        return slot_of(key)

    def _connected(self, key: str) -> RedisConnection | None:
        node = self._map.master(slot_of(key))
        return None if node is None else self._connections.get(node)

    def _mark_stale(self) -> None:
        self._stale = True

    # -- a run -----------------------------------------------------------------------------------------------------------------------

    def _run(self, calls: Sequence[Request], deadline: float) -> list[Any]:
        run = _Run(calls, dict.fromkeys(range(len(calls))), [None] * len(calls))
        try:
            while True:
                self._turn(run, deadline)
                if not run.left:
                    return run.answers
                # A turn that the deadline cuts would make what was refused unsure: after a pause, as long again is left for its answers.
                if time.monotonic() + (2 * PAUSE if run.pause else 0) >= deadline:
                    break
                if run.pause:
                    time.sleep(PAUSE)
        except BaseException:  # answers are still to come: nobody may read them as his own
            self.close()
            raise
        if run.lost is not None:
            raise run.lost
        return [_unfollowed(answer) for answer in run.answers]

    def _turn(self, run: _Run, deadline: float) -> None:
        run.lost, run.pause, run.batches, run.turns = None, False, [], run.turns + 1
        if self._stale:
            try:
                self._refresh_map(deadline)
            except ConnectionLost as lost:
                run.lost, run.pause = lost, True
                return
        for (node, asking), places in self._grouped(run).items():
            try:
                connection = self._connection(node, deadline)
                batch = Batch(connection, [run.calls[each] for each in places], deadline, closed=True, asking=asking)
            except ConnectionLost as lost:
                self._lose(run, node, lost)
            else:
                self._sent = True
                run.batches.append((connection, places, batch))
        for connection, places, batch in run.batches:
            try:
                answers = batch.read()
            except ConnectionLost as lost:
                self._lose(run, connection.node, lost)
            else:
                for place, answer in zip(places, answers, strict=True):
                    self._sort(run, place, answer, connection)

    def _grouped(self, run: _Run) -> dict[tuple[Node, bool], list[int]]:
        groups: dict[tuple[Node, bool], list[int]] = {}
        for place, asked in run.left.items():
            node = asked or self._map.master(slot_of(run.calls[place].key))
            if node is None:
                run.answers[place], run.pause, self._stale = NO_MASTER, True, True
            else:
                groups.setdefault((node, asked is not None), []).append(place)
        return groups

    def _lose(self, run: _Run, node: Node, lost: ConnectionLost) -> None:
        """What was asked of it stays to be done. One that answered before has perhaps only closed an idle connection: no pause."""
        connection = self._connections.pop(node, None)
        run.pause |= connection is None or connection.fresh
        run.lost, self._stale = ConnectionLost(f"{node}: {lost.args[0]}", lost.late), True
        self._failed.add(node)

    def _sort(self, run: _Run, place: int, answer: Any, connection: RedisConnection) -> None:
        run.answers[place], run.left[place] = answer, None
        match answer:
            case Refusal(code="NOSCRIPT"):
                connection.loaded.clear()
            case Refusal(code="MOVED"):
                self._moved_to, self._stale = _target(answer, connection), True
                run.pause |= run.turns > PATIENT  # nodes disagree, as during a failover
            case Refusal(code="ASK"):
                run.left[place] = _target(answer, connection)
            case Refusal(code=code) if code in PASSING:
                run.pause = self._stale = True
            case _:
                del run.left[place]

    # -- nodes -----------------------------------------------------------------------------------------------------------------------

    def _node(self, key: str | None, deadline: float) -> Node:
        if self._stale:
            self._refresh_map(deadline)
        node = self._map.master(slot_of(key or ""))
        if node is None:
            raise ConnectionLost(NO_MASTER.reason)
        return node

    def _connection(self, node: Node, deadline: float) -> RedisConnection:
        connection = self._connections.get(node)
        if connection is None or not connection.open:
            connection = self._connections[node] = RedisConnection(node, self.address.access, deadline)
            self.connected += 1
        return connection

    def _refresh_map(self, deadline: float) -> None:
        """Ask for the map until a node answers."""
        first = () if self._moved_to is None else (self._moved_to,)
        found = dict.fromkeys((*first, *self._connections, *self._map.nodes, *self.address.nodes))
        why = ConnectionLost("no node answers")
        for node in sorted(found, key=self._failed.__contains__):
            patience = min(deadline, time.monotonic() + REFRESH)
            try:
                connection = self._connection(node, patience)
                connection.write([("CLUSTER", "SLOTS")], patience)
                (answer,) = connection.read(1, patience)
            except ConnectionLost as lost:
                self._connections.pop(node, None)
                self._failed.add(node)
                why = ConnectionLost(f"{node}: {lost.args[0]}")
                continue
            if not isinstance(answer, Refusal):
                self._map, self._moved_to, self._stale, self._failed = slot_map(answer, node), None, False, set()
                return
            if "cluster support disabled" in answer.text:
                raise BrokerUnavailable(f"{self.url}: {node} is no node of a cluster: write redis://{node}")
            why = ConnectionLost(f"{node}: {answer.reason}")
        raise why


def _unfollowed(answer: Any) -> Any:
    """A hint of a slot on the move that no time was left to follow: for the caller its slot is being moved, as TRYAGAIN says."""
    return Refusal("TRYAGAIN", answer.text) if isinstance(answer, Refusal) and answer.code in ("ASK", "MOVED") else answer


def _target(answer: Refusal, connection: RedisConnection) -> Node:
    host, port = answer.target
    return Node(host or connection.node.host, port)
