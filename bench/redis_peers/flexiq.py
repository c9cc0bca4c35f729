from __future__ import annotations

from bench.redis_peers.flexiq_queue import peer

queue, COMMAND, noop, when, left = peer("bench.redis_peers.flexiq")
