"""For all tests."""

from __future__ import annotations

import signal

from stem_iso.testing import BrokerContract as BrokerContract  # before any part of it is imported, so that its asserts are rewritten
from tests.servers.fixtures import cluster, proxied, redis_url, server, shared_cluster, shared_redis

__all__ = ["cluster", "proxied", "redis_url", "server", "shared_cluster", "shared_redis"]

# A job that a shell started with `&`, as build servers do, ignores SIGINT, and so would every program that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
