"""The application that `bench.chaos_redis` kills: effects are lines of a ledger, and a producer writes down what was accepted.

python -m bench.chaos_redis_app SEED        enqueues until its standard input ends

    ledger      start|end ID NAME KEY ATTEMPT PID LAUNCHER SECONDS       by handlers; LAUNCHER started the isolate; SECONDS are monotonic
                child ID NAME KEY ATTEMPT PID LAUNCHER SECONDS           a daemon of the handler, which must not outlive it
    accepted    KIND ID EXPECTED                                         by producers, once the broker said so; EXPECTED: the result, or -

An id is the producer's own, so what was answered by a dead server is asked again and is the same task. A canvas has its ids from the
library: one whose answer was lost is not claimed to be there, and not asked again.
"""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
import time
from uuid import UUID

from stem_iso import BrokerUnavailable, Stem, TaskContext, chain, chord, group

FOLDER = os.environ.get("STEM_ISO_CHAOS", ".")
app = Stem(os.environ.get("STEM_ISO_CHAOS_BROKER", "memory://"), default_visibility_timeout=2, claim_interval=0.5)


def write(file: str, *words: object) -> None:
    """One line, whole, whatever is killed."""
    fd = os.open(f"{FOLDER}/{file}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, " ".join(map(str, words)).encode() + b"\n")
    os.close(fd)


def say(word: str, context: TaskContext, key: str = "-", pid: int | None = None) -> None:
    write("ledger", word, context.id, context.name, key, context.attempt, pid or os.getpid(), os.getppid(), f"{time.monotonic():.6f}")


def work(context: TaskContext, seconds: float, key: str = "-") -> None:
    say("start", context, key)
    time.sleep(seconds)
    say("end", context, key)


@app.task(name="chaos.plain", isolate=True, hard_time_limit=10)
def plain(context: TaskContext, seconds: float) -> str:
    work(context, seconds)
    return "done"


@app.task(name="chaos.once", isolate=True, acks_late=False, hard_time_limit=10)
def once(context: TaskContext, seconds: float) -> None:
    work(context, seconds)


@app.task(name="chaos.flaky", isolate=True, max_retries=2, hard_time_limit=10)
def flaky(context: TaskContext, seconds: float) -> None:
    work(context, seconds)
    if context.attempt == 0:
        context.retry(countdown=0.2)


@app.task(name="chaos.hang", isolate=True, hard_time_limit=0.5)
def hang(context: TaskContext, seconds: float) -> None:
    say("start", context)
    child = subprocess.Popen(["sleep", "1000"], env={}, start_new_session=True)
    say("child", context, pid=child.pid)
    while True:
        pass


@app.task(name="chaos.unique", isolate=True, unique=True, hard_time_limit=10)
def unique(context: TaskContext, key: str, seconds: float) -> None:
    work(context, seconds, key)


@app.task(name="chaos.narrow", isolate=True, max_concurrency=1, hard_time_limit=10)
def narrow(context: TaskContext, seconds: float) -> None:
    work(context, seconds, "narrow")


@app.task(name="chaos.rated", isolate=True, rate_limit="5/s", hard_time_limit=10)
def rated(context: TaskContext, seconds: float) -> None:
    work(context, seconds)


@app.task(name="chaos.link", isolate=True, max_retries=3, queue="other", hard_time_limit=10)
def link(context: TaskContext, value: int, seconds: float) -> int:
    work(context, seconds)
    return value + 1


@app.task(name="chaos.total", isolate=True, max_retries=3, hard_time_limit=10)
def total(context: TaskContext, values: list[int]) -> int:
    work(context, 0.01)
    return sum(values)


@app.task(name="chaos.failed", isolate=True, max_retries=3, hard_time_limit=10)
def failed(context: TaskContext) -> None:
    """Behind a link that failed."""
    work(context, 0.01)


class Producer:
    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._kinds = [self.plain, self.plain, self.late, self.once, self.flaky, self.hang, self.unique, self.narrow, self.rated]
        self._kinds += [self.chain, self.group, self.chord]

    def run(self) -> None:
        while not ended(self._dice.uniform(0, 0.5)):
            self._dice.choice(self._kinds)()
        write("stopped", os.getpid())

    def plain(self) -> None:
        self._one(plain.using(task_id=self._id(), priority=self._dice.randrange(10)).s(self._seconds()))

    def late(self) -> None:
        self._one(plain.using(task_id=self._id(), delay=self._dice.uniform(0.05, 3)).s(self._seconds()))

    def once(self) -> None:
        self._one(once.using(task_id=self._id()).s(self._seconds()))

    def flaky(self) -> None:
        self._one(flaky.using(task_id=self._id()).s(self._seconds()))

    def hang(self) -> None:
        self._one(hang.using(task_id=self._id()).s(0))

    def unique(self) -> None:
        key = self._dice.choice("abc")
        self._one(unique.using(task_id=self._id(), unique_key=key).s(key, self._seconds()))

    def narrow(self) -> None:
        self._one(narrow.using(task_id=self._id()).s(self._seconds() / 3))

    def rated(self) -> None:
        self._one(rated.using(task_id=self._id()).s(0.01))

    def chain(self) -> None:
        steps = [link.after(self._seconds() / 3) for _ in range(self._dice.randrange(1, 4))]
        self._canvas("chain", chain(link.s(0, 0.05), *steps).link_error(failed.s()), len(steps) + 1)

    def group(self) -> None:
        self._canvas("group", group(link.s(number, 0.05) for number in range(3)), "1,2,3")

    def chord(self) -> None:
        members = self._dice.randrange(2, 5)
        self._canvas("chord", chord([link.s(0, self._seconds() / 4) for _ in range(members)], total.after()), members)

    def _one(self, signature: object) -> None:
        """Asked until the broker says so: the same id is the same task."""
        while True:
            try:
                handle = signature.enqueue()  # type: ignore[attr-defined]  # a Signature of whichever task
            except BrokerUnavailable:
                if ended(0.2):
                    return
            else:
                write("accepted", "task", handle.id, "-")
                return

    def _canvas(self, kind: str, part: object, expected: object) -> None:
        try:
            handle = part.enqueue()  # type: ignore[attr-defined]  # a Part of whichever kind
        except BrokerUnavailable:
            return
        write("accepted", kind, handle.id, expected)

    def _id(self) -> str:
        return str(UUID(int=self._dice.getrandbits(128), version=4))

    def _seconds(self) -> float:
        return self._dice.uniform(0.02, 0.6)


def ended(within: float) -> bool:
    return bool(select.select([sys.stdin], [], [], within)[0])


if __name__ == "__main__":
    Producer(int(sys.argv[1])).run()
