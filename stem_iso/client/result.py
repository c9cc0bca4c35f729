"""Client-side handle of one task: status, result, revoke.

    handle = make.enqueue("cat.png")
    handle.result(timeout=60) ── the application's watcher ──> the terminal status ──> R | TaskFailed | TaskCancelled

Waiting for a result inside a handler is refused: the awaited task may need the very seat that waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from stem_iso.errors import StemError, TaskCancelled, TaskFailed, UnknownResult, WaitRefused, let_out
from stem_iso.task.codec import Converter, unpack
from stem_iso.task.context import current_context
from stem_iso.task.status import TaskState, TaskStatus
from stem_iso.validation import Duration, delay

if TYPE_CHECKING:
    from concurrent.futures import Future

    from stem_iso.app import Stem
    from stem_iso.brokers.base import StatusRecord

R = TypeVar("R")
V = TypeVar("V")


class TaskHandle(Generic[R]):
    """`queue` is None where only the id is known. Methods with an `a` before their name are for coroutines.

    All but `revoke` of a task enqueued in a handler talk to the broker, and raise BrokerUnavailable where it cannot be reached.
    """

    def __init__(self, app: Stem, id: str, queue: str | None = None) -> None:
        self.app, self.id, self.queue = app, id, queue

    def status(self) -> TaskStatus:
        """Raises UnknownResult for an id that is unknown or has expired, StemError for a result that cannot be read."""
        with self.app.broker_pool.borrow() as broker:
            record = broker.status([self.id], self.queue)[0]
        if record is None:
            raise UnknownResult(f"no task has the id {self.id!r}: it was never enqueued, or its result has expired")
        return status_of(record, self.app.result_converter(record.name))

    def result(self, timeout: Duration | None = None) -> R:
        """The task's result, as soon as there is one.

        Raises TaskFailed, TaskCancelled, TimeoutError when the wait ran out, UnknownResult, and WaitRefused inside a handler.
        """
        refuse_waiting()
        future = self._asked(timeout)
        try:
            record = future.result()
        finally:
            future.cancel()
        return self.result_of(record)

    async def ended(self, timeout: Duration | None = None) -> StatusRecord:
        """The terminal record; cancelling the await ends the wait. Raises TimeoutError, UnknownResult, WaitRefused."""
        import asyncio

        refuse_waiting()
        return await asyncio.wrap_future(self._asked(timeout))

    def _asked(self, timeout: Duration | None) -> Future[StatusRecord]:
        return self.app.watcher.ask(self.id, None if timeout is None else delay("timeout", timeout), self.queue)

    def revoke(self, terminate: bool = False) -> bool:
        """Cancel the task; with `terminate`, kill it where it runs. True if there was anything to revoke."""
        return self.app.revoke(self.id, terminate, queue=self.queue)

    def forget(self) -> bool:
        """Drop result and status; of an unfinished task, once it has settled. True if the id was known."""
        with self.app.broker_pool.borrow() as broker:
            return broker.forget(self.id, self.queue)

    async def astatus(self) -> TaskStatus:
        return await aside(self.status)

    async def aresult(self, timeout: Duration | None = None) -> R:
        """As `result`; cancelling the await ends the wait."""
        return self.result_of(await self.ended(timeout))

    async def arevoke(self, terminate: bool = False) -> bool:
        return await aside(lambda: self.revoke(terminate))

    async def aforget(self) -> bool:
        return await aside(self.forget)

    def result_of(self, record: StatusRecord) -> R:
        """The result in a terminal record of this task. Raises TaskFailed, TaskCancelled."""
        status = status_of(record, self.app.result_converter(record.name))
        if status.state is TaskState.SUCCEEDED:
            return self._value(status)
        raise (TaskCancelled if status.state is TaskState.CANCELLED else TaskFailed)(status, status.error)

    def _value(self, status: TaskStatus) -> R:
        result: R = status.result
        if status.result is None and not status.queue:  # a group whose list was too large to be stored once more
            from stem_iso.client.canvas_result import find

            result = find(self.app, self.id).result(0)
        return result

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TaskHandle) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<TaskHandle {self.id}{f' in {self.queue}' if self.queue else ''}>"


def status_of(record: StatusRecord, converter: Converter | None = None) -> TaskStatus:
    """What people see of a record: the result as a value, times as datetimes. Raises StemError for a result that cannot be read."""
    fields = msgspec.structs.asdict(record)
    for name in ("enqueued_at", "not_before", "started_at", "finished_at"):
        fields[name] = datetime_of(fields[name])
    try:
        fields["result"] = None if record.result is None else _value(record.result, converter)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # ValueError: text that is no UTF-8
        raise StemError(f"the result of task {record.name} ({record.id}) cannot be read: {error}") from None
    return TaskStatus(**fields)


def datetime_of(seconds: float | None) -> datetime | None:
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):  # an envelope of another program may say anything
        return None


def _value(result: bytes, converter: Converter | None) -> Any:
    try:
        return unpack(result) if converter is None else converter.unpack(result)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # The handler returned something else than its annotation says, as Python lets it; so does this.
        return unpack(result)


def refuse_waiting() -> None:
    context = current_context()
    if context is not None and not context.local:
        raise WaitRefused(
            f"task {context.name!r} may not wait for another task: it would hold a seat that the other one may need. "
            "Let a chain pass the result on, or a chord collect several"
        )


async def aside(call: Callable[[], V]) -> V:
    import asyncio

    def run() -> V:
        try:
            return call()
        except StopIteration as error:  # of user code; asyncio up to 3.11 would never end the wait
            raise let_out(error) from error

    return await asyncio.to_thread(run)
