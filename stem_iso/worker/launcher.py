"""The launcher, which `python -m stem_iso.worker` starts: it takes the signals, is the keeper of its core, and runs no user code.

    launcher ── starts ──> core (its own process group; imports the application, runs the queue)
       │ TERM, INT, HUP: SIGNAL 1, 2, ...   QUIT: SIGNAL 2         core ends with GOODBYE code ──> launcher exits with that code
       └ core died without GOODBYE: every tree dies, then a fresh core that takes its predecessor's leases

Rules
 1. Signals count here alone, so that one Ctrl-C, or one `systemctl stop` that signals every process, is one signal. What counts is in
    `os_signals`: a TERM and its echo, as `timeout 60 stem-iso worker` sends them, are one.
 2. A core that dies is replaced after 1 s, doubled up to 30 s; five deaths in a minute end the launcher with exit code 1.
 3. A core that does not stop when it should is killed: 10 s after "at once", 10 s after its shutdown time-out.
 4. The loop never waits for whoever reads the log (`log_output`).
 5. The configuration travels in a memfd, not in the arguments, which `ps` shows: a broker's URL may hold a password.
 6. Children that this process has from before it became a launcher (a script that started a helper, and then `exec`s the worker) are no
    orphans, and live on. What such a helper itself leaves behind later cannot be distinguished from what a task left, and is killed.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import inf
from select import POLLIN, poll
from time import monotonic
from types import FrameType
from typing import Any

import msgspec

from stem_iso.config import WorkerConfig
from stem_iso.isolate import interpreter
from stem_iso.isolate.keeper import process_tree
from stem_iso.isolate.keeper.keeper import Keeper, set_title
from stem_iso.isolate.keeper.protocol import GOODBYE, SIGNAL, TURNED
from stem_iso.isolate.linux import become_subreaper, forget_inherited_signals, poll_timeout, require_linux, standard_streams
from stem_iso.worker.os_signals import StopCount
from stem_iso.worker.owned_worker import end_with_owner
from stem_iso.worker.reporting.log import configure_logging
from stem_iso.worker.service_manager import ServiceManager

FIRST_BACKOFF, LONGEST_BACKOFF = 1.0, 30.0
DEATHS, WITHIN = 5, 60.0
AT_ONCE_GRACE, DRAIN_GRACE = 10.0, 10.0  # listeners that hang are waited for 5 s of them
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)

log = logging.getLogger("stem_iso.worker")


class CoreStart(msgspec.Struct, frozen=True):
    """The start message of a core. `boot` names the core in receipts; `path` is where the application is looked for.

    `predecessors` are dead boots whose leases this core takes: more than one, because the last core may have died before it had taken the
    leases of the one before.
    """

    config: WorkerConfig
    boot: str
    path: list[str]
    predecessors: tuple[str, ...] = ()
    report_every: float | None = None  # seconds: how often to say that the loop turns; None: nobody asks
    argv: list[bytes] = []  # the launcher's, so that the application reads in its `sys.argv` what was typed


class LauncherSignals:
    """Counts what asks us to stop; `fd` turns readable when the count may have grown."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._stops = StopCount(clock)
        self.fd, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writer)
        for number in STOPPING:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
                signal.signal(number, self._count)
        forget_inherited_signals(signal.SIGHUP)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # last: what has waited meanwhile is counted

    def _count(self, number: int, frame: FrameType | None) -> None:
        self._stops.take(number)

    @property
    def count(self) -> int:
        return self._stops.count

    @property
    def since(self) -> float:
        """When the last one came, monotonic; inf before the first."""
        return self._stops.since

    def drain(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self.fd, 512):
                pass


class CoreKeeper(Keeper):
    """The keeper of one core that we started ourselves."""

    def __init__(self, link: socket.socket, core: int, inherited: set[int], manager: ServiceManager) -> None:
        super().__init__(link, core)
        self._inherited, self._manager = inherited, manager
        self.goodbye: int | None = None

    def _kin(self) -> set[int]:
        self._inherited -= {pid for pid in self._inherited if process_tree.reaped(pid)}
        return super()._kin() | self._inherited

    def on_message(self, kind: str, fields: list[Any]) -> None:
        if kind == GOODBYE:
            self.goodbye = int(fields[0])
        elif kind == TURNED:
            self._manager.core_turned(fields[0])


class Launcher:
    """Starts cores, one after the other, until one leaves on purpose or a signal asks for the end."""

    def __init__(self, config: WorkerConfig, path: list[str], manager: ServiceManager) -> None:
        self._config, self._path, self._manager = config, path, manager
        self._signals = LauncherSignals()
        self._inherited = set(process_tree.children(os.getpid()))
        # Each isolate is started in the folder, environment and argv of its core; a fresh core must not inherit those.
        self._env, self._cwd = dict(os.environ), os.getcwd()
        self._argv = [os.fsencode(argument) for argument in sys.argv]
        self._deaths: deque[float] = deque(maxlen=DEATHS)

    def run(self) -> int:
        predecessors: tuple[str, ...] = ()
        backoff = FIRST_BACKOFF
        while True:
            start = CoreStart(self._config, uuid.uuid4().hex, self._path, predecessors, self._manager.every, self._argv)
            began = monotonic()
            code = self._run_core(start)
            if code is not None:
                self._manager.stopping()
                return code
            if self._signals.count or self._died_too_often():
                return 1
            backoff = FIRST_BACKOFF if monotonic() - began > WITHIN else backoff
            log.error("the worker's core process died; a new one starts in %g s and takes its leases", backoff)
            self._manager.core_died(f"the core died; a new one starts in {backoff:g} s")
            if self._pause(backoff):
                return 1
            backoff = min(backoff * 2, LONGEST_BACKOFF)
            predecessors = (*predecessors, start.boot)[-DEATHS:]

    def _run_core(self, start: CoreStart) -> int | None:
        """The exit code of a core that left on purpose, None for one that died. Nothing it started is left when this returns."""
        own_end, core_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        core = self._start_core(core_end, start)
        pidfd = os.pidfd_open(core.pid)
        keeper = CoreKeeper(own_end, core.pid, self._inherited, self._manager)
        self._manager.core_starts()
        for fd in (pidfd, self._signals.fd):
            keeper.register(fd)
        sent = 0
        while True:
            events = keeper.step(min(self._patience(), self._manager.due))
            self._manager.vouch()
            if pidfd in events:
                break
            if self._signals.count > sent:
                self._signals.drain()  # before the count is read: else a signal between the two would be lost
                sent = self._signals.count
                keeper.send(SIGNAL, sent)
                self._log_stopping(sent)
            if monotonic() >= self._patience():
                core.kill()
        self._signals.drain()
        core.wait()
        keeper.kill_all()
        keeper.close()
        os.close(pidfd)
        return keeper.goodbye

    def _start_core(self, core_end: socket.socket, start: CoreStart) -> subprocess.Popen[bytes]:
        memfd = os.memfd_create("stem_iso-config", os.MFD_CLOEXEC)
        os.write(memfd, msgspec.json.encode(start))
        core = f"from stem_iso.worker.core import main; main({core_end.fileno()}, {memfd})"
        command = [sys.executable, *interpreter.arguments(), "-c", interpreter.code(interpreter.own_path(self._path), core)]
        try:
            # A process group of its own: the terminal's Ctrl-C reaches the launcher alone.
            return subprocess.Popen(command, pass_fds=[core_end.fileno(), memfd], cwd=self._cwd, env=self._env, process_group=0)
        finally:
            os.close(memfd)
            core_end.close()

    def _log_stopping(self, count: int) -> None:
        self._manager.stopping()
        if count == 1:
            log.info("stopping: what runs has %g s to finish; a second signal stops at once", self._config.shutdown_timeout)
        else:
            log.info("stopping at once: what runs is killed and given back")

    def _patience(self) -> float:
        """Until when the core may take to stop; inf while it need not stop."""
        if self._signals.count == 0:
            return inf
        grace = AT_ONCE_GRACE if self._signals.count > 1 else self._config.shutdown_timeout + DRAIN_GRACE
        return self._signals.since + grace

    def _died_too_often(self) -> bool:
        self._deaths.append(monotonic())
        if len(self._deaths) < DEATHS or self._deaths[-1] - self._deaths[0] > WITHIN:
            return False
        log.error("the worker's core process died %d times within %g s; giving up", DEATHS, WITHIN)
        return True

    def _pause(self, seconds: float) -> bool:
        """Wait, unless somebody asks us to stop: True."""
        waiter = poll()
        waiter.register(self._signals.fd, POLLIN)
        until = monotonic() + seconds
        while not self._signals.count and monotonic() < until:
            waiter.poll(poll_timeout(min(until, self._manager.due) - monotonic()))
            self._manager.vouch()
        return self._signals.count > 0


def launch(config: WorkerConfig, owner: int | None = None) -> int:
    """Run a worker until it ends; the process's exit code (see `core`). For the main thread of a process that does nothing else.

    `owner`: the descriptor of a pipe whose other side is its starter's, where the worker is to end with that (`owned_worker`).
    """
    require_linux("a worker")
    path = interpreter.search_path()
    sys.path[:] = interpreter.own_path(path)
    from stem_iso.isolate.keeper import spawn

    standard_streams()
    configure_logging(config.log_level, config.log_format, config.log_file)
    become_subreaper()
    spawn.without_trackers()
    set_title(f"stem_iso: launcher {config.app}".strip())
    launcher = Launcher(config, path, ServiceManager(os.environ, silent=owner is not None))
    if owner is not None:
        end_with_owner(owner)
    return launcher.run()
