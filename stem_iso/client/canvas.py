"""Canvases of a producer: calls that follow one another, as values that can be enqueued, put into one another, and drawn.

    fetch.s(url) | parse.after(deep=True) | store.s("done")     chain     each begins when the one before it has succeeded
    group(make.s(p) for p in paths)                             group     side by side; the result is the list of theirs
    chord([make.s(p) for p in paths], pack.after())             chord     a group, and what follows it

    Part[R]      what can be enqueued, and has a result of type R: Signature, Chain, Group
    Link[A, R]   what needs a result of type A before it: `task.after(...)`, or a chain or group that begins with one

Rules
 1. What does not fit is refused where it is composed (`Misfit`): by the type checker where it can, else by parameters and annotations.
 2. Parts are values: composing changes nothing, and a part may be used in several canvases. Ids are given when it is enqueued.
 3. A canvas belongs to one application. A unique task is refused in it: nobody could say what stands behind one that already waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from inspect import formatannotation
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar, cast, overload

from stem_iso.errors import Misfit
from stem_iso.task.canvas import drawing
from stem_iso.task.canvas.tree import Leaf, Parallel, Series, Tree

if TYPE_CHECKING:
    from stem_iso.client.application import Application
    from stem_iso.client.canvas_result import CanvasHandle, GroupHandle
    from stem_iso.client.result import TaskHandle
    from stem_iso.client.task_ref import TaskRef

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
R = TypeVar("R")
S = TypeVar("S")
R_co = TypeVar("R_co", covariant=True)
A_contra = TypeVar("A_contra", contravariant=True)


class Part(Generic[R_co]):
    """Something that can be enqueued. Its result is of type R."""

    on_error: tuple[Signature[Any], ...]

    def enqueue(self) -> TaskHandle[R_co]:
        """Send all of it in one step. Raises Misfit, InvalidOptions, PayloadTooLarge and BrokerUnavailable."""
        return cast("TaskHandle[R_co]", app_of(self).compose(self))

    async def aenqueue(self) -> TaskHandle[R_co]:
        return cast("TaskHandle[R_co]", await app_of(self).acompose(self))

    def link_error(self, handler: Signature[Any] | Link[Any, Any]) -> Self:
        """The same, with a call that is made where this part fails: once, and after all of its attempts.

        With `.after(...)` its first argument is the error: a map of `id, name, state, reason` of the task that failed, and its
        `type, message, traceback, …`; a parameter annotated `TaskError` gets that.
        """
        if isinstance(handler, Link):
            handler = cast("Signature[Any]", handler.part)
        if not isinstance(handler, Signature):
            raise Misfit(f"link_error: {handler!r} is no call of one task; give task.s(...) or task.after(...)")
        one_app((self, handler))
        refuse_misfit([dict[str, Any]], handler)
        changed: Self = replace(cast(Any, self), on_error=(*self.on_error, handler))
        return changed

    @overload
    def __or__(self: Part[A], other: Link[A, S]) -> Chain[S]: ...
    @overload
    def __or__(self, other: Part[S]) -> Chain[S]: ...
    def __or__(self, other: Any) -> Any:
        return chained((self, other))

    def draw(self) -> str:
        """The graph as text."""
        return drawing.text(sketch(self))

    def mermaid(self) -> str:
        """The graph as a Mermaid flowchart."""
        return drawing.mermaid(sketch(self))


@dataclass(frozen=True, slots=True)
class Signature(Part[R_co]):
    """One call of one task: `task.s(...)` has all its arguments; `follows`: the first one is the result before it."""

    task: TaskRef[R_co]
    args: dict[str, Any]
    on_error: tuple[Signature[Any], ...] = ()
    follows: bool = False

    def __repr__(self) -> str:
        args = self.task.redacted(self.args)
        rest = f", on_error={self.on_error!r}" if self.on_error else ""
        return f"Signature({self.task!r}, {args!r}{rest}{', follows=True' if self.follows else ''})"

    def enqueue(self) -> TaskHandle[R_co]:
        return cast("TaskHandle[R_co]", Part.enqueue(self) if self.on_error else self.task.app.send([self])[0])

    async def aenqueue(self) -> TaskHandle[R_co]:
        return cast("TaskHandle[R_co]", await Part.aenqueue(self) if self.on_error else (await self.task.app.asend([self]))[0])


@dataclass(frozen=True, slots=True)
class Chain(Part[R_co]):
    """One after the other. Its result is that of the last."""

    parts: tuple[Part[Any], ...]
    on_error: tuple[Signature[Any], ...] = ()

    if TYPE_CHECKING:

        def enqueue(self) -> CanvasHandle[R_co]: ...
        async def aenqueue(self) -> CanvasHandle[R_co]: ...


@dataclass(frozen=True, slots=True)
class Group(Part[list[R_co]]):
    """Side by side. Its result is the list of its members', in their order."""

    members: tuple[Part[R_co], ...]
    on_error: tuple[Signature[Any], ...] = ()

    if TYPE_CHECKING:

        def enqueue(self) -> GroupHandle[R_co]: ...
        async def aenqueue(self) -> GroupHandle[R_co]: ...


@dataclass(frozen=True, slots=True)
class Link(Generic[A_contra, R_co]):
    """A part that needs the result of another before it."""

    part: Part[R_co]

    @overload
    def __or__(self: Link[A, B], other: Link[B, S]) -> Link[A, S]: ...
    @overload
    def __or__(self, other: Part[S]) -> Link[A_contra, S]: ...
    def __or__(self, other: Any) -> Any:
        return chained((self, other))

    def link_error(self, handler: Signature[Any] | Link[Any, Any]) -> Self:
        """As `Part.link_error`."""
        return replace(self, part=self.part.link_error(handler))

    def enqueue(self) -> NoReturn:
        """Raises Misfit: nothing stands before it."""
        names = ", ".join(dict.fromkeys(f"{each.task.name}.after(...)" for each in beginnings(self.part) if each.follows))
        raise Misfit(f"{names} waits for the result of a step before it, and nothing stands there; use .s(...) with all arguments")

    aenqueue = enqueue


# -- composing -------------------------------------------------------------------------------------------------------------------------


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


# -- what fits ------------------------------------------------------------------------------------------------------------------------


def beginnings(part: Part[Any]) -> Iterator[Signature[Any]]:
    """The calls that begin when this part does."""
    if isinstance(part, Signature):
        yield part
    elif isinstance(part, Chain):
        yield from beginnings(part.parts[0])
    elif isinstance(part, Group):
        for member in part.members:
            yield from beginnings(member)


def signatures(part: Part[Any]) -> Iterator[Signature[Any]]:
    """All calls, those for errors included."""
    if isinstance(part, Signature):
        yield part
    for each in part.parts if isinstance(part, Chain) else part.members if isinstance(part, Group) else ():
        yield from signatures(each)
    yield from part.on_error


def sketch(part: Part[Any]) -> Tree:
    """The tree without envelopes, for a drawing."""

    def leaf(signature: Signature[Any]) -> Leaf:
        return Leaf(id="", name=signature.task.name, queue="", on_error=tuple(map(leaf, signature.on_error)))

    errors = tuple(map(leaf, part.on_error))
    if isinstance(part, Signature):
        return leaf(part)
    if isinstance(part, Chain):
        return Series(parts=tuple(map(sketch, part.parts)), on_error=errors)
    assert isinstance(part, Group)
    return Parallel(id="", members=tuple(map(sketch, part.members)), on_error=errors)


def refuse_misfit(results: list[Any], after: Part[Any]) -> None:
    from stem_iso.task.canvas.compatibility import fits

    for task in dict.fromkeys(each.task for each in beginnings(after) if each.follows):
        wanted = task.first_annotation
        for result in results:
            if not fits(result, wanted):
                what = f"{task.name}.after(...) wants {formatannotation(wanted)} as its first argument"
                way_out = "put a step between them that converts it, or use .s(...)"
                raise Misfit(f"{what}, and what stands before it returns {formatannotation(result)}; {way_out}")


def results_of(part: Part[Any]) -> list[Any]:
    """The annotations of a part's result, of which each must fit: one for each kind of members. Any where nothing is known."""
    if isinstance(part, Signature):
        return [part.task.result_annotation]
    if isinstance(part, Chain):
        return results_of(part.parts[-1])
    assert isinstance(part, Group)
    kinds: list[Any] = []
    for member in part.members:
        kinds += [kind for kind in results_of(member) if kind not in kinds]
    return [list[kind] for kind in kinds or [Any]]  # type: ignore[valid-type]  # annotations are values here


def app_of(part: Part[Any]) -> Application:
    """Raises Misfit for groups without members."""
    first = next(signatures(part), None)
    if first is None:
        raise Misfit("group: it has no members, so it belongs to no application and nobody could run it; look before you enqueue it")
    return first.task.app


def one_app(parts: Iterable[Part[Any]]) -> None:
    """Each of `parts` is of one application already, so its first call speaks for it."""
    firsts = (next(signatures(part), None) for part in parts)
    apps = list(dict.fromkeys(first.task.app for first in firsts if first is not None))
    if len(apps) > 1:
        raise Misfit(f"{apps[0]!r} and {apps[1]!r} cannot share a canvas: it lives in one broker; use tasks of one application")
