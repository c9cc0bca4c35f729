"""Systems under test: one file a system, of some 40 lines, found by its name; nothing has to be registered.

    SYSTEM      what the system is called, which packages it needs, where its author says how to limit a task
    Adapter     how a call is run in it, which ends when the system has told its caller

A module of this package is imported in two places: by the coordinator, which reads SYSTEM and never makes an Adapter, and by `bench.driver`
in the system's own virtual environment, where stem_iso may be absent. So it imports the system's packages inside functions alone, and of
`bench` only this module and `bench.handlers`. `docs/benchmark.md` shows a whole one.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any, ClassVar, Literal

Word = Literal["success", "timeout", "memory", "crash", "error", "cancelled"]
"""How a call ended, as its caller was told. `error`: the system told of a failure, but not of which kind."""


@dataclass(frozen=True)
class System:
    """What the coordinator must know of a system before it starts one.

    `settings` maps a way to set it up to its options, which only the adapter reads: "default" is what a reader of the first page of its
    documentation writes, "best" what its author advises whoever needs time-outs (`advice` is the address where this is written).
    An empty `requirements` runs in the coordinator's own interpreter. `limited` names the settings under which it knows limits at all:
    elsewhere a caller only stops to wait.
    """

    name: str
    kind: Literal["pool", "queue"]
    requirements: tuple[str, ...]  # pinned, as pip takes them; "redis==8.1.0" among them where the client is another package's choice
    advice: str
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"default": {}, "best": {}})
    needs_redis: bool = False
    whole_seconds: bool = False  # its limits have no fractions

    def limit(self, seconds: float) -> float:
        """The nearest that it can be given, and not below."""
        return float(ceil(seconds)) if self.whole_seconds else seconds


@dataclass(frozen=True)
class Place:
    """Where one Adapter works. Handlers run under at most `limit` seconds, which each call names again: who can only declare limits
    beforehand declares it so."""

    settings: Mapping[str, Any]
    workers: int  # tasks at a time
    folder: Path  # empty, the adapter's own; what it starts may write here
    limit: float
    redis: str = ""  # url of an empty database, where the system needs one


class Adapter(ABC):
    """One system, set up and ready. `run` is called from several threads at once."""

    timeouts: ClassVar[tuple[str, ...]] = ("TimeoutError",)
    """Names of exception classes by which the system tells of a time-out; subclasses count."""
    crashes: ClassVar[tuple[str, ...]] = ()
    memory: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def __init__(self, place: Place) -> None:
        """Start what runs tasks, and return when it can take one."""

    @abstractmethod
    def run(self, handler: str, ledger: str, limit: float | None) -> object:
        """Run `bench.handlers.run(handler, ledger)` in the system, and return or raise as soon as it has told how this ended.

        Under `limit` seconds, or under none. An exception that is none of `timeouts`, `crashes` and `memory` counts as "error".
        """

    def echo(self, count: int, payload: bytes) -> None:
        """Run `bench.handlers.echo(payload)` that often, and return when the last has been answered.

        A system with a better way to take many calls than a thread for each worker overrides this."""
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(lambda _: self.run("echo", payload.decode("latin-1"), None), range(count)))

    def enqueue(self, count: int, payload: bytes) -> None:
        """Queue systems: send that many echoes, and return when all are stored, answered or not."""
        raise NotImplementedError

    def supervisors(self) -> list[int]:
        """Pids of the processes whose death the system must survive: a queue's worker, its main process. A pool has none."""
        return []

    def processes(self) -> list[int]:
        """Pids of what it started that is not a descendant of the driver. Descendants are found without it."""
        return []

    def restart(self) -> bool:
        """Queue systems: start a worker on the same queue if the one before is dead, as a supervisor of the machine does."""
        raise NotImplementedError

    @abstractmethod
    def close(self) -> None:
        """End all that `__init__` started."""

    def word(self, error: BaseException | None) -> Word:
        """How the call ended, of what `run` raised."""
        if error is None:
            return "success"
        names = {kind.__name__ for kind in type(error).__mro__}
        for word, known in (("memory", self.memory), ("crash", self.crashes), ("timeout", self.timeouts)):
            if names & set(known):
                return word  # type: ignore[return-value]
        return "error"


# A folder with systems of somebody else's: `python -m bench` then knows them too, and its drivers, which inherit this.
if extra := os.environ.get("BENCH_SYSTEMS"):
    __path__.append(extra)


def names() -> Iterator[str]:
    for module in pkgutil.iter_modules(__path__):
        yield module.name


def find(name: str) -> System:
    """SYSTEM of one module; raises SystemExit with those that exist."""
    if name not in set(names()):
        raise SystemExit(f"no system {name!r}; there are {', '.join(sorted(names()))}")
    return importlib.import_module(f"{__name__}.{name}").SYSTEM  # type: ignore[no-any-return]


def adapter(name: str) -> type[Adapter]:
    return importlib.import_module(f"{__name__}.{name}").Adapter  # type: ignore[no-any-return]
