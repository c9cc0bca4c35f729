"""`IsolatePool`: isolation without a queue, as a `concurrent.futures.Executor`.

    program ── submit ──> backend ──> engine ──> isolate: one call at a time, killed at its limit with all that it started
       ^                                               │
       └────── future, listeners, printed lines <──────┘

    pool.with_limits(hard=2) ──> LimitedPool ── submit · map · run ──> the pool's isolates

    backend  engine, open calls, shutdown    future           settled once, opened by the asker    payload        values as bytes and memory
    reply    from an outcome to a result     callback_thread  threads for user code                remote_errors  errors that travel
    map      the window of a `map`           function_refs    what travels by name                  loop_wakeups   ends for an event loop

Rules
 1. The engine's thread runs no user code: arguments are pickled by the submitter, results unpickled by the asker, callbacks and listeners
    have threads of their own. A callback that blocks delays no kill.
 2. A program that forgets to shut its pool down finishes what it submitted; one that is killed leaves nothing (the keeper's work).
 3. Nothing of a queue is imported.

It does not promise to be quick for calls of a few microseconds: each crosses two processes.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn, ParamSpec, TypeVar

import msgspec

from stem_iso.errors import InvalidOptions
from stem_iso.isolate.child.functions import LARGEST_FRAME, PoolStart
from stem_iso.isolate.interfaces import NO_LIMITS, Boot, Limits
from stem_iso.isolate.linux import require_linux
from stem_iso.isolate.machine import allowed_cores
from stem_iso.isolate.payload import pack
from stem_iso.isolate.pool.backend import Notice, OpenCalls, PoolBackend
from stem_iso.isolate.pool.future import IsolateFuture
from stem_iso.isolate.pool.map import Results
from stem_iso.validation import Duration, Size, duration, is_whole, optional_memory, whole

TARGET = "stem_iso.isolate.child.functions:boot"
MOST = 512  # seats and spares together: half of what a keeper has room for, since the dying need theirs
WINDOW = 64  # calls in flight in a `map` at least; four for each seat where there are many

P = ParamSpec("P")
T = TypeVar("T")
L = TypeVar("L", bound=Callable[[Notice], object])


class Limited(Executor):
    """Executor that gives every call the same limits: the pool, whose limits are none, and each of its views."""

    def __init__(self, backend: PoolBackend, open_calls: OpenCalls, limits: Limits) -> None:
        self._backend, self._open_calls, self._limits = backend, open_calls, limits

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> IsolateFuture[T]:
        """Run `fn(*args, **kwargs)` in an isolate. What becomes of it is in the future, an argument that cannot be pickled included.

        Raises RuntimeError after `shutdown`, and in a forked child.
        """
        return self._backend.submit(self._open_calls, fn, args, kwargs, self._limits)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """The results of `fn` over the iterables, in their order. A StopIteration that `fn` lets out becomes a RuntimeError.

        At most `buffersize` calls (default: 64, or four for each seat) are in flight or wait to be asked for, so the iterables may be
        endless. A failure is raised where its result is asked for, and the iterator goes on behind it. Dropping the iterator, by leaving
        the loop or by `close()`, cancels what is in flight. With `chunksize` above 1 so many items are one call, under one limit: what
        ends it ends them all. TimeoutError (not a TimeoutException) is raised, and all is cancelled, where a result is not there `timeout`
        seconds after `map` was called. After `shutdown` come the results of what was submitted, then one RuntimeError. Raises
        ValueError for a chunksize or buffersize below 1, RuntimeError as `submit`.
        """
        window = max(WINDOW, 4 * self._backend.size) if buffersize is None else buffersize
        self._refuse_if_shut()
        return Results(self.submit, self._refuse_if_shut, fn, iterables, chunksize, window, timeout)

    def _refuse_if_shut(self) -> None:
        self._backend.refuse_if_shut(self._open_calls)

    async def run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """`submit` and wait, in an event loop. Cancelling the wait cancels the call: it is killed if it runs."""
        import asyncio  # here, since most programs with a pool have no loop

        waiter = self._backend.loop_waiter(asyncio.get_running_loop())
        future = self.submit(fn, *args, **kwargs)
        try:
            if future.wake(waiter):
                await waiter
            return future.result()
        except BaseException:  # the wait was cancelled, or the coroutine closed
            future.cancel()
            raise

    def with_limits(
        self,
        *,
        soft: Duration | None = None,
        hard: Duration | None = None,
        memory: Size | None = None,
        cpus: int | None = None,
        heartbeat: Duration | None = None,
        raise_soft: bool = False,
    ) -> LimitedPool:
        """The same isolates under limits, as an executor; what is not named here is without limit. See `Limits`; raises InvalidOptions."""
        return LimitedPool(self, Limits(soft, hard, heartbeat, raise_soft, memory, cpus))


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Counts of this moment. `spare` stand ready beyond those that calls have used; `dying` are killed and not gone yet; `waiting` are
    calls; `dropped` are notices that a listener was too slow for, and lines that functions printed and nobody took from stdout in time.
    """

    idle: int
    busy: int
    spare: int
    booting: int
    dying: int
    waiting: int
    dropped: int


class IsolatePool(Limited):
    """Runs functions in processes that can be killed, each call alone in one. A `concurrent.futures.Executor`.

    max_workers             calls at a time (default: the cores this process may use)
    spares                  isolates that stand ready beside them, so that the call after a kill starts at once
    preload                 names of modules that each isolate imports before it is ready
    initializer, initargs   called once in each isolate, before it is ready
    max_tasks_per_isolate   an isolate is replaced after so many calls
    max_memory_per_isolate  ... or when it holds more than so much after a call: bytes, or "512MiB"
    boot_time_limit         seconds (or a timedelta) for an isolate to become ready, charged to no call
    secrets                 environment variables that no isolate sees

    An isolate that cannot start (its initializer raises, say) fails every waiting call with IsolateBootError. What functions print appears
    on this program's stdout and stderr, what they log in its `logging`. Raises InvalidOptions (a ValueError), TypeError, what pickling the
    initializer raises, and RuntimeError where there is no Linux 5.4.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        spares: int = 1,
        preload: Iterable[str] = (),
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        max_tasks_per_isolate: int | None = None,
        max_memory_per_isolate: Size | None = None,
        boot_time_limit: Duration = 60.0,
        secrets: Iterable[str] = (),
    ) -> None:
        require_linux("IsolatePool")
        size = allowed_cores() if max_workers is None else max_workers
        check_size(size, spares)
        if max_tasks_per_isolate is not None:
            number("max_tasks_per_isolate", max_tasks_per_isolate, 1)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        memory = optional_memory("max_memory_per_isolate", max_memory_per_isolate)
        started = b"" if initializer is None else pack((initializer, tuple(initargs)), outside=False, by_name=True).data
        start = msgspec.msgpack.encode(PoolStart(names("preload", preload), started))
        limit, level = duration("boot_time_limit", boot_time_limit), logging.getLogger().getEffectiveLevel()
        boot = Boot(TARGET, start, names("secrets", secrets), limit, largest_frame=LARGEST_FRAME, log_level=level)
        backend = PoolBackend(boot, size=size, spares=spares, max_calls=max_tasks_per_isolate, max_memory=memory)
        super().__init__(backend, backend.open_calls, NO_LIMITS)
        weakref.finalize(self, backend.shut).atexit = False  # a pool that is forgotten finishes its calls and ends

    def __repr__(self) -> str:
        if self._backend.elsewhere:
            return "<IsolatePool of another process>"
        if self._open_calls.is_shut:
            left = len(self._open_calls.live)
            return f"<IsolatePool shut down | {left} left>" if left else "<IsolatePool shut down>"
        now = self.stats()
        passing = "".join(f", {count} {what}" for what, count in (("booting", now.booting), ("dying", now.dying)) if count)
        return f"<IsolatePool {now.idle} idle, {now.busy} busy, {now.spare} spare{passing} | {now.waiting} waiting>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an IsolatePool stays in its process: make one in the function that needs it")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Finish what was submitted, as every executor does; but Ctrl-C, before or meanwhile, ends it at once."""
        try:
            if kind is not None and issubclass(kind, KeyboardInterrupt):
                self.kill_workers()
            else:
                self.shutdown()
        except KeyboardInterrupt:
            self.kill_workers()
            raise

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """No more calls. Those submitted are finished, but with `cancel_futures` those that have not begun are cancelled. With `wait`
        return when all isolates are gone and all callbacks have run (called from a callback or a listener: when all isolates are gone),
        else at once. In a forked child it does nothing.
        """
        self._backend.shutdown(wait, cancel_futures)

    def kill_workers(self) -> None:
        """End it now: running calls are killed, waiting ones cancelled, and all isolates are gone when this returns; callbacks may
        still run then.
        """
        self._backend.kill()

    def resize(self, max_workers: int, spares: int = 1) -> None:
        """From now on so many calls at a time, and so many spares. What runs is not disturbed. Raises InvalidOptions."""
        check_size(max_workers, spares)
        self._backend.refuse_elsewhere()
        self._backend.engine.resize(max_workers, spares)

    def on(self, listener: L) -> L:
        """Call `listener(notice)` for each LimitNotice (a soft or hard limit, with the stack) and IsolateNotice (spawned, ready, recycled,
        boot-failed, stuck), on a thread for listeners. Returns it, so that it can decorate. What it raises is logged; if it lags by 10,000
        notices, further ones are dropped and counted.
        """
        self._backend.listen(listener)
        return listener

    def stats(self) -> PoolStats:
        """Raises RuntimeError in a forked child."""
        self._backend.refuse_elsewhere()
        now, spares = self._backend.engine.stats(), self._backend.engine.spares
        spare = min(spares, now.idle)
        return PoolStats(now.idle - spare, now.busy, spare, now.booting, now.dying, now.waiting, self._backend.dropped)


class LimitedPool(Limited):
    """A pool under limits. It shares the pool's isolates, and lives no longer than the pool."""

    def __init__(self, parent: Limited, limits: Limits) -> None:
        super().__init__(parent._backend, OpenCalls(), limits)
        self._parent = parent  # a pool that is forgotten ends: not while there is a view of it

    def __repr__(self) -> str:
        named = ((name, getattr(self._limits, name)) for name in Limits.__dataclass_fields__)
        return f"<{', '.join(f'{name}={value!r}' for name, value in named if value)} of {self._parent!r}>"

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """This view takes no more calls; with `wait` return when those that it was given have ended, with `cancel_futures` those that have
        not begun are cancelled. The pool and its isolates go on.
        """
        if self._backend.elsewhere:
            return
        self._open_calls.shut()
        if cancel_futures:
            self._backend.withdraw(self._open_calls)
        if wait:
            self._open_calls.drained.wait()


def check_size(max_workers: Any, spares: Any) -> None:
    if isinstance(max_workers, int) and max_workers <= 0:
        raise InvalidOptions(f"max_workers must be greater than 0, not {max_workers}")
    number("max_workers", max_workers, 1)
    number("spares", spares, 0)
    if max_workers + spares > MOST:
        raise InvalidOptions(f"max_workers ({max_workers}) and spares ({spares}) must be {MOST} or fewer together")


def number(name: str, value: Any, least: int) -> None:
    """A wrong type is a TypeError here, as of every executor."""
    if not is_whole(value):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    whole(name, value, least)


def names(name: str, given: Iterable[str]) -> tuple[str, ...]:
    found = tuple(given)
    if isinstance(given, str) or not all(isinstance(each, str) for each in found):
        raise TypeError(f"{name} must be several names, not {given!r}")
    return found
