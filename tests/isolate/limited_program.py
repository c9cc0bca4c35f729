"""Programs with an engine of their own that lack some right of root's, for the tests of what must be ended all the same.

argv: the name of a function here, and its arguments. Each prints a line for what has come to pass.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from stem_iso.outcome import Failed, Stopped, StopReason, TimedOut
from tests.isolate.calling import Calls, eventually
from tests.isolate.escapes import NOBODY
from tests.isolate.punctual import assert_others_are_punctual, stuck, warm, zombies

HIDING = b"hidepid=2,gid=54321"  # from all but a group that nobody is in
CLONE_NEWNS = 0x20000
MS_REC_PRIVATE = 0x44000
MIB = 1 << 20


def print_line(line: str) -> None:
    print(line, flush=True)


def another_user(handler: str, ledger: str, then: str) -> None:
    calls = Calls(size=3)
    warm(calls, 2)
    held = calls.start(handler, ledger, then, hard=1.0 if then == "stay" else None)
    eventually(lambda: stuck(calls), "nobody named it")
    (notice,) = stuck(calls)
    print_line(f"stuck {notice.pid}: {notice.reason}")
    assert_others_are_punctual(calls)
    assert held.outcomes == [], "its end was reported while its process lives"
    print_line("others are punctual")
    print_line(type(held.outcome()).__name__)
    eventually(lambda: not zombies(calls), "zombies are left")
    print_line(f"zombies: {zombies(calls)}")
    calls.engine.close()


def names_what_its_keeper_killed() -> None:
    """The core may not signal its isolates, so the keeper kills in its place."""
    calls = Calls(size=1, spares=0)
    assert calls.value("echo", 1) == 1
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    outcome = calls.run("spin", hard=0.3)
    assert isinstance(outcome, TimedOut)
    print_line(str([title for _, title in outcome.killed]))
    calls.engine.close()


def drops_root() -> None:
    calls = Calls(size=1, spares=0)
    assert calls.value("polite", soft=0.1, hard=20, raise_soft=True) == "cleaned up"  # whatever it imports late is there now
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    print_line(type(calls.run("spin", hard=0.3)).__name__)
    print_line(type(calls.run("devour", 400 << 20, memory=100 << 20)).__name__)
    running = calls.start("spin")
    running.until(lambda: running.sent_count)
    calls.engine.stop(running.call, StopReason.REVOKED)  # type: ignore[attr-defined]
    print_line(type(running.outcome()).__name__)
    polite = calls.start("polite", soft=0.2, hard=20, raise_soft=True)
    print_line(f"{type(polite.outcome()).__name__} {'/'.join(polite.levels())}")
    last = calls.start("spin")
    last.until(lambda: last.sent_count)
    calls.engine.close()
    assert isinstance(last.outcome(), Stopped)
    print_line("closed")


def hide_processes() -> None:
    """Mount /proc so that it hides what this process may not trace, for it and what it starts."""
    libc = ctypes.CDLL(None, use_errno=True)
    for done in (
        libc.unshare(CLONE_NEWNS),
        libc.mount(None, b"/", None, MS_REC_PRIVATE, None),
        libc.mount(b"proc", b"/proc", b"proc", 0, HIDING),
    ):
        if done != 0:
            sys.exit(f"cannot mount /proc: {os.strerror(ctypes.get_errno())}")


def hidden(ledger: str, then: str) -> None:
    hide_processes()
    calls = Calls(size=1, spares=0)
    held = calls.start("undumpable_child", ledger, then, hard=2.0 if then == "stay" else None)
    eventually(lambda: Path(ledger).exists(), "it did not start")
    print_line(f"hidden: {not Path('/proc', Path(ledger).read_text(), 'stat').exists()}")
    print_line(type(held.outcome()).__name__)
    calls.engine.close()


def hidden_memory() -> None:
    """Limits of memory hold for what /proc has come to hide."""
    hide_processes()
    calls = Calls(size=1, spares=0)
    for name, *args in (
        ("undumpable_hog", 300 * MIB),
        ("undumpable_with_a_child", 300 * MIB, False),
        ("undumpable_with_a_child", 300 * MIB, True),
        ("child_hides_late", 300 * MIB),
    ):
        call = calls.start(name, *args, memory=150 * MIB)
        print_line(f"{name} {type(call.outcome()).__name__}")
    isolate = calls.value("undumpable_before_the_next", 0)
    print_line(f"hidden: {not Path('/proc', str(isolate), 'stat').exists()}")
    print_line(type(calls.run("devour", 300 * MIB, memory=150 * MIB)).__name__)
    calls.value("undumpable_before_the_next", 0)
    print_line(calls.value("slowly", 50 * MIB, 0.2, memory=150 * MIB))
    calls.engine.close()


def recycled_where_hidden() -> None:
    hide_processes()
    calls = Calls(size=1, spares=0, max_memory=150 * MIB)
    calls.value("undumpable_before_the_next", 300 * MIB)
    eventually(calls.reasons, "it was not replaced")
    print_line(str(calls.reasons()))
    calls.engine.close()


def hidden_from_the_start(executable: str) -> None:
    """Who may not read a program may not look into its process either."""
    hide_processes()
    sys.executable = executable
    calls = Calls(size=1, spares=0)
    outcome = calls.run("echo", 1, memory=150 * MIB)
    print_line(outcome.error.message if isinstance(outcome, Failed) else str(outcome))
    print_line(str(calls.value("echo", 1)))
    calls.engine.close()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
