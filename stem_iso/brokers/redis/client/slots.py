"""Slots of a cluster: CRC16 of a key's hash tag, and the map from slots to nodes. Pure."""

from __future__ import annotations

import binascii
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stem_iso.brokers.redis.client.address import Node

SLOTS = 16_384


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


def told(answer: Sequence[Any], asked: Node) -> SlotMap:
    """From an answer to CLUSTER SLOTS. A node without a host is the one that was asked, or shares its host."""
    ranges = []
    nodes: dict[Node, None] = {}
    for first, last, *members in answer:
        found = [Node((host or b"").decode() or asked.host, port) for host, port, *_ in members]
        nodes |= dict.fromkeys(found)
        ranges.append((first, last, found[0]))
    return SlotMap(tuple(sorted(ranges, key=lambda each: each[0])), tuple(nodes))
