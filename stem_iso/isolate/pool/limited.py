"""Executors that give every call the same limits. The pool is one (its limits: none), and so is each of its views.

pool.with_limits(hard=2) ──> LimitedPool ── submit · map · run ──> the pool's isolates
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from stem_iso.isolate.limits import Limits
from stem_iso.isolate.pool.backend import OpenCalls, PoolBackend
from stem_iso.isolate.pool.future import IsolateFuture
from stem_iso.isolate.pool.map import Results
from stem_iso.validation import Duration, Size

if TYPE_CHECKING:
    import asyncio

P = ParamSpec("P")
T = TypeVar("T")

WINDOW = 64  # calls in flight in a `map` at least; four for each seat where there are many


class Limited(Executor):
    """What a pool and its views have in common."""

    def __init__(self, desk: PoolBackend, gate: OpenCalls, limits: Limits) -> None:
        self._desk, self._gate, self._limits = desk, gate, limits

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> IsolateFuture[T]:
        """Run `fn(*args, **kwargs)` in an isolate. What becomes of it is in the future, an argument that cannot be pickled included.

        Raises RuntimeError after `shutdown`, and in a forked child.
        """
        return self._desk.submit(self._gate, fn, args, kwargs, self._limits)

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
        window = max(WINDOW, 4 * self._desk.size) if buffersize is None else buffersize
        self._refuse_if_shut()
        return Results(self.submit, self._refuse_if_shut, fn, iterables, chunksize, window, timeout)

    def _refuse_if_shut(self) -> None:
        self._desk.refuse_if_shut(self._gate)

    async def run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """`submit` and wait, in an event loop. Cancelling the wait cancels the call: it is killed if it runs."""
        import asyncio  # here, since most programs with a pool have no loop

        future = self.submit(fn, *args, **kwargs)
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        try:
            if future.wake(LoopWaker(loop, waiter)):
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


class LimitedPool(Limited):
    """A pool under limits. It shares the pool's isolates, and lives no longer than the pool."""

    def __init__(self, parent: Limited, limits: Limits) -> None:
        super().__init__(parent._desk, OpenCalls(), limits)
        self._parent = parent  # a pool that is forgotten ends: not while there is a view of it

    def __repr__(self) -> str:
        named = ((name, getattr(self._limits, name)) for name in Limits.__dataclass_fields__)
        return f"<{', '.join(f'{name}={value!r}' for name, value in named if value)} of {self._parent!r}>"

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """This view takes no more calls; with `wait` return when those that it was given have ended, with `cancel_futures` those that have
        not begun are cancelled. The pool and its isolates go on.
        """
        if self._desk.elsewhere:
            return
        with self._desk.lock:
            self._gate.shut()
        if cancel_futures:
            self._desk.withdraw(self._gate)
        if wait:
            self._gate.drained.wait()


@dataclass(frozen=True, slots=True)
class LoopWaker:
    """The way of a settled future into an event loop. Called by whoever settles it."""

    loop: asyncio.AbstractEventLoop
    waiter: asyncio.Future[None]

    def release(self) -> None:
        try:
            self.loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # the loop has been closed: nobody waits there any more
            return

    def _wake(self) -> None:
        if not self.waiter.done():
            self.waiter.set_result(None)
