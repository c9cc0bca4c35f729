"""What the SQLite broker's answers to operators rest on: bounded steps, a mark up to which is counted, lines that are let go in parts."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from stem_iso.brokers.base import Broker, Settlement
from stem_iso.brokers.operations import COUNTS_LIFE, MOST_ACTIONS, Action, Command, CommandReply, TaskCounts, TaskFilter
from stem_iso.brokers.sqlite import counts, pauses, task_list
from stem_iso.brokers.sqlite.broker import SqliteBroker
from stem_iso.outcome import TaskState
from stem_iso.task.settlement import Finish
from stem_iso.testing.contract.steps import ALL, FAILURE, envelope, settle, status, take, take_one
from stem_iso.testing.contract.task_lists import listed, walked
from tests.brokers.stores import HandClock, ask, in_file, in_memory

EVERY = TaskFilter()
GONE = Finish(TaskState.SUCCEEDED, ttl=0)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def broker(clock: HandClock) -> SqliteBroker:
    return in_memory(clock)


def publish(broker: Broker, count: int, **fields: object) -> list[str]:
    return broker.publish([envelope(**fields) for _ in range(count)])


# -- lists -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_step_looks_at_some_thousand_tasks_whatever_matches(broker: SqliteBroker, newest_first: bool) -> None:
    first = publish(broker, 1, name="wanted") + publish(broker, task_list.LOOKS + 10)
    last = publish(broker, 1, name="wanted")
    for states in (None, ["queued"]):
        which = TaskFilter(states=states, name="wanted")
        page = broker.list_tasks(which, 100, newest_first=newest_first)
        assert len(page.tasks) == 1 and page.next is not None
        rest = broker.list_tasks(which, 100, page.next, newest_first)
        assert [each.record.id for each in (*page.tasks, *rest.tasks)] == [first[0], *last][:: -1 if newest_first else 1]
        assert rest.next is None


def test_a_page_of_large_results_is_shorter_and_goes_on(broker: SqliteBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_list, "PAGE", 10_000)
    ids = publish(broker, 6)
    for delivery in take(broker):
        settle(broker, delivery, Finish(TaskState.SUCCEEDED, result=msgspec.msgpack.encode("x" * 4_000)))
    page = broker.list_tasks(EVERY, 100, newest_first=False)
    assert len(page.tasks) == 2 and listed(broker) == ids
    monkeypatch.setattr(task_list, "PAGE", 1)
    assert listed(broker) == ids, "one at a time"


def test_more_queues_than_are_asked_one_by_one(broker: SqliteBroker) -> None:
    broker.publish([envelope(id=f"t{number:03}", queue=f"q{number % 150}", priority=number % 3) for number in range(300)])
    which = TaskFilter(states=["queued"])
    assert listed(broker, which) == [f"t{number:03}" for number in range(300)]
    assert listed(broker, TaskFilter(states=["queued"], queue="q7")) == ["t007", "t157"]


@pytest.mark.parametrize("states", [None, ["queued"]])
@pytest.mark.slow
def test_times_are_found_without_a_look_at_all_that_came_before(broker: SqliteBroker, states: list[str] | None) -> None:
    """Some days of tasks, one a minute, a few of them from producers whose clocks are half an hour off."""
    start = 1_000_000.0
    at = {f"t{n:05}": start + 60.0 * n + (1800 if n % 7 == 0 else -1800 if n % 11 == 0 else 0) for n in range(20_000)}
    broker.publish([envelope(id=id, enqueued_at=when) for id, when in at.items()])
    for since, until in ((start + 900_000, None), (None, start + 300_000), (start + 600_000, start + 606_000)):
        which = TaskFilter(states=states, since=since, until=until)
        wanted = [id for id, when in at.items() if (since is None or when >= since) and (until is None or when <= until)]
        for newest_first in (False, True):
            assert listed(broker, which, 1000, newest_first) == (wanted[::-1] if newest_first else wanted)
    page = broker.list_tasks(TaskFilter(states=states, since=start + 606_000, until=start + 612_000), 1000, newest_first=False)
    assert len(page.tasks) >= 95, "the first step is there already"


@pytest.mark.slow
def test_tasks_that_were_all_retried_are_found_by_their_times(broker: SqliteBroker) -> None:
    """Their rows stand at the end, with times that are old; the places at which they are listed are where they were."""
    for day in range(3):
        broker.publish([envelope(id=f"{day}-{n:04}", enqueued_at=1_000_000.0 + 86_400 * day + n) for n in range(3_000)])
    while deliveries := take(broker, 1_000):
        broker.exchange("alpha", [Settlement(each.receipt, FAILURE) for each in deliveries], [], 0)
    for n in range(2_999, -1, -1):
        assert broker.retry(f"1-{n:04}") is not None
    which = TaskFilter(since=1_000_000.0 + 86_400, until=1_000_000.0 + 86_400 + 2_999)
    assert listed(broker, which, 1000) == [f"1-{n:04}" for n in range(3_000)]
    assert listed(broker, TaskFilter(since=1_000_000.0 + 2 * 86_400), 1000) == [f"2-{n:04}" for n in range(3_000)]


@pytest.mark.parametrize("value", ["'no number'", "x'c1ff'", "-1", "9223372036854775807", "9e999", "2.5"])
@pytest.mark.parametrize("column", ["listed", "at", "attempt", "enqueued", "name", "queue", "rank", "state"])
def test_a_row_that_cannot_be_read_costs_the_list_nothing_but_itself(tmp_path: Path, column: str, value: str) -> None:
    path = tmp_path / "jobs.db"
    broker = in_file(path)
    broker.publish([envelope(id=id, enqueued_at=time.time()) for id in ("a", "odd", "b")])
    ask(path, f"UPDATE task SET {column} = {value} WHERE id = 'odd'")
    for states in (None, ["queued", "retried"]):
        for newest_first in (False, True):
            for which in (TaskFilter(states=states), TaskFilter(states=states, name="*", since=1.0)):
                for limit in (1, 100):
                    met = [id for id in listed(broker, which, limit, newest_first) if id != "odd"]
                    assert met == (["b", "a"] if newest_first else ["a", "b"])
    assert broker.queue_states()[0].name
    broker.close()


def test_a_worker_that_is_listed_is_named_by_its_id(broker: SqliteBroker) -> None:
    publish(broker, 1)
    take_one(broker)
    assert [each.record.worker_id for each in walked(broker)] == ["alpha"]


# -- counts ----------------------------------------------------------------------------------------------------------------------------


def enqueued(broker: SqliteBroker) -> int:
    return sum(each.counts.get("enqueued", 0) for each in broker.counts(0, 1 << 40))


def test_tasks_that_leave_no_row_are_counted(broker: SqliteBroker) -> None:
    """The next one gets the row's number again."""
    for number in range(1, 6):
        publish(broker, 1)
        if number % 2:
            broker.add_counts([TaskCounts(queue="default", name="thumbs.make", minute=1, counts={"started": 1})])
        settle(broker, take_one(broker), GONE)
        assert walked(broker) == []
        assert enqueued(broker) == number


@pytest.mark.parametrize("how", ["forgotten", "swept", "run again", "run now"])
def test_rows_that_go_or_move_are_counted_once(broker: SqliteBroker, clock: HandClock, how: str) -> None:
    publish(broker, 3, not_before=clock.wall + 5 if how == "run now" else None)
    ids = [each.record.id for each in walked(broker)]
    if how == "run now":
        for id in ids:
            broker.run_now(id)
    else:
        for delivery in take(broker):
            settle(broker, delivery, FAILURE)
        for id in ids if how == "forgotten" else ():
            broker.forget(id)
        for id in ids if how == "run again" else ():
            broker.retry(id)
    if how == "swept":
        clock.pass_by(100_000)
        broker.sweep()
    publish(broker, 1)
    assert enqueued(broker) == 4
    broker.add_counts([TaskCounts(queue="default", name="thumbs.make", minute=int(clock.wall // 60), counts={"started": 1})])
    assert enqueued(broker) == 4


def test_a_replay_of_one_whose_status_has_expired_is_not_a_new_task(broker: SqliteBroker, clock: HandClock) -> None:
    (id,) = publish(broker, 1)
    settle(broker, take_one(broker), Finish(TaskState.FAILED, reason="no", ttl=0))
    assert broker.status([id]) == [None]
    assert [each.refused for each in broker.replay(ALL)] == [None]
    assert enqueued(broker) == 1


def test_a_task_is_counted_in_the_minute_in_which_it_came_whenever_it_is_counted(broker: SqliteBroker, clock: HandClock) -> None:
    first = int(clock.wall // 60)
    for _ in range(3):
        publish(broker, 1, enqueued_at=clock.wall)
        clock.pass_by(60)
    assert [each.minute for each in broker.counts(0, 1 << 40)] == [first, first + 1, first + 2]
    broker.add_counts([TaskCounts(queue="default", name="thumbs.make", minute=first, counts={"started": 1})])
    assert [(each.minute, each.counts.get("enqueued")) for each in broker.counts(0, 1 << 40)] == [(first + n, 1) for n in range(3)]


def test_many_that_nobody_has_counted_yet_are_counted_in_parts(broker: SqliteBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "ADVANCE", 7)
    publish(broker, 20), publish(broker, 20, queue="b")
    assert {each.queue: each.counts for each in broker.counts(0, 1 << 40)} == {"default": {"enqueued": 20}, "b": {"enqueued": 20}}


def test_counts_are_kept_for_a_day(broker: SqliteBroker, clock: HandClock) -> None:
    publish(broker, 1)
    settle(broker, take_one(broker), GONE)
    clock.pass_by(COUNTS_LIFE - 120)
    broker.sweep()
    assert enqueued(broker) == 1 and [each.name for each in broker.queue_states()] == ["default"]
    clock.pass_by(240)
    while broker.sweep():
        pass
    assert enqueued(broker) == 0 and broker.queue_states() == []


# -- pauses ----------------------------------------------------------------------------------------------------------------------------


def held(broker: SqliteBroker, count: int) -> list[str]:
    publish(broker, count)
    broker.pause("thumbs.make", task=True)
    return [each.receipt.id for each in take(broker, count) if broker.hold(each.receipt, "thumbs.make").wait > 0]


def test_what_a_resume_leaves_is_released_by_who_sweeps(broker: SqliteBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pauses, "RELEASE", 2), monkeypatch.setattr(pauses, "ONCE", 2)
    ids = held(broker, 10)
    assert broker.resume("thumbs.make", task=True)
    assert broker.queue_states()[0].queued == 4
    while broker.sweep():
        pass
    assert [each.receipt.id for each in take(broker, 100)] == ids


def test_a_sweep_releases_nothing_that_is_paused(broker: SqliteBroker) -> None:
    held(broker, 3)
    assert broker.sweep() == 0
    assert take(broker) == []


def test_what_is_held_stays_held_over_a_boot_of_the_machine(tmp_path: Path) -> None:
    clock = HandClock()
    broker = in_file(tmp_path / "jobs.db", clock)
    (id,) = held(broker, 1)
    broker.close()
    clock.machine, clock.lease = "second boot", 5.0
    broker = in_file(tmp_path / "jobs.db", clock)
    clock.pass_by(30 * 86_400)
    broker.reclaim("beta"), broker.sweep()
    assert take(broker, boot="beta") == [] and status(broker, id).reason == "paused"
    assert broker.resume("thumbs.make", task=True)
    assert take_one(broker, boot="beta").redeliveries == 0
    broker.close()


def test_a_name_like_the_line_of_another_is_its_own(broker: SqliteBroker) -> None:
    held(broker, 1)
    broker.pause("thumbs", task=True), broker.pause("thumbs.make2", task=True)
    assert broker.resume("thumbs", task=True) and broker.resume("thumbs.make2", task=True)
    assert take(broker) == []


# -- commands, actions -------------------------------------------------------------------------------------------------------------------


def test_commands_replies_and_actions_are_bounded(tmp_path: Path) -> None:
    clock, path = HandClock(), tmp_path / "jobs.db"
    broker = in_file(path, clock)
    for number in range(1100):
        broker.send_command(Command(id=f"c{number}", worker_id="w", action="drain"))
        broker.log_action(Action(at=float(number), by="me", action="retry"))
    broker.reply("c1099", CommandReply(worker_id="w"))
    assert ask(path, "SELECT count(*) FROM command") == [(1000,)]
    assert ask(path, "SELECT count(*) FROM action") == [(MOST_ACTIONS,)]
    assert [each.at for each in broker.actions(2)] == [1099.0, 1098.0]
    clock.pass_by(61)
    assert broker.commands("w", 0) == []
    assert broker.sweep() > 0
    assert ask(path, "SELECT (SELECT count(*) FROM command), (SELECT count(*) FROM reply)") == [(0, 0)]
    broker.close()
