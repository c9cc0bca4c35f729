"""Control of workers: an order to one or to all, and the answer of each.

    pause("images") ── broker.pause ──┐
    control("w1", "concurrency", 8) ──┴── send_command ──> workers ── reply ──> Acknowledged: who obeyed
                                                                      │
                                        `timeout`, or all have answered or gone

Rules
 1. The order is given to the workers that live at this moment, by what the broker shows; only these are waited for.
 2. A pause is kept in the broker before any worker is asked, so it holds although nobody answers, and for workers that start later.
 3. A worker of an older version answers nothing: it is `silent`.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from stem_iso.client.action_log import log
from stem_iso.client.enqueue import new_id
from stem_iso.config import LOG_LEVELS
from stem_iso.errors import InvalidOptions
from stem_iso.validation import cores, delay, did_you_mean, optional_text, text, whole
from stem_iso.validation import queue as queue_name

if TYPE_CHECKING:
    from stem_iso.brokers.base import Broker, WorkerInfo
    from stem_iso.client.application import Application
    from stem_iso.validation import Duration

EVERY = "*"
PAUSES = "pauses"
ACTIONS = ("concurrency", "drain", "kill", "log-level", "resume", "stack", "stop")
SWITCHES = (None, True, False, "on", "off")
SHORTEST_LOOK, LONGEST_LOOK = 0.01, 0.1  # seconds between two looks at the replies


class Acknowledged(list[str]):
    """Ids of the workers that obeyed. `refused`: why, by id, of those that did not want to; `silent`: those that live and did not answer
    in time. Where all three are empty, there was no such worker. `texts`: what those said that obeyed, by id, if they said anything."""

    def __init__(self, obeyed: Iterable[str] = (), refused: dict[str, str] | None = None, silent: Iterable[str] = ()) -> None:
        super().__init__(obeyed)
        self.refused, self.silent = refused or {}, sorted(silent)
        self.texts: dict[str, str] = {}

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {"acknowledged": list(self), "refused": self.refused, "silent": self.silent, "texts": self.texts}

    def in_words(self) -> str:
        """For people: `obeyed: w1; refused: w2 (no isolate has the pid 7); silent: w3`."""
        parts = [f"obeyed: {', '.join(self)}"] if self else []
        if self.refused:
            parts.append("refused: " + ", ".join(f"{id} ({why})" if why else id for id, why in self.refused.items()))
        if self.silent:
            parts.append(f"silent: {', '.join(self.silent)}")
        return "; ".join(parts) or "nobody is there"


def pause(app: Application, queue: str | None, task: str | None, timeout: Duration, by: str | None) -> Acknowledged:
    """Raises InvalidOptions where not exactly one of `queue` and `task` is given."""
    return _change_pause(app, queue, task, timeout, by, "pause")


def resume(app: Application, queue: str | None, task: str | None, timeout: Duration, by: str | None) -> Acknowledged:
    return _change_pause(app, queue, task, timeout, by, "resume")


def _change_pause(app: Application, queue: str | None, task: str | None, timeout: Duration, by: str | None, word: str) -> Acknowledged:
    if (queue is None) == (task is None):
        raise InvalidOptions("queue: give either a queue or task=, the name of a task" + ("" if queue is None else "; not both"))
    name = text("task", task) if queue is None else queue_name("queue", queue)
    seconds = delay("timeout", timeout)
    optional_text("by", by)  # before anything is done
    with app.broker_pool.borrow() as broker:
        changed = (broker.pause if word == "pause" else broker.resume)(name, queue is None)
        concerned = [worker for worker in broker.workers() if queue is None or queue in worker.queues]
        answers = _ordered(app, broker, EVERY, PAUSES, None, concerned, seconds)
    already = "" if changed else "it was so; "
    log(app, word, f"task {name}" if queue is None else f"queue {name}", already + answers.in_words(), by)
    return answers


def control(app: Application, worker_id: str, action: str, value: Any, timeout: Duration, by: str | None) -> Acknowledged:
    """Raises InvalidOptions for an unknown action, and for a value that the action does not take."""
    text("worker_id", worker_id)
    check_order(worker_id, action, value)
    seconds = delay("timeout", timeout)
    optional_text("by", by)  # before anything is done
    with app.broker_pool.borrow() as broker:
        concerned = [worker for worker in broker.workers() if worker_id in (EVERY, worker.id)]
        answers = _ordered(app, broker, worker_id, action, value, concerned, seconds) if concerned else Acknowledged()
    if action != "stack":  # it changes nothing
        log(app, action if value is None else f"{action} {value}", f"worker {worker_id}", answers.in_words(), by)
    return answers


def check_order(worker_id: str, action: str, value: Any) -> None:
    """Raises InvalidOptions, with the name of the field."""
    match action:
        case "concurrency":
            cores("value", value)
        case "drain":
            if not any(value is each for each in SWITCHES[:3]) and value not in SWITCHES[3:]:
                raise InvalidOptions(f"value: {value!r} is none of drain; leave it out, or give False, which ends it")
        case "resume" | "stop":
            if value is not None:
                raise InvalidOptions(f"value: {value!r} means nothing with {action}; leave it out")
        case "log-level":
            if value not in LOG_LEVELS:
                raise InvalidOptions(f"value: {value!r} is no log level{did_you_mean(str(value), LOG_LEVELS)}")
        case "kill" | "stack":
            whole("value", value, 1, 2**31 - 1, ": the pid of an isolate")
            if worker_id == EVERY:
                raise InvalidOptions(f"worker_id: '*' with {action} would be whichever process has that pid; name the worker")
        case _:
            meant = did_you_mean(action, ACTIONS) if isinstance(action, str) else f"; known are {', '.join(ACTIONS)}"
            raise InvalidOptions(f"action: {action!r} is none{meant}")


def _ordered(
    app: Application, broker: Broker, worker_id: str, action: str, value: Any, concerned: Collection[WorkerInfo], timeout: float
) -> Acknowledged:
    from stem_iso.brokers.operations import Command

    command = Command(id=new_id(), worker_id=worker_id, action=action, value=value, at=app.clock())
    broker.send_command(command)
    return _answers(broker, command.id, {worker.id for worker in concerned}, timeout)


def _answers(broker: Broker, command_id: str, concerned: set[str], timeout: float) -> Acknowledged:
    """Waits until all have answered or are gone, or `timeout` has passed."""
    stop_at, wait = time.monotonic() + timeout, SHORTEST_LOOK
    while True:
        replies = {reply.worker_id: reply for reply in broker.replies(command_id) if reply.worker_id in concerned}
        silent = concerned - replies.keys()
        left = stop_at - time.monotonic()
        if silent and wait >= LONGEST_LOOK:
            silent &= {worker.id for worker in broker.workers()}
        if not silent or left <= 0:
            break
        time.sleep(min(wait, left))
        wait = min(2 * wait, LONGEST_LOOK)
    answers = Acknowledged(
        sorted(id for id, reply in replies.items() if reply.done),
        {id: reply.text for id, reply in sorted(replies.items()) if not reply.done},
        silent,
    )
    answers.texts = {id: reply.text for id, reply in sorted(replies.items()) if reply.done and reply.text}
    return answers
