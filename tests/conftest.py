"""For all tests."""

from __future__ import annotations

import signal

import hypothesis

from stem_iso.testing import BrokerContract as BrokerContract  # before any part of it is imported, so that its asserts are rewritten
from tests.servers.fixtures import binary, cluster, proxied, redis_url, server, shared_cluster, shared_redis

__all__ = ["binary", "cluster", "proxied", "redis_url", "server", "shared_cluster", "shared_redis"]

# How long an example takes says more of the machine than of the code.
hypothesis.settings.register_profile("stem_iso", deadline=None)
hypothesis.settings.load_profile("stem_iso")

# A job that a shell started with `&`, as build servers do, ignores these (under nohup the last); so would every program that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGQUIT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
