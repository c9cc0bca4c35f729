"""Backend of a pool and of its limited views: the engine, the open calls, the shutdown.

    submit ── pack ──> PoolCall, Job ──> engine ──> PoolCall.ended ──> future settled
                                            └─ notices, printed lines ──> threads of their own (`callback_thread`)

    open ──shut──> no new calls ──last call ended──> engine closed ──> threads ended
      └────kill──────────^ and all calls cancelled

Rules
 1. The lock is held for a few instructions, and never while the engine's is taken. It is reentrant: a finalizer may cancel anywhere.
 2. Whatever the end (`shutdown`, the pool forgotten, the interpreter's exit), what was submitted is finished first, but for `kill`.
 3. A forked child has no engine: it is refused, and its end touches nothing of the parent's.
 4. At most MEMFDS payloads wait in memfds; what more is submitted meanwhile travels through the pipe, slower, but costs no descriptor.
    They are closed on a thread of their own: the kernel takes 13 ms to free 100 MiB, and no limit of another call may wait for that.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from threading import Event, RLock
from typing import TYPE_CHECKING, Any

from stem_iso.errors import IsolateBootError
from stem_iso.isolate import log_record
from stem_iso.isolate import payload as payloads
from stem_iso.isolate.engine.call import Call
from stem_iso.isolate.engine.engine import Engine
from stem_iso.isolate.engine.keeper_client import KeeperLost
from stem_iso.isolate.engine.output import STDERR, STDOUT
from stem_iso.isolate.interfaces import Answer, Boot, IsolateNotice, Job, LimitNotice, Limits
from stem_iso.isolate.pool.callback_thread import CallbackThread
from stem_iso.isolate.pool.function_refs import Names, title_of
from stem_iso.isolate.pool.future import CANCELLED, FINISHED, IsolateFuture
from stem_iso.isolate.pool.reply import Reply, error_of
from stem_iso.outcome import Outcome, Stopped, StopReason, Succeeded

if TYPE_CHECKING:
    import asyncio

    from stem_iso.isolate.pool.loop_wakeups import LoopWaiter, LoopWakeups

log = logging.getLogger("stem_iso.isolate")

Notice = LimitNotice | IsolateNotice
Listener = Callable[[Notice], object]

SHUT = "cannot schedule new futures after shutdown"  # as the executors of the standard library say it
MEMFDS = 64
NOTICES = 10_000  # that may wait for a listener that lags
OUTPUT, LINE = 64 << 20, 64  # bytes of text that may wait for a terminal that lags; what a block of it costs beside


class OpenCalls:
    """Calls of a pool, or of one of its limited views, that have not ended. `drained`: shut, and empty.

    Without a lock: a call is in `live` before it looks whether this was shut, and this is shut before `live` is looked at. So either the
    call is refused or `drained` waits for it.
    """

    def __init__(self) -> None:
        self.live: set[PoolCall] = set()
        self.is_shut = False
        self.drained = Event()

    def leave(self, pool_call: PoolCall) -> None:
        self.live.discard(pool_call)
        if self.is_shut:
            self._check_drained()

    def shut(self) -> None:
        self.is_shut = True
        self._check_drained()

    def _check_drained(self) -> None:
        if not self.live:
            self.drained.set()


class PoolBackend:
    """Owned by its pool, which it does not know: a pool that is forgotten ends."""

    def __init__(self, boot: Boot, *, size: int, spares: int, max_calls: int | None, max_memory: int | None) -> None:
        self.lock = RLock()
        self.open_calls = OpenCalls()
        self._process = os.getpid()
        self._memfds: set[Memfd] = set()  # those that are open
        self._names = Names()
        self._loop: LoopWakeups | None = None  # of the loop that waited last
        self._listeners: tuple[Listener, ...] = ()
        self._callbacks, self._closer = CallbackThread("stem_iso-callbacks"), CallbackThread("stem_iso-memory")
        self.notices, self._output = (
            CallbackThread("stem_iso-listeners", NOTICES, "notices"),
            CallbackThread("stem_iso-output", OUTPUT, "lines of output"),
        )
        self.engine = Engine(
            boot,
            size=size,
            spares=spares,
            max_calls=max_calls,
            max_memory=max_memory,
            on_isolate=self.notify,
            on_closed=self._engine_closed,
        )
        try:
            self.engine.start()
        except KeeperLost as error:
            raise IsolateBootError(str(error)) from None
        atexit.register(self._at_exit)

    @property
    def size(self) -> int:
        return self.engine.size

    # -- in ------------------------------------------------------------------------------------------------------------------------

    def submit(
        self, open_calls: OpenCalls, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], limits: Limits
    ) -> IsolateFuture[Any]:
        """Raises RuntimeError in a forked child, and where this view or the pool is shut."""
        self.refuse_if_shut(open_calls)
        future: IsolateFuture[Any] = IsolateFuture(self)
        named = self._names.find(function)
        try:
            bulky = any(map(payloads.is_bulk, args))
            given = (args, kwargs) if named else (function, args, kwargs)
            packed = payloads.pack(given, outside=len(self._memfds) < MEMFDS, bulky=bulky, by_name=True)
        except Exception as error:  # user code: it fails this call, and no other
            error.add_note(f"The arguments of {title_of(function)[len('stem_iso: ') :]} cannot be sent to an isolate.")
            future.settle(FINISHED, error=error.with_traceback(None))  # its frames hold the arguments
            return future
        entry, title = (named.entry, named.title) if named else (self._names.carried, title_of(function))
        pool_call = PoolCall(self, open_calls, future, packed.descriptor)
        try:
            self._enter(open_calls, pool_call)
            call = self.engine.submit(Job(entry, packed.data, title, limits, 0, packed.descriptor), pool_call)
            assert isinstance(call, Call)
            future.begun(call)
        except BaseException:  # it was shut meanwhile; or Ctrl-C anywhere in between: nobody has the future, or may wait for its end
            future.cancel()
            if pool_call.memfd is not None:  # closed when the engine, which may have it by now, has let go of it
                self._memfds.discard(pool_call.memfd)
            self.leave(open_calls, pool_call)
            raise
        return future

    def refuse_if_shut(self, open_calls: OpenCalls) -> None:
        if os.getpid() != self._process:
            self.refuse_elsewhere()
        if open_calls.is_shut or self.open_calls.is_shut:
            raise RuntimeError(SHUT)

    def _enter(self, open_calls: OpenCalls, pool_call: PoolCall) -> None:
        if pool_call.memfd is not None:
            self._memfds.add(pool_call.memfd)
        self.open_calls.live.add(pool_call)
        open_calls.live.add(pool_call)
        if open_calls.is_shut or self.open_calls.is_shut:
            raise RuntimeError(SHUT)

    # -- what futures and calls need -----------------------------------------------------------------------------------------------

    def cancel(self, call: Call) -> None:
        self.engine.stop(call, StopReason.REVOKED)

    def run_in_thread(self, work: Callable[[], object]) -> None:
        self._callbacks.put(work)

    def loop_waiter(self, loop: asyncio.AbstractEventLoop) -> LoopWaiter:
        wakeups = self._loop
        if wakeups is None or wakeups.loop is not loop:
            from stem_iso.isolate.pool.loop_wakeups import LoopWakeups  # here, since it imports asyncio

            wakeups = self._loop = LoopWakeups(loop)
        return wakeups.waiter()

    def free(self, memfd: Memfd) -> None:
        self._closer.put(partial(self._free, memfd))

    def _free(self, memfd: Memfd) -> None:
        memfd.close()
        self._memfds.discard(memfd)

    def refuse_elsewhere(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError(f"this IsolatePool belongs to process {self._process}: make another one after a fork")

    def leave(self, open_calls: OpenCalls, pool_call: PoolCall) -> None:
        self.open_calls.leave(pool_call)
        if open_calls is not self.open_calls:
            open_calls.leave(pool_call)
        if self.open_calls.is_shut and self.open_calls.drained.is_set():
            self.engine.close(wait=False)

    # -- notices, output -----------------------------------------------------------------------------------------------------------

    def listen(self, listener: Listener) -> None:
        with self.lock:
            self._listeners = (*self._listeners, listener)

    def notify(self, notice: Notice) -> None:
        for listener in self._listeners:
            self.notices.put(partial(listener, notice))

    def printed(self, level: int, logger: str, text: str, details: bytes) -> None:
        self._output.put(partial(show, level, logger, text, details), len(text) + len(details) + LINE, text.count("\n") + 1)

    @property
    def dropped(self) -> int:
        """Notices and lines of output that nobody took in time."""
        return self.notices.dropped + self._output.dropped

    # -- the end -------------------------------------------------------------------------------------------------------------------

    @property
    def elsewhere(self) -> bool:
        return os.getpid() != self._process

    def shut(self) -> None:
        """No new calls; the engine closes with the last one. Waits for nothing, and takes no lock but its own."""
        if self.elsewhere:
            return
        self.open_calls.shut()
        if self.open_calls.drained.is_set():
            self.engine.close(wait=False)

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        if self.elsewhere:
            return
        self.shut()
        if cancel_futures:
            self.withdraw(self.open_calls)
        if wait:
            self.open_calls.drained.wait()
            self.engine.close()
            # From a callback or a listener it waits for neither: two that do so at once would wait for each other.
            self._close_threads(wait=not any(thread.is_here for thread in self._threads))

    def kill(self) -> None:
        """Everything, now."""
        if self.elsewhere:
            return
        self.shut()
        self._cancel_all()
        self.engine.close(at_once=True)
        for pool_call in self._cancel_all():  # what an interrupted thread had not quite submitted
            pool_call.close()
        self._close_threads(wait=False)  # a callback may take as long as it likes: this does not

    def withdraw(self, open_calls: OpenCalls) -> None:
        """Cancel what has not begun."""
        pool_calls = list(open_calls.live)
        for pool_call in pool_calls:
            call = pool_call.future.call
            if call is not None and self.engine.withdraw(call):
                pool_call.future.settle(CANCELLED)
                pool_call.close()

    def _cancel_all(self) -> list[PoolCall]:
        pool_calls = list(self.open_calls.live)
        for pool_call in pool_calls:
            pool_call.future.cancel()
        return pool_calls

    @property
    def _threads(self) -> tuple[CallbackThread, ...]:
        return self._callbacks, self.notices, self._output, self._closer

    def _close_threads(self, wait: bool) -> None:
        for thread in self._threads:
            thread.close(wait)

    def _engine_closed(self) -> None:
        self._close_threads(wait=False)
        atexit.unregister(self._at_exit)

    def _at_exit(self) -> None:
        """As the executors of the standard library: what was submitted is finished, unless Ctrl-C ended the program or does now."""
        try:
            if ended_by_ctrl_c():
                self.kill()
            else:
                self.shutdown(wait=True, cancel_futures=False)
        except KeyboardInterrupt:
            self.kill()
            raise


class Memfd:
    """A descriptor that is closed when nobody refers to it: also where Ctrl-C tore a submit in two, and no end of the call is reported."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    __del__ = close


class PoolCall:
    """`isolate.interfaces.Caller`; made for one call. Nothing in it runs user code: what does runs on a callback thread."""

    __slots__ = ("_backend", "_memory", "_open_calls", "future", "memfd")

    def __init__(self, backend: PoolBackend, open_calls: OpenCalls, future: IsolateFuture[object], descriptor: int | None) -> None:
        self._backend, self._open_calls, self.future = backend, open_calls, future
        self.memfd = None if descriptor is None else Memfd(descriptor)
        self._memory: memoryview | None = None

    def sent(self) -> None:
        self.future.begun()

    def on_message(self, payload: bytes, answer: Answer | None) -> None:
        """A plain function has no context to ask; one that writes to the call pipe by itself is answered with nothing."""
        if answer is not None:
            answer(b"")

    def beat(self) -> None:
        """It counts for the engine alone."""

    def limit_reached(self, notice: LimitNotice) -> None:
        self._backend.notify(notice)

    def output(self, level: int, logger: str, text: str, details: bytes = b"") -> None:
        self._backend.printed(level, logger, text, details)

    def received(self, descriptor: int) -> None:
        try:
            self._memory = payloads.mapped(descriptor)
        except (payloads.UnreadablePayload, OSError):
            self._memory = None  # whoever opens the reply gets the error

    def ended(self, outcome: Outcome) -> None:
        try:
            if type(outcome) is Succeeded:
                self.future.settle(FINISHED, Reply(outcome.result, self._memory))
            elif type(outcome) is Stopped:
                self.future.settle(CANCELLED)
            else:
                self.future.settle(FINISHED, error=error_of(outcome))
        finally:  # also where no thread can be started for its callbacks: who waits for the last call must not wait for ever
            self.close()

    def close(self) -> None:
        """The engine says no more about it."""
        memfd, self.memfd, self._memory = self.memfd, None, None
        if memfd is not None:
            self._backend.free(memfd)
        self._backend.leave(self._open_calls, self)


def ended_by_ctrl_c() -> bool:
    """Whether the interpreter leaves because of a KeyboardInterrupt that nobody caught; in a REPL it would have gone on."""
    return issubclass(getattr(sys, "last_type", None) or Exception, KeyboardInterrupt) and not hasattr(sys, "ps1")


def show(level: int, logger: str, text: str, details: bytes) -> None:
    """What a function printed goes where this program prints, and what it logged where this program logs."""
    if logger in (STDOUT, STDERR):
        stream = sys.stdout if logger == STDOUT else sys.stderr
        if stream is not None:
            stream.write(f"{text}\n")  # in one piece: `print` on an unbuffered stream would let others write between a line and its end
            stream.flush()
    else:
        target = logging.getLogger(logger)
        if target.isEnabledFor(level):
            found = log_record.unpacked(details)
            log_record.pass_on(target, log_record.restored(level, logger, text, found, {}), found.handled)
