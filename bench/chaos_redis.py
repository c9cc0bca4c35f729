"""`kill -9` of isolates, cores, launchers and of the Redis server at random instants; then the books.

    python -m bench.chaos_redis [--seconds 600] [--kills 200] [--seed N]

Two workers and two producers go on meanwhile. The server writes each command to its append-only file before it answers (`appendfsync
always`), and comes back on its port a moment after it was killed: what it had promised must be there. When the time is over the producers
stop, all that was accepted must end (`Progress`), the workers are stopped, and a program apart (`bench.chaos_redis_judge`), which knows
nothing of stem_iso, reads the ledger and the server.

    kills    WHO PID SECONDS      of an isolate: its pid; of a core or a launcher: the launcher's

Processes are killed by a pid that is this bench's own child or below it, and while its parent is known to live.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import redis

from bench.harness import Progress
from bench.redis import own_server
from stem_iso.worker.owned_worker import OwnedWorker
from tests.servers.server import Server

WHO = ("isolate", "isolate", "core", "launcher", "server")


def children(pid: int) -> list[int]:
    try:
        return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    except OSError:
        return []


def title(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


class Worker:
    """By command, started again when it ends."""

    def __init__(self, folder: Path, environment: dict[str, str], name: str) -> None:
        self._folder, self._environment, self._name = folder, environment, name
        self.starts = 0
        self.start()

    def start(self) -> None:
        self.starts += 1
        command = [sys.executable, "-m", "stem_iso.worker", "-A", "bench.chaos_redis_app:app", "-Q", "default,other", "-c", "2"]
        with (self._folder / f"{self._name}.log").open("ab") as log:
            self.process = OwnedWorker(
                [*command, "--spares", "1", "-l", "warning"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def revive(self) -> bool:
        """True if it had ended: a launcher whose core has died five times in a minute does."""
        ended = self.process.poll() is not None
        if ended:
            self.start()
        return ended

    def target(self, who: str, dice: random.Random) -> int | None:
        """A pid to kill, None where there is none now."""
        launcher = self.process.pid
        if who == "launcher":
            return launcher
        titles = {pid: title(pid) for pid in children(launcher)}
        wanted = b"stem_iso: worker" if who == "core" else b"chaos."
        found = [pid for pid, name in titles.items() if wanted in name]
        if who == "isolate" and not found:
            found = [pid for pid, name in titles.items() if b"stem_iso" in name and b"stem_iso: worker" not in name]
        return dice.choice(found) if found else None

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


class Chaos:
    """`server`: one that promises (`aof="always"`), ended with this."""

    def __init__(self, folder: Path, dice: random.Random, server: Server) -> None:
        self.folder, self._dice, self.server = folder, dice, server
        self.environment = {**os.environ, "STEM_ISO_CHAOS": str(folder), "STEM_ISO_CHAOS_BROKER": self.server.url}
        (folder / "ledger").touch()
        (folder / "accepted").touch()
        (folder / "kills").touch()
        self.workers: list[Worker] = []
        self.producers: list[subprocess.Popen[bytes]] = []
        self.killed: Counter[str] = Counter()

    def begin(self) -> None:
        for name in ("first", "second"):
            self.workers.append(Worker(self.folder, self.environment, name))
        for _ in range(2):
            command = [sys.executable, "-m", "bench.chaos_redis_app", str(self._dice.randrange(1 << 32))]
            with (self.folder / "producers.log").open("ab") as log:
                self.producers.append(subprocess.Popen(command, env=self.environment, stdin=subprocess.PIPE, stderr=log))

    def play(self, seconds: float, kills: int) -> None:
        """Kills spread over the time by the dice."""
        begun = time.monotonic()
        for instant in sorted(self._dice.uniform(0, seconds) for _ in range(kills)):
            self._rest(begun + instant)
            self._kill(self._dice.choice(WHO))
        self._rest(begun + seconds)

    def _rest(self, until: float) -> None:
        while (left := until - time.monotonic()) > 0:
            self._revive()
            time.sleep(min(0.1, left))

    def _kill(self, who: str) -> None:
        self._revive()
        if who == "server":
            self._note("server", self.server.pid)
            self.server.kill()
            time.sleep(self._dice.choice([0.0, 0.0, 0.3, 1.0, 3.0]))  # 3 s: longer than a lease
            self.server.start()
            return
        worker = self._dice.choice(self.workers)
        end = time.monotonic() + self._dice.choice([0.1, 5, 5, 5])  # mostly while it works, now and then while it starts
        while (pid := worker.target(who, self._dice)) is None and time.monotonic() < end:
            time.sleep(0.02)
        if pid is None or worker.process.poll() is not None:
            return
        # Said before it is done: a start that follows must find it in the book.
        self._note(who, pid if who == "isolate" else worker.process.pid)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if who == "launcher":
            worker.process.wait()
        if who == "core":
            # Core and launcher killed in one instant is the one case in which a daemon of a handler may survive; it is not played here.
            time.sleep(0.3)

    def _note(self, who: str, pid: int) -> None:
        self.killed[who] += 1
        with (self.folder / "kills").open("a") as book:
            book.write(f"{who} {pid} {time.monotonic():.6f}\n")

    def _revive(self) -> None:
        for worker in self.workers:
            launcher = worker.process.pid
            if worker.revive():
                with (self.folder / "kills").open("a") as book:
                    book.write(f"ended {launcher} {time.monotonic():.6f}\n")

    def drain(self) -> None:
        for producer in self.producers:
            producer.communicate(b"stop\n", timeout=30)
            assert producer.returncode == 0, (self.folder / "producers.log").read_text()[-2000:]
        quiet, progress = 0, Progress()
        while quiet < 3:  # nothing three times over: what one slot has let go, the next may not have yet
            left = self._left()
            quiet = 0 if left else quiet + 1
            progress.check(sum(left.values()), left)
            self._revive()
            time.sleep(0.2)

    def _left(self) -> dict[str, int]:
        """Tasks and outboxes."""
        with self.server.plain() as client:
            keys = [key for pattern in ("si:{*}:m", "si:{*}:out") for key in client.scan_iter(pattern, count=1000)]
            return {key.decode(): length for key in keys if (length := client.hlen(key))}

    def close(self) -> None:
        for process in (*self.producers, *(worker.process for worker in self.workers)):
            if process.poll() is None:
                process.kill()
                process.wait()
        self.server.close()


def judged(chaos: Chaos) -> str:
    """What the judge says. Raises AssertionError with it, where the books do not add up."""
    command = [sys.executable, "-m", "bench.chaos_redis_judge", str(chaos.folder), str(chaos.server.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(folder: Path, seconds: float, kills: int, seed: int, server: Server) -> tuple[str, Counter[str]]:
    """What the judge counted, and who was killed how often. Raises AssertionError and redis.RedisError."""
    chaos = Chaos(folder, random.Random(seed), server)
    try:
        chaos.begin()
        chaos.play(seconds, kills)
        chaos.drain()
        codes = [worker.stop() for worker in chaos.workers]
        assert codes == [0, 0], f"exit codes {codes}"
        return judged(chaos), chaos.killed
    finally:
        chaos.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--kills", type=int, help="default: one each 2.2 s, 270 in ten minutes")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="stem_iso-chaos-"))
    print(f"seed {options.seed}; ledger and logs: {folder}", flush=True)
    try:
        kills = options.kills or round(options.seconds / 2.2)
        counted, killed = run(folder, options.seconds, kills, options.seed, own_server(aof="always"))
    except (AssertionError, redis.RedisError) as error:
        sys.exit(f"{error}\nseed {options.seed}; kept: {folder}")
    print(counted, f"killed: {sum(killed.values())} {dict(killed)}", sep="")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
