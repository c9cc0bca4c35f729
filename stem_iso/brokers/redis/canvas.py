"""Canvases in slots: composed, read, revoked and forgotten as a whole.

    tree    own slot of the canvas's id: what was composed        where each part is follows from it, and the queue where all began
    group   own slot of its id: its record, its members' results  its status is that record
    step    its queue: as any task, with its link beside it

`outbox` says how the end of one part moves the others, `canvas_placement` how all get there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from stem_iso.brokers.base import BrokerOptions, MemberState, StatusRecord
from stem_iso.brokers.redis import canvas_placement, publish
from stem_iso.brokers.redis.canvas_placement import CanvasOrigin
from stem_iso.brokers.redis.corrupt_records import DAMAGE, UNREADABLE, log_corrupt, text
from stem_iso.brokers.redis.driver.client import RedisClient, ScriptCall, ServerCommand
from stem_iso.brokers.redis.keys import own_key, queue_key
from stem_iso.brokers.redis.outbox import OutboxEntry, OutboxRelay, entries_in
from stem_iso.brokers.redis.queues import QueueRegistry
from stem_iso.brokers.redis.records import unpack_error
from stem_iso.brokers.rules import encoded
from stem_iso.errors import BrokerUnavailable
from stem_iso.outcome import TaskState
from stem_iso.task.canvas.tree import GROUP, Canvas, Parallel, Ref, Tree, group_of, last_of, parts_of

_tree: msgspec.msgpack.Decoder[Tree] = msgspec.msgpack.Decoder(Tree)
WAITING = "waiting"

Find = Callable[[str, Sequence[str]], Sequence[StatusRecord | None]]  # the statuses of tasks in a queue


# -- composed --------------------------------------------------------------------------------------------------------------------------


def compose(client: RedisClient, registry: QueueRegistry, relay: OutboxRelay, canvas: Canvas, options: BrokerOptions) -> None:
    """Raises PayloadTooLarge, and BrokerUnavailable: where that comes late, the canvas is composed, and a worker sees it through."""
    encoded([step.envelope for step in canvas.steps], options.max_payload_bytes)
    queue = canvas_placement.queue_of(canvas)
    publish.register_queues(registry, {queue, *(step.envelope.queue for step in canvas.steps)}, [canvas.id])
    post = ScriptCall("add_entry", queue_key(queue), ("compose", canvas.id, msgspec.msgpack.encode(canvas)))
    ((number, _),) = publish.send(client, [post], [canvas.id], canvas=True)
    with suppress(BrokerUnavailable):
        relay.compose(canvas, CanvasOrigin(queue, int(number)))


# -- read -----------------------------------------------------------------------------------------------------------------------------


def read_group(id: str) -> ScriptCall:
    """Its answer is for `record`."""
    return ScriptCall("group", own_key(id), ("read",))


def record(id: str, answer: Sequence[bytes] | None) -> StatusRecord | None:
    """The status of a group; None where there is none of this id, or it has expired."""
    if answer is None:
        return None
    try:
        return _record(id, answer)
    except DAMAGE:
        log_corrupt(f"what is stored of group {id}")
        return StatusRecord(id=id, name=GROUP, queue="", state=TaskState.FAILED, reason=UNREADABLE)


def _record(id: str, answer: Sequence[bytes]) -> StatusRecord:
    state, reason, error, result, enqueued, finished = answer[:6]
    return StatusRecord(
        id=id,
        name=GROUP,
        queue="",
        state=TaskState(state.decode()) if state else TaskState.QUEUED,
        reason=(reason.decode() or None) if state else WAITING,
        result=result or None,
        error=unpack_error(error),
        enqueued_at=float(enqueued),
        finished_at=float(finished) if finished else None,
    )


def unended(client: RedisClient, id: str) -> int | None:
    """How many members of a group have not ended; None where there is no such group."""
    answer = client.run([read_group(id)])[0]
    return None if answer is None else int(answer[6]) if answer[6].isdigit() else 0


def tree(client: RedisClient, id: str) -> Tree | None:
    """What was composed as this canvas, as long as its outcome is known."""
    found = _stored(client, id)
    if found is None:
        return None
    last = last_of(found)
    outcome = read_group(id) if isinstance(last, Parallel) else ScriptCall("status", queue_key(last.queue), (id,))
    (seen,) = client.run([outcome])
    known = seen is not None if isinstance(last, Parallel) else seen[0] is not None
    return found if known else None


def members(client: RedisClient, id: str, find: Find) -> list[MemberState] | None:
    """The members of a group, by place; None where there is no such group."""
    group = _group(client, id, client.run([read_group(id)])[0])
    if group is None:
        return None
    lasts = [last_of(member) for member in group.members]
    groups = [last.id for last in lasts if isinstance(last, Parallel)]
    queues: dict[str, list[str]] = {}
    for last in lasts:
        if not isinstance(last, Parallel):
            queues.setdefault(last.queue, []).append(last.id)
    found = dict(zip(groups, map(record, groups, client.run([read_group(each) for each in groups])), strict=True))
    for queue, ids in queues.items():
        found |= zip(ids, find(queue, ids), strict=True)
    members = ((last.id, found[last.id]) for last in lasts)
    return [MemberState(id, seen.state) for id, seen in members if seen is not None and seen.run == 0]  # else it was replayed, alone


# -- revoked and forgotten as a whole ---------------------------------------------------------------------------------------------------


def parts(client: RedisClient, relay: OutboxRelay, id: str) -> list[Ref] | None:
    """What the id of a canvas, or of a group in one, means, in the order in which it is revoked; None for any other id.

    Where the author of the canvas has died, it is seen through first: of what is not there, nothing could be revoked.
    """
    stored = ServerCommand(own_key(id), ("HMGET", f"{own_key(id)}:tree", "token", "tree"))
    (token, packed), answer = client.run([stored, read_group(id)])
    if packed is None:
        group = _group(client, id, answer)
        return None if group is None else list(parts_of(group))
    number, _, queue = text(token or b"").partition(" ")
    entry = client.command(queue_key(queue), "HGET", f"{queue_key(queue)}:out", number)
    if entry is not None:
        relay.run(entries_in(queue, [number.encode(), entry]))
    whole = _tree_in(id, packed)
    return None if whole is None else list(parts_of(whole))


def revoke(client: RedisClient, relay: OutboxRelay, id: str, target: str) -> bool:
    """A group, once its turn in `parts` has come; True if it had not ended. `target`: the id that is to be revoked.

    It is written first, to the outbox of the canvas's queue: what follows from it must not depend on whether its author lives.
    """
    answer = client.run([read_group(id)])[0]
    if answer is None or answer[0]:
        return False
    queue, whole = text(answer[8]), b"1" if id == target else b""
    number, _ = client.call("add_entry", queue_key(queue), "revoke", id, whole)
    with suppress(BrokerUnavailable):
        relay.run([OutboxEntry(queue, int(number), (b"revoke", id.encode(), whole))])
    return True


def forget(id: str) -> ScriptCall:
    """A group; answered 1 if it was known."""
    return ScriptCall("group", own_key(id), ("forget",))


# -- where it is -----------------------------------------------------------------------------------------------------------------------


def _stored(client: RedisClient, id: str) -> Tree | None:
    packed = client.command(own_key(id), "HGET", f"{own_key(id)}:tree", "tree")
    return None if packed is None else _tree_in(id, packed)


def _tree_in(id: str, packed: bytes) -> Tree | None:
    try:
        return _tree.decode(packed)
    except DAMAGE:
        log_corrupt(f"the tree of canvas {id}")
        return None


def _group(client: RedisClient, id: str, answer: Sequence[bytes] | None) -> Parallel | None:
    """`answer`: of `read_group(id)`."""
    whole = None if answer is None else _stored(client, text(answer[7]))
    return None if whole is None else group_of(whole, id)
