"""A canvas once more, under other ids: what a schedule stores is composed each time it fires."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from stem_iso.task.canvas.tree import Canvas, Join, Leaf, Parallel, Ref, Series, Step, Then, Tree
from stem_iso.task.envelope import Envelope

Name = Callable[[str], str]  # the new id of an old one


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
