"""Parts of a canvas, as values: what can be enqueued, put into one another, and drawn.

    Part[R]      what can be enqueued, and has a result of type R: Signature, Chain, Group
    Link[A, R]   what needs a result of type A before it: `task.after(...)`, or a chain or group that begins with one

They are made by `task.s`, `task.after`, and the functions of `composing`; `|` is `chain`. What does not fit is refused there, by the
checks at the end of this file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from inspect import formatannotation
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar, cast, overload

from stem_iso.errors import Misfit
from stem_iso.task.canvas import drawing

if TYPE_CHECKING:
    from stem_iso.app import Stem
    from stem_iso.client.canvas_result import CanvasHandle, GroupHandle
    from stem_iso.client.result import TaskHandle
    from stem_iso.client.task import TaskBase

A = TypeVar("A")
B = TypeVar("B")
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
        from stem_iso.client.composing import chained

        return chained((self, other))

    def draw(self) -> str:
        """The graph as text."""
        from stem_iso.client.canvas_builder import sketch

        return drawing.text(sketch(self))

    def mermaid(self) -> str:
        """The graph as a Mermaid flowchart."""
        from stem_iso.client.canvas_builder import sketch

        return drawing.mermaid(sketch(self))


@dataclass(frozen=True, slots=True)
class Signature(Part[R_co]):
    """One call of one task: `task.s(...)` has all its arguments; `follows`: the first one is the result before it."""

    task: TaskBase[..., R_co]
    args: dict[str, Any]
    on_error: tuple[Signature[Any], ...] = ()
    follows: bool = False

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
        from stem_iso.client.composing import chained

        return chained((self, other))

    def link_error(self, handler: Signature[Any] | Link[Any, Any]) -> Self:
        """As `Part.link_error`."""
        return replace(self, part=self.part.link_error(handler))

    def enqueue(self) -> NoReturn:
        """Raises Misfit: nothing stands before it."""
        names = ", ".join(dict.fromkeys(f"{each.task.name}.after(...)" for each in beginnings(self.part) if each.follows))
        raise Misfit(f"{names} waits for the result of a step before it, and nothing stands there; use .s(...) with all arguments")

    aenqueue = enqueue


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


def app_of(part: Part[Any]) -> Stem:
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
