"""The dispatcher: gives each attempt to what runs it. An attempt takes one seat wherever it runs.

    Attempt + Job        ──> Engine    an isolate; can always be killed
    Attempt + HostedJob  ──> Engine    a shared host, by command: a thread or a coroutine there; can be killed with the host
    Attempt + InlineJob  ──> Inline    a thread or the loop of this process, in an embedded worker

By command no handler runs in this process, so that none can hold up a renewal or a kill. An embedded worker starts its engine at once
where any handler is isolated, so that its spares boot early; else with the first isolated task. A worker with inline handlers
alone has no keeper and no isolates.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from stem_iso.isolate.engine.engine import Engine
from stem_iso.isolate.interfaces import HostedJob, Job
from stem_iso.worker.attempt import Attempt
from stem_iso.worker.inline.call import InlineJob
from stem_iso.worker.inline.runner import Inline


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

    def close(self) -> None:
        """Every isolate and host is dead when this returns; inline handlers of this process may still run."""
        if self._engine is not None:
            self._engine.close()
        self._inline.close()
