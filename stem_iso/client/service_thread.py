"""Thread that serves whoever comes, for as long as somebody does: begun with the first item, and anew for one that comes after its end.

    take(item) ── service.take ──> the service that runs
                     │ False: it has ended, or there is none
                     └──> make() ── take(item) ── its thread: run()

Rules
 1. Where no thread is to be had, the new service is abandoned, and the item with it: nobody would ever answer.
 2. A forked child has a service of its own, and touches nothing of the parent's.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T", contravariant=True)
S = TypeVar("S", bound="Service[Any]")


class Service(Protocol[T]):
    def take(self, item: T) -> bool:
        """False: it has ended, and takes no more."""

    def run(self) -> None:
        """Until nobody has come for a while; `take` answers False from then on."""

    def leave(self) -> None:
        """End as soon as nobody is served any more, instead of a while later."""

    def abandon(self) -> None:
        """It will never run."""


class ServiceThread(Generic[S]):
    def __init__(self, name: str, make: Callable[[], S]) -> None:
        self._name, self._make = name, make
        self._inherited: list[S] = []  # of a parent: never touched again, and never collected
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()  # guards the service: who begins it, and its end
        self.service: S | None = None
        self._pid = os.getpid()

    def take(self, item: Any) -> None:
        """Raises what `make` raises, and RuntimeError where no thread is to be had."""
        if self._pid != os.getpid():
            if self.service is not None:
                self._inherited.append(self.service)
            self._forget()
        with self._lock:
            if self.service is None or not self.service.take(item):
                self.service = self._begun(item)

    def _begun(self, item: Any) -> S:
        service = self._make()
        service.take(item)
        try:
            threading.Thread(target=service.run, name=self._name, daemon=True).start()
        except RuntimeError:
            service.abandon()
            raise
        return service

    def close(self) -> None:
        """Whoever is served keeps it; a service that only lingers ends."""
        if self._pid == os.getpid() and self.service is not None:
            self.service.leave()
