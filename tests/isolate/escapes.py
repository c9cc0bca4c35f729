"""Handlers whose processes get away from their isolate, or from the kernel. Each notes the pid of such a process."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

from entrypoints import linux

NOBODY = 65534
left: list[bytearray] = []


def _note(ledger: str, pid: int = 0) -> None:
    """Whole or not at all: somebody may read it at any instant."""
    Path(ledger + ".new").write_text(str(pid or os.getpid()))
    os.rename(ledger + ".new", ledger)


def _await(ledger: str) -> str:
    while not Path(ledger).exists():
        time.sleep(0.001)
    return "done"


def _sleep_for_ever(ledger: str | None = None) -> None:
    if ledger is not None:
        _note(ledger)
    while True:
        time.sleep(1000)


def fork_past_the_isolate(ledger: str) -> str:
    """A daemon of an isolate that is no subreaper any more. The keeper may kill it at once, so its parent notes its pid before that."""
    linux.stop_being_subreaper()
    if os.fork() == 0:
        os.setsid()
        daemon = os.fork()
        if daemon == 0:
            _sleep_for_ever()
        _note(ledger, daemon)
        os._exit(0)
    os.wait()
    return _await(ledger)


def clone_a_sibling(ledger: str) -> str:
    """A process whose parent is the isolate's own. The keeper may kill it at once, so the isolate notes its pid."""
    sibling = linux.clone_sibling()
    if sibling == 0:
        _sleep_for_ever()
    _note(ledger, sibling)
    return "done"


def be_traced_by_a_daemon(ledger: str) -> str:
    """A daemon that traces its isolate, and never looks after it."""
    isolate, (ready, go) = os.getpid(), os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.read(ready, 1)
            linux.seize(isolate)
            _sleep_for_ever(ledger)
        os._exit(0)
    os.wait()  # before it is traced: the signal would stop it
    os.write(go, b"x")
    return _await(ledger)


def leave_a_daemon_without_its_first_thread(ledger: str) -> str:
    """/proc shows it as a zombie, and it runs."""
    code = (
        "import ctypes, os, sys, threading, time; main = threading.main_thread().native_id\n"
        "def run():\n"
        "    while open(f'/proc/self/task/{main}/stat').read().rpartition(')')[2].split()[0] != 'Z': time.sleep(0.001)\n"
        "    open(sys.argv[1] + '.new', 'w').write(str(os.getpid())); os.rename(sys.argv[1] + '.new', sys.argv[1]); time.sleep(1000)\n"
        "threading.Thread(target=run).start(); ctypes.CDLL(None).syscall(int(sys.argv[2]), 0)"
    )
    leave = {"x86_64": 60, "aarch64": 93}[platform.machine()]  # the system call that ends one thread
    subprocess.Popen([sys.executable, "-c", code, ledger, str(leave)], start_new_session=True)
    return _await(ledger)


def undumpable_child(ledger: str, then: str) -> str:
    """Where /proc hides what one may not trace, nobody sees it."""
    if os.fork() == 0:
        linux.become_undumpable()
        _sleep_for_ever(ledger)
    _await(ledger)
    return _finish(then)


def _hold(size: int) -> None:
    held = bytearray(b"x" * size)
    threading.Event().wait(1000)
    del held


def undumpable_hog(size: int) -> None:
    linux.become_undumpable()
    _hold(size)


def undumpable_before_the_next(size: int) -> int:
    """What it leaves stays with its process."""
    linux.become_undumpable()
    left.append(bytearray(b"x" * size))
    return os.getpid()


def undumpable_with_a_child(size: int, thread: bool) -> None:
    """The child is a program, so /proc shows it, but not whose it is to who asks for the isolate's children."""
    linux.become_undumpable()
    code = f"import time; held = b'x' * {size}; time.sleep(1000)"
    if thread:
        threading.Thread(target=subprocess.run, args=([sys.executable, "-c", code],), daemon=True).start()
    else:
        subprocess.Popen([sys.executable, "-c", code])
    threading.Event().wait(1000)


def child_hides_late(size: int) -> None:
    """The child was to be seen for half a second."""
    if os.fork() == 0:
        time.sleep(0.5)
        undumpable_hog(size)
    threading.Event().wait(1000)


def child_of_another_user(ledger: str, then: str) -> str:
    child = os.fork()
    if child == 0:
        os.setuid(NOBODY)
        while True:
            time.sleep(1000)
    while f"Uid:\t{NOBODY}" not in Path(f"/proc/{child}/status").read_text():
        time.sleep(0.001)
    _note(ledger, child)
    return _finish(then)


def become_another_user(ledger: str, then: str) -> str:
    _note(ledger)
    os.setuid(NOBODY)
    return _finish(then)


def child_in_a_frozen_file(path: str, asked: str, ledger: str, then: str) -> str:
    child = subprocess.Popen(["stat", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _await(asked)
    _note(ledger, child.pid)
    return _finish(then)


def look_at_a_frozen_file(path: str, ledger: str) -> None:
    _note(ledger)
    os.stat(path)


def ten_children(ledger: str, then: str) -> str:
    """Five of them in sessions of their own."""
    for number in range(10):
        subprocess.Popen(["sleep", "1000"], start_new_session=number % 2 == 0)
    _note(ledger)
    return _finish(then)


def wait_for(path: str) -> str:
    return _await(path)


def _finish(then: str) -> str:
    if then == "stay":
        threading.Event().wait(1000)
    if then == "crash":
        os._exit(5)
    return "done"
