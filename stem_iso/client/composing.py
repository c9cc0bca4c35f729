"""Composing: calls that follow one another.

    fetch.s(url) | parse.after(deep=True) | store.s("done")     chain     each begins when the one before it has succeeded
    group(make.s(p) for p in paths)                             group     side by side; the result is the list of theirs
    chord([make.s(p) for p in paths], pack.after())             chord     a group, and what follows it

Rules
 1. What does not fit is refused where it is composed (`Misfit`): by the type checker where it can, else by parameters and annotations.
 2. Values (`canvas`): composing changes nothing, and a part may be used in several canvases. Ids are given when it is enqueued.
 3. A canvas belongs to one application. A unique task is refused in it: nobody could say what stands behind one that already waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, TypeVar, overload

from stem_iso.client.canvas import Chain, Group, Link, Part, one_app, refuse_misfit, results_of
from stem_iso.errors import Misfit

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
R = TypeVar("R")
S = TypeVar("S")


@overload
def chain(a: Part[A], /) -> Chain[A]: ...
@overload
def chain(a: Part[A], b: Link[A, B] | Part[B], /) -> Chain[B]: ...
@overload
def chain(a: Part[A], b: Link[A, B] | Part[B], c: Link[B, C] | Part[C], /) -> Chain[C]: ...
@overload
def chain(a: Part[A], b: Link[A, B] | Part[B], c: Link[B, C] | Part[C], d: Link[C, D] | Part[D], /) -> Chain[D]: ...
@overload
def chain(
    a: Part[A], b: Link[A, B] | Part[B], c: Link[B, C] | Part[C], d: Link[C, D] | Part[D], e: Link[D, E] | Part[E], /, *more: Any
) -> Chain[Any]: ...
@overload
def chain(parts: Iterable[Any], /) -> Chain[Any]: ...
@overload
def chain(a: Link[A, Any], /, *more: Any) -> Link[A, Any]: ...
def chain(*parts: Any) -> Any:
    """One after the other: each begins when the one before it has succeeded. Raises Misfit."""
    found = _listed("chain", parts)
    if not found:
        raise Misfit("chain: it has no links; give at least one task.s(...)")
    return chained(found)


@overload
def group(members: Iterable[Part[R]], /) -> Group[R]: ...
@overload
def group(*members: Part[R]) -> Group[R]: ...
@overload
def group(members: Iterable[Link[A, R]], /) -> Link[A, list[R]]: ...
@overload
def group(*members: Link[A, R]) -> Link[A, list[R]]: ...
def group(*members: Any) -> Any:
    """Side by side, given one by one or as an iterable. Behind a step, members made by `.after(...)` all get its result. Raises Misfit."""
    found = _listed("group", members)
    whole: Group[Any] = Group(tuple(_part(each) for each in found))
    one_app(whole.members)
    return Link(whole) if any(isinstance(each, Link) for each in found) else whole


@overload
def chord(members: Iterable[Part[R]] | Group[R], callback: Link[list[R], S] | Part[S]) -> Chain[S]: ...
@overload
def chord(members: Iterable[Link[A, R]] | Link[A, list[R]], callback: Link[list[R], S] | Part[S]) -> Link[A, S]: ...
def chord(members: Any, callback: Any) -> Any:
    """A group, and what begins when all its members have succeeded; `callback.after()` gets the list of their results.

    Behind a step, members made by `.after(...)` all get its result. Raises Misfit.
    """
    whole = members if isinstance(members, Group | Link) else group(members)
    return chained((whole, callback))


def _listed(what: str, given: tuple[Any, ...]) -> list[Part[Any] | Link[Any, Any]]:
    if len(given) == 1 and not isinstance(given[0], Part | Link) and isinstance(given[0], Iterable):
        given = tuple(given[0])
    for each in given:
        if not isinstance(each, Part | Link):
            raise Misfit(f"{what}: {each!r} cannot be composed; give task.s(...), task.after(...), or a chain or group of them")
    return list(given)


def _part(each: Part[Any] | Link[Any, Any]) -> Part[Any]:
    return each.part if isinstance(each, Link) else each


def chained(links: Iterable[Any]) -> Any:
    given = _listed("chain", tuple(links))
    parts: list[Part[Any]] = []
    for each in map(_part, given):
        # A chain in a chain is one chain, unless errors of the inner one are handled apart.
        parts += each.parts if isinstance(each, Chain) and not each.on_error else [each]
    # Only where they meet: inside of each it was looked at when that was composed, or `a | b | c | …` would look again at every step.
    for before, after in pairwise(map(_part, given)):
        refuse_misfit(results_of(before), after)
    one_app(map(_part, given))
    whole: Chain[Any] = Chain(tuple(parts))
    return Link(whole) if isinstance(given[0], Link) else whole
