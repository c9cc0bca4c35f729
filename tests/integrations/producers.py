"""Applications of web servers that fork, or that run greenlets: they enqueue and wait for results. `queue` is a producer alone."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from threading import Barrier
from typing import Any

from stem_iso import Stem

StartResponse = Callable[[str, list[tuple[str, str]]], Any]

queue = Stem()


@queue.task(name="double")
def double(n: int) -> int:
    return 2 * n


TOGETHER = 20
all_here = Barrier(TOGETHER)


@queue.task(name="meet")
def meet(n: int) -> int:
    """Ends when so many of them run at once, in the threads of one worker."""
    all_here.wait(60)
    return n


# In the master, where gunicorn preloads: a connection, a thread that watches for results, and an event stream are there when it forks.
if os.environ.get("STEM_ISO_TEST_USED_BEFORE_FORK"):
    used = double.enqueue(1)
    assert used.result(timeout=60) == 2
    open_stream = queue.events()
    waiting = double.using(delay=3600).enqueue(1)
    watched = queue.watcher.wait(waiting.id, None)
MASTER = os.getpid()


def wsgi(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    task = meet if environ["PATH_INFO"] == "/meet" else double
    n = int(environ["QUERY_STRING"] or 1)
    answer = {"pid": os.getpid(), "master": MASTER, "result": task.enqueue(n).result(timeout=60), "patched": patched()}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]


def patched() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


async def asgi(scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[dict[str, Any]], Any]) -> None:
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    handle = await double.aenqueue(int(scope["query_string"] or 1))
    answer = {"pid": os.getpid(), "master": MASTER, "result": await handle.aresult(timeout=60), "patched": patched()}
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})
