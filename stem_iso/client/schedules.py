"""The schedules of an application: declared in its code, or put into the broker by a running program.

    app.schedule(...) while a module is imported ── declared ──> a worker of the application, when it starts ── put, prune ──┐
    app.schedule(...) in a program that runs ── put ──────────────────────────────────────────────────────────────────────> broker
    workers of any application ── worker/scheduler ── fire ──> queue                                                           │
    app.schedules["nightly"], `stem-iso schedule` ── pause, resume, trigger, remove ───────────────────────────────────────────┘

Rules
 1. Importing opens nothing: what is declared while any module is imported is kept here, and brought to the broker by workers.
 2. A worker that starts puts what its application declares, and removes what the same application ("module:attribute", see
    `app_location.py`) declared before and does no more. What a program put, or an application that nobody can import, is removed by
    hand alone. Two applications on one broker need two places, or each would remove the other's.
 3. Whatever the code says again unchanged keeps its due time, so a restart misses nothing; what it says differently is planned anew.
 4. A pause is an operator's word: code does not undo it, and what comes due meanwhile is not made up, whatever `catch_up` says.
 5. What is stored is data: the call as an envelope, never pickled. Queue, priority, expiry and lock are those known where it was put.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from stem_iso.client.app_location import importing, locate
from stem_iso.client.canvas import Part
from stem_iso.client.canvas_result import composed
from stem_iso.client.enqueue import new_id
from stem_iso.client.result import TaskHandle, datetime_of
from stem_iso.client.schedule_outcomes import ScheduleOutcome
from stem_iso.client.schedule_outcomes import outcomes as schedule_outcomes
from stem_iso.client.schedule_template import record_of, refuse
from stem_iso.errors import InvalidOptions, UnknownSchedule
from stem_iso.task import schedule as planning
from stem_iso.task.canvas.tree import Canvas
from stem_iso.task.schedule import Schedule
from stem_iso.validation import Duration, did_you_mean

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from stem_iso.brokers.base import Broker, ScheduleRecord
    from stem_iso.client.application import Application

LATE = 1.0  # seconds after which a due time counts as missed by all workers


class ScheduleInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as people see it. `when`: "0 3 * * * Europe/Berlin"; `next_due`: jitter included, None while it is paused; `late`: seconds
    for which no worker has fired what is due, 0.0 for none; `owner`: the application whose code declares it, "" for a program's;
    `outcomes`: of its last firings, the newest first, where `infos` was asked for them."""

    name: str
    tasks: list[str]
    when: str
    cron: str | None
    timezone: str | None
    every: float | None
    jitter: float
    catch_up: str
    next_due: datetime | None
    last_fired: datetime | None
    paused: bool
    late: float
    owner: str
    outcomes: list[ScheduleOutcome] = []


class ScheduleHandle:
    """One schedule by its name. All but `name` ask the broker: they raise UnknownSchedule where it is not there, and BrokerUnavailable."""

    def __init__(self, schedules: Schedules, name: str) -> None:
        self._schedules, self._app, self.name = schedules, schedules._app, name

    @property
    def next_due(self) -> datetime | None:
        """When it fires next, None while it is paused."""
        return self.info().next_due

    def info(self) -> ScheduleInfo:
        with self._found() as (_, record):
            return info_of(record, self._app.clock())

    def pause(self) -> None:
        """Fire nothing until `resume`; what comes due meanwhile is not made up."""
        with self._found() as (broker, _):
            broker.pause_schedule(self.name)

    def resume(self) -> None:
        """Go on with the next due time from now. One that is not paused is left as it is."""
        with self._found() as (broker, record):
            broker.resume_schedule(self.name, planning.next_due(planning.decode_schedule(record.body), self._app.clock()))

    def trigger(self) -> TaskHandle[Any]:
        """Enqueue its call or canvas now, paused or not; its due times stay. Of a unique task that waits or runs: its handle."""
        with self._found() as (broker, record):
            now, ids = self._app.clock(), defaultdict[str, str](new_id)
            fired = planning.firing(planning.decode_schedule(record.body), now, now, ids.__getitem__)
            if isinstance(fired, Canvas):
                broker.compose(fired)
                return composed(self._app, fired.tree)
            (id,) = broker.publish([fired])
        return TaskHandle(self._app, id, fired.queue)

    def remove(self) -> None:
        """Take it out of the broker. One that is declared in code comes back with the next worker that starts."""
        with self._found() as (broker, _):
            broker.remove_schedule(self.name)

    @contextmanager
    def _found(self) -> Iterator[tuple[Broker, ScheduleRecord]]:
        with self._app.broker_pool.borrow() as broker:
            records = {record.name: record for record in broker.schedules()}
            if self.name not in records:
                declared = "; the next worker of the application that starts brings it"
                hint = declared if self._schedules.declares(self.name) else did_you_mean(self.name, records)
                raise UnknownSchedule(f"no schedule {self.name!r} is in the broker{hint}")
            yield broker, records[self.name]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ScheduleHandle) and (other._app, other.name) == (self._app, self.name)

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"<ScheduleHandle {self.name!r}>"


class Schedules:
    """`app.schedules`: those in the broker, whoever put them there; iteration gives handles, by name."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._declared: dict[str, tuple[Schedule, Part[Any]]] = {}  # by code that was being imported; only added to

    def add(
        self,
        name: str,
        call: Part[Any],
        *,
        cron: str | None = None,
        timezone: str | ZoneInfo | None = None,
        every: Duration | None = None,
        jitter: Duration | None = None,
        catch_up: Literal["latest", "all", "none"] = "latest",
    ) -> ScheduleHandle:
        """Enqueue `call` again and again: at the times of a `cron` expression in a `timezone` (default UTC), or `every` so long, on a
        grid of the wall clock. `jitter`: each firing up to so much later. `catch_up`, after a time without workers: "latest" fires the last
        missed time, "all" each (the newest 1,000), "none" nothing.

        Declared while a module is imported, it becomes active with the next worker of the application that starts; otherwise at once.
        Raises InvalidOptions, TypeError for arguments that cannot be sent, and where it is put at once PayloadTooLarge and
        BrokerUnavailable.
        """
        schedule = planning.schedule_of(name, cron=cron, timezone=timezone, every=every, jitter=jitter, catch_up=catch_up)
        planning.next_due(schedule, self._app.clock())
        refuse(name, call)
        if _being_imported():
            if name in self._declared and self._declared[name] != (schedule, call):
                raise InvalidOptions(f"schedule {name!r} is declared twice; give each a name of its own")
            self._declared[name] = schedule, call
        else:
            record = record_of(self._app, schedule, call, "")
            with self._app.broker_pool.borrow() as broker:
                broker.put_schedule(record)
        return ScheduleHandle(self, name)

    def declared(self) -> list[ScheduleRecord]:
        """What the code declares, as a worker brings it to the broker. Raises InvalidOptions, TypeError and PayloadTooLarge."""
        return [record_of(self._app, schedule, call, self.owner()) for schedule, call in list(self._declared.values())]

    def declares(self, name: str) -> bool:
        """Whether the application's code declares one of this name."""
        return name in self._declared

    def owner(self) -> str:
        """The application's place, "" where nobody can import it."""
        place = locate(self._app)
        return f"{place.module}:{place.attribute}" if place else ""

    def infos(self, *, outcomes: bool = False) -> list[ScheduleInfo]:
        """By name; with `outcomes`, what became of the last five firings of each, those by hand apart. Raises BrokerUnavailable."""
        with self._app.broker_pool.borrow() as broker:
            records = broker.schedules()
            found = schedule_outcomes(broker, records) if outcomes else {}
        now = self._app.clock()
        return [msgspec.structs.replace(info_of(record, now), outcomes=found.get(record.name, [])) for record in records]

    def __getitem__(self, name: str) -> ScheduleHandle:
        """Raises UnknownSchedule, which is a LookupError, and BrokerUnavailable."""
        handle = ScheduleHandle(self, name)
        handle.info()
        return handle

    def __iter__(self) -> Iterator[ScheduleHandle]:
        return iter([ScheduleHandle(self, info.name) for info in self.infos()])


def info_of(record: ScheduleRecord, now: float) -> ScheduleInfo:
    """What cannot be read here (damaged, or its zone is unknown) has no tasks and says why in `when`; it can be paused and removed."""
    schedule, at, tasks = Schedule(name=record.name), record.due, []
    try:
        schedule = planning.decode_schedule(record.body)
        tasks = planning.tasks_of(schedule)
        at = planning.fires_at(schedule, record.due)
        when = planning.described(schedule)
    except (ValueError, OverflowError, RecursionError) as error:  # ValueError: InvalidOptions, Undecodable
        when = f"cannot be read here: {error}"
    late = 0.0 if record.paused or now - at < LATE else now - at
    return ScheduleInfo(
        name=record.name,
        tasks=tasks,
        when=when,
        cron=schedule.cron,
        timezone=schedule.timezone if schedule.cron else None,
        every=schedule.every,
        jitter=schedule.jitter,
        catch_up=schedule.catch_up,
        next_due=None if record.paused else datetime_of(at),
        last_fired=datetime_of(record.fired_at),
        paused=record.paused,
        late=late,
        owner=record.owner,
    )


def _being_imported() -> bool:
    """Whether a module further up is being executed for the first time. A program's own file, `__main__`, is not imported but run."""
    if importing.get():
        return True
    frame = sys._getframe(1)
    while frame is not None:
        spec = frame.f_globals.get("__spec__") if frame.f_code.co_name == "<module>" else None
        if getattr(spec, "_initializing", False):
            return True
        frame = frame.f_back  # type: ignore[assignment]  # None ends the loop
    return False
