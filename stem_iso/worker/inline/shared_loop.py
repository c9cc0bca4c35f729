"""The event loop that inline handlers share, on a thread of its own: it outlives whatever one of them does to it.

    run(act) ──> loop ──> ended by a handler?  SystemExit, KeyboardInterrupt, a stop     the same loop goes on; reported
                     └──> broken by a handler? its selector is closed, its state gone    its calls are ended, a new loop is made; reported

Rules
 1. asyncio hands a SystemExit or KeyboardInterrupt of any task to whoever runs the loop, after it has stored it in the task: who awaits
    that task gets it as any exception, so that the handler fails, and the loop has nothing to end for.
 2. `stop`, `close` and the two shutdowns of the loop raise in the handler that calls them. Where a handler finds a way around that
    (`BaseEventLoop.stop` as a function), the loop is entered again.
 3. A process that a coroutine forked has no part in this loop, whose selector it shares with its parent: what comes back here ends there.

A loop that the program gave (`Worker.serve`) is its own: there SystemExit ends the program, as it does without us.
"""

from __future__ import annotations

import asyncio
import os
import threading
import traceback
import weakref
from collections.abc import Callable

from stem_iso.isolate.child.state import ProcessState, of_thread

REFUSED = ("stop", "close", "shutdown_asyncgens", "shutdown_default_executor")


class SharedLoop:
    """`trouble` reports what a handler did to the loop; `lost` ends the calls of a loop that never goes on. On the loop's thread."""

    def __init__(self, trouble: Callable[[str, str], None], lost: Callable[[asyncio.AbstractEventLoop], None]) -> None:
        self._trouble, self._lost = trouble, lost
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None  # under the lock
        self._thread: int | None = None  # which one serves the loop; written there
        self._state: ProcessState | None = None  # of that thread
        self._closed = False
        this = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _leave_loop(this()))

    @property
    def started(self) -> bool:
        return self._loop is not None

    def run(self, act: Callable[[], object]) -> None:
        """Call it on the loop, which is started with the first need; nothing after `close`."""
        with self._lock:
            if self._closed:
                return
            if self._loop is None:
                self._loop = _guarded(asyncio.new_event_loop())
                threading.Thread(target=self._serve, args=(self._loop,), name="stem-iso-loop", daemon=True).start()
            self._loop.call_soon_threadsafe(act)

    def settle(self) -> None:
        """No coroutine runs there any more: put back what they changed in their thread. On the loop."""
        if self._state is not None and (lost := self._state.restore().lost):
            self._trouble(f"coroutines changed what cannot be put back in the thread of their loop: {', '.join(lost)}", "")

    def close(self) -> None:
        """Does not wait."""
        with self._lock:
            self._closed = True
            if self._loop is not None:
                self._loop.call_soon_threadsafe(_plain(self._loop, "stop"))

    # -- its thread ----------------------------------------------------------------------------------------------------------------

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        self._thread, self._state = threading.get_ident(), ProcessState(of_thread())
        owner = os.getpid()
        while self._enter(loop, owner):
            pass
        with self._lock:
            if self._loop is loop:
                self._loop = None
        if not self._closed:
            self._lost(loop)
        for name in REFUSED:
            delattr(loop, name)
        try:
            loop.close()
        except Exception:  # a broken loop may not even close, and would not when its memory is freed
            setattr(loop, "close", lambda: None)  # noqa: B010 - a method

    def _enter(self, loop: asyncio.AbstractEventLoop, owner: int) -> bool:
        """Run it until it ends; whether to enter it again."""
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:
            _end_fork(owner)
            text = f"a part of a coroutine ended by {type(error).__name__}, which asyncio hands to its loop; the loop goes on"
            self._trouble(text, "".join(traceback.format_exception(error)))
        except BaseException as error:  # a handler closed what the loop needs: its selector, its descriptors
            _end_fork(owner)
            text = "the loop of inline coroutines was broken by one of them; a new one is made"
            self._trouble(text, "".join(traceback.format_exception(error)))
            return False
        else:
            _end_fork(owner)
            if not self._closed:
                self._trouble("a coroutine stopped the loop that it shares with others; the loop goes on", "")
        return not self._closed


def _guarded(loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
    def refuse(name: str) -> Callable[..., object]:
        def refused(*_: object) -> object:
            raise RuntimeError(f"loop.{name}(): this loop is shared by the worker's coroutines; end the task by return or raise instead")

        return refused

    for name in REFUSED:
        setattr(loop, name, refuse(name))
    return loop


def _plain(loop: asyncio.AbstractEventLoop, name: str) -> Callable[[], object]:
    """The method behind the guard."""
    method: Callable[[], object] = getattr(type(loop), name).__get__(loop)
    return method


def _leave_loop(shared: SharedLoop | None) -> None:
    """In a process that was just forked: what else is ready on this loop, or will be, is its parent's to run."""
    if shared is None or shared._loop is None or threading.get_ident() != shared._thread:
        return
    _plain(shared._loop, "stop")()  # at the end of this turn
    setattr(shared._loop, "call_soon", _end_fork_now)  # noqa: B010 - a method; what the coroutine does in this process when it yields
    ready = getattr(shared._loop, "_ready", None)  # private, and the only way to have the rest of this turn left out
    if ready is not None:
        ready.clear()


def _end_fork(owner: int) -> None:
    if os.getpid() != owner:
        _end_fork_now()


def _end_fork_now(*_: object, **__: object) -> None:
    os.write(2, b"stem_iso: a process that a coroutine forked came back to the event loop, which is its parent's; it ends here\n")
    os._exit(1)
