"""Client-side handle of one task: status, result, events, revoke, retry, edit.

    handle = make.enqueue("cat.png")
    handle.result(timeout=60) ── the application's watcher ──> the terminal status ──> R | TaskFailed | TaskCancelled

Waiting for a result inside a handler is refused: the awaited task may need the very seat that waits for it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from stem_iso.client.event_stream import task_events, unknown
from stem_iso.client.task_edit import edited_arguments
from stem_iso.errors import ActionRefused, PayloadTooLarge, RetryRefused, StemError, TaskCancelled, TaskFailed, WaitRefused, let_out
from stem_iso.outcome import TaskState, TaskStatus
from stem_iso.task.codec import Converter, unpack
from stem_iso.task.context import current_context
from stem_iso.validation import Duration, count, delay, optional_text

if TYPE_CHECKING:
    from concurrent.futures import Future

    from stem_iso.brokers.base import Replayed, StatusRecord
    from stem_iso.client.application import Application
    from stem_iso.events import AnyEvent

R = TypeVar("R")
V = TypeVar("V")


class TaskHandle(Generic[R]):
    """`queue` is None where only the id is known. Methods with an `a` before their name are for coroutines.

    All but `revoke` of a task enqueued in a handler talk to the broker, and raise BrokerUnavailable where it cannot be reached.
    """

    def __init__(self, app: Application, id: str, queue: str | None = None) -> None:
        self.app, self.id, self.queue = app, id, queue

    def status(self) -> TaskStatus:
        """Raises UnknownResult for an id that is unknown or has expired, StemError for a result that cannot be read."""
        with self.app.broker_pool.borrow() as broker:
            record = broker.status([self.id], self.queue)[0]
        if record is None:
            raise unknown(self.id)
        return self._status_of(record)

    def _status_of(self, record: StatusRecord) -> TaskStatus:
        return status_of(record, self.app.result_converter(record.name), self.app.shown_arguments(record.name, record.args))

    def result(self, timeout: Duration | None = None) -> R:
        """The task's result, as soon as there is one.

        Raises TaskFailed, TaskCancelled, TimeoutError when the wait ran out, UnknownResult, and WaitRefused inside a handler.
        """
        refuse_waiting()
        future = self._terminal_record(timeout)
        try:
            record = future.result()
        finally:
            future.cancel()
        return self.result_of(record)

    async def ended(self, timeout: Duration | None = None) -> StatusRecord:
        """The terminal record; cancelling the await ends the wait. Raises TimeoutError, UnknownResult, WaitRefused."""
        import asyncio

        refuse_waiting()
        return await asyncio.wrap_future(self._terminal_record(timeout))

    def _terminal_record(self, timeout: Duration | None) -> Future[StatusRecord]:
        return self.app.watcher.wait(self.id, None if timeout is None else delay("timeout", timeout), self.queue)

    def revoke(self, terminate: bool = False) -> bool:
        """Cancel the task; with `terminate`, kill it where it runs. True if there was anything to revoke, False if it had ended.

        Raises UnknownResult; in a handler, which goes on after it, an unknown id is False too.
        """
        return self.app.revoke(self.id, terminate, queue=self.queue)

    def forget(self) -> bool:
        """Drop result and status; of an unfinished task, once it has settled. True if the id was known."""
        with self.app.broker_pool.borrow() as broker:
            return broker.forget(self.id, self.queue)

    def events(self, timeout: Duration | None = None) -> Iterator[AnyEvent]:
        """What happens to this task from this call on, its progress included, until it has ended, or nothing came for `timeout` seconds.

        The last event is that of its end, unless the task had ended before, or its worker died before it could say so: `status()` knows.
        Another run of the task is heard too, where it begins before that. Closing the iterator stops listening. Raises UnknownResult.
        """
        return task_events(self.app.open_broker(), self.id, self.queue, None if timeout is None else delay("timeout", timeout))

    def aevents(self, timeout: Duration | None = None) -> AsyncGenerator[AnyEvent, None]:
        """As `events`, in the loop that runs here. All streams of a process share one thread and one broker.

        The iterator raises UnknownResult, and BrokerUnavailable where the broker is away at first.
        """
        return self.app.event_feed.follow(self.id, self.queue, None if timeout is None else delay("timeout", timeout))

    def retry(self) -> None:
        """Run it again, if it failed or was cancelled: a new run of the same id, with the same arguments and options, from its first
        attempt on and without an expiry. Its dead letter goes.

        Raises RetryRefused for one that has not failed, for a unique one whose lock another holds, for a part of a canvas (what follows it
        has ended with it, and would not begin again), and for what an older worker has ended, which kept no arguments; UnknownResult.
        """
        with self.app.broker_pool.borrow() as broker:
            answer = broker.retry(self.id, self.queue)
        self._refuse(answer, RetryRefused, "does not run again")

    async def aretry(self) -> None:
        await in_thread(self.retry)

    def run_now(self, *, by: str | None = None) -> None:
        """Make a delayed task ready at once, a waiting retry too. `by`: who does it, for the list of actions; default "user@host".

        Raises ActionRefused for one that is not delayed, and UnknownResult.
        """
        optional_text("by", by)  # before anything is done
        with self.app.broker_pool.borrow() as broker:
            answer = broker.run_now(self.id, self.queue)
        self._refuse(answer, ActionRefused, "is not run now")
        self.app.log_action("run-now", self.id, "ready now", by=by)

    async def arun_now(self, *, by: str | None = None) -> None:
        await in_thread(lambda: self.run_now(by=by))

    def edit(self, args: Mapping[str, Any], *, run: int | None = None, by: str | None = None) -> None:
        """Give the task these arguments, all of them, by parameter name, and let it run anew: the same id, run + 1, attempt 0. What waits
        keeps its due time; what has failed or was cancelled is enqueued again. The value "***" keeps the one that the argument has. `run`:
        the one whose arguments were looked at, so that nobody's newer ones are overwritten unseen. `by` as of `run_now`.

        Raises TypeError for arguments that do not fit, ActionRefused for a task that runs, has succeeded, is a part of a canvas, or is in
        another run than `run`, PayloadTooLarge, and UnknownResult.
        """
        optional_text("by", by)  # before anything is done
        if run is not None:
            count("run", run)
        with self.app.broker_pool.borrow() as broker:
            (record,) = broker.status([self.id], self.queue)
            if record is None:
                raise unknown(self.id)
            if run not in (None, record.run):
                raise ActionRefused(f"task {self.id} is not edited: {REFUSED['changed']}")
            answer = broker.edit(self.id, record.run, edited_arguments(self.app, record, args), self.queue)
        if answer is not None and answer.refused == "too-large":
            raise PayloadTooLarge(f"task {self.id}: the arguments are longer than max_payload_bytes allows; pass a reference to the data")
        self._refuse(answer, ActionRefused, "is not edited")
        self.app.log_action("edit", self.id, f"run {record.run + 1}", by=by)

    async def aedit(self, args: Mapping[str, Any], *, run: int | None = None, by: str | None = None) -> None:
        await in_thread(lambda: self.edit(args, run=run, by=by))

    def _refuse(self, answer: Replayed | None, error: type[ActionRefused], what: str) -> None:
        if answer is None:
            raise unknown(self.id)
        if answer.refused is not None:
            raise error(f"task {self.id} {what}: {REFUSED.get(answer.refused, answer.refused)}")

    async def astatus(self) -> TaskStatus:
        return await in_thread(self.status)

    async def aresult(self, timeout: Duration | None = None) -> R:
        """As `result`; cancelling the await ends the wait."""
        return self.result_of(await self.ended(timeout))

    async def arevoke(self, terminate: bool = False) -> bool:
        return await in_thread(lambda: self.revoke(terminate))

    async def aforget(self) -> bool:
        return await in_thread(self.forget)

    def result_of(self, record: StatusRecord) -> R:
        """The result in a terminal record of this task. Raises TaskFailed, TaskCancelled."""
        status = self._status_of(record)
        if status.state is TaskState.SUCCEEDED:
            return self._value(status)
        raise (TaskCancelled if status.state is TaskState.CANCELLED else TaskFailed)(status)

    def _value(self, status: TaskStatus) -> R:
        result: R = status.result
        if status.result is None and not status.queue:  # a group whose list was too large to be stored once more
            result = self.app.canvas(self.id).result(0)
        return result

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TaskHandle) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<TaskHandle {self.id}{f' in {self.queue}' if self.queue else ''}>"


# Why a broker refuses a retry or an edit, or to run a task now, for people.
REFUSED = {
    "active": "it has not ended yet; wait for its end, or revoke it first",
    "succeeded": "it has succeeded; enqueue it anew",
    "unique": "another task holds its unique lock; retry it when that one has ended",
    "canvas": "it is a part of a canvas, or a group, and what follows it has ended with it; enqueue the canvas anew. If it failed, a "
    "replay of its dead letter (`stem-iso dlq replay ID`) runs it alone",
    "no-envelope": "an older worker ended it and kept no arguments; enqueue it anew, or replay its dead letter if it failed",
    "undecodable": "what is stored of it cannot be read; enqueue it anew",
    "not-delayed": "it is not delayed: it is ready, runs, waits for something else than a time, or has ended",
    "running": "it runs; wait for its end, or revoke it first",
    "changed": "it has begun another run meanwhile; look at it again",
}


def status_of(record: StatusRecord, converter: Converter | None = None, args: dict[str, Any] | None = None) -> TaskStatus:
    """What people see of a record: the result as a value, times as datetimes; `args` are those that may be shown. Raises StemError for a
    result that cannot be read."""
    fields = msgspec.structs.asdict(record) | {"args": args}
    for name in ("enqueued_at", "not_before", "started_at", "finished_at", "ready_at"):
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


async def in_thread(call: Callable[[], V]) -> V:
    import asyncio

    def run() -> V:
        try:
            return call()
        except StopIteration as error:  # of user code; asyncio up to 3.11 would never end the wait
            raise let_out(error) from error

    return await asyncio.to_thread(run)
