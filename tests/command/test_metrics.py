"""Metrics, probes, and words to a service manager of workers by command, read as a scraper, a kubelet and systemd would."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from stem_iso.isolate.keeper import process_tree
from stem_iso.worker.owned_worker import OwnedWorker
from stem_iso.worker.reporting.metrics_server import MOST
from tests.command.conftest import ROOT, Command
from tests.isolate.calling import eventually
from tests.servers.server import Server

Start = Callable[..., Command]
Serve = Callable[..., Server]


def port_of(worker: Command) -> int:
    worker.says("metrics are at")
    return int(re.findall(r"metrics are at http://[\d.]+:(\d+)/metrics", worker.log.read_text())[-1])


def get(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as link:
        link.request(method, path)
        answer = link.getresponse()
        return answer.status, answer.read().decode()


def samples(port: int) -> dict[tuple[str, ...], float]:
    """By name and the values of the labels, those of buckets left out."""
    status, text = get(port, "/metrics")
    assert status == 200
    families = text_string_to_metric_families(text)
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if "le" not in sample.labels
    }


def shown(port: int, expected: dict[tuple[str, ...], float]) -> None:
    """Soon: a text that was just made is given again."""
    eventually(lambda: samples(port).items() >= expected.items(), f"it does not show {expected}")


def outcome(word: str, task: str) -> tuple[str, ...]:
    return ("stem_iso_tasks_total", word, "default", task)


def test_a_worker_shows_what_happened_in_it(command: Start) -> None:
    worker = command("--metrics-port", "0").ready()
    port = port_of(worker)
    failed = worker.enqueue("leave", args={"code": 3}, max_retries=1)
    killed = worker.enqueue("c_loop", args={"ledger": str(worker.folder / "ledger")}, hard_time_limit=0.5, max_retries=0)
    for handle in (failed, killed):
        eventually(lambda handle=handle: handle.status().state.value == "failed", "it fails")
    shown(port, {outcome("succeeded", "echo"): 1, outcome("failed", "echo"): 0, outcome("cancelled", "echo"): 0})
    shown(port, {outcome("retried", "leave"): 1, outcome("failed", "leave"): 1, outcome("failed", "c_loop"): 1})
    shown(port, {("stem_iso_kills_total", "hard"): 1, ("stem_iso_kills_total", "silence"): 0, ("stem_iso_kill_late_seconds_count",): 1})
    shown(port, {("stem_iso_task_run_seconds_count", "default", "leave"): 2, ("stem_iso_task_wait_seconds_count", "default", "echo"): 1})
    shown(port, {("stem_iso_isolates", "busy"): 0, ("stem_iso_broker_up",): 1})
    late = samples(port)["stem_iso_kill_late_seconds_sum",]
    assert 0 < late < 30, "seconds"


def test_probes_and_nothing_else_are_served(command: Start) -> None:
    port = port_of(command("--metrics-port", "0").ready())
    assert get(port, "/healthz") == get(port, "/readyz?verbose=1") == (200, "ok\n")
    assert get(port, "/healthz", "HEAD") == (200, "")
    assert get(port, "/")[0] == get(port, "/metrics/..")[0] == 404
    assert get(port, "/metrics", "POST")[0] == 405


@pytest.mark.slow
def test_a_worker_that_stops_is_alive_and_not_ready(command: Start, tmp_path: Path) -> None:
    worker = command("--metrics-port", "0").ready()
    port, ledger, gate = port_of(worker), tmp_path / "ledger", tmp_path / "gate"
    worker.enqueue("inline.wait", args={"ledger": str(ledger), "gate": str(gate)})
    eventually(ledger.exists, "it has begun")
    worker.send(signal.SIGTERM)
    eventually(lambda: get(port, "/readyz") == (503, "the worker is stopping\n"), "it is not ready")
    assert get(port, "/healthz")[0] == 200 and get(port, "/metrics")[0] == 200
    gate.touch()
    assert worker.wait() == 0


@pytest.mark.slow
def test_a_worker_whose_broker_is_away_is_alive_and_not_ready(command: Start, server: Serve) -> None:
    durable = server(aof="always")
    worker = command("--metrics-port", "0", broker=durable.url).ready()
    port = port_of(worker)
    durable.kill()
    eventually(lambda: get(port, "/readyz") == (503, "the broker is away\n"), "it is not ready")
    assert get(port, "/healthz")[0] == 200
    shown(port, {("stem_iso_broker_up",): 0, outcome("succeeded", "echo"): 1})
    durable.start()
    eventually(lambda: get(port, "/readyz")[0] == 200, "it is ready again")
    shown(port, {("stem_iso_broker_up",): 1})


@pytest.mark.slow
def test_who_opens_connections_and_says_nothing_is_cut_off_and_tasks_go_on(command: Start) -> None:
    worker = command("--metrics-port", "0").ready()
    port = port_of(worker)
    idle = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(MOST + 8)]
    idle[0].sendall(b"GET /metrics HT")  # and never ends
    assert worker.enqueue("echo", args={"value": 2}).result(timeout=60) == 2
    assert get(port, "/healthz")[0] == 200, "who asks is answered, however many say nothing"
    for each in idle:
        with each, suppress(ConnectionResetError):
            assert each.recv(1) == b""
    assert get(port, "/healthz")[0] == 200


def test_a_request_that_is_none_costs_its_connection_alone(command: Start) -> None:
    port = port_of(command("--metrics-port", "0").ready())
    for junk in (b"\r\n\r\n", b"\xff\xfe\x00" * 10 + b"\r\n\r\n", b"GET " + b"/" * 100_000):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as link, suppress(ConnectionError):
            link.sendall(junk)
            assert not link.recv(100).startswith(b"HTTP/1.1 200")
    assert get(port, "/healthz")[0] == 200


def test_a_port_that_is_taken_ends_the_start_with_usage(command: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        worker = command("--metrics-port", str(port), "--metrics-host", "127.0.0.1")
        assert worker.wait() == 2
    worker.says(f"--metrics-port {port}: cannot listen at 127.0.0.1: Address already in use; give another, or 0 for any that is free")


@pytest.mark.slow
def test_without_the_extra_it_is_said_which_one_is_missing(command: Start, tmp_path: Path) -> None:
    (tmp_path / "prometheus_client.py").write_text("raise ModuleNotFoundError('none', name='prometheus_client')\n")
    worker = command("--metrics-port", "0", env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert worker.wait() == 2
    worker.says("--metrics-port: needs the extra metrics: pip install 'stem_iso[metrics]'")


# -- the service manager -------------------------------------------------------------------------------------------------------------------


class Systemd:
    """Its socket; `within` bounds a wait that a sound worker ends much sooner."""

    def __init__(self, path: Path) -> None:
        self.environ = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "1000000"}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def next(self, within: float = 60) -> list[str]:
        """Raises TimeoutError."""
        self._socket.settimeout(within)
        return self._socket.recv(4096).decode().splitlines()

    def until(self, line: str) -> list[str]:
        """All lines up to the message that holds this one."""
        found: list[str] = []
        try:
            while line not in found:
                found += self.next()
        except TimeoutError:
            raise AssertionError(f"no {line!r} came, but {found}") from None
        return found

    def silent(self, within: float) -> bool:
        """Whether nothing comes for so long, after what was on its way."""
        for _ in range(20):
            try:
                self.next(within)
            except TimeoutError:
                return True
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    with closing(Systemd(tmp_path / "notify")) as made:
        yield made


def test_a_worker_says_when_it_is_ready_how_it_is_and_that_it_stops(command: Start, systemd: Systemd) -> None:
    worker = command(env=systemd.environ)
    before = systemd.until("READY=1")
    assert "STATUS=0 of 4 seats busy" in before and "STOPPING=1" not in before
    for _ in range(3):
        assert "WATCHDOG=1" in systemd.next()
    ledger = worker.folder / "ledger"
    worker.enqueue("nap", args={"ledger": str(ledger), "seconds": 600})
    eventually(ledger.exists, "it has begun")
    systemd.until("STATUS=1 of 4 seats busy")
    worker.send(signal.SIGTERM)
    stopping = systemd.until("STOPPING=1")
    assert "READY=1" not in stopping
    systemd.until("STATUS=1 of 4 seats busy, stopping")
    worker.send(signal.SIGQUIT)
    assert worker.wait() == 0


@pytest.mark.slow
def test_a_core_that_stands_still_lets_the_watchdog_bark(command: Start, systemd: Systemd) -> None:
    worker = command(env=systemd.environ)
    systemd.until("READY=1")
    assert "WATCHDOG=1" in systemd.next()
    os.kill(worker.core, signal.SIGSTOP)
    try:
        assert systemd.silent(within=3)
    finally:
        os.kill(worker.core, signal.SIGCONT)
    assert "WATCHDOG=1" in systemd.until("WATCHDOG=1")


SLOW = """
import os, time
from tests.command.app import app

while not os.path.exists({gate!r}):
    time.sleep(0.01)
"""


@pytest.mark.slow
def test_while_a_dead_core_is_replaced_the_launcher_keeps_the_unit_alive(command: Start, systemd: Systemd, tmp_path: Path) -> None:
    """Also for as long as the new one imports its application."""
    gate = tmp_path / "gate"
    gate.touch()
    (tmp_path / "slow_app.py").write_text(SLOW.format(gate=str(gate)))
    worker = command(env={**systemd.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}, application="slow_app:app")
    systemd.until("READY=1")
    gate.unlink()
    os.kill(worker.core, signal.SIGKILL)
    systemd.until("STATUS=the core died; a new one starts in 1 s")
    for _ in range(20):  # twenty thirds of a second
        assert systemd.next() == ["WATCHDOG=1"]
    gate.touch()
    again = systemd.until("STATUS=0 of 4 seats busy")
    assert "READY=1" not in again
    worker.ready()


def test_no_process_of_a_task_finds_the_service_manager(command: Start, systemd: Systemd) -> None:
    worker = command(env=systemd.environ)
    line = 'test -z "$NOTIFY_SOCKET$WATCHDOG_USEC$WATCHDOG_PID"'
    for task in ("shell", "inline.shell"):
        assert worker.enqueue(task, args={"line": line}).result(timeout=60) == 0
    for pid in worker.below():
        environ = Path(f"/proc/{pid}/environ").read_bytes() if process_tree.title(pid) else b""
        assert b"NOTIFY_SOCKET" not in environ, process_tree.title(pid)


def test_a_worker_of_a_program_says_nothing_to_the_programs_service_manager(systemd: Systemd, tmp_path: Path) -> None:
    environ = {**os.environ, **systemd.environ, "STEM_ISO_TEST_BROKER": f"sqlite:///{tmp_path}/jobs.db"}
    log = tmp_path / "log"
    command = [sys.executable, "-m", "stem_iso.worker", "-A", "tests.command.app:app", "--log-file", str(log)]
    worker = OwnedWorker(command, cwd=ROOT, env=environ, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: log.exists() and "serves" in log.read_text(), "it works")
    finally:
        worker.terminate()
        worker.wait()
    with pytest.raises(TimeoutError):
        systemd.next(within=0.01)
