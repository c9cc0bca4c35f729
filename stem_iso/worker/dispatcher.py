"""The dispatcher: gives each attempt to what runs it. An attempt takes one seat wherever it runs.

    Attempt + Job        ──> Engine    an isolate; can always be killed
    Attempt + HostedJob  ──> Engine    a shared host, by command: a thread or a coroutine there; can be killed with the host
    Attempt + InlineJob  ──> Inline    a thread or the loop of this process, in an embedded worker

By command no handler runs in this process, so that none can hold up a renewal or a kill. An embedded worker starts its engine at once
where any handler is isolated, so that its spares boot early; else with the first isolated task. A worker with inline handlers
alone has no keeper and no isolates.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from stem_iso.brokers.base import IsolateInfo
from stem_iso.isolate.engine.engine import Engine
from stem_iso.isolate.engine.isolate_view import BUSY, SHARED, SPARE, STARTING, IsolateView
from stem_iso.isolate.interfaces import HostedJob, Job
from stem_iso.worker.attempt import Attempt
from stem_iso.worker.inline.call import InlineJob
from stem_iso.worker.inline.runner import Inline

MEASURE_WITHIN = 0.005  # seconds for the memory of all isolates, on the consumer's thread; one costs some 50 µs

monotonic = time.monotonic


class Dispatcher:
    """Started and closed by `WorkerRuntime`, used by the consumer thread."""

    def __init__(self, make_engine: Callable[[], Engine], inline: Inline) -> None:
        self._make_engine, self._inline = make_engine, inline
        self._engine: Engine | None = None

    def start_engine(self) -> Engine:
        if self._engine is None:
            engine = self._make_engine()
            engine.start()
            self._engine = engine
        return self._engine

    def run(self, attempt: Attempt, job: Job | InlineJob) -> None:
        if isinstance(job, InlineJob):
            attempt.killable, attempt.alone = False, job.is_async
            inline = self._inline.submit(job, attempt)
            attempt.halt = partial(self._inline.stop, inline)
        else:
            engine = self.start_engine()
            call = engine.submit(job, attempt)
            attempt.isolated = not isinstance(job, HostedJob)
            attempt.alone = not isinstance(job, HostedJob) or job.coroutine
            attempt.halt, attempt.take_back = partial(engine.stop, call), partial(engine.withdraw, call)

    def keeper(self) -> int | None:
        """The pid of the keeper, which outlives this process to kill its isolates; None while there is none."""
        return None if self._engine is None else self._engine.keeper

    def pinned(self) -> dict[str, list[int]]:
        """The cores of each task that has cores of its own now, by task id."""
        found = [] if self._engine is None else self._engine.pinned()
        return {caller.envelope.id: list(cpus) for caller, cpus in found if isinstance(caller, Attempt)}

    # -- for operators -------------------------------------------------------------------------------------------------------------

    def views(self) -> list[IsolateView]:
        """The isolates and shared hosts of this moment. From any thread."""
        return [] if self._engine is None else self._engine.views()

    def isolates(self) -> list[IsolateInfo]:
        """The same for the worker's record. Those that are measured last go without, where the measuring has taken too long."""
        until = monotonic() + MEASURE_WITHIN
        return [_info(view, view.memory() if view.state == BUSY and monotonic() < until else None) for view in self.views()]

    def isolate_states(self) -> dict[str, int]:
        """How many isolates there are by state, as of `IsolateInfo`. From any thread."""
        states = [view.state for view in self.views()]
        return {state: states.count(state) for state in (STARTING, SPARE, BUSY, SHARED)}

    def resize(self, seats: int) -> None:
        if self._engine is not None:
            self._engine.resize(seats, self._engine.spares)

    def kill(self, pid: int, answer: Callable[[bool], None]) -> None:
        """As `Engine.kill`."""
        if self._engine is None:
            answer(False)
        else:
            self._engine.kill(pid, answer)

    def stack(self, pid: int, answer: Callable[[str | None], None]) -> None:
        """As `Engine.stack`."""
        if self._engine is None:
            answer(None)
        else:
            self._engine.stack(pid, answer)

    def set_log_level(self, level: int) -> None:
        """Of what isolates log that start from now on."""
        if self._engine is not None:
            self._engine.set_log_level(level)

    def close(self) -> None:
        """Every isolate and host is dead when this returns; inline handlers of this process may still run."""
        if self._engine is not None:
            self._engine.close()
        self._inline.close()


def _info(view: IsolateView, memory: int | None) -> IsolateInfo:
    limits, attempt = view.limits, view.caller
    if not isinstance(attempt, Attempt):
        return IsolateInfo(pid=view.pid, state=view.state)
    return IsolateInfo(
        pid=view.pid,
        state=view.state,
        task_id=attempt.envelope.id,
        name=attempt.envelope.name,
        started_at=time.time() - (monotonic() - view.sent_at) if view.sent_at else None,
        soft_time_limit=limits.soft,
        hard_time_limit=limits.hard,
        memory=memory,
        memory_limit=limits.memory,
        cores=list(view.cpus),
    )
