"""Streams of tasks' events in loops: one thread and one broker serve them all, and nothing of it holds up a loop. Real brokers."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from stem_iso import Stem, TaskHandle, Worker
from stem_iso.client import event_feed
from stem_iso.errors import BrokerUnavailable, UnknownResult
from stem_iso.testing import eventually
from tests.servers.fixtures import broker_of
from tests.servers.server import Server

MANY = 200


@pytest.fixture(params=["memory", "sqlite", "redis"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stem]:
    if request.param == "memory":
        yield from application("memory://")
        return
    with broker_of(request.param, tmp_path) as url:
        yield from application(url)


def application(url: str) -> Iterator[Stem]:
    app = Stem(url)
    app.task(name="double")(lambda n: 2 * n)
    yield app
    app.close()
    eventually(lambda: feeds() == 0)


def threads() -> int:
    """Without those that waited for results in an earlier test: they end some seconds after it."""
    return sum(thread.name != "stem_iso: results" for thread in threading.enumerate())


def feeds() -> int:
    return sum(thread.name == "stem_iso: task events" for thread in threading.enumerate())


def followed(app: Stem) -> int:
    service = app.event_feed._thread.service
    return 0 if service is None else len(service._followers)


async def until(condition: Callable[[], Any]) -> None:
    await asyncio.to_thread(eventually, condition, 30)


async def kinds(stream: AsyncIterator[Any]) -> list[str]:
    return [event.type.value async for event in stream]


def test_hundreds_of_streams_cost_one_thread_and_a_few_descriptors(app: Stem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_feed, "LINGER", 60)
    handles = app.enqueue_many([app.task_named("double").s(n=n) for n in range(MANY)])

    async def listen() -> list[list[str]]:
        await until(lambda: True)  # the thread in which the test waits, and its descriptors
        idle, before = threads(), descriptors()
        streams = asyncio.gather(*(kinds(handle.aevents()) for handle in handles))
        await until(lambda: followed(app) == MANY)
        assert (threads() - idle, feeds()) == (1, 1)
        assert descriptors() - before <= 15
        if app.broker.startswith("redis"):
            with redis.Redis.from_url(app.broker) as plain:
                assert len(plain.client_list()) <= 4  # who enqueued, the feed's two, and this one
        for handle in handles:
            await handle.arevoke()
        return await asyncio.wait_for(streams, 60)

    assert asyncio.run(listen()) == [[]] * MANY  # no worker lives that would say anything
    service = app.event_feed._thread.service
    assert service is not None
    eventually(lambda: service._watch is None, 30)  # else workers would go on to send what nobody hears


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_each_stream_has_the_events_of_its_own_task(app: Stem) -> None:
    handles = app.enqueue_many([app.task_named("double").s(n=n) for n in range(20)])

    async def events(handle: TaskHandle[Any]) -> list[Any]:
        return [event async for event in handle.aevents()]

    async def listen() -> list[list[Any]]:
        streams = asyncio.gather(*map(events, [*handles, handles[0]]))
        await until(lambda: followed(app) == 21)
        with Worker(app):
            return await asyncio.wait_for(streams, 60)

    found = asyncio.run(listen())
    for handle, stream in zip([*handles, handles[0]], found, strict=True):
        assert {event.task_id for event in stream} <= {handle.id}
    # A worker looks once a second whether anybody listens: the first tasks' may be missing.
    assert ["started", "completed"] in [[event.type.value for event in stream] for stream in found]
    assert found[0] == found[-1]


def test_each_stream_ends_in_its_own_way(app: Stem) -> None:
    waiting = app.enqueue("double", {"n": 1}, delay=3600)

    async def listen() -> None:
        long = asyncio.ensure_future(kinds(waiting.aevents()))
        await until(lambda: followed(app) == 1)
        assert await asyncio.wait_for(kinds(waiting.aevents(timeout=0.05)), 30) == []
        with pytest.raises(UnknownResult, match="no task has the id 'nobody'"):
            await asyncio.wait_for(kinds(app.handle("nobody").aevents()), 30)
        long.cancel()
        ignored = waiting.aevents()
        await until(lambda: followed(app) == 1)
        del ignored  # nobody ever iterates over it
        gc.collect()
        await until(lambda: followed(app) == 0)
        assert await waiting.arevoke()
        assert await asyncio.wait_for(kinds(waiting.aevents()), 30) == []

    asyncio.run(listen())


def test_a_loop_that_ends_with_streams_open_leaves_the_others_alone(app: Stem) -> None:
    waiting = app.enqueue("double", {"n": 1}, delay=3600)

    async def listen() -> None:
        stream = asyncio.ensure_future(kinds(waiting.aevents()))
        await until(lambda: followed(app) == 1)
        assert not stream.done()

    async def listen_again() -> list[str]:
        stream = asyncio.ensure_future(kinds(waiting.aevents()))
        await until(lambda: followed(app) == 1)
        assert await waiting.arevoke()
        return await asyncio.wait_for(stream, 30)

    asyncio.run(listen())
    assert asyncio.run(listen_again()) == []


def test_a_forked_child_has_a_feed_of_its_own(tmp_path: Path) -> None:
    for app in application(f"sqlite:///{tmp_path}/jobs.db"):
        waiting = app.enqueue("double", {"n": 1}, delay=3600)

        async def listen(app: Stem = app, id: str = waiting.id) -> int:
            stream = app.handle(id).aevents(timeout=0.05)
            return len(await kinds(stream))

        assert asyncio.run(listen()) == 0
        assert feeds() == 1, "it lingers"
        child = os.fork()
        if child == 0:
            try:
                os._exit(asyncio.run(asyncio.wait_for(listen(), 30)))
            finally:
                os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert asyncio.run(listen()) == 0


def test_a_stream_for_which_no_thread_is_to_be_had_fails_at_once_and_the_next_one_works(app: Stem, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = app.enqueue("double", {"n": 1}, delay=3600)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def listen() -> None:
        before = descriptors()
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            for _ in range(3):
                with pytest.raises(RuntimeError, match="can't start new thread"):
                    waiting.aevents()
        assert descriptors() == before
        stream = asyncio.ensure_future(kinds(waiting.aevents()))
        await until(lambda: followed(app) == 1)
        assert waiting.revoke()
        assert await asyncio.wait_for(stream, 30) == []

    asyncio.run(listen())


def test_to_begin_a_stream_does_not_hold_up_the_loop_while_the_broker_is_away(server: Callable[..., Server]) -> None:
    behind = server()
    app = Stem(behind.url)
    waiting = app.enqueue("double", {"n": 1}, delay=3600)

    async def listen() -> None:
        os.kill(behind.pid, signal.SIGSTOP)
        try:
            stream = waiting.aevents()
        finally:
            os.kill(behind.pid, signal.SIGCONT)
        # Had the call waited for the server, it would have given up.
        collected = asyncio.ensure_future(kinds(stream))
        await until(lambda: followed(app) == 1)
        waiting.revoke()
        assert await asyncio.wait_for(collected, 30) == []
        behind.kill()
        with pytest.raises(BrokerUnavailable, match="nothing listens there"):
            await asyncio.wait_for(kinds(waiting.aevents()), 30)

    asyncio.run(listen())
    app.close()
