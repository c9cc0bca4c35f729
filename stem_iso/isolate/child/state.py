"""Process state that a call can leave changed, as a table: how each row is read, and how it is put back.

    start-up ── take ──> values     call ── restore ──> equal? nothing to do · put back · cannot be put back: the process is replaced

Rules
 1. What stands after start-up (hooks, `initializer`, imports of the application and of a function's module) is what every call meets. It is
    read anew after a definition, whose imports are start-up as well.
 2. A row is read after every call, so reading it costs a microsecond or two at most; putting back may cost more. Where a row cannot be put
    back, or what it stands for is broken (a closed stdout that loggers of start-up still hold), it is named and the process is replaced.
    Most rows are read when the reply is out, since only the next call would meet them (`IsolateState`).
 3. Context variables need no row: a call runs in a copy of the context (`fresh_context`).
 4. A watchdog (`faulthandler.dump_traceback_later`) cannot be seen, so it is cancelled, one of start-up included.

Not looked at: globals of modules (the state of `random`, caches, loggers and their handlers but ours, which `log_record` attaches
again), signal handlers and timers that C code sets
past Python, `sys.monitoring` and audit hooks, files left open; descriptors 0 to 2 replaced by another pipe, which has the same flags.

In the inline host, threads and a loop share one process: what belongs to a thread (`of_thread`) is put back when its call ends, on a loop
when no other coroutine runs; the rest when a call ends and no other runs. While calls overlap, nobody can tell whose change it is, and both
see it. Signal handlers cannot be set there: Python allows that to the main thread alone.
"""

from __future__ import annotations

import _locale
import _signal  # type: ignore[import-not-found]  # past `signal`, whose own functions make an enum of every number
import faulthandler
import fcntl
import gc
import os
import resource
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from typing import Any, NamedTuple

from stem_iso.isolate.child import setup

SIGNALS = tuple(sorted(map(int, signal.valid_signals())))
OWN_SIGNALS = frozenset(map(int, setup.OWN_SIGNALS))
TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
# Those that a program sets for itself. The others are of the whole user, or of schedulers that Python does not use.
LIMITS = (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)
MORE_LIMITS = (resource.RLIMIT_DATA, resource.RLIMIT_STACK, resource.RLIMIT_CORE, resource.RLIMIT_NPROC)
LC_ALL = _locale.LC_ALL


class NotRestorable(Exception):
    """This cannot be put back."""


class StateRow(NamedTuple):
    """`restore(kept, now)` puts the kept value back. Raises NotRestorable or OSError where it cannot."""

    name: str
    read: Callable[[], Any]
    restore: Callable[[Any, Any], object]


class Change(NamedTuple):
    """What a call had changed: names of rows."""

    restored: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


NOTHING = Change()


class ProcessState:
    """The rows of one process, or thread, with their values. Used by one thread at a time."""

    def __init__(self, rows: tuple[StateRow, ...]) -> None:
        self._rows, self._reads = rows, [row.read for row in rows]
        self.take()

    def take(self) -> None:
        """From now on this is what a call meets."""
        self._kept = [_kept(row) for row in self._rows]

    def restore(self) -> Change:
        try:
            if [read() for read in self._reads] == self._kept:
                return NOTHING
        except Exception:  # a stream that is gone, a handler whose __eq__ raises: which row it is, is found below
            pass
        restored, lost = [], []
        for at, row in enumerate(self._rows):
            try:
                now = row.read()
                if now == self._kept[at]:
                    continue
                row.restore(self._kept[at], now)
                self._kept[at] = _kept(row)
                restored.append(row.name)
            except BaseException:  # a guest's signal handler may raise here until it is gone, and __eq__ is its code
                lost.append(row.name)
        return Change(tuple(restored), tuple(lost))


def _kept(row: StateRow) -> Any:
    value = row.read()
    return value.copy() if type(value) in (dict, list) else value


def clocks() -> tuple[StateRow, ...]:
    """What strikes later, at whoever runs then. They come first, or they would strike us."""
    return (
        StateRow("timers", lambda: [*map(signal.getitimer, TIMERS)], _restore_timers),
        StateRow("watchdog", faulthandler.cancel_dump_traceback_later, lambda kept, now: None),  # reading it cancels it
    )


def hard_ones() -> tuple[StateRow, ...]:
    """What a call may well change past putting back."""
    return (
        StateRow("standard streams", _streams, _restore_streams),
        StateRow("descriptors 0 to 2", _descriptors, _restore_descriptors),
        StateRow("user", os.geteuid, _lost),
        StateRow("group", os.getegid, _lost),
        StateRow("resource limits", lambda: [*map(resource.getrlimit, LIMITS)], partial(_restore_limits, LIMITS)),
    )


def of_thread() -> tuple[StateRow, ...]:
    """What each thread has of its own."""
    return (
        StateRow("signal mask", partial(_signal.pthread_sigmask, signal.SIG_BLOCK, ()), _restore_mask),
        StateRow("sys.settrace", sys.gettrace, lambda kept, now: sys.settrace(kept)),
        StateRow("sys.setprofile", sys.getprofile, lambda kept, now: sys.setprofile(kept)),
        StateRow("nice", partial(os.getpriority, os.PRIO_PROCESS, 0), lambda kept, now: os.setpriority(os.PRIO_PROCESS, 0, kept)),
        StateRow("CPU affinity", partial(os.sched_getaffinity, 0), lambda kept, now: os.sched_setaffinity(0, kept)),
    )


def of_main_thread() -> tuple[StateRow, ...]:
    """What only the main thread can change."""
    return (StateRow("signal handlers", lambda: [*map(_signal.getsignal, SIGNALS)], _restore_handlers),)


def of_process() -> tuple[StateRow, ...]:
    """What all threads share."""
    umask = os.umask(0o77)
    os.umask(umask)
    return (
        StateRow("working folder", _folder, _restore_folder),
        StateRow("umask", partial(os.umask, umask), lambda kept, now: None),  # reading it sets it
        StateRow("environment", _environment, _restore_environment),
        StateRow("locale", partial(_locale.setlocale, LC_ALL, None), lambda kept, now: _locale.setlocale(LC_ALL, kept)),
        StateRow("resource limits", lambda: [*map(resource.getrlimit, MORE_LIMITS)], partial(_restore_limits, MORE_LIMITS)),
        StateRow("warnings filters", lambda: warnings.filters, _restore_filters),
        StateRow("sys.path", lambda: sys.path, _restore_path),
        StateRow("hooks", _hooks, _restore_hooks),
        StateRow("recursion limit", sys.getrecursionlimit, lambda kept, now: sys.setrecursionlimit(kept)),
        StateRow("switch interval", sys.getswitchinterval, lambda kept, now: sys.setswitchinterval(kept)),
        StateRow("gc", gc.isenabled, lambda kept, now: gc.enable() if kept else gc.disable()),
        StateRow("gc threshold", gc.get_threshold, lambda kept, now: gc.set_threshold(*kept)),
        StateRow("socket timeout", socket.getdefaulttimeout, lambda kept, now: socket.setdefaulttimeout(kept)),
        StateRow("faulthandler", faulthandler.is_enabled, _lost),
    )


class IsolateState:
    """An isolate's, of which only `before_reply` holds the reply up."""

    def __init__(self) -> None:
        self._first = ProcessState((*clocks(), *hard_ones()))
        self._rest = ProcessState((*of_thread(), *of_main_thread(), *of_process()))

    def take(self) -> None:
        self._first.take()
        self._rest.take()

    def before_reply(self) -> Change:
        return self._first.restore()

    def after_reply(self) -> Change:
        """What is lost here, the isolate ends for, before it takes another call."""
        return self._rest.restore()


def of_host() -> ProcessState:
    return ProcessState((*clocks(), *hard_ones(), *of_process()))


def fresh_context() -> Context:
    """A copy of this thread's context for one call, with a decimal context of its own: that is an object, which a copy would share."""
    context = copy_context()
    if (decimal := sys.modules.get("decimal")) is not None and any(each.name == "decimal_context" for each in context):
        context.run(lambda: decimal.setcontext(decimal.getcontext().copy()))
    return context


# -- rows that need more than a line ---------------------------------------------------------------------------------------------------


def _lost(kept: Any, now: Any) -> None:
    raise NotRestorable


def _restore_timers(kept: list[tuple[float, float]], now: list[tuple[float, float]]) -> None:
    for timer, (_, interval), (_, ticking) in zip(TIMERS, kept, now, strict=True):
        if not interval or interval != ticking:  # one that start-up set to ring again and again is left as it ticks
            signal.setitimer(timer, interval or 0.0, interval)


def _restore_mask(kept: set[int], now: set[int]) -> None:
    if signal.sigpending():  # it would be delivered, to whoever is there for it by then
        raise NotRestorable
    signal.pthread_sigmask(signal.SIG_SETMASK, kept)


def _restore_handlers(kept: list[Any], now: list[Any]) -> None:
    for number, before, after in zip(SIGNALS, kept, now, strict=True):
        if before is not after:
            if before is None or number in OWN_SIGNALS:  # C code's; behind ours there is more than Python knows
                raise NotRestorable
            signal.signal(number, before)


def _streams() -> tuple[Any, ...]:
    out, err = sys.stdout, sys.stderr
    return sys.stdin, out, err, sys.__stdout__, sys.__stderr__, out.closed, err.closed


def _restore_streams(kept: tuple[Any, ...], now: tuple[Any, ...]) -> None:
    sys.stdin, sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__ = kept[:5]  # type: ignore[misc]
    if sys.stdout.closed or sys.stderr.closed:
        raise NotRestorable


def _descriptors() -> list[int]:
    return [fcntl.fcntl(0, fcntl.F_GETFL), fcntl.fcntl(1, fcntl.F_GETFL), fcntl.fcntl(2, fcntl.F_GETFL)]


def _restore_descriptors(kept: list[int], now: list[int]) -> None:
    """O_NONBLOCK, which a loop sets on what it writes to, can be taken off; of another file nobody can know that it is ours."""
    for fd, flags in enumerate(kept):
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)
    if _descriptors() != kept:
        raise NotRestorable


def _folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was deleted
        return ""


def _restore_folder(kept: str, now: str) -> None:
    try:
        os.chdir(kept)
    except FileNotFoundError:
        if now:
            raise NotRestorable from None  # else it is gone for everybody, and a new process would stand there as well


def _environment() -> Any:
    return os.environ._data  # type: ignore[attr-defined]  # a copy through its own methods would cost thirty times as much


def _restore_environment(kept: dict[bytes, bytes], now: dict[bytes, bytes]) -> None:
    changed = [name for name in {*kept, *now} if kept.get(name) != now.get(name)]
    for name in changed:
        if name in kept:
            os.environb[name] = kept[name]
        else:
            del os.environb[name]
    if b"TZ" in changed:
        time.tzset()


def _restore_limits(limits: tuple[int, ...], kept: list[tuple[int, int]], now: list[tuple[int, int]]) -> None:
    for limit, before, after in zip(limits, kept, now, strict=True):
        if before != after:
            resource.setrlimit(limit, before)  # raises ValueError for a hard limit that was lowered, which root alone may raise


def _restore_filters(kept: list[Any], now: list[Any]) -> None:
    warnings.filters[:] = kept  # type: ignore[index]
    with warnings.catch_warnings():  # leaving it makes Python forget what it had looked up
        pass


def _restore_path(kept: list[str], now: list[str]) -> None:
    sys.path[:] = kept


def _hooks() -> tuple[Any, ...]:
    return sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook, threading.gettrace(), threading.getprofile()


def _restore_hooks(kept: tuple[Any, ...], now: tuple[Any, ...]) -> None:
    sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook, trace, profile = kept
    threading.settrace(trace)
    threading.setprofile(profile)
