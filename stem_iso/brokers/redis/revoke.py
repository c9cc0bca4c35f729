"""Revocations: revoke, forget, purge; and what they leave for workers: revocations and end notices.

    waits ── revoke, purge ──> cancelled here and now, notice in <P>:a ── unattended_ends, by any worker, once
    runs ─── revoke ────────> flagged in <P>:v ── wake ──> its holder reads `revocations`; its end is `cancelled`, whatever it does

A canvas's or a group's id means all of its parts, in the order of `parts_of`: no part is begun that was still to be revoked.
Parts that follow one another in one slot are one call; after a crash between two calls the same revoke completes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby

import msgspec

from stem_iso.brokers.base import Receipt, Revocation, UnattendedEnd
from stem_iso.brokers.redis import canvas
from stem_iso.brokers.redis.corrupt_records import DAMAGE, log_corrupt, text
from stem_iso.brokers.redis.driver.client import RedisClient, ScriptCall
from stem_iso.brokers.redis.keys import queue_key
from stem_iso.brokers.redis.outbox import OutboxRelay, entries_in
from stem_iso.brokers.redis.queues import QueueRegistry
from stem_iso.brokers.redis.records import STATES, frames, unpack_error
from stem_iso.brokers.redis.status import BATCH, StatusReader
from stem_iso.errors import BrokerUnavailable
from stem_iso.outcome import TaskError, TaskState
from stem_iso.task.envelope import Undecodable, decode

PURGE = 500  # tasks per call, so that a large purge lets others in between
NOTICES = 100  # of each queue per call


class Revocations:
    """One per broker, used by its thread."""

    def __init__(self, client: RedisClient, registry: QueueRegistry, statuses: StatusReader, relay: OutboxRelay) -> None:
        self._client, self._registry, self._statuses, self._relay = client, registry, statuses, relay

    def revoke(self, id: str, terminate: bool = False, queue: str | None = None) -> bool:
        """True if the task was not terminal; of a canvas or a group: if any part of it was not."""
        refs = canvas.parts(self._client, self._relay, id)
        if refs is not None:
            runs = [(where, [ref.id for ref in run]) for where, run in groupby(refs, key=lambda ref: ref.queue)]
            return bool(sum(self._revoke(where, some, id, terminate) for where, some in runs))
        if (where := self._statuses.likely_queue(id, queue)) and self._revoke(where, [id], id, terminate):
            return True
        record = self._statuses.statuses([id])[0]
        return record is not None and not record.state.terminal and self._revoke(record.queue, [id], id, terminate)

    def _revoke(self, queue: str, ids: Sequence[str], target: str, terminate: bool) -> bool:
        if not queue:
            return bool(sum(canvas.revoke(self._client, self._relay, id, target) for id in ids))
        any_revoked = False
        for start in range(0, len(ids), BATCH):
            args = (self._client.channel, 2 if terminate else 1, target, *ids[start : start + BATCH])
            verdicts, entries = self._client.call("revoke", queue_key(queue), *args)
            any_revoked = any_revoked or any(verdicts)
            self._hand_on(queue, entries)
        return any_revoked

    def forget(self, id: str, queue: str | None = None) -> bool:
        """True if the id, or any part of what it means, was known."""
        refs = canvas.parts(self._client, self._relay, id)
        if refs is None:
            if (where := self._statuses.likely_queue(id, queue)) and self._client.call("forget", queue_key(where), 0, id):
                return True
            record = self._statuses.statuses([id])[0]
            return record is not None and bool(self._client.call("forget", queue_key(record.queue), 0, id))
        places: dict[str, list[str]] = {}
        for ref in refs:
            places.setdefault(ref.queue, []).append(ref.id)
        calls = [canvas.forget(id) for id in places.pop("", [])]
        for where, ids in places.items():
            calls += [ScriptCall("forget", queue_key(where), (1, *ids[start : start + BATCH])) for start in range(0, len(ids), BATCH)]
        return any(self._client.run(calls))

    def purge(self, queue: str) -> int:
        """What waits when it begins, and what comes meanwhile up to as many."""
        key = queue_key(queue)
        queued, delayed, *_ = self._client.call("count", key, 0)
        purged, more = 0, True
        while more and purged < queued + delayed:
            ended, more, entries = self._client.call("purge", key, self._client.channel, min(PURGE, queued + delayed - purged))
            purged += ended
            self._hand_on(queue, entries)
        return purged

    def _hand_on(self, queue: str, entries: Sequence[bytes]) -> None:
        with suppress(BrokerUnavailable):  # what was asked for is done, and its consequences are in the outbox: a worker sees to them
            self._relay.run(entries_in(queue, entries))

    # -- for workers -----------------------------------------------------------------------------------------------------------------

    def revocations(self, boot: str) -> list[Revocation]:
        """Of all queues: a worker that serves others now may still hold something of the old ones."""
        answers = self._client.run([ScriptCall("revocations", queue_key(name), (boot,)) for name in self._registry.known()])
        return [
            Revocation(Receipt(text(id), boot, int(sequence)), terminate == b"2")
            for flagged in answers
            for id, sequence, terminate in zip(flagged[::3], flagged[1::3], flagged[2::3], strict=True)
        ]

    def unattended_ends(self) -> list[UnattendedEnd]:
        names = self._registry.known()
        answers = self._client.run([ScriptCall("take_end_notices", queue_key(name), (NOTICES,)) for name in names])
        notices = (_end_notice(name, entry) for name, entries in zip(names, answers, strict=True) for entry in entries)
        return [each for each in notices if each is not None]


_notice = msgspec.msgpack.Decoder(tuple[str, str, str, int, int, TaskState, str, TaskError | None])


def _end_notice(queue: str, entry: bytes) -> UnattendedEnd | None:
    """None where it cannot be read."""
    try:
        return _decoded(queue, entry)
    except DAMAGE:
        log_corrupt(f"an end notice of queue {queue}")
        return None


def _decoded(queue: str, entry: bytes) -> UnattendedEnd:
    """See `scripts/take_end_notices.lua`."""
    if entry[:1] == b"M":
        return UnattendedEnd(*_notice.decode(entry[1:]))
    id, state, reason, error, head = frames(entry, 1)
    try:
        envelope = decode(head)
        name, run, attempt = envelope.name, envelope.run, envelope.attempt
    except Undecodable:
        name, run, attempt = "", 0, 0
    return UnattendedEnd(id.decode(), name, queue, run, attempt, STATES[int(state)], reason.decode(), unpack_error(error))
