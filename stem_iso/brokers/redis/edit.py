"""What waits, changed where it stands: made ready at once, or given other arguments. What has ended is edited as it is retried.

    status ── waits ──> record as it is stored ── a new one ──> `run_now.lua`, `edit.lua`: is it still this record? ──> in its place
           └─ ended ──> `retry`, with the arguments

Where the record has changed in between it is read again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import msgspec

from stem_iso.brokers.base import Replayed, StatusRecord
from stem_iso.brokers.redis import retry
from stem_iso.brokers.redis.corrupt_records import DAMAGE
from stem_iso.brokers.redis.driver.client import RedisClient, ScriptCall, ServerCommand
from stem_iso.brokers.redis.keys import queue_key
from stem_iso.brokers.redis.queues import QueueRegistry
from stem_iso.brokers.redis.records import parsed, record
from stem_iso.brokers.redis.status import Live, StatusReader
from stem_iso.outcome import TaskState
from stem_iso.task.envelope import Envelope, decode, next_run


def run_now(client: RedisClient, statuses: StatusReader, id: str, queue: str | None) -> Replayed | None:
    nonce = os.urandom(8)
    while (found := statuses.statuses([id], queue)[0]) is not None:
        if found.not_before is None or not found.queue:
            return Replayed(id, found.run, "not-delayed")
        key = queue_key(found.queue)
        (seen,), (seconds, micros) = client.run([ScriptCall("status", key, (id,)), ServerCommand(key, ("TIME",))])
        if not isinstance(seen, list):
            continue
        stored = Live._make(seen).record
        now = int(seconds) + int(micros) / 1e6
        answer = client.call("run_now", key, id, stored, _due(stored, now), nonce).decode()
        if answer != "changed":
            return Replayed(id, found.run, None if answer == "ok" else answer)
    return None


def _due(stored: bytes, now: float) -> bytes:
    """The same record, due now; of one that cannot be read, as it is."""
    try:
        return record(msgspec.structs.replace(decode(parsed(stored).body), not_before=now))
    except DAMAGE:  # Undecodable among them
        return stored


def edit(
    client: RedisClient, registry: QueueRegistry, statuses: StatusReader, id: str, args: retry.NewArgs, queue: str | None
) -> Replayed | None:
    nonce = os.urandom(8)
    while (found := statuses.statuses([id], queue)[0]) is not None:
        refused = _refused(found, args)
        if refused is not None:
            return Replayed(id, found.run, refused)
        if found.state.terminal:
            return retry.retry(client, registry, statuses, id, queue, args.limit, args)
        key = queue_key(found.queue)
        seen = client.call("status", key, id)[0]
        if not isinstance(seen, list):
            continue
        envelope = _edited(seen, id, found, args)
        if isinstance(envelope, str):
            return Replayed(id, found.run, envelope)
        answer = client.call("edit", key, id, Live._make(seen).record, record(envelope), nonce).decode()
        if answer != "changed":
            return Replayed(id, envelope.run) if answer == "ok" else Replayed(id, found.run, answer)
    return None


def _refused(found: StatusRecord, args: retry.NewArgs) -> str | None:
    if not found.queue:
        return "canvas"  # a group
    if found.state is TaskState.RUNNING:
        return "running"
    return None if found.run == args.run else "changed"


def _edited(seen: Sequence[Any], id: str, found: StatusRecord, args: retry.NewArgs) -> Envelope | str:
    """The next run of what waits: it keeps its due time, and its expiry. Or why there is none."""
    waits = Live._make(seen)
    if waits.waits or waits.begun is not None:
        return "canvas"
    try:
        before = decode(parsed(waits.record).body)
    except DAMAGE:  # Undecodable among them
        return "undecodable"
    if before.run != args.run:
        return "changed"
    after = next_run(before, id, before.run + 1, before.not_before)
    return args.put_in(msgspec.structs.replace(after, queue=found.queue, expires=before.expires))
