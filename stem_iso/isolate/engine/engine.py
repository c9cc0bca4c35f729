"""The engine: one thread that runs calls in isolates, watches their deadlines, and ends them.

    submit ──> allocator ──Assign──> shared row, call pipe ──> isolate
    epoll:  output · stacks · replies · exits (pidfd) · keeper · timer · wake-ups ──> lifecycle, allocator ──> Caller.*

Rules
 1. Decisions are taken in `lifecycle`, `allocator` and `deadlines`; this file moves bytes and time between them and the kernel.
 2. All state is under one lock, held for microseconds. A submitter that finds a free isolate sends by itself, without waking this thread.
    Callbacks of callers run outside the lock, on this thread (`sent` alone runs under it).
 3. One deadline a call, scanned when the timer fires: the timer is set anew only when the earliest gets earlier.
 4. In one turn what isolates printed is read before what they replied, so that text reaches the caller before the end of its call.
 5. One turn takes in a bounded number of bytes, lines and frames of each isolate; the rest is the next turn's (`Isolates.behind`).
 6. A kill waits for nothing that a handler can prolong (`timers`): `process_tree` kills step by step, many side by side. The end of a
    killed call is reported when the keeper has confirmed the exit and swept.
 7. A keeper that is silent for 100 ms after an exit is sent SIGCONT, after 1 s SIGKILL (`keeper_watchdog`). When the keeper is gone, all
    trees die; a keeper of our own is replaced, and by command (`keeper_socket`) the process leaves, because its parent is gone.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

from stem_iso.isolate.engine.call import Call
from stem_iso.isolate.engine.isolate_view import IsolateView
from stem_iso.isolate.engine.isolates import Isolates
from stem_iso.isolate.engine.keeper_client import KeeperClient, KeeperLost, LauncherMessage
from stem_iso.isolate.engine.shared_host.call import HostCall
from stem_iso.isolate.engine.shared_host.supervisor import HostBoot
from stem_iso.isolate.interfaces import Boot, Caller, HostedJob, IsolateNotice, Job
from stem_iso.isolate.linux import Timer, require_linux
from stem_iso.outcome import Stopped, StopReason

log = logging.getLogger("stem_iso.isolate")


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counts of this moment."""

    busy: int
    idle: int
    booting: int
    dying: int
    waiting: int


def _ignore(notice: IsolateNotice) -> None:
    """For engines whose owner does not follow their isolates."""


class Engine:
    """Runs jobs, `size` at a time, with `spares` isolates booted beside them. Usable from any thread between `start` and `close`."""

    def __init__(
        self,
        boot: Boot,
        *,
        size: int,
        spares: int = 1,
        max_calls: int | None = None,
        max_memory: int | None = None,
        host: HostBoot | None = None,
        on_isolate: Callable[[IsolateNotice], None] = _ignore,
        on_keeper: Callable[[str, list[object]], None] | None = None,
        on_closed: Callable[[], None] | None = None,
        keeper_socket: socket.socket | None = None,
    ) -> None:
        require_linux("running tasks in isolates")
        self._keeper_socket, self._on_keeper, self._on_closed = keeper_socket, on_keeper, on_closed
        self._lock: Any = threading.RLock()
        self._commands: deque[Callable[[], None]] = deque()
        self._asleep, self._polled = False, True
        self._closing = threading.Event()
        self._closed = threading.Event()
        self._isolates = Isolates(boot, size, spares, max_calls, max_memory, host, on_isolate, self._command)
        self._thread = threading.Thread(target=self._run, name="stem_iso-engine", daemon=True)

    # -- for everybody ------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the keeper and the spares; returns when the keeper is there. Raises KeeperLost where it does not start."""
        self._epoll = select.epoll()
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._timer = Timer()
        for fd in (self._wake_fd, self._timer.fd):
            self._epoll.register(fd, select.EPOLLIN)
        self._isolates.open(KeeperClient(self._keeper_socket), self._epoll, self._timer)
        self._register_keeper()
        self._isolates.spawn_missing()
        self._thread.start()

    def submit(self, job: Job, caller: Caller) -> Call | HostCall:
        """Run it as soon as its turn comes, or, where it is a HostedJob, at once; `caller` is called with what becomes of it."""
        call = HostCall(job, caller) if isinstance(job, HostedJob) else Call(job, caller)
        if self._lock._is_owned():  # a signal's handler or a finalizer, in the middle of another call's submission
            self._command(lambda: self._submit_late(call, caller))
            return call
        with self._lock:
            refused = self._closing.is_set()
            if not refused:
                try:
                    self._isolates.submit(call)
                except BaseException:  # Ctrl-C, in the main thread, between any two steps
                    self._command(self._isolates.interrupted)
                    raise
            waiting = bool(self._isolates.callbacks)
        if refused:
            caller.ended(Stopped(StopReason.SHUTDOWN, started=False))
        elif waiting:
            self._wake()
        return call

    def _submit_late(self, call: Call | HostCall, caller: Caller) -> None:
        if self._closing.is_set():
            self._isolates.callbacks.append(partial(caller.ended, Stopped(StopReason.SHUTDOWN, started=False)))
        else:
            self._isolates.submit(call)

    def stop(self, call: Call | HostCall, reason: StopReason) -> None:
        """Kill it: it ends as Stopped, unless its complete reply is there first. One that has ended is left alone.

        A hosted coroutine is cancelled instead, a hosted thread left to end; a shutdown ends both, with their host if need be.
        """
        if isinstance(call, Call):
            call.stop = call.stop or reason  # from here on it is not begun any more
        self._command(lambda: self._isolates.stop(call, reason))

    def withdraw(self, call: Call | HostCall) -> bool:
        """Take back a call that still waits: True, and its caller is not called any more. False once it has been sent, or has ended."""
        if self._lock._is_owned():
            return False
        with self._lock:
            return self._isolates.withdraw(call)

    def resize(self, size: int, spares: int) -> None:
        self._command(lambda: self._isolates.resize(size, spares))

    @property
    def size(self) -> int:
        """Seats."""
        return self._isolates.allocator.size

    @property
    def spares(self) -> int:
        return self._isolates.allocator.spares

    def stats(self) -> EngineStats:
        """Without the lock: a signal's handler may ask wherever it interrupts, and counts of a moment need no more."""
        there = self._isolates.allocator
        return EngineStats(len(there.busy), len(there.idle), len(there.booting), len(there.dying), there.waiting)

    @property
    def keeper(self) -> int:
        """The pid of the keeper, the launcher's by command. Another one where that was killed and replaced."""
        pid: int = self._isolates.keeper.pid
        return pid

    def pinned(self) -> list[tuple[Caller, tuple[int, ...]]]:
        """The calls that have cores of their own now."""
        with self._lock:
            return [(isolate.call.caller, isolate.cpus) for isolate in self._isolates.by_number.values() if isolate.call and isolate.cpus]

    def views(self) -> list[IsolateView]:
        """The isolates and shared hosts of this moment."""
        with self._lock:
            return self._isolates.views()

    def kill(self, pid: int, answer: Callable[[bool], None]) -> None:
        """End this isolate, or shared host, and all that it spawned; what runs there ends as crashed, `by_operator`. `answer`, on the
        engine's thread: False where none has this pid."""
        self._command(lambda: self._isolates.kill_for_operator(pid, answer))

    def stack(self, pid: int, answer: Callable[[str | None], None]) -> None:
        """Where the handler in this isolate is now, innermost frame last. `answer`, on the engine's thread, within a quarter of a second:
        None where nothing runs in an isolate of this pid, empty where no stack came."""
        self._command(lambda: self._isolates.ask_stack(pid, answer))

    def set_log_level(self, level: int) -> None:
        """Of the root logger of isolates and shared hosts that start from now on."""
        self._command(lambda: self._isolates.set_log_level(level))

    def close(self, wait: bool = True, at_once: bool = False) -> None:
        """Kill what runs and end what waits; idle isolates run their exit hooks, in bounded time, but not with `at_once`. With `wait`,
        return when all are dead. Takes no lock of the caller's.
        """
        if not self._closing.is_set():
            self._command(self._begin_close)
        if at_once and not self._closed.is_set():
            self._command(self._isolates.kill_leaving)
        if wait and self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._closed.wait()
            self._thread.join()

    # -- the thread ---------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not (self._closing.is_set() and self._isolates.empty and not self._isolates.callbacks):
                try:
                    self._turn()
                except BaseException:  # a fault of ours, or user code that runs here: the limits of all other calls must go on
                    log.exception("a turn of the engine failed")
        finally:
            self._isolates.close()
            self._epoll.close()
            self._timer.close()
            os.close(self._wake_fd)
            self._closed.set()
            if self._on_closed is not None:
                self._on_closed()

    def _turn(self) -> None:
        self._asleep = True
        ready = self._poll()
        self._asleep = False
        with self._lock:
            self._isolates.read_streams(fd for fd, _ in ready)
            for fd, flags in ready:
                if fd == self._timer.fd:
                    self._timer.acknowledge()
                    self._isolates.on_timer(monotonic())
                elif fd == self._wake_fd:
                    os.eventfd_read(fd)
                elif fd == self._keeper_fd:
                    self._on_keeper_socket()
                else:
                    self._isolates.on_event(fd, flags)
            self._isolates.catch_up()
            for _ in range(len(self._commands)):  # those that come meanwhile are the next turn's: the timers must go on
                self._commands.popleft()()
            callbacks, self._isolates.callbacks = self._isolates.callbacks, []
        for callback in callbacks:
            try:
                callback()
            except BaseException:  # a caller's code: the callbacks of others run all the same
                log.exception("a caller failed to hear of its call")

    def _poll(self) -> list[tuple[int, int]]:
        """What is ready. Commands spare the system call, but not twice in a row: a flood of them must not stop the timers."""
        at_hand = bool(self._commands or self._isolates.callbacks)
        self._polled = not at_hand or not self._polled
        return self._epoll.poll(0 if at_hand or self._isolates.behind else -1, 256) if self._polled else []

    def _on_keeper_socket(self) -> None:
        try:
            for message in self._isolates.keeper.receive():
                if not isinstance(message, LauncherMessage):
                    self._isolates.on_report(message)
                elif self._on_keeper is not None:
                    self._isolates.callbacks.append(partial(self._on_keeper, message.kind, message.fields))
        except KeeperLost:
            self._keeper_lost()

    def _keeper_lost(self) -> None:
        self._epoll.unregister(self._isolates.keeper.socket)
        self._isolates.keeper_lost()
        if self._keeper_socket is not None:
            # Our parent is dead and all trees are: a worker whose leases run out elsewhere is better than one without a keeper.
            log.error("the launcher died: all isolates were killed and this worker leaves; its tasks run again when their leases end")
            os._exit(1)
        self._isolates.keeper.reconnect()
        self._register_keeper()
        self._isolates.keeper_replaced()

    def _register_keeper(self) -> None:
        self._keeper_fd = self._isolates.keeper.socket.fileno()
        self._epoll.register(self._keeper_fd, select.EPOLLIN)

    def _begin_close(self) -> None:
        self._closing.set()
        self._isolates.close_down()

    def _command(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        self._wake()

    def _wake(self) -> None:
        if self._asleep:
            os.eventfd_write(self._wake_fd, 1)
