"""Context of a running task: what its handler sees and may ask, by the same names inline and in an isolate.

    handler ── context.progress(50) ──> ContextRequest (context_protocol.py) ── ContextPort.send ──> core
    handler <── context.extend_lease() <── ContextAnswer <── ContextPort.request ─┘

The context holds values and a port; whether the port is a pipe or a queue between threads is not its business. What it cannot do by
itself (make an envelope out of a task and options) it asks of its `Sender`, the application.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, Unpack, overload

import msgspec

from stem_iso import errors, validation
from stem_iso.errors import InvalidOptions, PayloadTooLarge, RemoteError, StemError
from stem_iso.outcome import RetryAsked
from stem_iso.task.canvas.tree import Canvas
from stem_iso.task.codec import pack, unpack
from stem_iso.task.context_meta import Meta
from stem_iso.task.context_port import ContextPort, LocalPort
from stem_iso.task.context_protocol import (
    AT_ONCE,
    CallHeader,
    ComposeRequest,
    ContextRequest,
    EnqueueRequest,
    ExtendRequest,
    MetaRequest,
    ProgressRequest,
    ReportedRequest,
    RevokeRequest,
    decode_answer,
    encode_request,
)
from stem_iso.task.envelope import Envelope
from stem_iso.validation import Duration

if TYPE_CHECKING:
    from logging import Logger

    from stem_iso.outcome import TaskStatus
    from stem_iso.task.options import EnqueueFields

H = TypeVar("H")
H_co = TypeVar("H_co", covariant=True)
Offload = Callable[..., Awaitable[Any]]  # runs a blocking call beside the loop: `asyncio.to_thread`


class RetryRequested(BaseException):
    """How `context.retry()` leaves the handler. No Exception: a broad `except Exception` must not swallow it."""

    def __init__(self, retry: RetryAsked) -> None:
        super().__init__("the handler asked for a retry")
        self.retry = retry


class Surrounds(Protocol):
    def around(self, context: TaskContext) -> AbstractContextManager[object]:
        """What is entered before the handler runs, and left after it."""


class EnqueuedTask(Protocol):
    """What a handler gets of a task that it enqueued by name: a `TaskHandle`, without the waiting that a handler may not do.

    Each raises BrokerUnavailable; `status` also UnknownResult.
    """

    id: str
    queue: str | None

    def status(self) -> TaskStatus: ...
    async def astatus(self) -> TaskStatus: ...
    def revoke(self, terminate: bool = False) -> bool: ...
    async def arevoke(self, terminate: bool = False) -> bool: ...
    def forget(self) -> bool: ...
    async def aforget(self) -> bool: ...


class Enqueueable(Protocol[H_co]):
    """A `Task`: what it enqueues has a handle of its own type."""

    @property
    def name(self) -> str: ...

    def enqueue(self, *args: Any, **kwargs: Any) -> H_co: ...


class Sender(Protocol):
    """Makes envelopes out of tasks: the application, as the context knows it."""

    @property
    def middleware(self) -> Surrounds: ...

    def enqueue_from(self, context: TaskContext, task: Any, args: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
        """The handle of what was enqueued: an EnqueuedTask."""


class TaskContext:
    """One attempt, as its handler sees it. Usable from any thread of the handler.

    Calls that need the broker (`extend_lease`, `enqueue`, `revoke`) wait for the answer and raise what went wrong there; each has a form
    for coroutines with an `a` before its name.
    """

    def __init__(
        self,
        header: CallHeader,
        port: ContextPort,
        sender: Sender | None = None,
        *,
        offload: Offload | None = None,
        max_payload_bytes: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.header, self._port, self._sender, self.offload, self._clock = header, port, sender, offload, clock
        self._most = max_payload_bytes
        self.id, self.name, self.queue = header.id, header.name, header.queue
        self.run, self.attempt, self.max_retries = header.run, header.attempt, header.max_retries
        self.headers: dict[str, Any] = header.headers
        self.args: dict[str, Any] = {}
        self._meta = Meta(header.meta, self._send)
        self.main: str | None = None  # what `__main__` means in names of classes, if not this process's own
        self.is_reported = False  # an error tracker has this attempt's error
        self.run_coroutine: Callable[[Awaitable[Any]], Any] | None = None  # where its caller is sync; None: in a loop of its own

    # -- what is known -------------------------------------------------------------------------------------------------------------

    @property
    def meta(self) -> dict[str, Any]:
        """Kept with the status and carried to the next attempt from the moment an item is set; a change inside a value, from the end."""
        return self._meta

    @meta.setter
    def meta(self, value: Mapping[str, Any]) -> None:
        self._meta.replace(value)

    @property
    def idempotency_key(self) -> str:
        """The task's id: the same in every attempt, redelivery and replay of it, and no other task's. Give it to services that drop what
        they have seen; where one handler asks for several effects, with a suffix for each.

        The same in a replay, because what failed may have had its effect all the same: an operator who replays wants it done, not done
        twice. Who wants it done again enqueues it again.
        """
        return self.id

    @property
    def previous(self) -> Any:
        """The result before this task in a chain, the list of a chord's members, the error behind a `link_error`; None: nothing is."""
        return None if self.header.previous is None else unpack(self.header.previous)

    @property
    def cpus(self) -> frozenset[int] | None:
        """The cores that are this task's own (`cpu_bound=True`); None: it shares the worker's."""
        return self._port.cpus

    @property
    def isolated(self) -> bool:
        return self._port.isolated

    @property
    def local(self) -> bool:
        """Whether the task was simply called, outside a worker."""
        return isinstance(self._port, LocalPort)

    @property
    def in_place(self) -> bool:
        """Whether the handler runs in the thread that enqueued it (`stem_iso.testing.test_mode`), and shares what is that thread's own."""
        return getattr(self._port, "in_place", False)  # the other ports are of processes and threads of a worker

    @property
    def deadline(self) -> float | None:
        """When the hard limit is reached, in seconds of `time.monotonic()`; None without one."""
        return self._port.hard_deadline

    @property
    def remaining(self) -> float | None:
        """Seconds until the hard limit, never below 0; None without one."""
        deadline = self._port.hard_deadline
        return None if deadline is None else max(0.0, deadline - self._clock())

    @property
    def soft_limit_reached(self) -> bool:
        deadline = self._port.soft_deadline
        return deadline is not None and self._clock() >= deadline

    @property
    def logger(self) -> Logger:
        import logging  # handlers that never log do not pay for it

        return logging.getLogger(self.name)

    # -- what can be said ----------------------------------------------------------------------------------------------------------

    def heartbeat(self) -> None:
        """Renews the lease and proves that the handler is alive."""
        self._port.beat()

    def progress(self, percent: float, data: Any = None) -> None:
        """To listeners and into the status. `percent` is kept within 0..100. Raises TypeError if `data` is no plain data, and
        PayloadTooLarge past `max_payload_bytes`."""
        if not validation.is_number(percent) or math.isnan(percent):
            raise TypeError(f"percent: {percent!r} is no number")
        try:
            plain = None if data is None else unpack(pack(data))
        except TypeError as error:
            raise TypeError(f"data: {data!r} cannot be sent: {error}") from None
        self._send(ProgressRequest(min(100.0, max(0.0, float(percent))), plain))

    def retry(self, countdown: Duration | None = None, eta: datetime | None = None, max_retries: int | None = None) -> Any:
        """Ends this attempt and asks for the next; never returns. Without `countdown` and `eta` the retry strategy names the delay."""
        if countdown is not None and eta is not None:
            raise InvalidOptions("give countdown or eta, not both")
        raise RetryRequested(
            RetryAsked(
                None if countdown is None else validation.delay("countdown", countdown),
                None if eta is None else validation.instant("eta", eta),
                None if max_retries is None else validation.count("max_retries", max_retries),
            )
        )

    # -- what is asked for ---------------------------------------------------------------------------------------------------------

    def extend_lease(self, by: Duration) -> None:
        """The lease ends at least `by` from now. Raises LeaseLost."""
        self._request(ExtendRequest(validation.duration("by", by)))

    async def aextend_lease(self, by: Duration) -> None:
        await self._in_thread(self.extend_lease, by)

    @overload
    def enqueue(self, task: str, args: Mapping[str, Any] | None = None, **options: Unpack[EnqueueFields]) -> EnqueuedTask: ...
    @overload
    def enqueue(self, task: Enqueueable[H], args: Mapping[str, Any] | None = None, **options: Unpack[EnqueueFields]) -> H: ...
    def enqueue(self, task: Any, args: Mapping[str, Any] | None = None, **options: Unpack[EnqueueFields]) -> Any:
        """Enqueue a `Task`, or one by name, as a child of this one (`parent_id`, `root_id`). Options as in `Task.using`."""
        if self._sender is None:
            raise StemError("this context belongs to no application; enqueue through the task itself")
        return self._sender.enqueue_from(self, task, args or {}, options)

    @overload
    async def aenqueue(self, task: str, args: Mapping[str, Any] | None = None, **options: Unpack[EnqueueFields]) -> EnqueuedTask: ...
    @overload
    async def aenqueue(self, task: Enqueueable[H], args: Mapping[str, Any] | None = None, **options: Unpack[EnqueueFields]) -> H: ...
    async def aenqueue(self, task: Any, args: Mapping[str, Any] | None = None, **options: Unpack[EnqueueFields]) -> Any:
        return await self._in_thread(lambda: self.enqueue(task, args, **options))

    def revoke(self, task_id: str, terminate: bool = False) -> bool:
        """Cancel other work. True if there was anything to revoke; False if it had ended, or nobody knows the id."""
        return bool(self._request(RevokeRequest(task_id, terminate)))

    async def arevoke(self, task_id: str, terminate: bool = False) -> bool:
        return bool(await self._in_thread(self.revoke, task_id, terminate))

    # -- for the application -------------------------------------------------------------------------------------------------------

    @property
    def lineage(self) -> tuple[str, str]:
        """`parent_id` and `root_id` of what this attempt enqueues."""
        return self.id, self.header.root_id or self.id

    def speaks_for(self, app: Sender) -> bool:
        """Whether what `app` enqueues here goes through this context: it is a worker's, of that application."""
        return not self.local and (self._sender is None or self._sender is app)

    def publish(self, envelopes: list[Envelope]) -> list[str]:
        ids: list[str] = self._request(EnqueueRequest(envelopes))
        return ids

    def compose(self, canvas: Canvas) -> None:
        self._request(ComposeRequest(canvas))

    def reported(self) -> None:
        """An error tracker has this attempt's error, from here: `reported` in the signal of its end."""
        self.is_reported = True
        self._send(ReportedRequest())

    def finish(self) -> None:
        """The handler has ended: send what it changed inside values of `meta`."""
        self._meta.send_if_changed()

    def _send(self, request: ContextRequest) -> None:
        what = "meta" if isinstance(request, MetaRequest) else "the data of progress()"
        self._port.send(self._fitting(what, request, 1))

    def _request(self, request: ContextRequest) -> Any:
        answer = decode_answer(self._port.request(self._fitting("what is asked for in one step", request, AT_ONCE)))
        if answer.error is not None:
            raise _error_of(*answer.error)
        return answer.value

    def _fitting(self, what: str, request: ContextRequest, times: int) -> bytes:
        """Raises PayloadTooLarge here, where it is said, and not where it would stall the worker."""
        data = encode_request(request)
        if self._most is not None and len(data) > times * self._most:
            allowed = f"max_payload_bytes is {self._most:,}" + (f", and {times} times that may be asked for at once" if times > 1 else "")
            raise PayloadTooLarge(f"{what} is {len(data):,} bytes, {allowed}: pass a reference (a path, a key) instead, or less at a time")
        return data

    async def _in_thread(self, call: Callable[..., Any], *args: Any) -> Any:
        return call(*args) if self.offload is None else await self.offload(_run, call, *args)

    def __repr__(self) -> str:
        return f"<TaskContext {self.name} {self.id} run {self.run} attempt {self.attempt}>"


def _run(call: Callable[..., Any], *args: Any) -> Any:
    try:
        return call(*args)
    except StopIteration as error:  # of user code; asyncio up to 3.11 would never end the wait
        raise errors.let_out(error) from error


def _error_of(type: str, message: str) -> StemError:
    # These take their message alone; the others carry fields, and come as RemoteError with their text.
    plain = ("InvalidOptions", "UnknownTask", "UnknownResult", "PayloadTooLarge", "BrokerUnavailable", "LeaseLost")
    if type in plain:
        error: StemError = getattr(errors, type)(message)
        return error
    return RemoteError(type, message)


_current: ContextVar[TaskContext] = ContextVar("stem_iso.current_context")


def current_context() -> TaskContext | None:
    """The context of the task that runs here, from however deep; None outside of one."""
    return _current.get(None)


class entered:
    """`current_context()` answers `context` inside. A class, since a generator's would cost every call half a microsecond."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: TaskContext) -> None:
        self._context = context

    def __enter__(self) -> TaskContext:
        self._token = _current.set(self._context)
        return self._context

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


def local_to(around: TaskContext | None, id: str, name: str, args: dict[str, Any], sender: Sender) -> TaskContext:
    """The context of a task that is called here: as the local context `around` it says, whose `meta` it writes; without one, a task of
    its own with this id, or the idempotency keys of two calls would be one."""
    header = CallHeader(id=id, name=name, queue="default") if around is None else msgspec.structs.replace(around.header, name=name)
    context = TaskContext(header, LocalPort(), sender)
    if around is not None:
        context._meta = around._meta
    context.args = args
    return context
