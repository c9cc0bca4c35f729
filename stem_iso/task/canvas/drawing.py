"""Drawings of a canvas: as text, and as a Mermaid flowchart. `states` says how each part stands, by id; empty before it is enqueued.

chain                                 flowchart LR
├─ fetch        succeeded                 n1["fetch"]:::succeeded --> n2["parse"]
└─ group of 2                             …
   ├─ thumb     running
   └─ thumb     queued
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

from stem_iso.printable import one_line
from stem_iso.task.canvas.tree import Leaf, Parallel, Series, Tree

MOST = 12  # members of one group that are drawn; of more, the first ones and how many there are besides

COLOURS = {"succeeded": "#9f9", "failed": "#f99", "cancelled": "#ccc", "running": "#9cf", "retried": "#fc9"}


def text(tree: Tree, states: Mapping[str, str] | None = None) -> str:
    """One line a part, the state behind it where there is one."""
    lines = list(_lines(tree, states or {}, "", ""))
    width = max(len(line) for line, _ in lines)
    return "\n".join(f"{line:<{width}}  {state}".rstrip() for line, state in lines)


def _lines(tree: Tree, states: Mapping[str, str], here: str, below: str) -> Iterator[tuple[str, str]]:
    match tree:
        case Leaf():
            yield here + one_line(tree.name), states.get(tree.id, "")
            inside: list[tuple[str, Tree | str]] = []
        case Series(parts=parts):
            yield here + "chain", ""
            inside = [("", part) for part in parts]
        case Parallel(members=members):
            yield here + f"group of {len(members)}", states.get(tree.id, "")
            inside = [("", member) for member in members[:MOST]]
            if len(members) > MOST:
                inside.append(("", f"… and {len(members) - MOST} more"))
    inside += [("on error: ", leaf) for leaf in tree.on_error]
    for number, (label, part) in enumerate(inside):
        last = number == len(inside) - 1
        before, after = below + ("└─ " if last else "├─ ") + label, below + ("   " if last else "│  ")
        if isinstance(part, str):
            yield before + part, ""
        else:
            yield from _lines(part, states, before, after)


def mermaid(tree: Tree, states: Mapping[str, str] | None = None) -> str:
    """A flowchart from left to right, for a Markdown page or a viewer of Mermaid. Coloured by `states`, which are no reasons here."""
    chart = _Chart(states or {})
    chart.draw(tree)
    used = sorted({state for state in chart.states.values() if state in COLOURS})
    classes = [f"classDef {state} fill:{COLOURS[state]}" for state in used]
    return "\n".join(["flowchart LR", *("    " + line for line in [*chart.lines, *classes])])


class _Chart:
    """Names and arrows as they are found; `draw` answers with the names that a part begins at, and the one that it ends at."""

    def __init__(self, states: Mapping[str, str]) -> None:
        self.states, self.lines = states, list[str]()
        self._count = 0

    def draw(self, tree: Tree) -> tuple[list[str], str]:
        match tree:
            case Leaf():
                end = self._node(tree.name, tree.id)
                begins = [end]
            case Series(parts=parts):
                drawn = [self.draw(part) for part in parts]
                for (_, exit), (entries, _) in pairwise(drawn):
                    self.lines += [f"{exit} --> {entry}" for entry in entries]
                begins, end = drawn[0][0], drawn[-1][1]
            case Parallel():
                begins, end = self._group(tree)
        for leaf in tree.on_error:
            _, handler = self.draw(leaf)
            self.lines.append(f"{end} -. error .-> {handler}")
        return begins, end

    def _group(self, group: Parallel) -> tuple[list[str], str]:
        drawn = [self.draw(member) for member in group.members[:MOST]]
        begins = [entry for entries, _ in drawn for entry in entries]
        exits = [exit for _, exit in drawn]
        if len(group.members) > MOST:
            rest = self._node(f"… and {len(group.members) - MOST} more")
            begins, exits = [*begins, rest], [*exits, rest]
        join = self._node(f"group of {len(group.members)}", group.id, "([", "])")
        self.lines += [f"{exit} --> {join}" for exit in exits]
        return begins or [join], join

    def _node(self, label: str, id: str = "", left: str = "[", right: str = "]") -> str:
        self._count += 1
        name = f"n{self._count}"
        quoted = one_line(label).replace('"', "#quot;")
        state = self.states.get(id, "")
        self.lines.append(f'{name}{left}"{quoted}"{right}' + (f":::{state}" if state in COLOURS else ""))
        return name
