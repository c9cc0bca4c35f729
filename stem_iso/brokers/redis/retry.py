"""Retry: what failed or was cancelled runs again under its id, from the envelope that its status has kept.

    status, as it is stored ── next run ──> `retry.lua`: is it still this status? whose lock? ──> a task, in place of status and dead letter

Where the status has changed in between it is read again: somebody forgot the task, or was faster.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import msgspec

from stem_iso.brokers.base import Replayed, StatusRecord
from stem_iso.brokers.redis.corrupt_records import DAMAGE
from stem_iso.brokers.redis.driver.client import RedisClient, ScriptCall, ServerCommand
from stem_iso.brokers.redis.keys import queue_key
from stem_iso.brokers.redis.queues import QueueRegistry
from stem_iso.brokers.redis.records import record
from stem_iso.brokers.redis.status import StatusReader, kept
from stem_iso.brokers.rules import after
from stem_iso.outcome import TaskState
from stem_iso.task.attempt_history import fitted
from stem_iso.task.envelope import Envelope, encode, next_run


class NewArgs(NamedTuple):
    """Arguments (encoded) for the run behind this one. `limit`: the most bytes of an envelope."""

    args: bytes
    run: int
    limit: int

    def put_in(self, envelope: Envelope) -> Envelope | str:
        """Or why it is not done."""
        envelope = fitted(msgspec.structs.replace(envelope, args=msgspec.Raw(self.args)), self.limit)
        return "too-large" if len(encode(envelope)) > self.limit else envelope


def retry(
    client: RedisClient, registry: QueueRegistry, statuses: StatusReader, id: str, queue: str | None, most: int, new: NewArgs | None = None
) -> Replayed | None:
    """`most`: the largest envelope, bytes."""
    nonce = os.urandom(8)
    while (found := statuses.statuses([id], queue)[0]) is not None:
        if not found.state.terminal or found.state is TaskState.SUCCEEDED:
            return Replayed(id, found.run, "succeeded" if found.state.terminal else "active")
        if not found.queue:
            return Replayed(id, found.run, "canvas")  # a group
        key = queue_key(found.queue)
        (stored,), (seconds, micros) = client.run([ScriptCall("status", key, (id,)), ServerCommand(key, ("TIME",))])
        if not isinstance(stored, bytes):
            continue
        envelope = _next_run(stored, found, most, int(seconds) + int(micros) / 1e6, new)
        if isinstance(envelope, str):
            return Replayed(id, found.run, envelope)
        registry.register([found.queue])
        life = "" if envelope.unique_for is None else envelope.unique_for
        answer = client.call("retry", key, id, stored, record(envelope), life, nonce).decode()
        if answer != "changed":
            return Replayed(id, envelope.run) if answer == "ok" else Replayed(id, found.run, answer)
    return None


def _next_run(stored: bytes, found: StatusRecord, most: int, now: float, new: NewArgs | None) -> Envelope | str:
    """In the queue that it is known in, whatever it says itself; or why there is none."""
    try:
        before = kept(stored)
    except DAMAGE:  # Undecodable among them
        return "undecodable"
    if before.part:
        return "canvas"
    if before.envelope is None:
        return "no-envelope"
    if new is not None and before.envelope.run != new.run:
        return "changed"
    envelope = next_run(before.envelope, found.id, before.envelope.run + 1, now)
    envelope = after(msgspec.structs.replace(envelope, queue=found.queue), found, most)
    return envelope if new is None else new.put_in(envelope)
