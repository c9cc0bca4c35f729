"""The parts of a tree: tasks, groups, and what follows an error, each under its id.

chain(a, group(b, c), d)      parts_of: d · J · b · c · a
"""

from __future__ import annotations

from collections.abc import Iterator

from stem_iso.task.canvas.tree import Leaf, Parallel, Ref, Series, Tree


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
