"""The application that an old tree and this one share, and its producer. Both import this file, so it has public names alone.

python -m two_trees    for each line of its stdin (a function of this file and its arguments, in JSON) prints what it returned
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import redis.connection  # noqa: F401  at the first request its import would cost of the seconds in which a server must answer

import stem_iso
from stem_iso import Stem, TaskCancelled, TaskContext, TaskFailed, TaskHandle, chain, chord, group
from stem_iso.brokers.base import DeadFilter

TREE = str(Path(stem_iso.__file__).parents[1])
FOLDER = Path(os.environ["STEM_ISO_TEST_FOLDER"])
app = Stem(os.environ["STEM_ISO_TEST_BROKER"])


class AtOnce:
    """The next attempt is due without a delay."""

    def next_delay(self, attempt: int, error: object) -> float:
        return 0.0


def _begin(context: TaskContext) -> None:
    """A line for each attempt, whole, as several processes write to this file."""
    line = json.dumps([context.id, context.run, context.attempt, TREE]) + "\n"
    fd = os.open(FOLDER / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(fd, line.encode())
    os.close(fd)


def _wait_for(gate: str) -> None:
    while not (FOLDER / gate).exists():
        time.sleep(0.005)


@app.task(name="isolated", isolate=True)
def isolated(context: TaskContext, value: int) -> list[Any]:
    _begin(context)
    return [TREE, value]


@app.task(name="inline")
async def inline(context: TaskContext, value: int) -> list[Any]:
    _begin(context)
    return [TREE, value]


@app.task(name="fails_once", isolate=True, max_retries=2, retry_strategy=AtOnce())
def fails_once(context: TaskContext) -> int:
    _begin(context)
    if context.attempt == 0:
        raise RuntimeError("once more")
    return context.attempt


@app.task(name="fails_in_its_first_run", isolate=True, max_retries=0)
def fails_in_its_first_run(context: TaskContext) -> int:
    _begin(context)
    if context.run == 0:
        raise RuntimeError("never again")
    return context.run


@app.task(name="again", isolate=True, max_retries=100_000)
def again(context: TaskContext, gate: str) -> str:
    """Retries until the gate is open."""
    _begin(context)
    if not (FOLDER / gate).exists():
        context.retry(countdown=0.05)
    return TREE


@app.task(name="hold", isolate=True)
def hold(context: TaskContext, gate: str) -> str:
    _begin(context)
    _wait_for(gate)
    return TREE


@app.task(name="link", isolate=True)
def link(context: TaskContext, before: list[str], word: str) -> list[str]:
    _begin(context)
    return [*before, f"{word} {TREE}"]


@app.task(name="pack", isolate=True)
def pack(context: TaskContext, members: list[list[Any]]) -> list[Any]:
    _begin(context)
    return [TREE, members]


# -- of the producer ------------------------------------------------------------------------------------------------------------------


def enqueue(name: str, args: dict[str, Any], **options: Any) -> str:
    return app.enqueue(name, args, **options).id


def enqueue_chain(queues: list[str]) -> str:
    """One link on each of these queues."""
    first, *others = queues
    links = [link.using(queue=first).s([], "0")]
    return chain(*links, *(link.using(queue=queue).after(str(number)) for number, queue in enumerate(others, 1))).enqueue().id


def enqueue_group(queues: list[str]) -> str:
    return group(isolated.using(queue=queue).s(number) for number, queue in enumerate(queues)).enqueue().id


def enqueue_chord(queues: list[str], last: str) -> str:
    return (
        chord([isolated.using(queue=queue).s(number) for number, queue in enumerate(queues)], pack.using(queue=last).after()).enqueue().id
    )


def result(id: str, canvas: bool = False) -> Any:
    """How it ended: its result, or its state and reason."""
    handle: TaskHandle[Any] = app.canvas(id) if canvas else app.handle(id)
    try:
        return handle.result(timeout=60)
    except (TaskCancelled, TaskFailed) as error:
        return {"state": error.status.state.value, "reason": error.status.reason}


def status(id: str) -> dict[str, Any]:
    found = app.handle(id).status()
    return {name: getattr(found, name) for name in ("run", "attempt")} | {"state": found.state.value}


def waited(id: str) -> float:
    """Seconds from its enqueue to its start."""
    found = app.handle(id).status()
    assert found.started_at and found.enqueued_at
    return (found.started_at - found.enqueued_at).total_seconds()


def revoke(id: str, terminate: bool) -> bool:
    return app.handle(id).revoke(terminate=terminate)


def replay(id: str) -> list[str | None]:
    """Why it was refused, None where it was not."""
    with closing(app.open_broker()) as broker:
        return [one.refused for one in broker.replay(DeadFilter(ids=[id]))]


def workers() -> list[int]:
    with closing(app.open_broker()) as broker:
        return sorted(worker.pid for worker in broker.workers())


def tree() -> str:
    return TREE


def main() -> None:
    functions: dict[str, Callable[..., Any]] = {
        each.__name__: each
        for each in (enqueue, enqueue_chain, enqueue_group, enqueue_chord, result, status, waited, revoke, replay, workers, tree)
    }
    for line in sys.stdin:
        name, args, options = json.loads(line)
        print(json.dumps(functions[name](*args, **options)), flush=True)


if __name__ == "__main__":
    main()
