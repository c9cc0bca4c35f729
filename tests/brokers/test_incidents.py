"""Incidents of a database file and of its machine."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from stem_iso.brokers.base import Broker, BrokerOptions, WorkerInfo
from stem_iso.brokers.sqlite import notifications, publish
from stem_iso.brokers.sqlite import settle as settle_module
from stem_iso.brokers.sqlite.connection import Connection, network_of
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.brokers.url import open_broker
from stem_iso.errors import BrokerUnavailable
from stem_iso.outcome import TaskState
from stem_iso.task.envelope import encode
from stem_iso.task.settlement import Finish
from stem_iso.testing import eventually
from stem_iso.testing.contract.canvas_steps import chain, compose, group, known, leaf, success
from stem_iso.testing.contract.delays import Timing, quiet, wakes
from stem_iso.testing.contract.results import Waiting
from stem_iso.testing.contract.steps import ALL, FAILURE, SUCCESS, counts, envelope, ids, settle, status, take, take_one
from tests.brokers.stores import ROOT, HandClock, ask, in_file, in_memory, is_sound, python

CROWD = Path(__file__).parent / "crowd.py"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


# -- clocks -------------------------------------------------------------------------------------------------------------------------


def test_leases_of_an_earlier_boot_of_the_machine_have_run_out(path: Path) -> None:
    before = in_file(path, HandClock(lease=90_000.0))
    before.publish([envelope(), envelope()])
    take(before)
    before.close()
    rebooted = HandClock(lease=5.0, machine="second boot")
    after = in_file(path, rebooted)
    assert len(after.reclaim("beta")) == 2
    again = take(after, boot="beta")
    assert [one.redeliveries for one in again] == [1, 1]
    rebooted.pass_by(10)
    third = in_file(path, rebooted)  # the same boot: leases stand
    assert third.reclaim("gamma") == []
    assert settle(third, again[0], SUCCESS).name == "DONE"
    for one in (after, third):
        one.close()


def test_an_hour_forward_or_back_on_the_wall_moves_no_lease() -> None:
    clock = HandClock()
    broker = in_memory(clock)
    broker.publish([envelope(visibility_timeout=10.0)])
    held = take_one(broker)
    for step in (3600.0, -7200.0):
        clock.wall += step
        assert broker.reclaim("beta") == []
        assert broker.renew([held.receipt]) == []
    clock.lease += 11
    assert len(broker.reclaim("beta")) == 1


def test_everything_that_expires_expires_by_the_wall() -> None:
    clock = HandClock()
    broker = in_memory(clock, BrokerOptions(dead_letter_ttl=1000.0))
    done, dead, unique, heir = (
        envelope(),
        envelope(),
        envelope(lock="k", unique_for=100.0, not_before=9e9),
        envelope(lock="k", not_before=9e9),
    )
    broker.publish([done, dead, unique])
    broker.beat(WorkerInfo(id="w", boot="alpha", hostname="h", pid=1, queues=[], seats=1, spares=0))
    for delivery, plan in zip(take(broker), (Finish(TaskState.SUCCEEDED, ttl=200.0), FAILURE), strict=True):
        settle(broker, delivery, plan)
    clock.pass_by(29)
    assert len(broker.workers()) == 1
    clock.pass_by(2)
    assert broker.workers() == []
    clock.pass_by(68)
    assert broker.publish([heir]) == [unique.id]
    clock.pass_by(2)
    assert broker.publish([heir]) == [heir.id]
    assert status(broker, done.id).state is TaskState.SUCCEEDED
    clock.pass_by(100)
    assert broker.status([done.id]) == [None]
    clock.pass_by(800)
    assert broker.dead_letters(ALL) == [] and counts(broker) == (0, 2, 0, 0)
    assert broker.replay(ALL) == []
    assert broker.sweep() == 3
    assert broker.sweep() == 0


def test_the_status_of_a_task_that_nobody_settled_lives_for_its_result_ttl() -> None:
    clock = HandClock()
    broker = in_memory(clock)
    brief, plain = envelope(result_ttl=50.0), envelope()
    broker.publish([brief, plain])
    broker.purge("default")
    clock.pass_by(51)
    assert broker.status([brief.id]) == [None]
    assert status(broker, plain.id).state is TaskState.CANCELLED
    clock.pass_by(86_400)
    assert broker.status([plain.id]) == [None]


# -- the file -----------------------------------------------------------------------------------------------------------------------


def test_a_database_of_another_program_is_left_alone(path: Path) -> None:
    connection = Connection(str(path))
    connection.execute("CREATE TABLE customers (id)")
    connection.close()
    with pytest.raises(BrokerUnavailable, match="another program"):
        in_file(path).publish([envelope()])
    assert ask(path, "SELECT name FROM sqlite_master") == [("customers",)]


def test_a_database_of_a_newer_version_is_left_alone(path: Path) -> None:
    broker = in_file(path)
    broker.publish([envelope()])
    broker.close()
    ask(path, "PRAGMA user_version = 99")
    with pytest.raises(BrokerUnavailable, match="schema 99"):
        in_file(path).publish([envelope()])


def test_a_file_that_is_no_database_is_named_as_such(path: Path) -> None:
    path.write_bytes(b"not a database at all, and long enough to be read as a header" * 20)
    with pytest.raises(BrokerUnavailable, match=r"jobs\.db"):
        in_file(path).publish([envelope()])


def test_a_removed_file_is_noticed_at_the_next_call(path: Path) -> None:
    broker = in_file(path)
    broker.publish([envelope()])
    for one in path.parent.iterdir():
        one.unlink()
    sent = envelope()
    broker.publish([sent])
    stranger = in_file(path)
    assert ids(take(stranger)) == [sent.id]
    stranger.close()
    broker.close()


def test_sync_full_is_what_sqlite_gets(tmp_path: Path) -> None:
    for sync, level in (("full", 2), ("normal", 1)):
        broker = open_broker(f"sqlite:///{sync}.db?sync={sync}", cwd=str(tmp_path))
        database = broker._database  # type: ignore[attr-defined]
        broker.publish([envelope()])
        assert database.read(lambda turn: turn.one("PRAGMA synchronous")) == level
        assert database.read(lambda turn: turn.one("PRAGMA journal_mode")) == "wal"
        assert database.read(lambda turn: turn.one("PRAGMA auto_vacuum")) == 2
        broker.close()


def test_sidecars_are_as_open_as_the_database(path: Path) -> None:
    path.touch(mode=0o600)
    broker = in_file(path)
    broker.publish([envelope()])
    assert {oct(one.stat().st_mode & 0o777) for one in path.parent.iterdir()} == {"0o600"}
    broker.close()


def test_local_folders_are_not_refused(tmp_path: Path) -> None:
    assert network_of(tmp_path) is None


def test_a_full_disk_is_an_error_and_no_more(tmp_path: Path) -> None:
    program = """
import resource, signal, sys
import msgspec
from stem_iso.brokers.url import open_broker
from stem_iso.errors import BrokerUnavailable
from stem_iso.task.envelope import Envelope
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
broker = open_broker("sqlite:///jobs.db", cwd=sys.argv[1])
sent = lambda id: broker.publish([Envelope(id=id, name="t", args=msgspec.Raw(msgspec.msgpack.encode({"x": "y" * 9000})))])
sent("fits")
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
stored = ["fits"]
try:
    for number in range(100):
        stored += sent(f"task-{number}")
    sys.exit("the disk was never full")
except BrokerUnavailable as error:
    assert "jobs.db" in str(error), error
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
stored += sent("room again")
assert [one.queued for one in broker.queues()] == [len(stored)]
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert is_sound(tmp_path / "jobs.db")


def test_storage_returns_to_its_baseline(path: Path) -> None:
    clock = HandClock()
    broker = in_file(path, clock)
    broker.publish([envelope()])
    settle(broker, take_one(broker), SUCCESS)
    for _ in range(5):
        broker.publish([envelope(headers={"x": "y" * 500}, lock=f"k{number}") for number in range(2000)])
        held = take(broker, 2000)
        broker.exchange("alpha", [settle_module.Settlement(one.receipt, FAILURE if one is held[0] else SUCCESS) for one in held], [], 0)
    assert path.stat().st_size > 1_000_000
    clock.pass_by(40 * 86_400)
    while broker.sweep():
        pass
    eventually(lambda: broker.sweep() == 0 and path.stat().st_size <= 208 * 1024, 10)  # 45 pages are tables and indexes without a row
    eventually(lambda: broker.sweep() == 0 and (path.parent / "jobs.db-wal").stat().st_size <= 1 << 18, 10)
    broker.close()


# -- the lock -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_stopped_writer_is_waited_for_until_the_deadline_and_readers_go_on(path: Path) -> None:
    broker = in_file(path)
    sent = envelope()
    broker.publish([sent])
    holder = python(CROWD, "hold", path.parent)
    assert holder.stdout and holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(BrokerUnavailable, match="write lock"):
        broker.publish([envelope()])
    assert 4 < time.monotonic() - started < 30
    assert status(broker, sent.id).state is TaskState.QUEUED
    assert counts(broker) == (1, 0, 0, 0)
    assert broker.exchange("alpha", [], ["other"], 5).deliveries == []  # an idle look takes no lock
    assert broker.reclaim("alpha") == []
    holder.kill()
    holder.communicate()
    broker.publish([envelope()])
    assert counts(broker) == (2, 0, 0, 0)
    broker.close()


def test_one_object_may_be_asked_by_several_threads(path: Path) -> None:
    broker = in_file(path)
    threads = [threading.Thread(target=lambda: [broker.publish([envelope()]) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts(broker) == (200, 0, 0, 0)
    broker.close()


def test_a_closed_broker_opens_again(path: Path) -> None:
    broker = in_file(path)
    broker.publish([envelope()])
    watch = broker.watch("alpha", ["default"])
    watch.close()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        broker.close()
        broker.publish([envelope()])
    broker.close()
    assert len(os.listdir("/proc/self/fd")) < before
    assert counts(broker) == (4, 0, 0, 0)
    broker.close()


# -- wake-ups -----------------------------------------------------------------------------------------------------------------------


def publish_and_be_killed_before_notifying(broker: Broker, *envelopes: object) -> None:
    def work(turn: Transaction) -> None:
        publish.publish(turn, [(one, encode(one)) for one in envelopes])  # type: ignore[arg-type]
        turn.topics.clear()

    broker._database.write(work)  # type: ignore[attr-defined]


def test_a_commit_without_a_wake_up_is_seen_by_the_interval(path: Path) -> None:
    broker, other = in_file(path), in_file(path)
    watch = broker.watch("alpha", ["default"])
    quiet(watch)
    publish_and_be_killed_before_notifying(other, envelope())
    poll = select.poll()
    poll.register(watch.fileno(), select.POLLIN)
    assert poll.poll(0) == []
    assert watch.interval <= 0.25
    assert watch.changed() is True
    assert watch.changed() is False
    watch.close()
    for one in (broker, other):
        one.close()


def test_a_commit_without_a_wake_up_is_seen_behind_one_that_had_it(path: Path) -> None:
    broker, other = in_file(path), in_file(path)
    watch = broker.watch("alpha", ["default"])
    quiet(watch)
    other.publish([envelope()])
    assert watch.changed() is True
    assert len(take(broker)) == 1
    publish_and_be_killed_before_notifying(other, envelope())
    assert watch.changed() is True
    assert len(take(broker)) == 1
    quiet(watch)
    publish_and_be_killed_before_notifying(other, envelope())
    assert watch.changed() is True
    watch.close()
    for one in (broker, other):
        one.close()


def test_a_batch_keeps_its_order_whatever_its_tasks_carry(path: Path) -> None:
    broker = in_file(path)
    kinds: list[dict[str, object]] = [{}, {"meta": {"m": 1}}, {}, {"parent_id": "p", "root_id": "r"}, {"result_ttl": 5.0}, {}]
    sent = [envelope(**kind) for kind in kinds]
    assert broker.publish(sent) == broker.publish(sent) == [one.id for one in sent]
    taken = take(broker)
    assert ids(taken) == [one.id for one in sent]
    shown = [status(broker, one.id) for one in sent]
    assert [(one.meta, one.parent_id, one.root_id) for one in shown] == [(one.meta, one.parent_id, one.root_id) for one in sent]
    broker.close()


def test_a_worker_is_woken_in_a_moment(path: Path) -> None:
    broker, other = in_file(path), in_file(path)
    watch = broker.watch("alpha", ["default"])
    late = []
    for _ in range(20):
        quiet(watch)
        heard: list[float] = []
        worker = threading.Thread(target=lambda heard=heard: wakes(watch) and heard.append(time.perf_counter()))
        worker.start()
        other.publish([envelope()])
        sent = time.perf_counter()
        worker.join()
        late.append(heard[0] - sent)
    assert min(late) < 0.05, "who looks four times a second is never so early twenty times over"
    watch.close()
    for one in (broker, other):
        one.close()


class TestWithoutInotify(Timing, Waiting):
    """128 instances per user, and other systems have none: then the listener gets no wake-ups and looks more often."""

    @pytest.fixture
    def broker(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
        monkeypatch.setattr(notifications, "_inotify", lambda path: None)
        broker = open_broker("sqlite:///jobs.db", cwd=str(tmp_path))
        yield broker
        broker.close()


# -- events -------------------------------------------------------------------------------------------------------------------------


def test_events_are_bounded_in_number_and_in_time() -> None:
    clock = HandClock()
    broker = in_memory(clock)
    stream = broker.listen(timeout=0.01)
    assert broker.listening()
    broker.emit([b"%d" % number for number in range(9_000)])
    broker.emit([b"%d" % number for number in range(9_000, 12_000)])
    heard = list(stream)
    assert len(heard) == 10_000 and heard[-1] == b"11999"


def test_a_listener_that_was_killed_is_forgotten() -> None:
    clock = HandClock()
    broker = in_memory(clock)
    stream = broker.listen(timeout=0)
    broker.emit([b"one"])
    assert next(stream) == b"one"
    clock.pass_by(61)
    assert broker.sweep() == 2  # its row, and the event
    assert broker.sweep() == 0
    fresh = in_memory(clock)
    assert fresh.listening() is False


# -- canvases -----------------------------------------------------------------------------------------------------------------------


def test_results_that_are_too_large_together_are_not_read_to_find_it_out(path: Path) -> None:
    broker, size = in_file(path), 1 << 20
    compose(broker, chain(group("g", *(leaf(f"m{n}") for n in range(20))), leaf("after")), most=10 * size)
    *others, last = take(broker, 20)
    for delivery in others:
        settle(broker, delivery, success(bytes(size)))
    tracemalloc.start()
    settle(broker, last, success(1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert known(broker, "g", "after") == [(TaskState.FAILED, "results-too-large"), (TaskState.FAILED, "link-failed")]
    assert peak < 4 * size


@pytest.mark.slow
def test_the_end_of_a_member_costs_the_same_however_large_its_group_is(path: Path) -> None:
    broker = in_file(path)
    compose(broker, group("g", *(leaf(f"{n:0>60}") for n in range(10_000))))
    for delivery in take(broker, 20):
        settle(broker, delivery, success(1))
    began = time.process_time()
    assert broker.revoke("g")
    assert time.process_time() - began < 3.0  # 0.3 s; 10 s where each end passes over what was composed
    members = broker.wait_members("g", 1, 0)
    assert [sum(member.state is state for member in members) for state in (TaskState.SUCCEEDED, TaskState.CANCELLED)] == [20, 9_980]


def test_a_canvas_that_has_ended_and_is_forgotten_leaves_nothing_in_the_file(path: Path) -> None:
    broker = in_file(path)
    compose(broker, chain(group("g", leaf("a", leaf("sorry")), group("h", leaf("b")), group("none")), leaf("d")))
    compose(broker, group("k", leaf("e"), leaf("f")))
    while deliveries := take(broker):
        for delivery in deliveries:
            settle(broker, delivery, FAILURE if delivery.receipt.id == "e" else success(1))
    assert broker.forget("d") and broker.forget("k")
    broker.purge_dead(ALL)
    while broker.unattended_ends():
        pass
    kept = "'fact', 'sqlite_sequence', 'counts', 'used'"  # that it was there, not what it was
    tables = ask(path, f"SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT IN ({kept})")
    assert {name: ask(path, f"SELECT count(*) FROM {name}") for (name,) in tables} == {name: [(0,)] for (name,) in tables}


def test_the_record_of_a_silent_worker_stays_for_its_neighbours_while_it_holds_a_lease() -> None:
    clock = HandClock()
    broker = in_memory(clock)
    broker.beat(WorkerInfo(id="w", boot="alpha", hostname="host", pid=1, queues=["default"], seats=1, spares=0, machine="here"))
    broker.publish([envelope(visibility_timeout=3600)])
    held = take_one(broker)
    clock.pass_by(300)
    assert broker.sweep() == 0
    assert broker.workers() == [] and [each.boot for each in broker.neighbours("here")] == ["alpha"]
    settle(broker, held, SUCCESS)
    broker.sweep()
    assert broker.neighbours("here") == []
