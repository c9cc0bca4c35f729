"""What is said to a service manager: read from a socket as systemd would."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from stem_iso.worker.service_manager import BEATS, LONGEST_START, STATUS_EVERY, ServiceManager


class Listening:
    """A service manager's socket, and a clock."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        self.socket.setblocking(False)
        self.environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
        self.now = 100.0

    def manager(self, silent: bool = False) -> ServiceManager:
        return ServiceManager(self.environ, silent, lambda: self.now)

    def read(self) -> list[set[str]]:
        found = []
        while True:
            try:
                found.append(set(self.socket.recv(4096).decode().splitlines()))
            except BlockingIOError:
                return found


@pytest.fixture(params=["a path", "an abstract name"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listening]:
    made = Listening(f"{tmp_path}/notify" if request.param == "a path" else f"@stem-iso-test-{os.getpid()}")
    yield made
    made.socket.close()


def test_a_worker_is_ready_once_and_beats_with_each_turn(systemd: Listening) -> None:
    manager = systemd.manager()
    manager.core_turned("0 of 4 seats busy")
    manager.core_turned("1 of 4 seats busy")
    assert systemd.read() == [{"READY=1", "STATUS=0 of 4 seats busy", "WATCHDOG=1"}, {"STATUS=1 of 4 seats busy", "WATCHDOG=1"}]
    assert manager.every == 3 / BEATS


def test_nobody_else_learns_where_the_service_manager_is(systemd: Listening) -> None:
    systemd.manager()
    assert systemd.environ == {"HOME": "/"}


def test_it_stops_once(systemd: Listening) -> None:
    manager = systemd.manager()
    manager.stopping()
    manager.stopping()
    assert systemd.read() == [{"STOPPING=1"}]


def test_a_core_that_has_turned_beats_for_itself(systemd: Listening) -> None:
    manager = systemd.manager()
    manager.core_starts()
    manager.vouch()
    manager.core_turned("ready")
    systemd.read()
    systemd.now += 1000
    manager.vouch()
    assert systemd.read() == []


def test_for_a_core_that_starts_the_launcher_beats_until_it_has_taken_too_long(systemd: Listening) -> None:
    manager = systemd.manager()
    manager.core_turned("ready")
    manager.core_died("the core died")
    manager.core_starts()
    systemd.read()
    began, beats = systemd.now, 0
    while manager.due != float("inf"):
        systemd.now = manager.due
        manager.vouch()
        beats += systemd.read() == [{"WATCHDOG=1"}]
    assert systemd.now - began == pytest.approx(LONGEST_START, abs=2)
    assert beats == pytest.approx(LONGEST_START / (3 / BEATS), abs=2)


def test_a_watchdog_of_another_process_is_not_ours(systemd: Listening) -> None:
    systemd.environ["WATCHDOG_PID"] = str(os.getppid())
    manager = systemd.manager()
    manager.core_starts()
    manager.vouch()
    manager.core_turned("ready")
    assert systemd.read() == [{"READY=1", "STATUS=ready"}]
    assert manager.every == STATUS_EVERY


def test_a_worker_of_another_service_says_nothing(systemd: Listening) -> None:
    manager = systemd.manager(silent=True)
    manager.core_turned("ready")
    manager.stopping()
    assert systemd.read() == [] and manager.every is None
    assert systemd.environ == {"HOME": "/"}


def test_what_found_no_room_is_said_with_the_next_beat(systemd: Listening) -> None:
    filler = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    filler.setblocking(False)
    filler.connect(systemd.socket.getsockname())
    with suppress(BlockingIOError):
        while filler.send(b"x"):
            pass
    manager = systemd.manager()
    manager.core_turned("ready")
    assert {"x"} in systemd.read()
    manager.core_turned("busy")
    assert systemd.read() == [{"READY=1", "STATUS=busy", "WATCHDOG=1"}]
    filler.close()


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": "vsock:2:1234"}, {"NOTIFY_SOCKET": "/nowhere/at/all", "WATCHDOG_USEC": "many"}])
def test_without_a_service_manager_nothing_happens(environ: dict[str, str]) -> None:
    manager = ServiceManager(environ)
    manager.core_starts()
    manager.vouch()
    manager.core_turned("ready")
    manager.stopping()
    assert environ == {}
