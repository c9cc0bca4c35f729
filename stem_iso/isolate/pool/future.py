"""The future of a call in an isolate: a `concurrent.futures.Future` that costs little until somebody waits for it.

    PENDING ──settle(FINISHED)──────────────> FINISHED                    callbacks: on the pool's callback thread
       └─────settle(CANCELLED_AND_NOTIFIED)─> CANCELLED_AND_NOTIFIED      waiters: woken by whoever settles

Rules
 1. Settled once. All settle under one lock of the pool, held for a few instructions. It is reentrant, because a finalizer or a signal's
    handler may cancel a future wherever it interrupts.
 2. The condition that `concurrent.futures.wait` and `as_completed` need is made when they first ask for it, because making one costs more
    than the whole way of a future through a pool. Once it exists the state changes only under it as well: they install their waiters
    under it, and must be notified of each change after that, and of none before. Order: condition, then lock.
 3. `result()` waits on a bare lock. Whoever waits adds one; settling releases it.
 4. The value is unpickled by whoever first asks for it, once, never by who settles: unpickling is user code.
 5. `running()` is no state: it is true from the start of the call until it is settled.

In a forked child nobody settles: waiting there raises at once.
"""

from __future__ import annotations

import concurrent.futures
import logging
from _thread import allocate_lock
from collections.abc import Callable
from concurrent.futures import CancelledError, InvalidStateError
from functools import partial
from threading import Condition, RLock
from typing import Any, Protocol, TypeVar

from stem_iso.errors import let_out
from stem_iso.isolate.engine.call import Call
from stem_iso.isolate.pool.callback_thread import is_ctrl_c
from stem_iso.validation import LONGEST, duration

log = logging.getLogger("stem_iso.isolate")

PENDING, CANCELLED, FINISHED = "PENDING", "CANCELLED_AND_NOTIFIED", "FINISHED"  # the words of concurrent.futures

T = TypeVar("T")
Callback = Callable[[concurrent.futures.Future[Any]], object]


class CallResult(Protocol):
    """What a call came to, as it arrived. `failed` is known at once, the rest is known to who opens it."""

    @property
    def failed(self) -> bool: ...

    def open(self) -> tuple[Any, BaseException | None]:
        """The value, or the error. Runs user code; raises nothing."""


class Waker(Protocol):
    """What a settled future releases: a bare lock, or a way into an event loop."""

    def release(self) -> None: ...


class Owner(Protocol):
    """What the futures of one pool share."""

    lock: Any

    def cancel(self, call: Call) -> None: ...

    def run_in_thread(self, work: Callable[[], object]) -> None: ...

    def refuse_elsewhere(self) -> None: ...


class IsolateFuture(concurrent.futures.Future[T]):
    """The result of a call in an isolate, as `concurrent.futures.Future` describes it, except that a running call can be cancelled."""

    # Class attributes are the state of a new future: it costs what it differs in.
    _state = PENDING
    _cond: Condition | None = None
    _answer: CallResult | None = None
    _value: Any = None
    _error: BaseException | None = None
    _opening: Any = None
    _done_callbacks: tuple[Callback, ...] = ()
    _wakers: tuple[Waker, ...] = ()
    _call: Call | None = None
    _begun = False

    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    def __repr__(self) -> str:
        if self._state == PENDING:
            return f"<IsolateFuture {'running' if self._begun else 'waiting'}>"
        return f"<IsolateFuture {'cancelled' if self._state == CANCELLED else 'failed' if self._failed else 'finished'}>"

    # -- asking --------------------------------------------------------------------------------------------------------------------

    def cancelled(self) -> bool:
        return self._state == CANCELLED

    def running(self) -> bool:
        return self._begun and self._state == PENDING

    def done(self) -> bool:
        return self._state != PENDING

    def result(self, timeout: float | None = None) -> T:
        """What the function returned, or raises what it raised, or what became of it: TimeoutException, MemoryLimitExceeded,
        IsolateCrashed, IsolateBootError, RemoteError (an error that cannot exist here), CancelledError; TimeoutError where it is not
        settled within `timeout` seconds (of waiting: the call runs on).
        """
        error = self.exception(timeout)
        if error is None:
            value: T = self._value
            return value
        try:
            raise error
        finally:
            del error, self  # the traceback would keep what it is kept by

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if self._state == PENDING:
            self._wait(timeout)
        if self._state == CANCELLED:
            raise CancelledError
        if self._answer is not None:
            self._open()
        return self._error

    def add_done_callback(self, fn: Callback) -> None:
        """Call `fn(self)` when it is settled, on the pool's callback thread; here and now if it is. What `fn` raises is logged."""
        with self._owner.lock:
            if self._state == PENDING:
                self._done_callbacks = (*self._done_callbacks, fn)
                return
        self._run_callback(fn)

    # -- ending --------------------------------------------------------------------------------------------------------------------

    def cancel(self) -> bool:
        """A call that waits never runs. One that runs is killed with all it started, and this is settled at once: what it replies is
        dropped. False if it was settled before.
        """
        self._owner.refuse_elsewhere()
        call = self._call
        if not self.settle(CANCELLED):
            return self._state == CANCELLED
        if call is not None:
            self._owner.cancel(call)
        return True

    def settle(self, state: str, answer: CallResult | None = None, error: BaseException | None = None) -> bool:
        """False if it was settled before. `error` is one that is known here, `answer` what an isolate said."""
        with self._owner.lock:
            if self._state != PENDING:
                return False
            cond = self._cond
            if cond is None:
                wakers, callbacks = self._put(state, answer, error)
        if cond is not None and self._owner.lock._is_owned():
            # A signal's handler or a finalizer, in the middle of what the lock guards: the condition may not be taken below it.
            self._owner.run_in_thread(partial(self.settle, state, answer, error))
            return True
        if cond is not None:
            with cond:
                with self._owner.lock:
                    if self._state != PENDING:
                        return False
                    wakers, callbacks = self._put(state, answer, error)
                self._notify_waiters()
                cond.notify_all()
        for waker in wakers:
            waker.release()
        if callbacks:
            self._owner.run_in_thread(partial(self._run_callbacks, callbacks))
        return True

    def begun(self, call: Call | None = None) -> None:
        """It has been handed to the engine (`call`), or is on its way to an isolate."""
        if call is None:
            self._begun = True
        elif self._state == PENDING:
            self._call = call
            if self._state != PENDING:  # settled in between
                self._call = None

    @property
    def call(self) -> Call | None:
        """None once it is settled: it holds the arguments."""
        return self._call

    def wake(self, waker: Waker) -> bool:
        """Release it when this is settled; False if it is."""
        with self._owner.lock:
            if self._state != PENDING:
                return False
            self._wakers = (*self._wakers, waker)
            return True

    def _put(self, state: str, answer: CallResult | None, error: BaseException | None) -> tuple[tuple[Waker, ...], tuple[Callback, ...]]:
        wakers, callbacks = self._wakers, self._done_callbacks
        self._answer, self._error, self._state = answer, error, state
        self._call = None  # it holds the arguments
        if wakers:
            self._wakers = ()
        if callbacks:
            self._done_callbacks = ()
        return wakers, callbacks

    def _wait(self, timeout: float | None) -> None:
        self._owner.refuse_elsewhere()
        if timeout is not None and timeout > LONGEST:
            duration("timeout", timeout)
        woken = allocate_lock()
        woken.acquire()
        if self.wake(woken) and not woken.acquire(True, -1 if timeout is None else max(0.0, timeout)):
            with self._owner.lock:
                self._wakers = tuple(each for each in self._wakers if each is not woken)
            if self._state == PENDING:
                raise TimeoutError

    def _open(self) -> None:
        with self._owner.lock:
            self._opening = opening = self._opening or RLock()
        with opening:
            if self._answer is not None:
                self._value, self._error = self._answer.open()
                self._answer = None

    def _run_callbacks(self, callbacks: tuple[Callback, ...]) -> None:
        for fn in callbacks:
            self._run_callback(fn)

    def _run_callback(self, fn: Callback) -> None:
        try:
            fn(ForAsyncio(self) if getattr(fn, "__module__", None) == "asyncio.futures" else self)  # type: ignore[arg-type]
        except BaseException as error:  # user code; f.result() lets SystemExit and SoftTimeLimitExceeded through, which are no Exceptions
            if is_ctrl_c(error):
                raise
            log.exception("the callback %r of %r raised", fn, self)

    @property
    def _failed(self) -> bool:
        return self._error is not None or (self._answer is not None and self._answer.failed)

    # -- for concurrent.futures and asyncio, which look inside ---------------------------------------------------------------------

    @property
    def _condition(self) -> Condition:  # type: ignore[override]
        with self._owner.lock:
            if self._cond is None:
                self._waiters: list[Any] = []
                self._cond = Condition()
            return self._cond

    @property
    def _result(self) -> Any:  # type: ignore[override]
        self._open()
        return self._value

    @property
    def _exception(self) -> BaseException | None:  # type: ignore[override]
        self._open()
        return self._error

    def _notify_waiters(self) -> None:
        for waiter in self._waiters:
            notify = waiter.add_cancelled if self._state == CANCELLED else waiter.add_exception if self._failed else waiter.add_result
            notify(self)

    def set_running_or_notify_cancel(self) -> bool:
        """For executors; the pool settles its own futures."""
        raise InvalidStateError("this future is settled by its IsolatePool")

    def set_result(self, result: T) -> None:
        raise InvalidStateError("this future is settled by its IsolatePool")

    def set_exception(self, exception: BaseException | None) -> None:
        raise InvalidStateError("this future is settled by its IsolatePool")


class ForAsyncio:
    """A settled future as asyncio's own callback sees it (`wrap_future`, `run_in_executor`).

    Up to Python 3.11 that refuses a StopIteration, and whoever awaits it would wait for ever; later ones make the same RuntimeError of it.
    """

    __slots__ = ("_future",)

    def __init__(self, future: IsolateFuture[Any]) -> None:
        self._future = future

    def exception(self) -> BaseException | None:
        error = self._future.exception()
        return let_out(error) if isinstance(error, StopIteration) else error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._future, name)
