"""A dashboard under uvicorn on a free port, in a thread of the test, and an application with a worker beside it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import uvicorn

from stem_iso import Stem, TaskContext
from stem_iso.dashboard import dashboard
from tests.isolate.calling import eventually
from tests.servers.fixtures import broker_of

ORDER = {"X-Stem-Iso": "1"}  # what a page of ours sends with each POST


@contextmanager
def served(asgi: Any, **options: Any) -> Iterator[str]:
    """Its address. Streams that are open at the end are cut off."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(asgi, log_level="warning", timeout_graceful_shutdown=2, **options))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        eventually(lambda: server.started or not thread.is_alive(), "the server does not start")
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


@contextmanager
def visitor(url: str, **options: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60, trust_env=False, **options) as client:
        yield client


def declare(app: Stem) -> None:
    """Tasks of a shop that makes thumbnails."""

    @app.task(name="thumbs.make", queue="images", redact=("password",), max_retries=0)
    def make(path: str, password: str = "") -> int:
        if path.startswith("bad"):
            raise ValueError(f"no picture: {path}")
        return len(path)

    @app.task(name="thumbs.wait", queue="waiting", soft_time_limit=50, hard_time_limit=60)
    async def wait(context: TaskContext) -> None:
        import asyncio

        await asyncio.sleep(3600)

    @app.task(name="thumbs.stuck", queue="images", isolate=True, hard_time_limit=3600, max_retries=0)
    def stuck() -> None:
        while True:
            time.sleep(0.01)


@pytest.fixture(scope="session")
def one_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The newest server there is, for the whole run; what is shown is a rule of the dashboard, not of each version."""
    with broker_of("redis", tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(params=["sqlite", "redis"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stem]:
    url = f"sqlite:///{tmp_path}/jobs.db"
    if request.param == "redis":
        url = request.getfixturevalue("one_redis")
        with redis.Redis.from_url(url) as plain:
            plain.flushdb()
    made = Stem(url)
    declare(made)
    yield made
    made.close()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Stem]:
    """An application over SQLite, for what is the same on every broker."""
    made = Stem(f"sqlite:///{tmp_path}/jobs.db")
    declare(made)
    yield made
    made.close()


@pytest.fixture
def site(app: Stem) -> Iterator[httpx.Client]:
    with served(dashboard(app)) as url, visitor(url) as client:
        yield client


Open = Callable[..., httpx.Client]


@pytest.fixture
def opened(alone: Stem) -> Iterator[Open]:
    """A visitor of the dashboard of `alone`, with these options."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def open(headers: dict[str, str] | None = None, **options: Any) -> httpx.Client:
            url = stack.enter_context(served(dashboard(alone, **options)))
            return stack.enter_context(visitor(url, headers=headers or {}))

        yield open
