"""The application of a shop, for tests and pictures of the dashboard: what goes well, what fails, what gets stuck, what waits."""

from __future__ import annotations

import math
import os
import threading
import time
from typing import Any

from stem_iso import Stem, TaskContext, chain, chord, group
from stem_iso.brokers.operations import TaskCounts
from stem_iso.task.histogram import bin_of

app = Stem(os.environ.get("STEM_ISO_TEST_BROKER", "sqlite:///shop.db"), default_visibility_timeout=30)


@app.task(name="thumbs.make", queue="images", max_retries=0)
def make(path: str, width: int = 320) -> dict[str, Any]:
    time.sleep(0.02 + width / 8000)
    if path.endswith(".tiff"):
        raise ValueError(f"cannot identify image file {path!r}")
    return {"path": path.replace(".png", f"@{width}.webp"), "width": width, "bytes": width * 41}


@app.task(
    name="thumbs.convert", queue="images", isolate=True, soft_time_limit=20, hard_time_limit=120, memory_limit="256MiB", max_retries=0
)
def convert(path: str, quality: int = 80) -> None:
    ballast = bytearray(60 << 20)
    _encode(path, quality, ballast)


def _encode(path: str, quality: int, ballast: bytearray) -> None:
    _search_palette(path, ballast)


def _search_palette(path: str, ballast: bytearray) -> None:
    while True:  # a bug: this never ends
        time.sleep(0.01)


@app.task(name="reports.monthly", queue="reports", isolate=True, soft_time_limit=2, hard_time_limit=900, max_retries=1)
def monthly(month: str, customer: str = "") -> None:
    _wait_for_rows(threading.Lock())


def _wait_for_rows(lock: threading.Lock) -> None:
    lock.acquire()
    lock.acquire()  # a bug: it is held by itself


@app.task(name="reports.export", queue="reports", isolate=True, hard_time_limit=1, max_retries=0)
def export(month: str) -> None:
    _wait_for_rows(threading.Lock())


@app.task(name="mail.send", queue="mail", max_retries=4, redact=("token",))
def send(context: TaskContext, to: str, subject: str, token: str = "") -> str:
    time.sleep(0.01)
    if to.endswith("example.invalid"):
        raise ConnectionRefusedError(111, f"mx.example.invalid refused the connection for {to}")
    return f"250 queued as {context.id[-8:]}"


@app.task(name="billing.charge", queue="billing", max_concurrency=1, redact=("card",), max_retries=0)
def charge(customer: str, cents: int, card: str) -> int:
    time.sleep(1.5)
    if cents < 0:
        raise RuntimeError(f"a charge of {cents} cents is none")
    return cents


@app.task(name="search.index", queue="default", rate_limit="30/m", max_retries=0)
def index(documents: list[int]) -> int:
    time.sleep(0.05)
    return len(documents)


@app.task(name="albums.join", queue="images", max_retries=0)
def join(title: str) -> str:
    return title


@app.task(name="tests.text", queue="default", max_retries=0)
def text(value: str, fail: bool = False) -> str:
    """For texts that look like markup."""
    if fail:
        raise ValueError(value)
    return value


app.schedule("nightly-cleanup", index.s([1, 2, 3]), cron="0 3 * * *", timezone="Europe/Berlin")
app.schedule("reindex", index.s([4, 5]), every=300, jitter=20)
app.schedule("invoices", charge.s("all", 0, "-"), cron="0 6 1 * *", timezone="America/New_York", catch_up="none")


def fill(images: int = 120) -> None:
    """As a day of the shop leaves it, within seconds."""
    for number in range(images):
        make.enqueue(f"products/{number:04}.png", 160 + 40 * (number % 5))
    for number in range(6):
        make.enqueue(f"scans/{number:02}.tiff")
    for number in range(30):
        send.enqueue(f"customer{number}@example.com", "Your order", token="tr0ub4dor")
    for number in range(4):
        send.enqueue(f"old{number}@example.invalid", "We miss you", token="tr0ub4dor")
    for number in range(9):
        charge.enqueue(f"customer-{number}", 1250 + number, "4111 1111 1111 1111")
    charge.enqueue("customer-x", -5, "4111")
    for number in range(70):
        index.enqueue(list(range(number, number + 12)))
    for number in range(12):
        make.using(delay=600 + 60 * number).enqueue(f"later/{number:02}.png")
    chord([make.s(f"album/{number}.png", 640) | join.s("small") for number in range(4)], join.s("Summer")).enqueue()
    chain(make.s("a.png"), group([make.s("b.png"), make.s("c.tiff"), make.s("d.png")]), join.s("never")).enqueue()
    convert.enqueue("catalogue/broken-palette.gif", quality=92)
    monthly.enqueue("2026-11", customer="ann & bob")
    export.enqueue("2026-10")
    send.using(priority=9).enqueue("chief@example.com", "Urgent", token="x")


def remember(minutes: int = 1440) -> None:
    """A day of counts before this minute, with a busy noon and a bad hour."""
    now = int(time.time() // 60)
    rows = []
    for minute in range(now - minutes + 1, now):
        wave = 1.2 + math.sin((minute % 1440) / 1440 * 2 * math.pi - 1.9) + 0.25 * math.sin(minute / 7) + 0.15 * math.sin(minute * 1.7)
        for queue, name, each, run in (
            ("images", "thumbs.make", 60, 0.07),
            ("mail", "mail.send", 25, 0.02),
            ("billing", "billing.charge", 8, 1.5),
        ):
            count = max(0, int(each * wave))
            bad = 170 < now - minute < 215 and queue == "mail"
            failed, retried = (count // 3, count // 4) if bad else (int(minute % 9 == 0 and count > 20), int(minute % 5 == 0) * 2)
            counts = {
                "enqueued": count,
                "started": count,
                "succeeded": max(0, count - failed - retried),
                "failed": failed,
                "retried": retried,
            }
            rows.append(
                TaskCounts(
                    queue=queue,
                    name=name,
                    minute=minute,
                    counts={word: number for word, number in counts.items() if number},
                    wait={bin_of(0.012 * wave): count, bin_of(0.4 * wave): count // 12} if count else {},
                    run={bin_of(run): count, bin_of(run * 3.2): count // 15} if count else {},
                )
            )
    with app.broker_pool.borrow() as broker:
        broker.add_counts(rows)
