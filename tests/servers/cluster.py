"""Three masters with a replica each, on loopback; formed over plain connections, since redis-cli may be absent."""

from __future__ import annotations

from contextlib import suppress

import redis

from tests.servers.finding import Binary
from tests.servers.server import BOUND, Server, until

SLOTS = 16384
NODE_TIMEOUT = 1500  # ms without an answer until a master is taken for dead


class Cluster:
    def __init__(self, binary: Binary, *options: str) -> None:
        cluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT), "--cluster-replica-validity-factor", "0"]
        cluster += ["--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", *options]
        self.nodes = [Server(binary, *cluster) for _ in range(6)]
        self._form()

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes[:3])}"

    def masters(self) -> list[Server]:
        """Those that live and say that they are, in no order."""
        return [node for node in self.nodes if node.alive and "role:master" in _text(node.do("INFO", "replication"))]

    def master_of(self, key: str) -> Server:
        """Whoever serves the key's slot now."""
        masters = self.masters()
        slot = int(_text(masters[0].do("CLUSTER", "KEYSLOT", key)))
        for node in masters:
            if any(first <= slot <= last for first, last in _slots(node)):
                return node
        raise AssertionError(f"no living master has slot {slot}")

    def could_serve(self, key: str) -> bool:
        """A living master would take a write of this key now."""
        try:
            return self.master_of(key).do("EXISTS", key) in (0, 1)
        except (AssertionError, redis.exceptions.RedisError):  # nobody has its slot, or the cluster is down
            return False

    def replicated(self, key: str) -> None:
        """Wait until the master of this key has sent its replica all that was written so far."""
        info = _text(self.master_of(key).do("INFO", "replication")).replace(",", "\r\n").splitlines()
        written = int(next(line for line in info if line.startswith("master_repl_offset:")).partition(":")[2])

        def acknowledged() -> bool:
            info = _text(self.master_of(key).do("INFO", "replication")).replace(",", "\r\n").splitlines()
            return any(line.startswith("offset=") and int(line[7:]) >= written for line in info)

        until(acknowledged, "the replica has acknowledged all")

    def flush(self) -> None:
        """Empty all of it. A failover under way is waited for."""
        until(self._flushed, "every master could be emptied")

    def whole(self) -> bool:
        """Every slot is served, each by a master with a replica that follows it."""
        return all(node.alive for node in self.nodes) and all(_well(node) for node in self.nodes)

    def heal(self) -> None:
        """Start what was killed, and wait until the cluster is whole again."""
        for node in self.nodes:
            if not node.alive:
                node.start()
        until(self.whole, "the cluster is whole", 2 * BOUND)

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    def _flushed(self) -> bool:
        with suppress(redis.exceptions.RedisError):
            for node in self.masters():
                node.do("FLUSHALL")
            return True
        return False

    def _form(self) -> None:
        share = -(-SLOTS // 3)
        for number, node in enumerate(self.nodes):
            node.do("CLUSTER", "SET-CONFIG-EPOCH", number + 1)  # else the nodes settle by collisions who is who
            if number < 3:
                node.do("CLUSTER", "ADDSLOTS", *range(number * share, min(SLOTS, (number + 1) * share)))
        for node in self.nodes[1:]:
            self.nodes[0].do("CLUSTER", "MEET", "127.0.0.1", node.port)
        ids = [_text(node.do("CLUSTER", "MYID")) for node in self.nodes]
        until(lambda: all(ids[number % 3] in _text(self.nodes[number].do("CLUSTER", "NODES")) for number in range(6)), "the nodes have met")
        for number in range(3, 6):
            self.nodes[number].do("CLUSTER", "REPLICATE", ids[number - 3])
        until(self.whole, "the cluster is whole", 2 * BOUND)


def _well(node: Server) -> bool:
    try:
        info = _text(node.do("CLUSTER", "INFO"))
        state = _text(node.do("INFO", "replication"))
    except redis.exceptions.RedisError:
        return False
    linked = "connected_slaves:1" in state if "role:master" in state else "master_link_status:up" in state
    return "cluster_state:ok" in info and "cluster_known_nodes:6" in info and linked


def _slots(node: Server) -> list[tuple[int, int]]:
    (line,) = [line for line in _text(node.do("CLUSTER", "NODES")).splitlines() if "myself" in line]
    ranges = [word.partition("-") for word in line.split()[8:] if not word.startswith("[")]
    return [(int(first), int(last or first)) for first, _, last in ranges]


def _text(answer: object) -> str:
    return answer.decode() if isinstance(answer, bytes) else str(answer)
