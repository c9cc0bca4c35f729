"""Canvases at random, and what must become of one: the oracle of the laws, which knows nothing of moves.

    judge(tree, fates)     walks the tree once, from its beginning to its end, with what the workers made of each task

A task's result is its id, so what stands before a part shows which results arrived there, and in which order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, assert_never

import msgspec
from hypothesis import strategies as st

from stem_iso.brokers.base import StatusRecord
from stem_iso.outcome import TaskState
from stem_iso.task.canvas.tree import Canvas, Leaf, Parallel, Series, Tree, lay, leaves
from stem_iso.task.envelope import Envelope

NAMED = re.compile(r"^(?:a link before it|a member), \S+ \((\w+)\), ")
LEAVES = 9  # in a tree, about: enough for every shape to stand inside every other


# -- trees -----------------------------------------------------------------------------------------------------------------------------


class _Grower:
    """`choose(n)` answers one of 0..n-1; the small answers make the small trees."""

    def __init__(self, choose: Callable[[int], int], queues: tuple[str, ...], prefix: str, errors: tuple[str, ...]) -> None:
        self._choose, self._queues, self._prefix, self._errors = choose, queues, prefix, errors
        self._numbers = count(1)
        self._left = LEAVES

    def tree(self, deep: int) -> Tree:
        match self._choose(6) if deep and self._left > 0 else 0:
            case 0 | 1:
                return self.leaf(2)
            case 2 | 3:
                return Series(parts=tuple(self.tree(deep - 1) for _ in range(1 + self._choose(3))), on_error=self.on_error(2))
            case _:
                id = f"{self._prefix}g{next(self._numbers)}"
                return Parallel(id=id, members=tuple(self.tree(deep - 1) for _ in range(self._choose(4))), on_error=self.on_error(2))

    def leaf(self, deep: int, queues: tuple[str, ...] = ()) -> Leaf:
        self._left -= 1
        queues = queues or self._queues
        id, queue = f"{self._prefix}t{next(self._numbers)}", queues[self._choose(len(queues))]
        return Leaf(id=id, name="step", queue=queue, on_error=self.on_error(deep))

    def on_error(self, deep: int) -> tuple[Leaf, ...]:
        many = (0, 0, 0, 0, 1, 2)[self._choose(6)] if deep else 0
        return tuple(self.leaf(deep - 1, self._errors) for _ in range(many))


def grown(choose: Callable[[int], int], queues: tuple[str, ...] = ("default",), prefix: str = "", errors: tuple[str, ...] = ()) -> Tree:
    """Ids begin with `prefix`. `errors`: the queues of what follows an error, where they are others."""
    return _Grower(choose, queues, prefix, errors).tree(4)


@st.composite
def trees(draw: st.DrawFn, queues: tuple[str, ...] = ("default",), prefix: str = "", errors: tuple[str, ...] = ()) -> Tree:
    return grown(lambda upto: draw(st.integers(0, upto - 1)), queues, prefix, errors)


def laid(tree: Tree, most: int = 16 << 20) -> Canvas:
    envelopes = [Envelope(id=leaf.id, name=leaf.name, queue=leaf.queue, args=msgspec.Raw(b"\x80")) for leaf in leaves(tree)]
    return lay(tree, envelopes, most)


def groups_in(tree: Tree) -> list[Parallel]:
    match tree:
        case Leaf():
            return []
        case Series(parts=inner):
            return [group for each in inner for group in groups_in(each)]
        case Parallel(members=inner):
            return [tree, *(group for each in inner for group in groups_in(each))]


# -- the oracle ------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Value:
    """What a part that succeeds leaves to the one behind it."""

    is_: object


@dataclass(frozen=True)
class FailureOf:
    """What a `link_error` finds: the failure of one of these."""

    by: frozenset[str]


@dataclass(frozen=True)
class Broken:
    """A failure that began with one of these."""

    by: frozenset[str]


@dataclass(frozen=True)
class Expected:
    """`state`: None where the part is dropped. `before`: what it found, where it began; `result`: where it succeeded, None for a group
    whose list is too long. `by`: whom its error may name.
    """

    state: TaskState | None
    before: Value | FailureOf | None = None
    by: frozenset[str] = frozenset()
    result: object = None


@dataclass
class _Judge:
    """`fates`: how each part ended that a worker or a revoke ended. `named`: whom each failed group names, of several it could."""

    fates: Mapping[str, TaskState]
    named: Mapping[str, str]
    most: int
    found: dict[str, Expected] = field(default_factory=dict)

    def judge(self, tree: Tree, before: Value | FailureOf | Broken, wanted: bool) -> Value | Broken:
        match tree:
            case Leaf():
                ended = self.leaf(tree, before)
            case Series(parts=parts):
                ended = self.judge(parts[0], before, wanted or len(parts) > 1)
                for number, part in enumerate(parts[1:], 2):
                    ended = self.judge(part, ended, wanted or number < len(parts))
            case Parallel():
                ended = self.group(tree, before, wanted)
            case _:
                assert_never(tree)
        for leaf in tree.on_error:
            if isinstance(ended, Broken):
                self.judge(leaf, FailureOf(ended.by), False)
            else:
                self.drop(leaf)
        return ended

    def leaf(self, leaf: Leaf, before: Value | FailureOf | Broken) -> Value | Broken:
        fate = self.fates.get(leaf.id)
        begins = None if isinstance(before, Broken) else before
        if fate is None:
            assert isinstance(before, Broken), f"{leaf.id} never ran"
            self.found[leaf.id] = Expected(TaskState.FAILED, by=before.by)
            return before
        assert begins is not None or fate is TaskState.CANCELLED, f"{leaf.id} ran, though what stands before it had not succeeded"
        if fate is TaskState.SUCCEEDED:
            self.found[leaf.id] = Expected(fate, begins, result=leaf.id)
            return Value(leaf.id)
        self.found[leaf.id] = Expected(fate, begins)
        return Broken(frozenset((leaf.id,)))

    def group(self, group: Parallel, before: Value | FailureOf | Broken, wanted: bool) -> Value | Broken:
        ends = [self.judge(member, before, True) for member in group.members]
        broken = [end for end in ends if isinstance(end, Broken)] or ([before] if isinstance(before, Broken) else [])
        values = [end.is_ for end in ends if isinstance(end, Value)]
        large = sum(len(msgspec.msgpack.encode(value)) for value in values) > self.most
        if group.id in self.fates:
            state, by = self.fates[group.id], frozenset((group.id,))
            self.found[group.id] = Expected(state)
        elif broken:
            by = frozenset[str]().union(*(end.by for end in broken))
            if group.id in self.named:
                assert self.named[group.id] in by, f"{group.id} names {self.named[group.id]}, which has not failed in it"
                by = frozenset((self.named[group.id],))
            self.found[group.id] = Expected(TaskState.FAILED, by=by)
        elif wanted and large:
            by = frozenset((group.id,))
            self.found[group.id] = Expected(TaskState.FAILED)
        else:
            self.found[group.id] = Expected(TaskState.SUCCEEDED, result=None if large else values)
            return Value(values)
        return Broken(by)

    def drop(self, leaf: Leaf) -> None:
        if leaf.id in self.fates:  # it was revoked before
            assert self.fates[leaf.id] is TaskState.CANCELLED, f"{leaf.id} ran, though nothing had failed"
            self.judge(leaf, Broken(frozenset()), False)
            return
        self.found[leaf.id] = Expected(None)
        for each in leaf.on_error:
            self.drop(each)


def judge(tree: Tree, fates: Mapping[str, TaskState], named: Mapping[str, str], most: int = 16 << 20) -> dict[str, Expected]:
    """What must have become of each part, by id."""
    judge = _Judge(fates, named, most)
    judge.judge(tree, Value(None), False)
    return judge.found


def named_by(record: StatusRecord | None) -> str | None:
    """The task that an error says it began with, where it is another's."""
    found = None if record is None or record.error is None else NAMED.match(record.error.message)
    return None if found is None else found[1]


def agrees(expected: Value | FailureOf | None, previous: bytes | None) -> bool:
    """Whether a task that began found before it what it should have."""
    found: Any = None if previous is None else msgspec.msgpack.decode(previous)
    return found["id"] in expected.by if isinstance(expected, FailureOf) else isinstance(expected, Value) and found == expected.is_
