"""Waiting for an end: a thread leaves a token where the task is, looks, and sleeps on a list of its own.

    look ─ ended ─> answer                          who ends the task ── RPUSH <P>:e:<token> ── for each token of the id
      └ register token ─> look ─> BLPOP, a slice ─┐
             ^────────────────────────────────────┘

Registered before the look that is slept on, so an end between the two is seen by the one or rings the other. A slice is short: what a
failover took with it (a registration, a ring) costs one slice. Who leaves takes its token along; the token of one that was killed goes with
the end of the task, and the list that is then rung for nobody after a minute.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import TypeVar

from stem_iso.brokers.redis.client.client import Links
from stem_iso.errors import BrokerUnavailable

T = TypeVar("T")

SLICE = 2.0  # seconds


def until(links: Links, key: Callable[[], str], id: str, look: Callable[[], T | None], late: Callable[[], str], timeout: float | None) -> T:
    """What `look` answers, as soon as it does. `key`: the slot of the task, or of the group, once it has been looked for.

    Raises TimeoutError, as `look`, and BrokerUnavailable.
    """
    deadline = inf if timeout is None else time.monotonic() + timeout
    if (found := look()) is not None:
        return found
    if deadline <= time.monotonic():
        raise TimeoutError(late())
    slot, token = key(), uuid.uuid4().hex
    try:
        while True:
            links.call("wait", slot, id, token)
            if (found := look()) is not None:
                return found
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(late())
            links.sleep(f"{slot}:e:{token}", min(left, SLICE))
    finally:
        with suppress(BrokerUnavailable):  # the token goes with the end of the task; the answer, or the error on its way, matters more
            links.call("unwait", slot, id, token)
