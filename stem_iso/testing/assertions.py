"""Assertions for tests: wait until something is so; look at what an application has sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast, runtime_checkable

import msgspec

from stem_iso.task.codec import pack, unpack
from stem_iso.task.envelope import Envelope, Undecodable, decode

if TYPE_CHECKING:
    from stem_iso.app import Stem

T = TypeVar("T")

PAUSE = 0.002  # seconds between two looks


def eventually(look: Callable[[], T], within: float = 5.0) -> T:
    """The first true answer of `look`. Raises AssertionError when `within` seconds have passed without one; it shows the last answer."""
    deadline = time.monotonic() + within
    never = Event()
    while not (answer := look()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"still {answer!r} after {within:g} s")
        never.wait(PAUSE)
    return answer


def throughout(look: Callable[[], object], seconds: float) -> None:
    """`look` stays true for that long. Raises AssertionError with the first answer that is not."""
    deadline = time.monotonic() + seconds
    never = Event()
    while time.monotonic() < deadline:
        assert (answer := look()), answer
        never.wait(PAUSE)


@runtime_checkable
class Peekable(Protocol):
    """A broker that can show, without touching it, what waits or runs."""

    def unfinished(self, limit: int) -> list[bytes]: ...


def assert_enqueued(
    app: Stem, name: str, args: Mapping[str, object] | None = None, *, queue: str | None = None, times: int | None = None
) -> Envelope:
    """A task of this name, with at least these arguments, was enqueued: its envelope, the first one's of several.

    `args` are compared by parameter name; parameters that it leaves out are not compared. `queue`: in this one; `times`: exactly so often.
    In `test_mode` all that was enqueued in the block counts; elsewhere what waits or runs, and what has finished is not seen.
    Raises AssertionError that lists what there is.
    """
    found = _sent(app)
    fitting = [each for each in found if each.name == name and queue in (None, each.queue) and _has(each, args or {})]
    if len(fitting) == times or (times is None and fitting):
        return fitting[0] if fitting else Envelope(id="", name=name, args=msgspec.Raw(b"\x80"))
    listing = "".join(f"\n  {each.name} {_shown(app, each)!r} in {each.queue}" for each in found) or " nothing"
    where = "" if queue is None else f" in {queue}"
    count = f"enqueued {len(fitting)} times, not {times}" if times is not None else "not enqueued"
    raise AssertionError(f"{name} {dict(args or {})!r}{where} is {count}; there is:{listing}")


def _sent(app: Stem) -> list[Envelope]:
    worker = getattr(app.site, "worker", None)
    if worker is not None:  # test mode
        return list(worker.sent)
    with app.broker_pool.borrow() as broker:
        if not isinstance(broker, Peekable):
            raise TypeError(f"{type(broker).__name__} cannot be looked into; give it a method unfinished(limit), or use test_mode")
        bodies = broker.unfinished(10_000)
    return [envelope for envelope in map(_envelope, bodies) if envelope is not None]


def _envelope(body: bytes) -> Envelope | None:
    try:
        return decode(body)
    except Undecodable:
        return None


def _decoded(envelope: Envelope) -> dict[str, Any]:
    return cast(dict[str, Any], msgspec.msgpack.decode(bytes(envelope.args)))


def _shown(app: Stem, envelope: Envelope) -> dict[str, Any]:
    """Without what the task redacts."""
    shown = app.shown_arguments(envelope.name, bytes(envelope.args))
    return _decoded(envelope) if shown is None else shown


def _has(envelope: Envelope, wanted: Mapping[str, object]) -> bool:
    given = _decoded(envelope)
    sent = unpack(pack(dict(wanted)))  # as arguments travel: a path or an enum is compared in the form in which it was sent
    return all(name in given and given[name] == value for name, value in sent.items())
