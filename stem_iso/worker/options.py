"""The options of a worker, checked when it is made and only read afterwards. The command has its defaults in `config.WorkerConfig`."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stem_iso import validation
from stem_iso.errors import InvalidOptions
from stem_iso.task.retry_policy import RetryStrategy
from stem_iso.worker.vitals import Vitals

if TYPE_CHECKING:
    from stem_iso.app import Stem


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What started a worker. `boot` names it in receipts.

    By command that is a launcher, which is also the keeper: `keeper_socket` leads there. `predecessors` are the launcher's dead cores,
    whose leases this worker takes at once. `overruled` says, for people, which settings another place said otherwise.
    `vitals`: where the starter sees how the worker is.
    """

    boot: str = field(default_factory=lambda: uuid.uuid4().hex)
    predecessors: tuple[str, ...] = ()
    keeper_socket: socket.socket | None = None
    on_keeper: Callable[[str, list[Any]], None] | None = None
    overruled: tuple[str, ...] = ()
    vitals: Vitals = field(default_factory=Vitals)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """Durations are seconds."""

    id: str
    origin: Origin
    queues: tuple[str, ...]
    seats: int
    spares: int
    shutdown_timeout: float
    unregistered_grace: float
    burst: bool
    retry_strategy: RetryStrategy | None
    max_calls: int | None
    max_memory: int | None
    secrets: tuple[str, ...]

    @property
    def boot(self) -> str:
        return self.origin.boot


def queues_of(app: Stem, queues: Sequence[str] | None) -> tuple[str, ...]:
    """Those that were named; none: "default", and every queue that the application's tasks declare. Raises InvalidOptions."""
    if queues is None:
        return tuple(sorted(declared_queues(app)))
    if isinstance(queues, str) or not queues:
        raise InvalidOptions(f"queues: {queues!r} must be a list of at least one queue's name")
    return tuple(dict.fromkeys(validation.queue("queues", queue) for queue in queues))


def declared_queues(app: Stem) -> set[str]:
    """Those of the options of its tasks, "default", and what their handlers name beside."""
    found = {"default"}
    for handler in app.registry:
        found |= {app.options_of(handler.name).queue, *handler.queues}
    return found


def names(name: str, value: Sequence[str]) -> tuple[str, ...]:
    if isinstance(value, str) or not all(isinstance(each, str) and each for each in value):
        raise InvalidOptions(f"{name}: {value!r} must be a list of names")
    return tuple(value)
