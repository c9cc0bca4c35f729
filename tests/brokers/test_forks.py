"""A broker that was used before a fork is good on both sides of it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stem_iso.brokers.base import Broker
from stem_iso.brokers.url import open_broker
from stem_iso.testing import eventually
from stem_iso.testing.contract.steps import SUCCESS, counts, envelope, settle, take, take_one
from tests.brokers.stores import ROOT, is_sound, python

CROWD = Path(__file__).parent / "crowd.py"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = open_broker("sqlite:///jobs.db", cwd=str(tmp_path))
    yield broker
    broker.close()


def in_child(work: Callable[[], object]) -> int:
    """Fork, do it there, and leave without any clean-up of this process; the child's exit code."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_what_a_child_publishes_is_there(broker: Broker, tmp_path: Path) -> None:
    broker.publish([envelope()])
    assert in_child(lambda: broker.publish([envelope(id=f"child-{number}") for number in range(5)])) == 0
    broker.publish([envelope()])
    assert counts(broker) == (7, 0, 0, 0)
    assert is_sound(tmp_path / "jobs.db")


def test_a_lease_taken_before_the_fork_stays_the_parents(broker: Broker) -> None:
    broker.publish([envelope()])
    delivery = take_one(broker)
    assert in_child(lambda: (broker.publish([envelope(id="child")]), broker.close())) == 0
    settle(broker, delivery, SUCCESS)
    assert counts(broker) == (1, 0, 0, 0)


def test_forks_in_the_middle_of_other_threads_transactions(broker: Broker, tmp_path: Path) -> None:
    stop = threading.Event()
    published: list[str] = []

    def produce() -> None:
        mine = open_broker("sqlite:///jobs.db", cwd=str(tmp_path))
        while not stop.is_set():
            published.extend(mine.publish([envelope()]))
        mine.close()

    threads = [threading.Thread(target=produce) for _ in range(2)]
    for thread in threads:
        thread.start()
    broker.publish([envelope(id="before")])
    try:
        codes = [in_child(lambda number=number: broker.publish([envelope(id=f"child-{number}")])) for number in range(20)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert codes == [0] * 20
    assert counts(broker) == (21 + len(published), 0, 0, 0)
    assert is_sound(tmp_path / "jobs.db")


def test_a_child_that_ends_does_not_take_the_parents_locks_along(broker: Broker, tmp_path: Path) -> None:
    broker.publish([envelope()])
    log = tmp_path / "jobs.db-wal"
    before = log.stat().st_ino
    assert in_child(lambda: broker.publish([envelope(id="child")])) == 0
    # Whoever closes last writes the log back and removes it: a stranger must see that the parent still has the file open.
    stranger = open_broker("sqlite:///jobs.db", cwd=str(tmp_path))
    stranger.publish([envelope()])
    stranger.close()
    assert log.stat().st_ino == before
    broker.publish([envelope()])
    assert len(take(broker)) == 4


def test_a_child_that_goes_on_when_the_parent_closes_holds_locks_of_its_own(broker: Broker) -> None:
    broker.publish([envelope()])
    wait, forked = os.pipe()
    closed, close = os.pipe()

    def child() -> None:
        broker.publish([envelope(id="while the parent had it open")])
        os.write(forked, b"1")
        os.read(closed, 1)
        broker.publish([envelope(id="after the parent closed")])

    parent = threading.Thread(target=lambda: (os.read(wait, 1), broker.close(), os.write(close, b"1")))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child()
            code = 0
        finally:
            os._exit(code)
    parent.start()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    parent.join()
    assert counts(broker) == (3, 0, 0, 0)


def test_an_idle_child_does_not_keep_the_lock_of_a_parent_that_was_killed(broker: Broker, tmp_path: Path) -> None:
    program = """
import os, sys
from stem_iso.brokers.url import open_broker
broker = open_broker("sqlite:///jobs.db", cwd=sys.argv[1])
broker.queues()
gate, door = os.pipe()
if os.fork() == 0:
    os.write(1, b"child\\n")
    os.read(0, 1)
    os._exit(0)
def forever(turn):
    os.write(1, b"held\\n")
    os.read(gate, 1)
broker._database.write(forever)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout and parent.stdin
    assert {parent.stdout.readline(), parent.stdout.readline()} == {"child\n", "held\n"}
    parent.kill()
    parent.wait()
    broker.publish([envelope()])
    assert counts(broker) == (1, 0, 0, 0)
    parent.communicate()  # lets the child go


def test_a_child_of_a_memory_broker_starts_empty() -> None:
    broker = open_broker("memory://")
    broker.publish([envelope()])

    def look() -> None:
        assert broker.queues() == []
        broker.publish([envelope()])
        assert counts(broker) == (1, 0, 0, 0)

    assert in_child(look) == 0
    assert counts(broker) == (1, 0, 0, 0)


def test_a_child_waits_and_watches_with_ears_of_its_own(broker: Broker, tmp_path: Path) -> None:
    sent = envelope()
    broker.publish([sent])
    with pytest.raises(TimeoutError):
        broker.wait(sent.id, 0.01)

    def child() -> None:
        with pytest.raises(TimeoutError):
            broker.wait(sent.id, 0.01)
        watch = broker.watch("alpha", ["default"])
        drip = python(CROWD, "drip", tmp_path)
        drip.communicate("again\n", timeout=30)
        eventually(watch.changed)

    assert in_child(child) == 0
    settle(broker, take_one(broker), SUCCESS)
    assert broker.wait(sent.id, 1).result is not None
