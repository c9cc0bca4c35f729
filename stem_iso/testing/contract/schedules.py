"""Schedules: each due time fires exactly once, whoever tries, and what people do to a schedule stays done."""

from __future__ import annotations

import threading
import time
from typing import Any

import msgspec
import pytest

from stem_iso.brokers.base import Broker, ScheduleRecord
from stem_iso.errors import PayloadTooLarge
from stem_iso.task.canvas.tree import lay, leaves
from stem_iso.testing.contract.canvas_steps import chain, leaf, previous, run, success
from stem_iso.testing.contract.delays import quiet, wakes
from stem_iso.testing.contract.steps import SUCCESS, Steps, counts, envelope, ids, settle, status, take, take_one

NOW = 1_800_000_000.0


def schedule(name: str = "nightly", **fields: Any) -> ScheduleRecord:
    return ScheduleRecord(**{"name": name, "revision": "first", "body": b"contents", "due": NOW, "owner": "jobs:app", **fields})


def stored(broker: Broker, name: str = "nightly") -> ScheduleRecord:
    (found,) = [record for record in broker.schedules() if record.name == name]
    return found


class ScheduleRules(Steps):
    def test_what_is_put_is_listed_by_name(self, broker: Broker, other: Broker) -> None:
        assert broker.schedules() == []
        second, first = schedule("b", owner=""), schedule("a", due=NOW + 0.125)
        assert broker.put_schedule(second) and broker.put_schedule(first)
        assert other.schedules() == [first, second]

    def test_one_that_is_put_again_unchanged_keeps_its_due_time(self, broker: Broker) -> None:
        broker.put_schedule(schedule())
        assert not broker.put_schedule(schedule(due=NOW + 60, owner="others:app"))
        assert stored(broker) == schedule(owner="others:app")

    def test_a_changed_one_is_planned_anew(self, broker: Broker) -> None:
        broker.put_schedule(schedule())
        changed = schedule(revision="second", body=b"others", due=NOW + 60)
        assert broker.put_schedule(changed)
        assert stored(broker) == changed

    def test_a_pause_and_the_last_firing_survive_a_change(self, broker: Broker) -> None:
        broker.put_schedule(schedule())
        assert broker.fire(schedule(), NOW + 60, [envelope()])
        assert broker.pause_schedule("nightly")
        broker.put_schedule(schedule(revision="second", due=NOW + 90))
        found = stored(broker)
        assert found.paused and found.fired_at is not None and found.due == NOW + 90

    def test_a_firing_publishes_and_moves_the_due_time(self, broker: Broker) -> None:
        broker.put_schedule(schedule())
        sent = [envelope(), envelope(queue="b")]
        assert broker.fire(schedule(), NOW + 60, sent)
        assert ids(take(broker)) == [sent[0].id] and ids(take(broker, queues=["b"])) == [sent[1].id]
        found = stored(broker)
        assert found.due == NOW + 60
        assert found.fired_at is not None and abs(found.fired_at - time.time()) < 10

    def test_a_due_time_is_fired_once(self, broker: Broker) -> None:
        broker.put_schedule(schedule())
        sent = envelope()
        assert broker.fire(schedule(), NOW + 60, [sent])
        assert not broker.fire(schedule(), NOW + 60, [sent])
        assert counts(broker) == (1, 0, 0, 0)
        settle(broker, take_one(broker), SUCCESS)
        assert not broker.fire(schedule(), NOW + 60, [sent])
        assert not broker.fire(schedule(due=NOW + 120), NOW + 180, [envelope()])  # as planned before somebody planned it anew
        assert counts(broker) == (0, 0, 0, 0)

    def test_workers_that_race_fire_each_due_time_once(self, broker: Broker) -> None:
        broker.put_schedule(schedule())
        rounds, racers = 25, 3
        sent = [envelope() for _ in range(rounds)]
        won: list[int] = []
        start = threading.Barrier(racers)

        def race() -> None:
            mine = self.another(broker)
            for number, each in enumerate(sent):
                start.wait(30)
                if mine.fire(schedule(due=NOW + number), NOW + number + 1, [each]):
                    won.append(number)
            mine.close()

        threads = [threading.Thread(target=race) for _ in range(racers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert won == list(range(rounds))
        assert sorted(ids(take(broker, 2 * rounds))) == sorted(each.id for each in sent)

    def test_a_missed_time_may_be_passed_over(self, broker: Broker) -> None:
        broker.put_schedule(schedule())
        assert broker.fire(schedule(), NOW + 60, [])
        assert stored(broker) == schedule(due=NOW + 60)

    def test_nothing_is_fired_of_what_is_paused_changed_or_removed(self, broker: Broker, other: Broker) -> None:
        for name in ("paused", "changed", "removed"):
            broker.put_schedule(schedule(name))
        other.pause_schedule("paused")
        other.put_schedule(schedule("changed", revision="second"))
        assert other.remove_schedule("removed")
        for name in ("paused", "changed", "removed"):
            assert not broker.fire(schedule(name), NOW + 60, [envelope()])
        assert counts(broker) == (0, 0, 0, 0)
        assert [(record.name, record.due) for record in broker.schedules()] == [("changed", NOW), ("paused", NOW)]

    def test_a_resumed_one_goes_on_from_the_time_that_is_given(self, broker: Broker) -> None:
        broker.put_schedule(schedule())
        assert broker.pause_schedule("nightly") and stored(broker).paused
        assert broker.resume_schedule("nightly", NOW + 600)
        assert stored(broker) == schedule(due=NOW + 600)
        assert not broker.fire(schedule(), NOW + 60, [envelope()])
        assert broker.fire(schedule(due=NOW + 600), NOW + 660, [envelope()])

    def test_a_resume_of_what_is_not_paused_changes_nothing(self, broker: Broker) -> None:
        broker.put_schedule(schedule())
        assert broker.resume_schedule("nightly", NOW + 600)
        assert stored(broker) == schedule()

    def test_what_is_not_there_can_be_neither_paused_nor_resumed_nor_removed(self, broker: Broker) -> None:
        assert not broker.pause_schedule("nightly")
        assert not broker.resume_schedule("nightly", NOW)
        assert not broker.remove_schedule("nightly")
        assert broker.schedules() == []

    def test_a_unique_task_that_still_runs_is_not_fired_again(self, broker: Broker) -> None:
        broker.put_schedule(schedule())
        first, second = envelope(lock="default/a/1"), envelope(lock="default/a/1")
        assert broker.fire(schedule(), NOW + 60, [first])
        delivery = take_one(broker)
        assert broker.fire(schedule(due=NOW + 60), NOW + 120, [second])
        assert counts(broker) == (0, 0, 1, 0) and broker.status([second.id]) == [None]
        settle(broker, delivery, SUCCESS)
        third = envelope(lock="default/a/1")
        assert broker.fire(schedule(due=NOW + 120), NOW + 180, [third])
        assert ids(take(broker)) == [third.id]

    def test_what_is_too_large_is_refused_and_nothing_changed(self, broker: Broker) -> None:
        broker.put_schedule(schedule())
        large = envelope(args=msgspec.Raw(msgspec.msgpack.encode({"blob": b"x" * broker.options.max_payload_bytes})))
        with pytest.raises(PayloadTooLarge):
            broker.fire(schedule(), NOW + 60, [envelope(), large])
        assert counts(broker) == (0, 0, 0, 0) and stored(broker) == schedule()

    def test_schedules_survive_a_close(self, broker: Broker) -> None:
        broker.put_schedule(schedule())
        broker.close()
        assert stored(broker) == schedule()
        assert broker.fire(schedule(), NOW + 60, [envelope()])
        broker.close()
        assert stored(broker).due == NOW + 60 and counts(broker) == (1, 0, 0, 0)

    def test_a_put_a_resume_and_a_firing_wake_an_idle_worker(self, broker: Broker, other: Broker) -> None:
        watch = broker.watch("alpha", ["default"])
        quiet(watch)
        other.put_schedule(schedule())
        assert wakes(watch)
        other.pause_schedule("nightly")
        quiet(watch)
        other.resume_schedule("nightly", NOW + 60)
        assert wakes(watch)
        quiet(watch)
        other.fire(schedule(due=NOW + 60), NOW + 120, [envelope()])
        assert wakes(watch)
        watch.close()

    def test_a_fired_task_is_one_like_any_other(self, broker: Broker) -> None:
        broker.put_schedule(schedule())
        sent = envelope(headers={"schedule": "nightly"}, not_before=time.time() + 100)
        broker.fire(schedule(), NOW + 60, [sent])
        assert counts(broker) == (0, 1, 0, 0) and status(broker, sent.id).not_before == sent.not_before
        assert broker.revoke(sent.id)

    def test_a_canvas_is_fired_whole_and_once(self, broker: Broker) -> None:
        tree = chain(leaf("a"), leaf("b"))
        canvas = lay(tree, [envelope(id=each.id, name=each.name) for each in leaves(tree)])
        broker.put_schedule(schedule())
        assert broker.fire(schedule(), NOW + 60, [canvas])
        assert not broker.fire(schedule(), NOW + 60, [canvas])
        assert previous(run(broker, "a", success(1))) is None
        assert previous(run(broker, "b", success(2))) == 1
        assert broker.tree("b") == tree
