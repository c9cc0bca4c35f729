"""What looking costs with a million tasks in the store: lists, states of queues, pages of the dashboard; and what it costs the workers.

    python -m bench.operators [--queued 1000000] [--ended 100000] [--brokers sqlite redis]

list        the first page of 100 tasks: of every state, of a name, of a queue; ms of one step of the broker, p50 and worst
pages       each page of the dashboard and each answer of its JSON API: ms of the server, worst of the looks; its memory after them, MiB
worker      isolated no-ops a second of a worker by command, with the dashboard open on its overview, and without; interleaved
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from bench.harness import report, spread
from stem_iso import Stem
from stem_iso.brokers.base import Broker, Settlement
from stem_iso.brokers.operations import LISTED_STATES, TaskFilter
from stem_iso.brokers.url import open_broker
from stem_iso.client.enqueue import new_id
from stem_iso.outcome import TaskError, TaskState
from stem_iso.task.envelope import Envelope
from stem_iso.task.settlement import Finish
from tests.servers.fixtures import broker_of

BATCH = 2000
LOOKS = 15
ARGS = msgspec.Raw(msgspec.msgpack.encode({"value": 1, "path": "x" * 60}))
ENDS = (
    Finish(TaskState.SUCCEEDED, result=b"\x01"),
    Finish(TaskState.FAILED, reason="max-retries-exhausted", error=TaskError(type="builtins.ValueError", message="no")),
    Finish(TaskState.CANCELLED, reason="expired"),
)
PAGES = ("/", "/tasks", "/tasks?state=failed", "/failures", "/queues", "/workers", "/schedules", "/limits", "/actions")
ANSWERS = ("tasks", "tasks?state=queued&name=thumbs.*", "tasks?text=nowhere", "failures", "queues", "workers", "stats", "limits", "actions")

app = Stem(os.environ.get("STEM_ISO_BROKER", "memory://"))


@app.task(name="bench.noop", isolate=True, soft_time_limit=30, hard_time_limit=60)
def noop(value: int) -> int:
    return value


# -- what is in the store --------------------------------------------------------------------------------------------------------------


def envelopes(count: int, queue: str, **fields: Any) -> list[Envelope]:
    now = time.time()
    return [Envelope(id=new_id(), name="thumbs.make", args=ARGS, queue=queue, enqueued_at=now, **fields) for _ in range(count)]


def fill(broker: Broker, queued: int, ended: int) -> None:
    """Ended ones first, of three kinds; then what waits, in four queues; then some that are delayed."""
    for start in range(0, ended, BATCH):
        broker.publish(envelopes(min(BATCH, ended - start), "ended"))
        deliveries = broker.exchange("fill", [], ["ended"], BATCH).deliveries
        broker.exchange("fill", [Settlement(one.receipt, ENDS[at % 3]) for at, one in enumerate(deliveries)], [], 0)
    for start in range(0, queued, BATCH):
        broker.publish(envelopes(min(BATCH, queued - start), f"many-{start // BATCH % 4}"))
    broker.publish(envelopes(1000, "late", not_before=time.time() + 86_400))


# -- looks -----------------------------------------------------------------------------------------------------------------------------


def took(look: Callable[[], object]) -> list[float]:
    seconds = []
    for _ in range(LOOKS):
        before = time.perf_counter()
        look()
        seconds.append(time.perf_counter() - before)
    return seconds


def lists(kind: str, broker: Broker) -> Iterator[dict[str, Any]]:
    filters = {"all": TaskFilter(), "a queue": TaskFilter(queue="many-1"), "a name": TaskFilter(name="thumbs.*")}
    filters |= {"a name that is not there": TaskFilter(name="nowhere"), "the last minute": TaskFilter(since=time.time() - 60)}
    for name, which in (filters | {state: TaskFilter(states=[state]) for state in LISTED_STATES}).items():
        for newest in (True, False):
            found = took(lambda which=which, newest=newest: broker.list_tasks(which, 100, None, newest))  # type: ignore[misc]
            yield {"broker": kind, "what": f"list {name}, {'newest' if newest else 'oldest'} first, ms", **spread(found)}
    yield {"broker": kind, "what": "states of queues, ms", **spread(took(broker.queue_states))}


@contextmanager
def dashboard(url: str) -> Iterator[tuple[int, int]]:
    """Its port and its pid."""
    command = [sys.executable, "-m", "stem_iso", "dashboard", "-A", "bench.operators:app", "--port", "0"]
    process = subprocess.Popen(
        command, env={**os.environ, "STEM_ISO_BROKER": url}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                yield int(found[1]), process.pid
                break
    finally:
        process.terminate()
        process.communicate()


def get(port: int, path: str) -> None:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    link.request("GET", path)
    answer = link.getresponse()
    answer.read()
    assert answer.status == 200, (path, answer.status)
    link.close()


def memory(pid: int) -> float:
    """Resident, MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def pages(kind: str, url: str) -> Iterator[dict[str, Any]]:
    with dashboard(url) as (port, pid):
        for path in (*PAGES, *(f"/api/{answer}" for answer in ANSWERS)):
            get(port, path)  # the first look of a page compiles its template
            yield {"broker": kind, "what": f"GET {path}, ms", **spread(took(lambda path=path: get(port, path)))}  # type: ignore[misc]
        yield {"broker": kind, "what": "memory of the dashboard, MiB", "max": round(memory(pid), 1)}


# -- what the workers feel -------------------------------------------------------------------------------------------------------------


def rate(tasks: int) -> float:
    """Tasks a second of a worker by command, from the first start to the last end."""
    command = [sys.executable, "-m", "stem_iso.worker", "-A", "bench.operators:app", "-Q", "default", "-c", "2", "-l", "error", "--burst"]
    handles = app.enqueue_many([noop.s(number) for number in range(tasks)])
    subprocess.run(command, env={**os.environ, "STEM_ISO_BROKER": app.broker}, check=True)
    with closing(app.open_broker()) as broker:
        found = [each for each in broker.status([handle.id for handle in handles]) if each is not None]
    began = min(each.started_at or 0.0 for each in found)
    return len(found) / (max(each.finished_at or 0.0 for each in found) - began)


@contextmanager
def reader(port: int) -> Iterator[None]:
    """Somebody who has the overview open: its events, and its figures every two seconds."""
    code = (
        "import http.client, threading, time\n"
        "def events():\n"
        f"    link = http.client.HTTPConnection('127.0.0.1', {port}); link.request('GET', '/api/events'); answer = link.getresponse()\n"
        "    while answer.read1(65536): pass\n"
        "threading.Thread(target=events, daemon=True).start()\n"
        "while True:\n"
        f"    link = http.client.HTTPConnection('127.0.0.1', {port}); link.request('GET', '/'); link.getresponse().read(); time.sleep(2)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def felt(kind: str, rounds: int, tasks: int) -> dict[str, Any]:
    alone, watched = [], []
    with dashboard(app.broker) as (port, _):
        for _ in range(rounds):
            alone.append(rate(tasks))
            with reader(port):
                watched.append(rate(tasks))
    shares = [beside / by_itself for by_itself, beside in zip(alone, watched, strict=True)]
    found = {"without": round(median(alone)), "with": round(median(watched)), "share": round(median(shares), 3)}
    return {"broker": kind, "what": "isolated no-ops a second, dashboard open", **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queued", type=int, default=1_000_000)
    parser.add_argument("--ended", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--brokers", nargs="+", choices=("sqlite", "redis"), default=["sqlite", "redis"])
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for kind in options.brokers:
        with tempfile.TemporaryDirectory() as folder, broker_of(kind, Path(folder)) as url:
            with closing(open_broker(url)) as broker:
                fill(broker, options.queued, options.ended)
                rows += lists(kind, broker)
            rows += pages(kind, url)
            app.move_to(url)
            rows.append(felt(kind, options.rounds, options.tasks))
    report("operators", rows)


if __name__ == "__main__":
    main()
