"""Many waits of one program: one watcher serves them all, and leaves when nobody waits any more."""

from __future__ import annotations

import asyncio
import os
import resource
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from stem_iso import Stem
from stem_iso.errors import BrokerUnavailable, TaskCancelled, UnknownResult
from stem_iso.testing import eventually
from stem_iso.testing.contract.steps import SUCCESS, settle, take

MANY = 300


@pytest.fixture(params=["file", "memory"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stem]:
    app = Stem(f"sqlite:///{tmp_path}/jobs.db" if request.param == "file" else "memory://")
    app.task(name="one")(lambda: 42)
    yield app
    app.close()
    eventually(lambda: watchers() == 0)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def watchers() -> int:
    return sum(thread.name == "stem_iso: results" for thread in threading.enumerate())


def end_all(app: Stem) -> None:
    broker = app.open_broker()
    while delivered := take(broker, 100):
        for delivery in delivered:
            settle(broker, delivery, SUCCESS)
    broker.close()


def test_hundreds_of_coroutines_wait_by_one_thread_and_a_few_descriptors(app: Stem) -> None:
    handles = app.enqueue_many([app.task_named("one").s() for _ in range(MANY)])
    before, idle = descriptors(), threading.active_count()

    async def wait() -> list[int]:
        waits = asyncio.gather(*(handle.aresult(timeout=60) for handle in handles))
        await asyncio.to_thread(eventually, lambda: watchers() == 1)
        assert (descriptors() - before, threading.active_count() - idle) <= (15, 1)
        await asyncio.to_thread(end_all, app)
        return await waits

    assert asyncio.run(wait()) == [42] * MANY


def test_a_thousand_coroutines_wait_over_redis_by_one_thread_and_two_connections(redis_url: str) -> None:
    """One on which the server wakes it, one for questions; and that of whoever enqueued."""
    app = Stem(redis_url)
    app.task(name="one")(lambda: 42)
    handles = app.enqueue_many([app.task_named("one").s() for _ in range(1000)])
    idle = threading.active_count()

    async def wait(plain: redis.Redis) -> list[int]:
        waits = asyncio.gather(*(handle.aresult(timeout=60) for handle in handles))
        await asyncio.to_thread(eventually, lambda: any(client["cmd"] == "blpop" for client in plain.client_list()), 30)
        assert len(plain.client_list()) <= 3 + 1  # that of the test
        assert threading.active_count() <= idle + 1 + 1  # that in which the test waits
        await asyncio.to_thread(end_all, app)
        return await waits

    with redis.Redis.from_url(redis_url) as plain:
        assert asyncio.run(wait(plain)) == [42] * 1000
    app.close()
    eventually(lambda: watchers() == 0)


def test_hundreds_of_threads_wait_by_the_same(app: Stem) -> None:
    handles = app.enqueue_many([app.task_named("one").s() for _ in range(50)])
    before = descriptors()
    with ThreadPoolExecutor(50) as threads:
        waits = [threads.submit(handle.result, 60) for handle in handles]
        eventually(lambda: watchers() == 1)
        assert descriptors() - before <= 15
        end_all(app)
        assert [wait.result(60) for wait in waits] == [42] * 50


def test_each_wait_ends_in_its_own_way(app: Stem) -> None:
    handles = app.enqueue_many([app.task_named("one").s() for _ in range(4)])

    async def wait() -> list[BaseException | int]:
        waits = [asyncio.ensure_future(handle.aresult(timeout)) for handle, timeout in zip(handles, (60, 60, 0.2, None), strict=True)]
        waits.append(asyncio.ensure_future(app.handle("nobody").aresult(60)))
        waits.append(asyncio.ensure_future(handles[3].aresult(0)))
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        await handles[1].arevoke()
        waits[3].cancel()
        await asyncio.wait(waits[2:])
        await asyncio.to_thread(end_all, app)
        return await asyncio.gather(*waits, return_exceptions=True)

    ended = asyncio.run(wait())
    kinds = [type(each) for each in ended[1:]]
    assert ended[0] == 42
    assert kinds == [TaskCancelled, TimeoutError, asyncio.CancelledError, UnknownResult, TimeoutError]


def test_the_watcher_leaves_with_the_application(app: Stem) -> None:
    handle = app.task_named("one").enqueue()
    with pytest.raises(TimeoutError, match=handle.id):
        handle.result(timeout=0.01)
    assert watchers() == 1
    app.close()
    eventually(lambda: watchers() == 0)
    end_all(app)
    assert handle.result(timeout=60) == 42


def test_a_forked_child_waits_by_a_watcher_of_its_own(tmp_path: Path) -> None:
    app = Stem(f"sqlite:///{tmp_path}/jobs.db")
    handle = app.enqueue("one")
    with ThreadPoolExecutor(1) as threads:
        mine = threads.submit(handle.result, 60)
        eventually(lambda: watchers() == 1)
        child = os.fork()
        if not child:
            try:
                os._exit(handle.result(timeout=60) == 42)
            finally:
                os._exit(3)
        end_all(app)
        assert mine.result(60) == 42
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    app.close()


def test_a_broker_that_is_nowhere_is_reported_at_once_however_long_the_wait(tmp_path: Path) -> None:
    app = Stem(f"sqlite:///{tmp_path}/missing/jobs.db")
    with pytest.raises(BrokerUnavailable, match="missing"):
        app.handle("any").result(timeout=600)
    with pytest.raises(BrokerUnavailable, match="missing"):
        asyncio.run(app.handle("any").aresult(timeout=600))
    app.close()


def test_a_wait_for_which_no_thread_is_to_be_had_fails_at_once_and_the_next_one_works(app: Stem, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = app.task_named("one").enqueue()
    before = descriptors()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                handle.result(timeout=60)
    assert descriptors() == before
    end_all(app)
    assert handle.result(timeout=60) == 42


@pytest.mark.slow
def test_a_wait_that_goes_on_after_close_sleeps_as_before(app: Stem) -> None:
    handle = app.task_named("one").enqueue()
    with ThreadPoolExecutor(1) as threads:
        wait = threads.submit(handle.result, timeout=3)
        eventually(lambda: watchers() == 1)
        app.close()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
        with pytest.raises(TimeoutError):
            wait.result(timeout=60)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before < 100
