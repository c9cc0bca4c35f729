"""What a scrape of a worker costs its tasks: ten a second, of a worker that knows many tasks.

    python -m bench.metrics [--names 300] [--tasks 3000] [--rounds 5]

text       ms of one scrape, and its size
rate       isolated no-ops a second, with the scrapes and without; interleaved
one        ms from enqueue to result of one task at a time, p50 and p99, with the scrapes and without
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
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench.harness import report, spread
from stem_iso import Stem

NAMES = int(os.environ.get("STEM_ISO_BENCH_NAMES", "1"))
app = Stem(os.environ.get("STEM_ISO_BROKER", "memory://"))


@app.task(name="bench.noop", isolate=True, soft_time_limit=30, hard_time_limit=60)
def noop(value: int) -> int:
    return value


for number in range(NAMES):

    @app.task(name=f"bench.other-{number}")
    async def other() -> None:
        return None


@contextmanager
def worker(url: str, names: int, folder: Path) -> Iterator[int]:
    """The port of its metrics, when each of its tasks has run once."""
    log = folder / "log"
    command = [sys.executable, "-m", "stem_iso.worker", "-A", "bench.metrics:app", "-c", "2", "--metrics-port", "0", "--log-file", str(log)]
    process = subprocess.Popen(command, env={**os.environ, "STEM_ISO_BROKER": url, "STEM_ISO_BENCH_NAMES": str(names)})
    try:
        for handle in [app.enqueue(f"bench.other-{number}", {}) for number in range(names)]:
            handle.result(timeout=120)
        found = re.search(r":(\d+)/metrics", log.read_text())
        assert found
        yield int(found[1])
    finally:
        process.terminate()
        process.wait()


def scrape(port: int) -> tuple[float, int]:
    before = time.perf_counter()
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    link.request("GET", "/metrics")
    size = len(link.getresponse().read())
    link.close()
    return time.perf_counter() - before, size


SCRAPER = """
import http.client, time
while True:
    link = http.client.HTTPConnection("127.0.0.1", {port}, timeout=60)
    link.request("GET", "/metrics")
    link.getresponse().read()
    link.close()
    print("scraped", flush=True)
    time.sleep(0.1)
"""


@contextmanager
def scraper(port: int) -> Iterator[None]:
    """Ten times a second, once it runs: its start is not what is measured."""
    process = subprocess.Popen([sys.executable, "-c", SCRAPER.format(port=port)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield
    finally:
        process.kill()
        process.communicate()


def rate(tasks: int) -> float:
    handles = app.enqueue_many([noop.s(number) for number in range(tasks)])
    for handle in handles:
        handle.result(timeout=120)
    found = [handle.status() for handle in (handles[0], handles[-1])]
    assert found[0].started_at and found[1].finished_at
    return tasks / (found[1].finished_at - found[0].started_at).total_seconds()


def latencies(count: int) -> list[float]:
    seconds = []
    for number in range(count):
        before = time.perf_counter()
        noop.enqueue(number).result(timeout=60)
        seconds.append(time.perf_counter() - before)
    return seconds


def compared(port: int, rounds: int, tasks: int) -> Iterator[dict[str, Any]]:
    rates: dict[bool, list[float]] = {False: [], True: []}
    waits: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(2 * rounds):
        scraped = turn % 4 in (1, 2)  # off, on, on, off: what drifts is in both
        with scraper(port) if scraped else nullcontext():
            rates[scraped].append(rate(tasks))
            waits[scraped] += latencies(tasks // 10)
    shares = [with_it / without for without, with_it in zip(rates[False], rates[True], strict=True)]
    found = {"without": round(median(rates[False])), "with": round(median(rates[True])), "share": round(median(shares), 3)}
    yield {"what": "isolated no-ops a second", **found}
    for name, at in (("p50", 49), ("p99", 98)):
        figures = {scraped: round(quantiles(all_of, n=100)[at] * 1000, 2) for scraped, all_of in waits.items()}
        yield {"what": f"one task, {name}, ms", "without": figures[False], "with": figures[True]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", type=int, default=300)
    parser.add_argument("--tasks", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        app.move_to(f"sqlite:///{folder}/jobs.db")
        for number in range(options.names):
            if f"bench.other-{number}" not in app.registry:
                app.task(name=f"bench.other-{number}")(lambda: None)
        with worker(app.broker, options.names, Path(folder)) as port:
            looks = []
            for _ in range(15):
                looks.append(scrape(port))
                time.sleep(1)  # its rest is over
            rows = [{"what": "one scrape, ms", "bytes": looks[-1][1], **spread([took for took, _ in looks])}]
            rows += compared(port, options.rounds, options.tasks)
    report("metrics", rows)


if __name__ == "__main__":
    main()
