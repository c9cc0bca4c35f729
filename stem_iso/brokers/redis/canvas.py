"""Canvases in slots: composed, asked about, and meant as a whole.

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
from stem_iso.brokers.redis.client.client import Command, Links, ScriptCall
from stem_iso.brokers.redis.corrupt_records import DAMAGE, UNREADABLE, say, text
from stem_iso.brokers.redis.keys import own_key, queue_key
from stem_iso.brokers.redis.outbox import OutboxEntry, OutboxRelay, entries_in
from stem_iso.brokers.redis.queues import Registry
from stem_iso.brokers.redis.records import unpack_error
from stem_iso.brokers.rules import encoded
from stem_iso.errors import BrokerUnavailable
from stem_iso.task.canvas.tree import GROUP, Canvas, Parallel, Ref, Tree, group_of, last_of, parts_of
from stem_iso.task.status import TaskState

_tree: msgspec.msgpack.Decoder[Tree] = msgspec.msgpack.Decoder(Tree)
WAITING = "waiting"

Find = Callable[[str, Sequence[str]], Sequence[StatusRecord | None]]  # the statuses of tasks in a queue


# -- composed --------------------------------------------------------------------------------------------------------------------------


def compose(links: Links, registry: Registry, relay: OutboxRelay, canvas: Canvas, options: BrokerOptions) -> None:
    """Raises PayloadTooLarge, and BrokerUnavailable: where that comes late, the canvas is composed, and a worker sees it through."""
    encoded([step.envelope for step in canvas.steps], options.max_payload_bytes)
    queue = canvas_placement.queue_of(canvas)
    publish.said(registry, {queue, *(step.envelope.queue for step in canvas.steps)}, [canvas.id])
    post = ScriptCall("post", queue_key(queue), ("compose", canvas.id, msgspec.msgpack.encode(canvas)))
    ((number, _),) = publish.sent(links, [post], [canvas.id], canvas=True)
    with suppress(BrokerUnavailable):
        relay.compose(canvas, CanvasOrigin(queue, int(number)))


# -- asked about -----------------------------------------------------------------------------------------------------------------------


def ask(id: str) -> ScriptCall:
    """What `record` reads."""
    return ScriptCall("group", own_key(id), ("look",))


def record(id: str, answer: Sequence[bytes] | None) -> StatusRecord | None:
    """The status of a group; None where there is none of this id, or it has expired."""
    if answer is None:
        return None
    try:
        return _record(id, answer)
    except DAMAGE:
        say(f"what is stored of group {id}")
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


def unended(links: Links, id: str) -> int | None:
    """How many members of a group have not ended; None where there is no such group."""
    answer = links.run([ask(id)])[0]
    return None if answer is None else int(answer[6]) if answer[6].isdigit() else 0


def tree(links: Links, id: str) -> Tree | None:
    """What was composed as this canvas, as long as its outcome is known."""
    found = _stored(links, id)
    if found is None:
        return None
    last = last_of(found)
    outcome = ask(id) if isinstance(last, Parallel) else ScriptCall("status", queue_key(last.queue), (id,))
    (seen,) = links.run([outcome])
    known = seen is not None if isinstance(last, Parallel) else seen[0] is not None
    return found if known else None


def members(links: Links, id: str, find: Find) -> list[MemberState] | None:
    """The members of a group, by place; None where there is no such group."""
    group = _group(links, id, links.run([ask(id)])[0])
    if group is None:
        return None
    lasts = [last_of(member) for member in group.members]
    groups = [last.id for last in lasts if isinstance(last, Parallel)]
    queues: dict[str, list[str]] = {}
    for last in lasts:
        if not isinstance(last, Parallel):
            queues.setdefault(last.queue, []).append(last.id)
    found = dict(zip(groups, map(record, groups, links.run([ask(each) for each in groups])), strict=True))
    for queue, ids in queues.items():
        found |= zip(ids, find(queue, ids), strict=True)
    return [MemberState(last.id, seen.state) for last in lasts if (seen := found[last.id]) is not None]


# -- meant as a whole ------------------------------------------------------------------------------------------------------------------


def parts(links: Links, relay: OutboxRelay, id: str) -> list[Ref] | None:
    """What the id of a canvas, or of a group in one, means, in the order in which it is revoked; None for any other id.

    Where the author of the canvas has died, it is seen through first: of what is not there, nothing could be revoked.
    """
    stored = Command(own_key(id), ("HMGET", f"{own_key(id)}:tree", "token", "tree"))
    (token, packed), answer = links.run([stored, ask(id)])
    if packed is None:
        group = _group(links, id, answer)
        return None if group is None else list(parts_of(group))
    number, _, queue = text(token or b"").partition(" ")
    entry = links.command(queue_key(queue), "HGET", f"{queue_key(queue)}:out", number)
    if entry is not None:
        relay.run(entries_in(queue, [number.encode(), entry]))
    whole = _tree_in(id, packed)
    return None if whole is None else list(parts_of(whole))


def revoke(links: Links, relay: OutboxRelay, id: str, asked: str) -> bool:
    """A group, once its turn in `parts` has come; True if it had not ended. `asked`: what is to be revoked as a whole.

    It is said first, in the outbox of the canvas's queue: what follows from it must not depend on whether its author lives.
    """
    answer = links.run([ask(id)])[0]
    if answer is None or answer[0]:
        return False
    queue, whole = text(answer[8]), b"1" if id == asked else b""
    number, _ = links.call("post", queue_key(queue), "revoke", id, whole)
    with suppress(BrokerUnavailable):
        relay.run([OutboxEntry(queue, int(number), (b"revoke", id.encode(), whole))])
    return True


def forget(id: str) -> ScriptCall:
    """A group; answered 1 if it was known."""
    return ScriptCall("group", own_key(id), ("forget",))


# -- where it is -----------------------------------------------------------------------------------------------------------------------


def _stored(links: Links, id: str) -> Tree | None:
    packed = links.command(own_key(id), "HGET", f"{own_key(id)}:tree", "tree")
    return None if packed is None else _tree_in(id, packed)


def _tree_in(id: str, packed: bytes) -> Tree | None:
    try:
        return _tree.decode(packed)
    except DAMAGE:
        say(f"the tree of canvas {id}")
        return None


def _group(links: Links, id: str, answer: Sequence[bytes] | None) -> Parallel | None:
    """`answer`: of `ask(id)`."""
    whole = None if answer is None else _stored(links, text(answer[7]))
    return None if whole is None else group_of(whole, id)
