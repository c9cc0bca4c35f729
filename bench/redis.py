"""Redis: stem_iso beside celery, rq, dramatiq, huey, taskiq and saq on one server, in one run; then what only stem_iso is asked.

    python -m bench.redis [--rounds 5] [--tasks 3000] [--samples 150] [--deep 1000000] [--only NAME ...]

The server is the bench's own, over TCP, without persistence. `bench.redis_peers` says how each is run: two tasks at once, no-ops; those of
stem_iso are isolated, under a soft and a hard limit, and their results are stored. Each round measures all of them, one after the other; a
figure is the median of the rounds, "from-to" the least and the most. The load of the machine is said before and after.

    tasks/s         a queue filled beforehand; from the first fifth done to the last, so that no start of a worker is in it
    server, worker  µs of processor time a task, in that time: all threads of the server; all processes of the worker
    enqueue         µs of one call with nothing else going on
    start           ms from the call that enqueues to the handler's first line, the worker idle; one each 10 ms or so

and of stem_iso: many at once, delayed tasks, bytes a queued task takes in the server, and what a fetch and a settlement cost the server
with so many queued beside 1,000. `target`: what the row is to reach; `ratio`: beside stem_iso's own figure, or the smaller queue's.
A peer that is not installed is left out (`pip install --group bench`).
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import redis_depth
from bench.harness import percentile, report
from bench.redis_peers import NAMES
from stem_iso.worker.owned_worker import OwnedWorker
from tests.servers.finding import MISSING, binaries
from tests.servers.server import Server

ROOT = Path(__file__).parent.parent
PATIENCE = 60.0
FEWER = {"rq": 4, "celery": 2}  # what is slow is measured with so much less
TARGETS = {"huey": "ours ≥ 1.5 ×", "celery": "ours ≥ 8 ×", "stem_iso": "enqueue p50 ≤ 110 µs; start p50 ≤ 0.8, p99 ≤ 2 ms"}


class Tree:
    """Processor time of a process and all below it. Of those that ended meanwhile nothing is counted."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def seconds(self) -> float:
        return sum(cpu(pid) for pid in below(self._pid))


def below(pid: int) -> list[int]:
    try:
        found = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return [pid, *(each for child in found for each in below(child))]


def cpu(pid: int) -> float:
    """Seconds on a processor, all threads; those that ended are in `stat` alone, so the larger one counts. 0.0 for one that is gone."""
    try:
        threads = sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return max(threads, (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK"))


def start_worker(command: list[str], url: str, log: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "STEM_ISO_BENCH_REDIS": url, "PYTHONPATH": str(ROOT)}
    with log.open("ab") as out:
        start = OwnedWorker if "stem_iso.worker" in command else subprocess.Popen
        return start(command, cwd=ROOT, env=environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True)


def stop(process: subprocess.Popen[bytes]) -> None:
    """TERM, then a kill of all that it started."""
    family = below(process.pid)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in family[1:]:
        try:
            if f"{process.pid}" == Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3]:  # of its session: no pid reused
                os.kill(pid, signal.SIGKILL)
        except OSError:
            continue


def until(look: Callable[[], bool], worker: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not look():
        if time.monotonic() > end or worker.poll() is not None:
            raise TimeoutError(f"the tasks do not end; the worker says:\n{log.read_text()[-2000:]}")
        time.sleep(0.002)


def rate(peer: Any, server: Server, tasks: int, folder: Path) -> dict[str, Any]:
    client = server.plain()
    taken = []
    for number in range(tasks):
        before = time.perf_counter()
        peer.noop(number)
        taken.append(time.perf_counter() - before)
    worker = start_worker(peer.COMMAND, server.url, folder / "rate.log")
    try:
        until(lambda: peer.left(client) <= tasks * 0.8, worker, folder / "rate.log")
        family, begun, first = Tree(worker.pid), time.perf_counter(), peer.left(client)
        used = cpu(server.pid), family.seconds()
        until(lambda: peer.left(client) == 0, worker, folder / "rate.log")
        seconds, spent = time.perf_counter() - begun, (cpu(server.pid) - used[0], family.seconds() - used[1])
    finally:
        stop(worker)
    return {
        "tasks/s": round(first / seconds),
        "server": round(spent[0] / first * 1e6, 1),
        "worker": round(spent[1] / first * 1e6),
        "enqueue p50": round(percentile(taken, 0.5) * 1e6),
        "p99": round(percentile(taken, 0.99) * 1e6),
    }


def starts(peer: Any, server: Server, samples: int, folder: Path) -> dict[str, Any]:
    client = server.plain()
    worker = start_worker(peer.COMMAND, server.url, folder / "start.log")
    taken: list[float] = []
    try:
        for number in range(samples + 5):
            before = time.time()
            peer.when()
            popped = client.blpop("bench:when", timeout=9 if number else PATIENCE)
            if popped is None:
                raise TimeoutError((folder / "start.log").read_text()[-2000:])
            if number >= 5:
                taken.append(float(popped[1]) - before)
            time.sleep(0.008 + number % 7 / 1000)
    finally:
        stop(worker)
    return {"start p50": round(percentile(taken, 0.5) * 1e3, 2), "start p99": round(percentile(taken, 0.99) * 1e3, 2)}


def measured(name: str, server: Server, tasks: int, samples: int, folder: Path) -> dict[str, Any]:
    """One row. What a peer cannot do here is said in it, and ends nothing."""
    try:
        peer = importlib.import_module(f"bench.redis_peers.{name}")
    except ImportError as error:
        return {"what": name, "note": f"not installed: {error.name}"}
    folder.mkdir()
    try:
        server.plain().flushall()
        row = rate(peer, server, tasks // FEWER.get(name, 1), folder)
        server.plain().flushall()
        return {"what": name, **row, **starts(peer, server, samples // FEWER.get(name, 1), folder)}
    except (TimeoutError, AssertionError) as error:
        return {"what": name, "note": str(error)[-300:]}


SPREAD = ("tasks/s", "enqueue p50", "start p50")


def median_row(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Of one peer's rounds. What it could not do in a round is not counted; where it never could, that is the row."""
    good = [row for row in rounds if "tasks/s" in row]
    if len(good) < 2:
        return (good or rounds)[0]
    row = {key: value if key == "what" else percentile([each[key] for each in good], 0.5) for key, value in good[0].items()}
    return row | {f"{key} from-to": f"{min(each[key] for each in good)}-{max(each[key] for each in good)}" for key in SPREAD}


def load() -> str:
    return "load " + " ".join(f"{each:.1f}" for each in os.getloadavg())


def own_server(aof: str = "") -> Server:
    """Of the newest version that this machine has."""
    if not binaries():
        raise SystemExit(MISSING.format(wanted="from 6.2 up"))
    return Server(binaries()[0], aof=aof)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--tasks", type=int, default=3000)
    parser.add_argument("--samples", type=int, default=150)
    parser.add_argument("--deep", type=int, default=1_000_000, help="the long queue; 0: leave it out")
    parser.add_argument("--only", nargs="*", default=NAMES, choices=NAMES)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stem_iso-bench-") as name:
        folder = Path(name)
        server = own_server()
        os.environ["STEM_ISO_BENCH_REDIS"] = server.url  # before a peer is imported, which asks for it
        try:
            print(load())
            rounds = [
                [measured(peer, server, options.tasks, options.samples, folder / f"{peer}-{turn}") for peer in options.only]
                for turn in range(options.rounds)
            ]
            rows = [median_row(list(each)) for each in zip(*rounds, strict=True)]
            print(load())
            own = next((row["tasks/s"] for row in rows if row["what"] == "stem_iso" and "tasks/s" in row), None)
            for row in rows:
                row |= {"ratio": round(own / row["tasks/s"], 1)} if own and "tasks/s" in row else {}
                row |= {"target": TARGETS[row["what"]]} if row["what"] in TARGETS else {}
            report("redis", rows)
            if "stem_iso" in options.only:
                print()
                report("redis_depth", redis_depth.rows(server, options.samples, options.deep))
        finally:
            server.close()


if __name__ == "__main__":
    main()
