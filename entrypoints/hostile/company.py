"""They are not alone: what they start must die with them, wherever it went. They end at their limit."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

from entrypoints import linux
from entrypoints.hostile.stuck import spin
from entrypoints.hostile.trace import LONGEST, Trace, hostile

SLEEP = f"import time; time.sleep({LONGEST})"


def linger() -> None:
    time.sleep(LONGEST)


def double_fork(trace: Trace) -> None:
    """A daemon in a session of its own, without a descriptor or a variable that could betray it; returns when it has let go of all."""
    reader, writer = os.pipe()

    def second() -> None:
        os.closerange(0, 65536)
        os.execve(sys.executable, ["d", "-c", SLEEP], {})

    def first() -> None:
        os.setsid()
        trace.fork(second)

    os.waitpid(trace.fork(first), 0)
    os.close(writer)
    os.read(reader, 1)
    os.close(reader)


def leave_the_tree(trace: Trace) -> None:
    """A daemon that does not fall to the isolate, which is no subreaper any more."""
    linux.stop_being_subreaper()
    double_fork(trace)


def clone_beside(trace: Trace) -> None:
    """A brother of the isolate: its parent is the isolate's, from the beginning. Returns when it has recorded itself."""
    reader, writer = os.pipe()
    if linux.clone_sibling() == 0:
        try:
            os.setsid()
            trace.record()
            os.close(writer)
            os.close(reader)
            linger()
        finally:
            os._exit(0)
    os.close(writer)
    os.read(reader, 1)
    os.close(reader)


def traced_by_its_daemon(trace: Trace) -> None:
    """A daemon that traces the isolate: nobody but the tracer is notified of its death. Returns when it is traced."""
    reader, writer = os.pipe()
    ready, go = os.pipe()
    isolate = os.getpid()

    def trace_it() -> None:
        os.setsid()
        os.read(ready, 1)
        linux.seize(isolate)
        os.close(writer)
        linger()

    trace.fork(lambda: trace.fork(trace_it))
    os.wait()
    os.close(writer)
    os.write(go, b"x")  # only now: the signal of a child's end would stop a traced process
    os.read(reader, 1)
    for fd in (reader, ready, go):
        os.close(fd)


def blocked_vfork() -> None:
    """Stands in the kernel until its child executes a program, which that never does: it opens a pipe for which there is no writer.

    `posix_spawn` is a vfork. Its caller holds the GIL, holds every signal back, and never looks stopped after SIGSTOP.
    """
    name = f"/tmp/stem_iso-hostile-{os.getpid()}"
    os.mkfifo(name)
    fifo = os.open(name, os.O_PATH)  # neither reader nor writer, and no name stays behind
    os.unlink(name)
    os.posix_spawn("/bin/true", ["true"], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 0, f"/proc/self/fd/{fifo}", os.O_RDONLY, 0)])


@hostile()
def children(trace: Trace) -> None:
    """A small tree: each of three children has a child of its own, which sleeps."""

    def child() -> None:
        trace.fork(linger)
        spin()

    for _ in range(3):
        trace.fork(child)
    linger()


@hostile()
def daemon(trace: Trace) -> None:
    double_fork(trace)
    linger()


@hostile()
def vfork(trace: Trace) -> None:
    """The isolate itself is the parent of a vfork that does not end."""
    blocked_vfork()


@hostile()
def vfork_child(trace: Trace) -> None:
    """Two children are, while it spins."""
    for _ in range(2):
        trace.fork(blocked_vfork)
    spin()


@hostile()
def subprocesses(trace: Trace) -> None:
    """Programs that read a stdin which never says anything, in sessions of their own."""
    for _ in range(2):
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, start_new_session=True, preexec_fn=trace.record
        )
    child.wait()


@hostile()
def threads_that_fork(trace: Trace) -> None:
    """Four threads that each fork, 40 times at most, while the main thread spins."""

    def fork_on() -> None:
        for _ in range(40):
            trace.fork(linger)
            time.sleep(0.005)

    for _ in range(4):
        threading.Thread(target=fork_on, daemon=True).start()
    spin()


@hostile(soft=0.8, hard=1.0)
def two_hundred(trace: Trace) -> None:
    """200 descendants, each fifth of them the parent of four others."""

    def child() -> None:
        for _ in range(4):
            trace.fork(linger)
        linger()

    for _ in range(40):
        trace.fork(child)
    linger()


@hostile()
def hops(trace: Trace) -> None:
    """A process that forks and exits, over and over: whoever looks finds another one."""

    def hop() -> None:
        for _ in range(5_000):
            trace.record()
            if os.fork():
                os._exit(0)

    trace.fork(hop)
    linger()


@hostile()
def no_subreaper(trace: Trace) -> None:
    leave_the_tree(trace)
    linger()


@hostile()
def clone_parent(trace: Trace) -> None:
    clone_beside(trace)
    linger()


@hostile()
def tracing_daemon(trace: Trace) -> None:
    traced_by_its_daemon(trace)
    spin()
