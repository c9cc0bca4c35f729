"""Assertions for tests: wait until something is so; look at what an application has sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast, runtime_checkable

import msgspec

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


def assert_enqueued(app: Stem, name: str, args: Mapping[str, object] | None = None) -> Envelope:
    """A task of this name, with at least these arguments, waits or runs; its envelope. Raises AssertionError that lists what there is.

    `args` are compared by parameter name; parameters that it leaves out are not compared. Finished tasks are not seen.
    """
    found = _unfinished(app)
    for envelope in found:
        if envelope.name == name and _has(envelope, args or {}):
            return envelope
    listing = "".join(f"\n  {envelope.name} {_decoded(envelope)!r}" for envelope in found) or " nothing"
    raise AssertionError(f"no {name} {dict(args or {})!r} is enqueued; there is:{listing}")


def _unfinished(app: Stem) -> list[Envelope]:
    with app.broker_pool.borrow() as broker:
        if not isinstance(broker, Peekable):
            raise TypeError(f"{type(broker).__name__} cannot be looked into: assert_enqueued works with memory:// and sqlite://")
        bodies = broker.unfinished(10_000)
    return [envelope for envelope in map(_envelope, bodies) if envelope is not None]


def _envelope(body: bytes) -> Envelope | None:
    try:
        return decode(body)
    except Undecodable:
        return None


def _decoded(envelope: Envelope) -> dict[str, Any]:
    return cast(dict[str, Any], msgspec.msgpack.decode(bytes(envelope.args)))


def _has(envelope: Envelope, wanted: Mapping[str, object]) -> bool:
    given = _decoded(envelope)
    # As the arguments travelled: a path or an enum is compared in the form in which it was sent.
    sent = msgspec.to_builtins(dict(wanted), builtin_types=(bytes,))
    return all(name in given and given[name] == value for name, value in sent.items())
