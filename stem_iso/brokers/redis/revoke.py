"""Revocations: revoke, forget, purge; and what they leave for workers: orders and end notices.

    waits ── revoke, purge ──> cancelled here and now, notice in <P>:a ── ended_apart, by any worker, once
    runs ─── revoke ────────> flagged in <P>:v ── wake ──> its holder asks for `orders`; its end is `cancelled`, whatever it does

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
from stem_iso.brokers.redis.client.client import Links, ScriptCall
from stem_iso.brokers.redis.corrupt_records import DAMAGE, say, text
from stem_iso.brokers.redis.keys import queue_key
from stem_iso.brokers.redis.outbox import OutboxRelay, entries_in
from stem_iso.brokers.redis.queues import Registry
from stem_iso.brokers.redis.records import STATES, frames, unpack_error
from stem_iso.brokers.redis.status import BATCH, StatusReader
from stem_iso.errors import BrokerUnavailable
from stem_iso.outcome import TaskError
from stem_iso.task.envelope import Undecodable, decode
from stem_iso.task.status import TaskState

PURGE = 500  # tasks per call, so that a large purge lets others in between
NOTICES = 100  # of each queue per call


class Revocations:
    """One per broker, used by its thread."""

    def __init__(self, links: Links, registry: Registry, statuses: StatusReader, relay: OutboxRelay) -> None:
        self._links, self._registry, self._statuses, self._relay = links, registry, statuses, relay

    def revoke(self, id: str, terminate: bool = False, queue: str | None = None) -> bool:
        """True if the task was not terminal; of a canvas or a group: if any part of it was not."""
        refs = canvas.parts(self._links, self._relay, id)
        if refs is not None:
            runs = [(where, [ref.id for ref in run]) for where, run in groupby(refs, key=lambda ref: ref.queue)]
            return bool(sum(self._revoke(where, some, id, terminate) for where, some in runs))
        if (where := self._statuses.thought(id, queue)) and self._revoke(where, [id], id, terminate):
            return True
        record = self._statuses.statuses([id])[0]
        return record is not None and not record.state.terminal and self._revoke(record.queue, [id], id, terminate)

    def _revoke(self, queue: str, ids: Sequence[str], asked: str, terminate: bool) -> bool:
        if not queue:
            return bool(sum(canvas.revoke(self._links, self._relay, id, asked) for id in ids))
        any_revoked = False
        for start in range(0, len(ids), BATCH):
            args = (self._links.bell, 2 if terminate else 1, asked, *ids[start : start + BATCH])
            verdicts, entries = self._links.call("revoke", queue_key(queue), *args)
            any_revoked = any_revoked or any(verdicts)
            self._hand_on(queue, entries)
        return any_revoked

    def forget(self, id: str, queue: str | None = None) -> bool:
        """True if the id, or any part of what it means, was known."""
        refs = canvas.parts(self._links, self._relay, id)
        if refs is None:
            if (where := self._statuses.thought(id, queue)) and self._links.call("forget", queue_key(where), 0, id):
                return True
            record = self._statuses.statuses([id])[0]
            return record is not None and bool(self._links.call("forget", queue_key(record.queue), 0, id))
        places: dict[str, list[str]] = {}
        for ref in refs:
            places.setdefault(ref.queue, []).append(ref.id)
        calls = [canvas.forget(id) for id in places.pop("", [])]
        for where, ids in places.items():
            calls += [ScriptCall("forget", queue_key(where), (1, *ids[start : start + BATCH])) for start in range(0, len(ids), BATCH)]
        return any(self._links.run(calls))

    def purge(self, queue: str) -> int:
        """What waits when it begins, and what comes meanwhile up to as many."""
        key = queue_key(queue)
        queued, delayed, *_ = self._links.call("counts", key, 0)
        purged, more = 0, True
        while more and purged < queued + delayed:
            ended, more, entries = self._links.call("purge", key, self._links.bell, min(PURGE, queued + delayed - purged))
            purged += ended
            self._hand_on(queue, entries)
        return purged

    def _hand_on(self, queue: str, entries: Sequence[bytes]) -> None:
        with suppress(BrokerUnavailable):  # what was asked for is done, and its consequences are in the outbox: a worker sees to them
            self._relay.run(entries_in(queue, entries))

    # -- for workers -----------------------------------------------------------------------------------------------------------------

    def orders(self, boot: str) -> list[Revocation]:
        """Of all queues: a worker that serves others now may still hold something of the old ones."""
        answers = self._links.run([ScriptCall("orders", queue_key(name), (boot,)) for name in self._registry.known()])
        return [
            Revocation(Receipt(text(id), boot, int(sequence)), terminate == b"2")
            for flagged in answers
            for id, sequence, terminate in zip(flagged[::3], flagged[1::3], flagged[2::3], strict=True)
        ]

    def ended_apart(self) -> list[UnattendedEnd]:
        names = self._registry.known()
        answers = self._links.run([ScriptCall("ended_apart", queue_key(name), (NOTICES,)) for name in names])
        notices = (_apart(name, entry) for name, entries in zip(names, answers, strict=True) for entry in entries)
        return [each for each in notices if each is not None]


_notice = msgspec.msgpack.Decoder(tuple[str, str, str, int, int, TaskState, str, TaskError | None])


def _apart(queue: str, entry: bytes) -> UnattendedEnd | None:
    """None where it cannot be read."""
    try:
        return _said_apart(queue, entry)
    except DAMAGE:
        say(f"what ended apart in queue {queue}")
        return None


def _said_apart(queue: str, entry: bytes) -> UnattendedEnd:
    """See `scripts/ended_apart.lua`."""
    if entry[:1] == b"M":
        return UnattendedEnd(*_notice.decode(entry[1:]))
    id, state, reason, error, head = frames(entry, 1)
    try:
        envelope = decode(head)
        name, run, attempt = envelope.name, envelope.run, envelope.attempt
    except Undecodable:
        name, run, attempt = "", 0, 0
    return UnattendedEnd(id.decode(), name, queue, run, attempt, STATES[int(state)], reason.decode(), unpack_error(error))
