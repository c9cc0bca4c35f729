"""Two acts and a proof. Needs no server; all that it writes lies in a temporary folder, or in the broker that was given."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from entrypoints.retry_task.signal_lines import write_line
from entrypoints.retry_task.workers import Elsewhere, Team, workers
from stem_iso import StemError, TaskFailed, TaskHandle, TaskStatus

if TYPE_CHECKING:
    from entrypoints.retry_task.proof import Redelivery

PATIENCE = 15.0  # seconds for what takes some
QUEUE = "retry-demo"  # of workers elsewhere; those of this program have one of their own each time


def main() -> int:
    arguments = _arguments()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    with tempfile.TemporaryDirectory(prefix="stem_iso-retry-") as folder:
        # Before the tasks are imported: their application asks the environment where its broker is, and so does the worker.
        os.environ["STEM_ISO_BROKER"] = arguments.broker or f"sqlite:///{folder}/retry.db"
        log = Path(folder) / "worker.reporting.log"
        try:
            if arguments.workers_elsewhere:
                return _visit(Path(arguments.workers_elsewhere))
            return _play(f"retry-demo-{uuid4().hex[:8]}", Path(folder), log)
        except (StemError, TimeoutError) as error:
            print(f"{type(error).__name__}: {error}", _read(log), sep="\n", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            with suppress(OSError):  # the terminal may have been closed
                print("stopped", file=sys.stderr)
            return 130


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m entrypoints.retry_task", description="The life of a task that always fails.")
    parser.add_argument("--broker", type=_broker, metavar="URL", help="default: a SQLite file in a temporary folder")
    where = f"two workers run already, for the queue {QUEUE}: FOLDER is one that they and this program see"
    parser.add_argument("--workers-elsewhere", metavar="FOLDER", help=where)
    return parser.parse_args()


def _broker(url: str) -> str:
    if url.startswith("memory:"):
        raise argparse.ArgumentTypeError("memory:// lives in one process, and the workers are others: give a file or a server")
    return url


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _play(queue: str, folder: Path, log: Path) -> int:
    with workers(queue, log) as team:
        acts = _acts(queue, folder, team)
    # Asked when all workers have ended and printed their last lines.
    return _prove(queue, *acts)


def _visit(folder: Path) -> int:
    """The same with workers that somebody else started. What an earlier visit left goes first, or the proof would find it."""
    from entrypoints.retry_task.tasks import app
    from stem_iso.brokers.base import DeadFilter

    with app.broker_pool.borrow() as broker:
        broker.purge_dead(DeadFilter(queue=QUEUE))
    return _prove(QUEUE, *_acts(QUEUE, folder / uuid4().hex, Elsewhere()))


def _prove(queue: str, failed: TaskStatus, outlived: TaskStatus, delivery: Redelivery) -> int:
    from entrypoints.retry_task.proof import proof
    from entrypoints.retry_task.tasks import app

    shown = proof(queue, failed, outlived, delivery)
    write_line(shown)
    app.close()
    return 0 if shown["holds"] else 1


def _acts(queue: str, folder: Path, team: Team) -> tuple[TaskStatus, TaskStatus, Redelivery]:
    from entrypoints.retry_task.tasks import app

    options = app.broker_options
    write_line(
        {
            "demo": "settings",
            "broker": app.site.shown,
            "queue": queue,
            "block_time": options.block_time,
            "claim_interval": options.claim_interval,
            "default_visibility_timeout": options.default_visibility_timeout,
        }
    )
    team.start()
    folder.mkdir(exist_ok=True)
    return _fail(queue), *_outlive(queue, folder / "flag", team)


def _fail(queue: str) -> TaskStatus:
    """Act 1."""
    from entrypoints.retry_task.tasks import fail

    handle = fail.using(queue=queue).enqueue("the other side does not answer")
    return _end(handle)


def _outlive(queue: str, flag: Path, team: Team) -> tuple[TaskStatus, Redelivery]:
    """Act 2. The other worker stands beside the first before that is killed: what is measured is the takeover, not a start."""
    from entrypoints.retry_task.proof import redelivery
    from entrypoints.retry_task.tasks import outlive

    handle = outlive.using(queue=queue).enqueue(flag)
    _until(flag.exists, "the attempt did not begin")
    team.start()
    _until(lambda: len(_beating(queue)) > 1, "the second worker did not come")
    write_line({"demo": "kill", "task_id": handle.id, "worker_id": handle.status().worker_id})
    team.kill(flag)
    died_at = time.time()
    status = _end(handle)
    assert status.started_at is not None
    delivery = redelivery(died_at, status.started_at.timestamp(), team.together)
    write_line(
        {
            "demo": "redelivered",
            "task_id": handle.id,
            "worker_id": status.worker_id,
            "as_promised": delivery.as_promised,
            **asdict(delivery),
        }
    )
    return status, delivery


def _beating(queue: str) -> list[str]:
    from entrypoints.retry_task.tasks import app

    with app.broker_pool.borrow() as broker:
        return [worker.id for worker in broker.workers() if queue in worker.queues]


def _until(look: Callable[[], bool], otherwise: str) -> None:
    """Raises TimeoutError."""
    deadline = time.monotonic() + PATIENCE
    while not look():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{otherwise} within {PATIENCE:g} s")
        time.sleep(0.02)


def _end(handle: TaskHandle[Any]) -> TaskStatus:
    """Raises TimeoutError."""
    with suppress(TaskFailed):
        handle.result(timeout=PATIENCE)
    return handle.status()


def _read(log: Path) -> str:
    return log.read_text() if log.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
