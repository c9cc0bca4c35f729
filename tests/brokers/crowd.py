"""A producer or a worker in a process of its own, for tests that kill it.

python crowd.py produce FOLDER LOG NUMBER COUNT     publishes COUNT tasks; logs each id after its publish was answered
python crowd.py work FOLDER LOG BOOT PREDECESSOR    settles what it gets, every third task after one retry; logs each `DONE`
python crowd.py hold FOLDER                          takes the writer's lock, says so, and keeps it until its stdin ends
python crowd.py drip FOLDER                          publishes one task per line of its stdin, and says so
"""

from __future__ import annotations

import select
import sys
import zlib
from pathlib import Path

import msgspec

from stem_iso.brokers.base import Delivery, Settlement, Verdict
from stem_iso.brokers.sqlite.lock_file import LockFile
from stem_iso.brokers.url import open_broker
from stem_iso.outcome import TaskState
from stem_iso.task.envelope import Envelope, decode
from stem_iso.task.settlement import Finish, Plan, Retry

URL = "sqlite:///jobs.db?max_redeliveries=100000&default_visibility_timeout=1"


def produce(folder: str, log: str, number: str, count: str) -> None:
    broker = open_broker(URL, cwd=folder)
    with open(log, "a", buffering=1) as lines:
        for index in range(int(count)):
            id = f"{number}-{index}"
            broker.publish([Envelope(id=id, name="task", args=msgspec.Raw(b"\x80"))])
            lines.write(f"{id}\n")


def work(folder: str, log: str, boot: str, predecessor: str) -> None:
    broker = open_broker(URL, cwd=folder)
    broker.reclaim(boot, predecessor or None)
    watch = broker.watch(boot, ["default"])
    ended: list[Settlement] = []
    with open(log, "a", buffering=1) as lines:
        while True:
            exchange = broker.exchange(boot, ended, ["default"], 5)
            for settlement, verdict in zip(ended, exchange.verdicts, strict=True):
                if isinstance(settlement.plan, Finish) and verdict is Verdict.DONE:
                    lines.write(f"{settlement.receipt.id}\n")
            ended = [Settlement(one.receipt, plan(one)) for one in exchange.deliveries]
            if not ended:
                select.select([watch], [], [], watch.interval)
                watch.changed()
                broker.reclaim(boot)  # a predecessor of a predecessor, both killed before they could look


def plan(delivery: Delivery) -> Plan:
    envelope = decode(delivery.body)
    if envelope.attempt == 0 and zlib.crc32(envelope.id.encode()) % 3 == 0:
        return Retry(msgspec.structs.replace(envelope, attempt=1), "once more")
    return Finish(TaskState.SUCCEEDED, result=b"\x01")


def hold(folder: str) -> None:
    lock = LockFile(str(Path(folder) / "jobs.db-lock"), 0o644)
    lock.acquire(0)
    print("held", flush=True)
    sys.stdin.read()
    lock.release()


def drip(folder: str) -> None:
    broker = open_broker(URL, cwd=folder)
    for line in sys.stdin:
        print(broker.publish([Envelope(id=line.strip(), name="task", args=msgspec.Raw(b"\x80"))])[0], flush=True)


if __name__ == "__main__":
    {"produce": produce, "work": work, "hold": hold, "drip": drip}[sys.argv[1]](*sys.argv[2:])
