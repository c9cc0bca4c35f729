"""Others at the files of a database: a tool that writes, planted client, other users, a full disk, no descriptor left."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from stem_iso.brokers.base import Broker
from stem_iso.brokers.sqlite import schema
from stem_iso.brokers.sqlite.clock import SYSTEM
from stem_iso.brokers.sqlite.connection import Connection, version_of
from stem_iso.brokers.sqlite.lock_file import LockFile
from stem_iso.brokers.url import open_broker
from stem_iso.errors import BrokerUnavailable
from stem_iso.testing.contract.delays import wakes
from stem_iso.testing.contract.steps import SUCCESS, counts, envelope, settle, status, take, take_one
from tests.brokers.stores import ROOT

BUSY = "another program writes to it"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def broker(path: Path) -> Iterator[Broker]:
    broker = open_broker(f"sqlite:///{path}")
    yield broker
    broker.close()


def run(program: str, *arguments: str | Path, umask: int = -1) -> str:
    """What this program prints, in a process of its own."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, umask=umask, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


# -- another program ------------------------------------------------------------------------------------------------------------------


def tool(path: Path) -> sqlite3.Connection:
    """Somebody's shell with an open transaction."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    return connection


def test_a_writer_waits_for_another_programs_transaction(broker: Broker, path: Path) -> None:
    broker.publish([envelope()])
    other = tool(path)
    assert counts(broker)[0] == 1  # who reads waits for nobody
    ending = threading.Timer(1.5, lambda: other.execute("COMMIT"))
    ending.start()
    broker.publish([envelope()])
    delivery = take_one(broker)
    settle(broker, delivery, SUCCESS)
    second = open_broker(f"sqlite:///{path}")
    assert second.status([delivery.receipt.id])[0] is not None
    second.close(), ending.join(), other.close()


def test_a_broker_opens_while_another_program_writes(broker: Broker, path: Path) -> None:
    broker.publish([envelope()])
    broker.close()
    other = tool(path)
    assert counts(broker)[0] == 1
    other.execute("COMMIT")
    other.close()


@pytest.mark.slow
def test_what_is_held_too_long_is_reported_in_time(broker: Broker, path: Path) -> None:
    broker.publish([envelope()])
    other = tool(path)
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=BUSY):
        broker.publish([envelope()])
    assert 4 < time.monotonic() - began < 15
    other.execute("ROLLBACK")
    other.close()
    broker.publish([envelope()])


@pytest.mark.parametrize("setting", ["PRAGMA user_version = -1", "PRAGMA user_version = 999", "PRAGMA application_id = 7"])
def test_a_file_that_is_not_ours_is_refused_in_one_line_and_left_as_it_is(path: Path, setting: str) -> None:
    broker = open_broker(f"sqlite:///{path}")
    broker.publish([envelope()])
    broker.close()
    raw = sqlite3.connect(path)
    raw.execute(setting)
    raw.close()
    before = path.read_bytes()
    with pytest.raises(BrokerUnavailable, match=r"jobs\.db") as refused:
        open_broker(f"sqlite:///{path}").queues()
    assert "\n" not in str(refused.value)
    assert path.read_bytes() == before


def test_a_file_that_is_made_between_two_looks_is_not_called_damaged(path: Path) -> None:
    """Its maker commits just before the second question that somebody else asks the file."""
    path.touch()
    maker = sqlite3.connect(path, isolation_level=None, timeout=0)
    maker.execute("BEGIN IMMEDIATE")
    maker.execute("CREATE TABLE fact (name, value)")
    maker.execute(f"PRAGMA application_id = {schema.APPLICATION}")
    maker.execute(f"PRAGMA user_version = {schema.SHOWN}")

    def commit_before(statement: str) -> None:
        if "application_id" in statement and maker.in_transaction:
            with suppress(sqlite3.OperationalError):  # it is held up by whoever looks at one instant of the file
                maker.execute("COMMIT")

    looker = Connection(str(path))
    looker._raw.set_trace_callback(commit_before)
    assert version_of(looker, SYSTEM) == 0
    if maker.in_transaction:
        maker.execute("COMMIT")
    assert version_of(looker, SYSTEM) == schema.SHOWN
    looker.close()
    maker.close()


def test_a_strange_database_is_not_brought_to_another_journal(path: Path) -> None:
    raw = sqlite3.connect(path)
    raw.execute("CREATE TABLE theirs (a)")
    raw.close()
    before = path.read_bytes()
    with pytest.raises(BrokerUnavailable, match="another program"):
        open_broker(f"sqlite:///{path}").queues()
    assert path.read_bytes() == before


# -- the files beside it --------------------------------------------------------------------------------------------------------------


def plant(kind: str, place: Path, target: Path) -> None:
    os.mkfifo(place) if kind == "fifo" else place.symlink_to(target)


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_a_planted_lock_file_is_refused(path: Path, tmp_path: Path, kind: str) -> None:
    plant(kind, Path(f"{path}-lock"), tmp_path / "target")
    with pytest.raises(BrokerUnavailable, match="-lock is a link or no plain file"):
        open_broker(f"sqlite:///{path}").publish([envelope()])
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_a_planted_sidecar_is_not_followed_and_costs_no_task(
    broker: Broker, path: Path, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    for suffix in ("-wake", "-done"):
        plant(kind, Path(f"{path}{suffix}"), tmp_path / "target")
    broker.publish([envelope()])
    assert settle(broker, take_one(broker), SUCCESS).name == "DONE"
    broker.publish([envelope()])
    assert [record.levelno for record in caplog.records if "cannot be notified" in record.message] == [logging.WARNING]
    assert not (tmp_path / "target").exists()
    with pytest.raises(BrokerUnavailable, match="-wake is a link or no plain file"):
        broker.watch("alpha", ["default"])


@pytest.mark.parametrize(("umask", "mode", "lock"), [(0o002, 0o664, 0o660), (0o022, 0o644, 0o600), (0o077, 0o600, 0o600)])
def test_files_are_as_open_as_the_umask_says(path: Path, umask: int, mode: int, lock: int) -> None:
    program = """
import sys
from stem_iso.brokers.url import open_broker
from stem_iso.testing.contract.steps import envelope
broker = open_broker(sys.argv[1])
broker.publish([envelope()])
broker.watch("alpha", ["default"]).close()
import os
print({name: oct(os.stat(name).st_mode & 0o777) for name in os.listdir()})
"""
    program = program.replace("import sys\n", f"import os, sys\nos.chdir({str(path.parent)!r})\n", 1)
    shown = run(program, f"sqlite:///{path}", umask=umask)
    for name, expected in (("jobs.db", mode), ("jobs.db-wal", mode), ("jobs.db-wake", mode), ("jobs.db-lock", lock)):
        assert f"'{name}': '{expected:#o}'" in shown.replace("0o", "0o"), shown


def test_sidecars_are_as_open_as_the_database_whoever_makes_them(path: Path) -> None:
    broker = open_broker(f"sqlite:///{path}")
    broker.sweep()
    path.chmod(0o664)
    broker.publish([envelope()])
    assert Path(f"{path}-wake").stat().st_mode & 0o777 == 0o664
    broker.close()


def test_whoever_can_only_read_cannot_stop_a_writer(broker: Broker, path: Path) -> None:
    broker.publish([envelope()])
    lock = Path(f"{path}-lock")
    lock.chmod(0o644)  # as an earlier version left it
    LockFile(str(lock), None).close()
    assert lock.stat().st_mode & 0o777 == 0o600
    with lock.open() as reader:
        fcntl.flock(reader, fcntl.LOCK_EX)  # what an earlier version asks for, too
        began = time.monotonic()
        broker.publish([envelope()])
        assert time.monotonic() - began < 4  # seconds: patience with a lock is 4.5
    assert counts(broker)[0] == 2


# -- nothing left ---------------------------------------------------------------------------------------------------------------------


def test_what_is_stored_is_stored_though_no_descriptor_is_left_to_notify_others(path: Path) -> None:
    program = """
import os, resource, sys
from stem_iso.brokers.url import open_broker
from stem_iso.testing.contract.steps import SUCCESS, envelope, settle, take
broker = open_broker(sys.argv[1])
broker.sweep()
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
print(broker.publish([envelope(id="one"), envelope(id="two")]))
print([settle(broker, delivery, SUCCESS).name for delivery in take(broker)])
"""
    said = run(program, f"sqlite:///{path}")
    assert "['one', 'two']" in said and "['DONE', 'DONE']" in said
    assert said.count("cannot be notified") == 1
    broker = open_broker(f"sqlite:///{path}")
    assert status(broker, "one").state.terminal
    broker.close()


def test_a_sleeper_finds_what_nobody_could_notify(broker: Broker, path: Path) -> None:
    watch = broker.watch("alpha", ["default"])
    other = open_broker(f"sqlite:///{path}")
    other.queues()
    Path(f"{path}-wake").unlink()
    os.mkfifo(f"{path}-wake")
    other.publish([envelope()])
    deadline = time.monotonic() + 10
    while not (wakes(watch, watch.interval) or watch.changed()):
        assert time.monotonic() < deadline
    assert len(take(broker)) == 1
    watch.close(), other.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(path: Path) -> None:
    with suppress(OSError), path.open("wb", buffering=0) as filling:
        while True:
            filling.write(b"x" * 4096)


def publish_for_ever(broker: Broker) -> None:
    while True:
        broker.publish([envelope(meta={"fill": "x" * 2000})])


def test_reads_go_on_while_the_disk_is_full(small_disk: Path) -> None:
    url = f"sqlite:///{small_disk}/jobs.db"
    broker = open_broker(url)
    broker.publish([envelope(id="kept")])
    fill(small_disk / "filling")
    for _ in range(2):
        with pytest.raises(BrokerUnavailable, match="full"):
            publish_for_ever(broker)
        assert status(broker, "kept").state == "queued"
        assert counts(broker)[0] >= 1
    beside = open_broker(url)
    assert status(beside, "kept").state == "queued"
    beside.close()
    (small_disk / "filling").unlink()
    broker.publish([envelope(id="after")])
    assert status(broker, "after").state == "queued"
    broker.close()
