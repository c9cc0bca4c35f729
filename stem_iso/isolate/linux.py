"""Linux calls that Python 3.11 has no name for, and the check that this kernel has them."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import select
import signal
import socket
import sys
from array import array
from contextlib import suppress
from typing import Any

PR_SET_CHILD_SUBREAPER = 36
F_SETSIG = 10
TFD_NONBLOCK, TFD_CLOEXEC, TFD_TIMER_ABSTIME = 0o4000, 0o2000000, 1
CLOCK_MONOTONIC = 1
MAP_FIXED, MAP_NORESERVE = 0x10, 0x4000
F_ADD_SEALS, F_GET_SEALS, F_SEAL_SHRINK, F_SEAL_GROW = 1033, 1034, 2, 4
RIGHTS_ROOM = socket.CMSG_SPACE(4 * 4) if hasattr(socket, "CMSG_SPACE") else 0
WALL = 0x40000000  # __WALL: children made by clone() without SIGCHLD as well

# Modules that gevent replaces, and what its `patch_all` calls them.
PATCHES = {name: name for name in ("select", "socket", "subprocess", "queue")} | {"threading": "thread"}

# What native libraries read when they are loaded: how many threads their pools have.
POOL_SIZES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


LONGEST_SLEEP = 86_400.0  # seconds: poll() counts milliseconds in an int, which ends after 24.8 days; a limit may be a hundred years away


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


def _load() -> Any:
    if sys.platform != "linux":  # imported all the same, for `require_linux`
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    return libc


_libc = _load()
# PyDLL: it keeps the GIL, and costs a third of `os.waitid` and the ChildProcessError that this raises where there is no child.
_waitid: Any = None if _libc is None else ctypes.PyDLL(None).waitid


def fill_standard_descriptors() -> None:
    """/dev/null where stdin, stdout or stderr is closed: the next descriptor would get its number, and be lost in what is started."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def standard_streams() -> None:
    """For a process of ours that was started without them: Python then has None where loky wants to flush."""
    fill_standard_descriptors()
    for name, fd in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(fd, "w", closefd=False))


def require_linux(what: str) -> None:
    """Raises RuntimeError with the way out where isolates cannot work: not Linux, before 5.4 (pidfds), or made cooperative by gevent."""
    if sys.platform != "linux":
        raise RuntimeError(f"{what} needs Linux 5.4 or later; enqueueing works here, running does not ({sys.platform})")
    version = tuple(int(part) for part in platform.release().split(".")[:2] if part.isdigit())
    if version < (5, 4):
        raise RuntimeError(f"{what} needs Linux 5.4 or later (pidfds); this kernel is {platform.release()}")
    replaced = replaced_modules()
    if replaced:
        kept = ", ".join(f"{name}=False" for name in PATCHES.values())
        raise RuntimeError(
            f"{what} needs real threads, sockets and select.epoll, and {replaced} of this process are replaced (gevent, eventlet): "
            f"use it in a process without that, or patch with monkey.patch_all({kept})"
        )


def replaced_modules() -> str:
    """Those that we cannot work without and that somebody has made cooperative: a limit would wait until the program yields."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    found = [
        name
        for name, patch in PATCHES.items()
        if (gevent is not None and gevent.is_module_patched(name)) or (eventlet is not None and eventlet.is_monkey_patched(patch))
    ]
    if not found and not hasattr(select, "epoll"):
        found.append("select")
    return ", ".join(found)


def proc_hides(mounts: str = "/proc/self/mounts") -> bool:
    """Whether /proc may keep processes from this one's view (the option hidepid); what is mounted last over a place is what is seen."""
    options = ""
    with suppress(OSError), open(mounts, encoding="utf-8", errors="replace") as file:
        for line in file:
            _, place, kind, settings, *_ = line.split(" ")
            options = settings if (place, kind) == ("/proc", "proc") else options
    return any(option.startswith("hidepid=") and option not in ("hidepid=0", "hidepid=off") for option in options.split(","))


def become_subreaper() -> None:
    """Orphans among this process's descendants become its children, not init's."""
    if _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))


def has_children() -> bool:
    """Whether this process has any, alive or waiting to be asked how they ended. Changes nothing."""
    # The only error that these arguments leave is ECHILD.
    return bool(_waitid(os.P_ALL, 0, None, os.WEXITED | os.WNOHANG | os.WNOWAIT | WALL) == 0)


def send_with_descriptor(link: socket.socket, data: bytes | memoryview, descriptor: int) -> int:
    """As `link.send`, with a descriptor beside the first byte."""
    return link.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", (descriptor,)))])


def receive_with_descriptors(link: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """As `link.recv`, and the descriptors that came beside these bytes; they are the caller's. What finds no free number is lost."""
    data, ancillary, _, _ = link.recvmsg(size, RIGHTS_ROOM, socket.MSG_CMSG_CLOEXEC)
    descriptors = array("i")
    for _, _, rights in ancillary:  # a stream of ours carries no other kind
        descriptors.frombytes(rights[: len(rights) - len(rights) % descriptors.itemsize])
    return data, descriptors.tolist()


def map_over(block: mmap.mmap, descriptor: int) -> None:
    """Put the memory of a memfd in the place of this (anonymous) block's, which then shows it and unmaps it when nobody looks any more.

    `mmap.mmap(descriptor)` keeps a descriptor of its own for as long as it lives: a thousand arrays would be a thousand descriptors.
    """
    size = len(block)
    address = ctypes.addressof(ctypes.c_char.from_buffer(block))
    mapped = _libc.mmap(address, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | MAP_FIXED, descriptor, 0)
    if mapped != address:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))


def signal_thread(pid: int, thread: int, number: int) -> None:
    """To one thread of another process; nothing where it is gone, or where the C library has no name for it (glibc has since 2.30)."""
    with suppress(AttributeError):
        _libc.tgkill(pid, thread, number)


def poll_timeout(seconds: float) -> float:
    """Milliseconds for `poll`, a day at most: who waits for longer looks again, and sleeps again."""
    return min(max(0.0, seconds), LONGEST_SLEEP) * 1000


def forget_inherited_signals(*kept: int) -> None:
    """Every signal whose being ignored was inherited does again what it does by default, but for `kept`; what is blocked stays so.

    What the program, or whoever started it, ignores survives exec. With SIGCHLD ignored the kernel reaps children itself: nobody could tell
    how an isolate ended, nor could a handler of its own subprocesses.
    """
    # Python itself ignores these two from its start on, and subprocess gives them back.
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ, *kept}:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


class Timer:
    """A timerfd on the monotonic clock. epoll's own time-out counts whole milliseconds, which is the precision we sell."""

    def __init__(self) -> None:
        self.fd = _libc.timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        if self.fd < 0:
            errno = ctypes.get_errno()
            raise OSError(errno, os.strerror(errno))
        self._spec = _Itimerspec()
        self._pointer = ctypes.byref(self._spec)

    def arm(self, at: float) -> None:
        """Readable from monotonic time `at` on (at once if that has passed)."""
        seconds = int(at)
        self._spec.it_value.tv_sec = seconds
        self._spec.it_value.tv_nsec = max(1, int((at - seconds) * 1e9))
        _libc.timerfd_settime(self.fd, TFD_TIMER_ABSTIME, self._pointer, None)

    def acknowledge(self) -> None:
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            return

    def close(self) -> None:
        os.close(self.fd)
