"""Tasks that wait for futures of a pool are each woken once, together, and can be cancelled as in any wait of asyncio."""

from __future__ import annotations

import asyncio
import contextvars
import random
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from stem_iso.isolate.pool.loop_wakeups import LoopWaiter, LoopWakeups
from tests.isolate.calling import BOUND

SEED = 20261201

number: contextvars.ContextVar[int] = contextvars.ContextVar("number")


@pytest.fixture
def often_switched() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class CountingLoop(asyncio.SelectorEventLoop):
    """How often other threads called into it."""

    calls = 0

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        self.calls += 1
        return super().call_soon_threadsafe(callback, *args, context=context)


def release(waiters: list[LoopWaiter]) -> None:
    for waiter in waiters:
        waiter.release()


def in_loop(main: Any, loop: asyncio.AbstractEventLoop | None = None) -> Any:
    with asyncio.Runner(loop_factory=None if loop is None else lambda: loop) as runner:
        return runner.run(asyncio.wait_for(main, BOUND))


async def wait(waiter: LoopWaiter, own: int = 0) -> int:
    number.set(own)
    task = asyncio.current_task()
    await waiter
    assert asyncio.current_task() is task and number.get() == own
    return own


async def begun(*waits: Any) -> list[asyncio.Task[int]]:
    """Tasks that have come to their wait."""
    tasks = [asyncio.ensure_future(each) for each in waits]
    await asyncio.sleep(0)
    return tasks


def test_many_that_are_settled_while_the_loop_is_busy_cost_one_call_into_it() -> None:
    loop = CountingLoop()

    async def main() -> list[int]:
        wakeups = LoopWakeups(loop)
        waiters = [wakeups.waiter() for _ in range(100)]
        tasks = await begun(*(wait(waiter, own) for own, waiter in enumerate(waiters)))
        before = loop.calls
        settler = threading.Thread(target=release, args=(waiters,))
        settler.start()
        settler.join()  # the loop is here, and hears nothing meanwhile
        assert loop.calls == before + 1
        return list(await asyncio.gather(*tasks))

    assert in_loop(main(), loop) == list(range(100))


@pytest.mark.usefixtures("often_switched")
def test_whatever_races_every_task_ends_and_only_a_cancelled_one_is_cancelled() -> None:
    dice = random.Random(SEED)

    async def one_round(wakeups: LoopWakeups) -> None:
        waiters = [wakeups.waiter() for _ in range(30)]
        tasks = [asyncio.ensure_future(wait(waiter, own)) for own, waiter in enumerate(waiters)]
        cancelled = {own for own in range(30) if dice.random() < 0.3}
        settlers = [threading.Thread(target=release, args=(waiters[at::3],)) for at in range(3)]
        await asyncio.sleep(0)
        for settler in settlers:
            settler.start()
        for own in cancelled:
            tasks[own].cancel()
            await asyncio.sleep(0)
        for own, ended in enumerate(await asyncio.gather(*tasks, return_exceptions=True)):
            assert ended == own or (isinstance(ended, asyncio.CancelledError) and own in cancelled), (own, ended)
        for settler in settlers:
            settler.join()

    async def main() -> None:
        wakeups = LoopWakeups(asyncio.get_running_loop())
        for _ in range(50):
            await one_round(wakeups)

    in_loop(main())


def test_a_cancellation_before_the_loop_has_heard_of_the_end_wins() -> None:
    async def main() -> None:
        waiter = LoopWakeups(asyncio.get_running_loop()).waiter()
        (task,) = await begun(wait(waiter))
        waiter.release()
        task.cancel("not any more")
        with pytest.raises(asyncio.CancelledError, match="not any more"):
            await task

    in_loop(main())


def test_a_task_that_is_cancelled_twice_sees_what_it_would_see_of_a_future() -> None:
    async def clean_up(waited: Any, seen: list[object]) -> None:
        for wait_for in (waited, asyncio.sleep(0), asyncio.sleep(0)):
            try:
                await wait_for
                seen.append("went on")
            except asyncio.CancelledError as error:
                seen.append(error.args)

    async def main(pause: bool) -> list[list[object]]:
        loop = asyncio.get_running_loop()
        both: list[list[object]] = [[], []]
        tasks = await begun(clean_up(LoopWakeups(loop).waiter(), both[0]), clean_up(loop.create_future(), both[1]))
        for task in tasks:
            assert task.cancel("first")
            if pause:
                await asyncio.sleep(0)
            assert task.cancel("second")
        await asyncio.gather(*tasks)
        return both

    for pause in (False, True):
        of_waiter, of_future = in_loop(main(pause))
        assert of_waiter == of_future and len(of_waiter) == 3


def test_what_is_settled_before_the_wait_begins_is_not_missed() -> None:
    async def main() -> int:
        waiter = LoopWakeups(asyncio.get_running_loop()).waiter()
        waiter.release()
        return await wait(waiter, 7)

    assert in_loop(main()) == 7


def test_a_task_that_ends_the_loop_leaves_the_others_their_wake_up() -> None:
    async def leave(waiter: LoopWaiter) -> int:
        await waiter
        raise SystemExit(3)

    loop = asyncio.new_event_loop()
    try:
        wakeups = LoopWakeups(loop)
        waiters = [wakeups.waiter() for _ in range(3)]
        leaving, *others = [loop.create_task(leave(waiters[0])), *(loop.create_task(wait(waiter, 1)) for waiter in waiters[1:])]
        loop.run_until_complete(asyncio.sleep(0))
        for waiter in waiters:
            waiter.release()
        with pytest.raises(SystemExit):
            loop.run_forever()
        assert loop.run_until_complete(asyncio.wait_for(asyncio.gather(*others), BOUND)) == [1, 1]
        assert isinstance(leaving.exception(), SystemExit)
    finally:
        loop.close()


def test_the_end_of_a_call_whose_loop_is_closed_is_nobodys() -> None:
    loop = asyncio.new_event_loop()
    waiter = LoopWakeups(loop).waiter()
    loop.close()
    waiter.release()


class OwnTurns:
    """A loop whose turns are taken by whoever holds it, also inside of one another, as nest_asyncio lets tasks do."""

    def __init__(self) -> None:
        self._ready: list[Any] = []

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> None:
        self._ready.append(lambda: callback(*args))

    call_soon_threadsafe = call_soon

    def turn(self) -> None:
        ready, self._ready = self._ready, []
        for callback in ready:
            callback()


def test_a_task_that_runs_the_loop_inside_of_its_step_meets_those_that_were_settled_with_it_there() -> None:
    loop, order = OwnTurns(), list[str]()
    wakeups = LoopWakeups(loop)  # type: ignore[arg-type]
    steps = {"runs the loop": loop.turn, "second": lambda: None, "third": lambda: None}
    for name, step in steps.items():
        waiter = wakeups.waiter()

        def wake(_: LoopWaiter, name: str = name, step: Any = step) -> None:
            order.append(f"{name} begins")
            step()
            order.append(f"{name} ends")

        waiter.add_done_callback(wake, context=contextvars.copy_context())
        waiter.release()
    loop.turn()
    assert order == [
        *("runs the loop begins", "second begins", "second ends", "third begins", "third ends", "runs the loop ends"),
    ]
    loop.turn()
    assert len(order) == 6
