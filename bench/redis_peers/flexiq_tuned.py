from __future__ import annotations

from bench.redis_peers.flexiq_queue import peer

queue, COMMAND, noop, when, left = peer("bench.redis_peers.flexiq_tuned", scheduler_poll_interval_ms=1, scheduler_batch_size=64)
