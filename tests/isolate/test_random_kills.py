"""Isolates killed from outside at random instants, under load: no call is lost, none runs twice, none is charged what it did not start.

`STEM_ISO_KILLS` kills (30; five thousand by hand): `make kills`. Isolates that boot are left alone: three deaths in a row there are a
broken application, which ends every call that waits, and rightly so.

    killed before `started` was stored     another isolate runs it                        at most 3 times, then a crash
    after that                             a crash: it may have had effects
    after the reply was written            the reply
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from stem_iso.isolate.engine.lifecycle import State
from stem_iso.outcome import Crashed, Succeeded
from tests.isolate.calling import BOUND, Calls, Recorder
from tests.isolate.counting import Counters

KILLS = int(os.environ.get("STEM_ISO_KILLS", "30"))
SIZE, WINDOW = 4, 12
LONGEST = 0.002  # seconds: calls so short that many kills fall between two of them
MOST_CALLS = 4_000 + 1_500 * KILLS
PAUSE = 0.1  # seconds at most between two kills


class Load:
    """Keeps `WINDOW` calls on their way until it is stopped; each call's number is its place in `calls`."""

    def __init__(self, calls: Calls, path: Path) -> None:
        self.calls: list[Recorder] = []
        self._engine, self._path = calls, path
        self._room = threading.Semaphore(WINDOW)
        self._stopped = threading.Event()
        self._dice = random.Random(KILLS)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.is_set() and len(self.calls) < MOST_CALLS:
            assert self._room.acquire(timeout=BOUND), "calls do not end"
            caller = Freeing(self._room, self._engine)
            self.calls.append(caller)
            self._engine.start("count_for", str(self._path), len(self.calls) - 1, self._dice.uniform(0, LONGEST), caller=caller)

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        for each in self.calls:
            each.outcome()


class Freeing(Recorder):
    """Gives its place to the next call, and remembers under which number of the engine's it was sent, each time."""

    def __init__(self, room: threading.Semaphore, calls: Calls) -> None:
        super().__init__()
        self._room, self._isolates = room, calls.engine._isolates
        self.numbers: list[int] = []

    def sent(self) -> None:
        self.numbers.append(self._isolates._numbers)  # under the engine's lock: the newest is ours
        super().sent()

    def ended(self, outcome: object) -> None:
        super().ended(outcome)  # type: ignore[arg-type]
        self._room.release()


def kill_one(calls: Calls, dice: random.Random) -> bool:
    isolates = calls.engine._isolates
    with calls.engine._lock:  # a pidfd that is open names the process that it was opened for
        there = [each for each in isolates.by_number.values() if each.life.state in (State.IDLE, State.BUSY) and not each.died_at]
        victim = dice.choice(there) if there else None
        if victim is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(victim.pidfd, signal.SIGKILL)
    return victim is not None


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_nothing_is_lost_and_nothing_runs_twice(engines: Callable[..., Calls], tmp_path: Path) -> None:
    path = tmp_path / "counters"
    counters = Counters(path, MOST_CALLS + 8 * KILLS)  # what is sent again has a new number
    calls = engines(size=SIZE, spares=2, boot=f"count {path}".encode())
    load, dice, waiter, kills = Load(calls, path), random.Random(KILLS + 1), threading.Event(), 0
    while kills < KILLS:
        waiter.wait(dice.uniform(0, PAUSE))
        kills += kill_one(calls, dice)
    load.stop()
    found: Counter[str] = Counter()
    for number, call in enumerate(load.calls):
        (outcome,) = call.outcomes  # reported, and once
        assert isinstance(call, Freeing)
        _, begun, done = counters.of(number)
        reached = [counters.of(each)[0] for each in call.numbers]
        found[type(outcome).__name__] += 1
        found["given to another isolate"] += call.sent_count - 1
        assert begun <= 1 and done <= begun, f"call {number} ran twice"
        assert call.sent_count <= 4
        if isinstance(outcome, Succeeded):
            assert (begun, done) == (1, 1), f"call {number} succeeded and had not finished"
        else:
            assert isinstance(outcome, Crashed), outcome
            assert reached[-1] or call.sent_count == 4, f"call {number} was charged an attempt that it did not start"
            found["crashed after its last act"] += done
            found["crashed before its first act"] += not begun
    print(f"{kills} kills, {len(load.calls)} calls: {dict(found)}")
    assert found["Crashed"] >= KILLS // 20 and found["Succeeded"] >= KILLS, "there was no load, or the kills met nothing"
