"""Damage: one stored value of many cannot be read, and must stop nobody else. It is logged once, and the rest goes on.

a task's record, or what lies over it   delivered as it is; the worker finds that it is no envelope, and buries it as `undecodable`
a status, a group                       failed, `undecodable`: who waits for it has waited enough
an entry of the outbox, news, heartbeat dropped: what it said is lost; leases and the net below each limit bring the rest in order
"""

from __future__ import annotations

import logging
import struct
from functools import lru_cache

import msgspec

log = logging.getLogger("stem_iso.broker")

UNREADABLE = "undecodable"
# What decoding raises, whatever the bytes are: UnicodeDecodeError is a ValueError.
DAMAGE = (msgspec.MsgspecError, struct.error, ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError)


@lru_cache(maxsize=1000)
def log_corrupt(what: str) -> None:
    """In one line, once in a process."""
    log.warning("the broker holds something that cannot be read: %s", what)


def text(raw: bytes) -> str:
    """An id or a name for people; bytes that are no text are shown as such."""
    return raw.decode(errors="backslashreplace")
