"""Canvases: tasks that follow one another. What is composed, how it is laid out, and what the end of one part moves.

    chain(a, group(b, c), d)          Tree     what people compose, and what is drawn
             │ lay
             v
    a ─start─> b ─count─┐             Canvas   one Step per task, one Join per group; each knows by its `Then` what its own end moves,
      └start─> c ─count─┴> J ─start─> d        and nothing else: no part is ever read for the sake of another

    part ended ── moves(then, …) ──> Start · Skip · Count · Drop       carried out by the broker, each at most once
    parts_of(tree): d · J · b · c · a                                  the order in which a canvas is revoked

Rules
 1. A success starts what stands behind it, with its result as `previous`; a failure skips it, and what was skipped skips what stands behind
    itself. A group counts its members: the last success makes it succeed, the first failure makes it fail, at once.
 2. Cancelled, expired and lost parts have failed, as far as their canvas is concerned. The error always names the task that began it.
 3. A part ends once. A move that finds its target no longer waiting changes nothing, so a move may be repeated, and may come late. A group
    that counts move by move remembers the places it has counted.
 4. A failure starts the `link_error` of what failed, a success drops it, and with it what would follow its own failure.
 5. Pure: ids and the clock are arguments. A broker may carry out all moves in one transaction (SQLite), or hand each, a message that says
    all, to the place where its target lives (`Ref` says which queue that is). Such a store has all parts in their places before the first
    begins, keeps what has ended or was dropped until no move to it is under way, and revokes in the order of `parts_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from stem_iso.outcome import TaskError, TaskState
from stem_iso.task.envelope import Envelope

GROUP = "group"  # the name that a group's own status bears
MOST = 16 << 20  # bytes of results that a group may hand on

Name = Callable[[str], str]  # the new id of an old one


# -- what is composed -----------------------------------------------------------------------------------------------------------------


class Leaf(msgspec.Struct, frozen=True, kw_only=True, tag="task", omit_defaults=True):
    """One task. `on_error`: what is started where it fails (`link_error`)."""

    id: str
    name: str
    queue: str
    on_error: tuple[Leaf, ...] = ()


class Series(msgspec.Struct, frozen=True, kw_only=True, tag="chain", omit_defaults=True):
    """One after the other; at least one."""

    parts: tuple[Tree, ...]
    on_error: tuple[Leaf, ...] = ()


class Parallel(msgspec.Struct, frozen=True, kw_only=True, tag="group", omit_defaults=True):
    """Side by side; none is allowed, and succeeds with an empty list. `id` is the group's own."""

    id: str
    members: tuple[Tree, ...]
    on_error: tuple[Leaf, ...] = ()


Tree = Leaf | Series | Parallel


# -- how it is laid out ---------------------------------------------------------------------------------------------------------------


class Ref(msgspec.Struct, frozen=True, array_like=True):
    """Where a part is: its id, and its queue ("" for a group)."""

    id: str
    queue: str


class Then(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the end of one part moves. `join`, `index`: the group that counts it, and its place there; `most`: bytes of its results."""

    start: tuple[Ref, ...] = ()
    errors: tuple[Ref, ...] = ()
    join: str | None = None
    index: int = 0
    most: int = MOST


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A task of a canvas, ready to be published but for what stands before it."""

    envelope: Envelope
    then: Then


class Join(msgspec.Struct, frozen=True, kw_only=True):
    """A group: it ends when its members have."""

    id: str
    size: int
    then: Then


class Canvas(msgspec.Struct, frozen=True, kw_only=True):
    """All that a broker stores of one. `id` is that of the part whose outcome is the canvas's; `first`, ids of what begins at once."""

    id: str
    tree: Tree
    steps: tuple[Step, ...]
    joins: tuple[Join, ...]
    first: tuple[str, ...]


def lay(tree: Tree, envelopes: Iterable[Envelope], most: int = MOST) -> Canvas:
    """`envelopes`: one for each leaf of the tree, those of `on_error` included. `most`: bytes of results that a group may hand on."""
    thens: dict[str, Then] = {}
    sizes: dict[str, int] = {}
    _lay(tree, Then(most=most), thens, sizes)
    return Canvas(
        id=last_of(tree).id,
        tree=tree,
        steps=tuple(Step(envelope=envelope, then=thens[envelope.id]) for envelope in envelopes),
        joins=tuple(Join(id=id, size=size, then=thens[id]) for id, size in sizes.items()),
        first=tuple(ref.id for ref in entries(tree)),
    )


def _lay(tree: Tree, then: Then, thens: dict[str, Then], sizes: dict[str, int]) -> None:
    if tree.on_error:
        then = msgspec.structs.replace(then, errors=(*then.errors, *(Ref(leaf.id, leaf.queue) for leaf in tree.on_error)))
        for leaf in tree.on_error:
            _lay(leaf, Then(), thens, sizes)
    match tree:
        case Leaf():
            thens[tree.id] = then
        case Series(parts=parts):
            for part, following in pairwise(parts):
                _lay(part, Then(start=entries(following), most=then.most), thens, sizes)
            _lay(parts[-1], then, thens, sizes)
        case Parallel():
            thens[tree.id], sizes[tree.id] = then, len(tree.members)
            for index, member in enumerate(tree.members):
                _lay(member, Then(join=tree.id, index=index, most=then.most), thens, sizes)


def entries(tree: Tree) -> tuple[Ref, ...]:
    """The parts that begin when this one does."""
    match tree:
        case Leaf():
            return (Ref(tree.id, tree.queue),)
        case Series(parts=parts):
            return entries(parts[0])
        case Parallel(members=()):
            return (Ref(tree.id, ""),)
        case Parallel(members=members):
            return tuple(ref for member in members for ref in entries(member))


def last_of(tree: Tree) -> Leaf | Parallel:
    """The part whose outcome is this one's."""
    return last_of(tree.parts[-1]) if isinstance(tree, Series) else tree


def leaves(tree: Tree) -> Iterator[Leaf]:
    """Every task, in the order in which they were written; what follows an error stands behind what it belongs to."""
    match tree:
        case Leaf():
            yield tree
        case Series(parts=parts):
            for part in parts:
                yield from leaves(part)
        case Parallel(members=members):
            for member in members:
                yield from leaves(member)
    for leaf in tree.on_error:
        yield from leaves(leaf)


def parts_of(tree: Tree) -> Iterator[Ref]:
    """All parts, each before those that could still start it: revoked in this order, one by one, none is begun that was to be revoked."""
    for leaf in tree.on_error:
        yield from parts_of(leaf)
    match tree:
        case Leaf():
            yield Ref(tree.id, tree.queue)
        case Series(parts=parts):
            for part in reversed(parts):
                yield from parts_of(part)
        case Parallel(members=members):
            yield Ref(tree.id, "")
            for member in members:
                yield from parts_of(member)


def group_of(tree: Tree, id: str) -> Parallel | None:
    """The group of this id, wherever it stands in the tree."""
    match tree:
        case Leaf():
            return None
        case Series(parts=inner) | Parallel(members=inner):
            if isinstance(tree, Parallel) and tree.id == id:
                return tree
            return next(filter(None, (group_of(each, id) for each in inner)), None)


# -- what an end moves ----------------------------------------------------------------------------------------------------------------


class FailureCause(msgspec.Struct, frozen=True, kw_only=True):
    """The task with which a failure began."""

    id: str
    name: str
    state: TaskState
    reason: str | None = None
    error: TaskError | None = None


class Start(msgspec.Struct, frozen=True, tag=True):
    """`target` begins; `previous` is what it finds before it, encoded. A group without members succeeds."""

    target: Ref
    previous: bytes
    parent: str


class Skip(msgspec.Struct, frozen=True, tag=True):
    """`target` will never begin."""

    target: Ref
    cause: FailureCause


class Count(msgspec.Struct, frozen=True, tag=True):
    """A member of `join` has ended: with its result, encoded, or failed."""

    join: str
    index: int
    ended: bytes | FailureCause


class Drop(msgspec.Struct, frozen=True, tag=True):
    """`target` is not needed: what it waited for did not fail."""

    target: Ref


Move = Start | Skip | Count | Drop


def moves(then: Then, id: str, ended: bytes | FailureCause) -> list[Move]:
    """What the end of part `id` moves: `ended` is its result, encoded, or why it has none."""
    found: list[Move] = []
    if isinstance(ended, FailureCause):
        found += [Skip(target, ended) for target in then.start]
        found += [Start(target, failure_map(ended), id) for target in then.errors]
    else:
        found += [Start(target, ended, id) for target in then.start]
        found += dropped(then)
    if then.join is not None:
        found.append(Count(then.join, then.index, ended))
    return found


def dropped(then: Then) -> list[Drop]:
    """What is not needed either where a part is dropped: its own `link_error`, which nothing else would end."""
    return [Drop(target) for target in then.errors]


def started(waiting: Envelope, move: Start, now: float) -> Envelope:
    """The envelope of a step that begins now; its delay and its expiry count from here."""
    return msgspec.structs.replace(
        waiting,
        previous=move.previous,
        parent_id=move.parent,
        enqueued_at=now,
        not_before=waiting.not_before if waiting.starts_in is None else now + waiting.starts_in,
        expires=waiting.expires if waiting.expires_in is None else now + waiting.expires_in,
        starts_in=None,
        expires_in=None,
    )


def hands_on(then: Then) -> bool:
    """Whether anybody asks for the results of a group as one list."""
    return bool(then.start) or then.join is not None


def gathered(results: Sequence[bytes], most: int) -> bytes | None:
    """The results of a group's members as one list, in their order; None where that is more than `most` bytes."""
    return None if sum(map(len, results)) > most else msgspec.msgpack.encode([msgspec.Raw(result) for result in results])


# -- what is reported of a failure ----------------------------------------------------------------------------------------------------

LINK_FAILED, MEMBER_FAILED, TOO_LARGE = "link-failed", "member-failed", "results-too-large"


def error_of(cause: FailureCause, reason: str) -> TaskError:
    """The error of a part that failed because another did (LINK_FAILED, MEMBER_FAILED). It keeps the other's type and traceback."""
    what = "a link before it" if reason == LINK_FAILED else "a member"
    error = cause.error or TaskError(type="stem_iso.errors.TaskCancelled")
    text = f"{error.type}: {error.message}" if error.message else error.type
    message = f"{what}, {cause.name} ({cause.id}), {cause.state.value} [{cause.reason}]: {text}"
    return msgspec.structs.replace(error, message=message, retryable=False)


def too_large(most: int) -> TaskError:
    message = f"the group's results are more than {most:,} bytes together (max_result_bytes); let its members return where they put them"
    return TaskError(type="stem_iso.errors.PayloadTooLarge", message=message, retryable=False)


def failure_map(cause: FailureCause) -> bytes:
    """What a `link_error` finds before it: a map with the fields of `TaskError`, and `id, name, state, reason` of the task that failed."""
    error = cause.error or TaskError(type="stem_iso.errors.TaskCancelled", message=cause.reason or cause.state.value, retryable=False)
    fields: dict[str, Any] = msgspec.structs.asdict(error)
    return msgspec.msgpack.encode({**fields, "id": cause.id, "name": cause.name, "state": cause.state.value, "reason": cause.reason})


# -- the same canvas under other ids: what a schedule stores is composed each time it fires ------------------------------------------------


def renamed(canvas: Canvas, name: Name, change: Callable[[Envelope, str], Envelope]) -> Canvas:
    """`change` makes of an envelope, and its new id, the one that is sent."""
    root = name(canvas.id)
    steps = [(msgspec.structs.replace(step.envelope, root_id=root), step.then) for step in canvas.steps]
    return Canvas(
        id=root,
        tree=_tree(canvas.tree, name),
        steps=tuple(Step(envelope=change(envelope, name(envelope.id)), then=_then(then, name)) for envelope, then in steps),
        joins=tuple(Join(id=name(join.id), size=join.size, then=_then(join.then, name)) for join in canvas.joins),
        first=tuple(map(name, canvas.first)),
    )


def _tree(tree: Tree, name: Name) -> Tree:
    errors = tuple(_leaf(leaf, name) for leaf in tree.on_error)
    match tree:
        case Leaf():
            return _leaf(tree, name)
        case Series(parts=parts):
            return Series(parts=tuple(_tree(part, name) for part in parts), on_error=errors)
        case Parallel(members=members):
            return Parallel(id=name(tree.id), members=tuple(_tree(member, name) for member in members), on_error=errors)


def _leaf(leaf: Leaf, name: Name) -> Leaf:
    return msgspec.structs.replace(leaf, id=name(leaf.id), on_error=tuple(_leaf(each, name) for each in leaf.on_error))


def _then(then: Then, name: Name) -> Then:
    def refs(some: tuple[Ref, ...]) -> tuple[Ref, ...]:
        return tuple(Ref(name(ref.id), ref.queue) for ref in some)

    join = None if then.join is None else name(then.join)
    return msgspec.structs.replace(then, start=refs(then.start), errors=refs(then.errors), join=join)
