"""The application that `bench.chaos` kills: tasks that write to a ledger, and a producer that writes down what was accepted.

python -m bench.chaos_app        enqueues until its standard input ends
"""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
import time

from stem_iso import Stem, TaskContext

FOLDER = os.environ.get("STEM_ISO_CHAOS", ".")
app = Stem(f"sqlite:///{FOLDER}/chaos.db", default_visibility_timeout=2, claim_interval=0.5)


def write(file: str, *words: object) -> None:
    """One line, whole, whatever is killed."""
    fd = os.open(f"{FOLDER}/{file}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, " ".join(map(str, words)).encode() + b"\n")
    os.close(fd)


def work(context: TaskContext, seconds: float) -> None:
    write("ledger", "start", context.id, os.getpid())
    time.sleep(seconds)
    write("ledger", "end", context.id, os.getpid())


@app.task(name="chaos.work", isolate=True, hard_time_limit=5)
def plain(context: TaskContext, seconds: float) -> None:
    work(context, seconds)


@app.task(name="chaos.once", isolate=True, acks_late=False, hard_time_limit=5)
def once(context: TaskContext, seconds: float) -> None:
    work(context, seconds)


@app.task(name="chaos.flaky", isolate=True, max_retries=2, hard_time_limit=5)
def flaky(context: TaskContext, seconds: float) -> None:
    work(context, seconds)
    if context.attempt == 0:
        context.retry(countdown=0.2)


@app.task(name="chaos.hang", isolate=True, hard_time_limit=0.5)
def hang(context: TaskContext, seconds: float) -> None:
    write("ledger", "start", context.id, os.getpid())
    child = subprocess.Popen(["sleep", "1000"], env={}, start_new_session=True)
    write("ledger", "child", context.id, child.pid)
    while True:
        pass


def produce() -> None:
    dice = random.Random(os.getpid())
    tasks = [plain, plain, plain, once, flaky, hang]
    while not select.select([sys.stdin], [], [], dice.uniform(0, 0.5))[0]:
        task = dice.choice(tasks)
        handle = task.enqueue(dice.uniform(0.02, 0.6))
        write("accepted", handle.id, task.name)


if __name__ == "__main__":
    produce()
