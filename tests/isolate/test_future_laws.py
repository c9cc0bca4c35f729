"""A future is settled once, whoever races for it, and everybody who waits hears of it once."""

from __future__ import annotations

import asyncio
import concurrent.futures
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from functools import partial
from typing import Any

import pytest

from stem_iso.isolate.engine.call import Call
from stem_iso.isolate.pool.callback_thread import CallbackThread
from stem_iso.isolate.pool.future import CANCELLED, FINISHED, IsolateFuture
from tests.isolate.calling import BOUND

ROUNDS, SEED = 300, 20261126


class Owner:
    """What a pool is to its futures."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.thread = CallbackThread("test-callbacks")

    def cancel(self, call: Call) -> None:
        """Nothing runs here."""

    def run_in_thread(self, work: Callable[[], object]) -> None:
        self.thread.put(work)

    def refuse_elsewhere(self) -> None:
        """Nobody forks here."""


class Result:
    """An answer that counts how often it is opened."""

    def __init__(self, value: int) -> None:
        self.value, self.opened, self.failed = value, 0, value % 2 == 1

    def open(self) -> tuple[Any, BaseException | None]:
        self.opened += 1
        sum(range(5000))  # long enough for another thread to come in between
        return (None, ValueError(self.value)) if self.failed else (self.value, None)


@pytest.fixture(autouse=True)
def often_switched() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def wait_for(future: IsolateFuture[int], how: int) -> str:
    """What one of the ways to wait says the outcome is."""
    if how == 0:
        try:
            return f"value {future.result(BOUND)}"
        except CancelledError:
            return "cancelled"
        except ValueError as error:
            return f"error {error}"
    if how == 1:
        assert concurrent.futures.wait([future], BOUND) == ({future}, set())
    elif how == 2:
        assert list(concurrent.futures.as_completed([future], BOUND)) == [future]
    else:

        async def wrapped() -> None:
            await asyncio.wait([asyncio.wrap_future(future)], timeout=BOUND)

        asyncio.run(wrapped())
    return wait_for(future, 0)


class Round:
    """Seven threads that start at one instant, and what each of them saw."""

    def __init__(self, owner: Owner, number: int, ways: list[int]) -> None:
        self.future: IsolateFuture[int] = IsolateFuture(owner)
        self.answer = Result(number)
        self.wins: list[bool] = []
        self.called: list[object] = []
        self.answers: list[str] = []
        self._barrier = threading.Barrier(7)
        acts = [self.settle, self.settle, self.cancel, self.call_back, self.call_back, *(partial(self.wait_for, way) for way in ways)]
        self._threads = [threading.Thread(target=self._run, args=(act,)) for act in acts]

    def run(self) -> None:
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join(BOUND)

    def _run(self, act: Callable[[], None]) -> None:
        self._barrier.wait()
        act()

    def settle(self) -> None:
        self.wins.append(self.future.settle(FINISHED, self.answer))

    def cancel(self) -> None:
        self.wins.append(self.future.cancel())

    def call_back(self) -> None:
        self.future.add_done_callback(self.called.append)

    def wait_for(self, way: int) -> None:
        self.answers.append(wait_for(self.future, way))


@pytest.mark.slow
def test_settling_cancelling_waiting_and_calling_back_at_once_agree_on_one_outcome() -> None:
    dice, owner, seen = random.Random(SEED), Owner(), Counter[str]()
    for number in range(ROUNDS):
        each = Round(owner, number, dice.sample([0, 1, 2, 3, 0], 2))
        each.run()
        assert each.wins.count(True) == 1
        assert len(each.answers) == 2 and len(set(each.answers)) == 1, each.answers
        assert each.answer.opened <= 1, "unpickled twice"
        seen[each.answers[0].partition(" ")[0]] += 1
        done = threading.Event()
        owner.run_in_thread(done.set)
        assert done.wait(BOUND)
        assert each.called == [each.future, each.future], f"round {number}: {len(each.called)} callbacks of 2"
        assert each.future.settle(CANCELLED) is False
    owner.thread.close()
    assert seen["cancelled"] and seen["value"] and seen["error"], seen


def test_a_condition_that_is_made_late_notifies_its_waiters_once() -> None:
    """`as_completed` fails with a KeyError where a future that it saw finished is given to it once more."""
    owner = Owner()
    for _ in range(ROUNDS):
        futures: list[IsolateFuture[int]] = [IsolateFuture(owner) for _ in range(8)]
        settler = threading.Thread(target=lambda some=futures: [each.settle(FINISHED, Result(2)) for each in some])
        settler.start()
        assert len(list(concurrent.futures.as_completed(futures, BOUND))) == len(futures)
        settler.join()


def test_a_wait_that_gave_up_leaves_nothing_behind() -> None:
    future: IsolateFuture[int] = IsolateFuture(Owner())
    for _ in range(3):
        with pytest.raises(TimeoutError):
            future.result(0.001)
    assert future._wakers == ()
