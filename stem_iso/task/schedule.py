"""Schedules: when a recurring call comes due, which of its missed times count, and the envelopes of one firing. Pure.

    cron | every ──> due times ── + jitter ──> firing times          due ── plan(schedule, due, now) ──> Plan(fire these, wait for that)
                                                                     schedule + due + now ── fired ──> envelopes

Rules
 1. The due times of a schedule are a fixed set on the wall clock: those of its cron expression, or the multiples of `every` since the epoch
    (`every=300`: 12:00, 12:05, …). Nothing drifts, and whoever looks, from whenever on, sees the same ones.
 2. Jitter moves a firing by a part of `jitter` that follows from name and due time alone, and never past the next due time: firings keep
    their order and none is lost.
 3. What came due while nobody could fire: "latest" fires the last of them, however late; "all" fires each, the newest 1,000 at most; "none"
    fires nothing that is more than 5 s late.
 4. The ids of a firing follow from (name, due, place in the firing): who fires it twice publishes the same ids, and publishing is
    idempotent. They are UUIDv7 of the due time, so they sort like all others.
 5. What is fired is kept as an envelope whose times count from the firing (`delay`, `expires`), or as a canvas of such ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Any
from uuid import UUID

import msgspec

from stem_iso import validation
from stem_iso.errors import InvalidOptions
from stem_iso.task import cron
from stem_iso.task.canvas.tree import Canvas, last_of, leaves, renamed
from stem_iso.task.envelope import Envelope, decode

CATCH_UP = ("latest", "all", "none")
LEAST_EVERY = 0.1  # seconds
GRACE = 5.0  # seconds: what a busy machine, or a restart, may be late without counting as missed
MOST_MISSED, BATCH = 1000, 50  # under "all": in all, and in one step
FIRST_WINDOW, WIDER = 60.0, 8  # seconds: how far back the newest times of a cron expression are sought first, and by how much further then
LONGEST_WINDOW = 10 * 366 * 86_400.0  # of what is only shown


class Schedule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is stored. One of `cron` and `every` is set, and one of `call` and `canvas`: encoded."""

    name: str
    cron: str | None = None
    timezone: str = "UTC"
    every: float | None = None
    jitter: float = 0.0
    catch_up: str = "latest"
    call: bytes = b""
    canvas: bytes = b""


class Plan(msgspec.Struct, frozen=True):
    """`fire`: due times that count now. `due`: the one to wait for after that; it fires `at`, its jitter included."""

    fire: list[float]
    due: float
    at: float


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Schedule)
_canvas_decoder = msgspec.msgpack.Decoder(Canvas)


def encode(schedule: Schedule) -> bytes:
    return _encode(schedule)


def decode_schedule(body: bytes) -> Schedule:
    """Raises InvalidOptions for bytes that are no schedule."""
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidOptions(f"what is stored is no schedule: {error}") from None


# -- declaring -------------------------------------------------------------------------------------------------------------------------


def schedule_of(name: str, *, cron: Any, timezone: Any, every: Any, jitter: Any, catch_up: Any) -> Schedule:
    """A schedule without its calls. Raises InvalidOptions."""
    validation.text("name", name)
    if (cron is None) == (every is None):
        both = f"cron ({cron!r}) or every ({every!r}), not both" if cron is not None else "cron='0 3 * * *' or every=300"
        raise InvalidOptions(f"schedule {name!r}: give {both}")
    if every is not None and timezone is not None:
        raise InvalidOptions(f"timezone: {timezone!r} goes with cron; every={every!r} is the same in all zones")
    if not isinstance(catch_up, str) or catch_up not in CATCH_UP:
        raise InvalidOptions(f"catch_up: {catch_up!r} must be one of {', '.join(map(repr, CATCH_UP))}")
    return Schedule(
        name=name,
        cron=None if cron is None else _expression(cron),
        timezone="UTC" if timezone is None else _zone(timezone),
        every=None if every is None else round(validation.duration("every", every, LEAST_EVERY, strict=False), 3),
        jitter=validation.delay("jitter", 0.0 if jitter is None else jitter),
        catch_up=catch_up,
    )


def _expression(value: Any) -> str:
    return cron.expression("cron", value)


def _zone(value: Any) -> str:
    return cron.zone("timezone", value)


def described(schedule: Schedule) -> str:
    """When, for people: "0 3 * * * Europe/Berlin", "every 300 s"."""
    if schedule.every is not None:
        return f"every {schedule.every:g} s"
    return f"{schedule.cron} {schedule.timezone}"


# -- when ------------------------------------------------------------------------------------------------------------------------------


def due_times(schedule: Schedule, after: float) -> Iterator[float]:
    """The due times after `after`, in order. Raises InvalidOptions."""
    if schedule.every is None:
        yield from cron.moments(schedule.cron or "", schedule.timezone, after)
        return
    for number in count(int(after // schedule.every)):
        # A multiple is rounded to the millisecond, so that it is the same float from wherever one counts.
        if (due := round(number * schedule.every, 3)) > after:
            yield due


def next_due(schedule: Schedule, after: float) -> float:
    """The first due time after `after`. Raises InvalidOptions where there is none."""
    due = next(due_times(schedule, after), None)
    if due is None:
        raise InvalidOptions(f"schedule {schedule.name!r}: {described(schedule)} never comes")
    return due


def fires_at(schedule: Schedule, due: float) -> float:
    """When this due time fires: at once, or up to `jitter` later, and no later than the next due time."""
    if not schedule.jitter:
        return due
    spread = min(schedule.jitter, next_due(schedule, due) - due)
    return due + int.from_bytes(_digest(schedule.name, due)[:6]) / (1 << 48) * spread


def plan(schedule: Schedule, due: float, now: float) -> Plan:
    """What to do now, where `due` is the next due time that has not been fired. Raises InvalidOptions."""
    at = fires_at(schedule, due)
    if at > now:
        return Plan([], due, at)
    # Of those up to now, only the last may still wait for its jitter.
    missed = _newest(schedule, due, now, MOST_MISSED if schedule.catch_up == "all" else 2)
    if len(missed) > 1 and fires_at(schedule, missed[-1]) > now:
        following = missed.pop()
    else:
        following = next_due(schedule, missed[-1])
    if schedule.catch_up == "all" and len(missed) > BATCH:
        missed, following = missed[:BATCH], missed[BATCH]
    elif schedule.catch_up == "latest":
        missed = missed[-1:]
    elif schedule.catch_up == "none":
        missed = [each for each in missed[-1:] if now - fires_at(schedule, each) <= GRACE]
    return Plan(missed, following, fires_at(schedule, following))


def _newest(schedule: Schedule, first: float, now: float, most: int) -> list[float]:
    """The last `most` due times from `first` up to `now`, or fewer; never none, since `first` is one of them."""
    window = FIRST_WINDOW if schedule.every is None else schedule.every * (most + 1)
    while now - window > first:
        found = _between(schedule, now - window, now)
        if len(found) >= most:
            return found[-most:]
        window *= WIDER
    return [first, *_between(schedule, first, now)][-most:]


def latest_due(schedule: Schedule, before: float, most: int) -> list[float]:
    """The last `most` due times before `before`, in order; fewer where LONGEST_WINDOW has fewer. Raises InvalidOptions."""
    window = FIRST_WINDOW if schedule.every is None else schedule.every * (most + 1)
    while True:
        found = [due for due in _between(schedule, before - window, before) if due < before]
        if len(found) >= most or schedule.every is not None or window > LONGEST_WINDOW:
            return found[-most:]
        window *= WIDER


def _between(schedule: Schedule, after: float, upto: float) -> list[float]:
    found = []
    for due in due_times(schedule, after):
        if due > upto:
            break
        found.append(due)
    return found


# -- what ------------------------------------------------------------------------------------------------------------------------------


def fired(schedule: Schedule, dues: Sequence[float], now: float) -> list[Envelope | Canvas]:
    """What these due times fire now. Raises `Undecodable` and InvalidOptions, which are ValueErrors."""
    return [firing(schedule, due, now, partial(_id, schedule.name, due)) for due in dues]


def firing(schedule: Schedule, due: float, now: float, new_id: Callable[[str], str]) -> Envelope | Canvas:
    """What is fired for `due`. `new_id`: of a place in it ("0" for a single call). Raises as `fired`."""
    if not schedule.canvas:
        return at_firing(schedule.name, decode(schedule.call), due, now, new_id("0"))
    return renamed(_canvas(schedule), new_id, lambda call, id: at_firing(schedule.name, call, due, now, id))


def fired_id(schedule: Schedule, due: float) -> str:
    """The id of what `due` has fired, or will; of a canvas, of the part whose outcome is its own. Raises as `fired`."""
    return _id(schedule.name, due, last_of(_canvas(schedule).tree).id if schedule.canvas else "0")


def tasks_of(schedule: Schedule) -> list[str]:
    """The names of what is fired. Raises as `fired`."""
    if not schedule.canvas:
        return [decode(schedule.call).name]
    return [leaf.name for leaf in leaves(_canvas(schedule).tree)]


def _canvas(schedule: Schedule) -> Canvas:
    try:
        return _canvas_decoder.decode(schedule.canvas)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidOptions(f"what schedule {schedule.name!r} fires is no canvas: {error}") from None


def at_firing(name: str, call: Envelope, due: float, now: float, id: str) -> Envelope:
    """The envelope of a stored call. Its headers say which schedule it is from, and for when (ISO 8601, UTC)."""
    return msgspec.structs.replace(
        call,
        id=id,
        enqueued_at=now,
        not_before=None if call.not_before is None else now + call.not_before,
        expires=None if call.expires is None else now + call.expires,
        headers={**call.headers, "schedule": name, "due": datetime.fromtimestamp(due, UTC).isoformat()},
    )


def _id(name: str, due: float, place: str) -> str:
    """RFC 9562: 48 bits of milliseconds, version 7, variant 2; a hash where others have dice."""
    random = int.from_bytes(_digest(name, due, place)[:16])
    number = (int(due * 1000) & (1 << 48) - 1) << 80 | random & (1 << 80) - 1
    number = number & ~(0xF << 76) | 0x7 << 76
    return str(UUID(int=number & ~(0b11 << 62) | 0b10 << 62))


def _digest(*parts: object) -> bytes:
    return hashlib.sha256("\0".join(map(repr, parts)).encode("utf-8", "surrogatepass")).digest()
