"""Application as `client/` knows it: the parts of a `Stem` from which handles, tasks and canvases work.

    app.py: Stem ──> client/: task, canvas, enqueue, result, schedules ──> Application
      └───────────────────────────── is one ──────────────────────────────────┘

A `Stem` is made of the files of `client/`, so none of them can name it without a circle. For the same reason the methods that take or give
what those files declare (parts of a canvas, handles) have the type `Any` here: their types are given where they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from stem_iso.task.context import Sender

if TYPE_CHECKING:
    from stem_iso.brokers.base import Broker, BrokerOptions
    from stem_iso.client.broker_pool import BrokerPool
    from stem_iso.client.event_feed import EventFeed
    from stem_iso.client.result_watcher import Watcher
    from stem_iso.client.transactions import Transactions
    from stem_iso.signals import Signals
    from stem_iso.task.codec import Converter
    from stem_iso.task.handler import TaskRegistry
    from stem_iso.task.middleware import MiddlewareStack
    from stem_iso.task.options import TaskOptions


class Application(Sender, Protocol):
    """A `Stem`. What `task.app` and `handle.app` are declared as."""

    registry: TaskRegistry
    signals: Signals
    broker_pool: BrokerPool
    made_in: str
    defaults: TaskOptions
    transactions: Transactions | None

    @property
    def clock(self) -> Callable[[], float]:
        """Wall-clock seconds."""

    @property
    def middleware(self) -> MiddlewareStack: ...

    @property
    def broker(self) -> str:
        """The broker's URL."""

    @property
    def broker_options(self) -> BrokerOptions: ...

    @property
    def watcher(self) -> Watcher:
        """What all waits for results go through."""

    @property
    def event_feed(self) -> EventFeed:
        """What all streams of events of tasks in loops go through."""

    def options_of(self, name: str) -> TaskOptions:
        """The options of this task, defaults of the application included. Raises UnknownTask, InvalidOptions."""

    def result_converter(self, name: str) -> Converter | None:
        """How results of this task become values; None where its code is not here."""

    def shown_arguments(self, name: str, args: bytes | None) -> dict[str, Any] | None:
        """The arguments of a task as people are shown them; None where its code is not here to say which are redacted."""

    def open_broker(self) -> Broker:
        """A fresh broker for the calling thread, which closes it."""

    def revoke(self, task_id: str, terminate: bool = False, *, queue: str | None = None) -> bool:
        """Cancel a task; with `terminate`, kill it where it runs. True if there was anything to revoke."""

    def log_action(self, action: str, target: str = "", result: str = "", *, by: str | None = None) -> None:
        """Leave a line in the list of actions."""

    def canvas(self, id: str) -> Any:
        """The CanvasHandle of this id. Raises UnknownResult."""

    def send(self, signatures: Sequence[Any]) -> list[Any]:
        """Publish these Signatures in one step. A TaskHandle for each."""

    async def asend(self, signatures: Sequence[Any]) -> list[Any]: ...

    def compose(self, part: Any) -> Any:
        """Store this Part with all that is in it, and begin. Its CanvasHandle."""

    async def acompose(self, part: Any) -> Any: ...
