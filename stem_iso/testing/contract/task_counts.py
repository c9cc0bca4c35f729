"""Counts of what happened to tasks, by minute: what is published is counted by the store, all else is added by workers."""

from __future__ import annotations

import time

from stem_iso.brokers.base import Broker, ScheduleRecord
from stem_iso.brokers.operations import COUNTED, TaskCounts
from stem_iso.testing.contract.canvas_steps import chain, compose, group, leaf
from stem_iso.testing.contract.steps import FAILURE, SUCCESS, Steps, envelope, next_attempt, settle, take_one

DAY = 24 * 60  # minutes


def minute() -> int:
    return int(time.time()) // 60


def enqueued(broker: Broker, queue: str | None = None) -> dict[str, int]:
    """By name, of all minutes; the tests may run from one into the next."""
    found: dict[str, int] = {}
    for each in broker.counts(minute() - 60, minute() + 60, queue):
        assert not each.wait and not each.run and each.counts.keys() <= {"enqueued"}
        found[each.name] = found.get(each.name, 0) + each.counts.get("enqueued", 0)
    return found


def added(counts: dict[str, int], name: str = "thumbs.make", queue: str = "default", at: int | None = None) -> TaskCounts:
    return TaskCounts(queue=queue, name=name, minute=minute() if at is None else at, counts=counts)


class CountRules(Steps):
    def test_what_is_published_is_counted_by_name_and_queue(self, broker: Broker, other: Broker) -> None:
        assert enqueued(broker) == {}
        broker.publish([envelope(name="a"), envelope(name="b"), envelope(name="a"), envelope(name="c d/é", queue="other")])
        broker.publish([envelope(name="b", not_before=9e9)])
        assert enqueued(other) == {"a": 2, "b": 2, "c d/é": 1}
        assert enqueued(other, "other") == {"c d/é": 1}
        assert enqueued(other, "nobody") == {}

    def test_a_large_batch_is_counted_whole(self, broker: Broker) -> None:
        broker.publish([envelope(name=f"n{number % 3}") for number in range(4500)])
        assert enqueued(broker) == {"n0": 1500, "n1": 1500, "n2": 1500}

    def test_what_is_known_or_locked_out_is_not_counted(self, broker: Broker) -> None:
        first, second = (envelope(lock="default/thumbs.make/cat") for _ in range(2))
        broker.publish([first, envelope(name="b")])
        broker.publish([first, second])
        broker.publish([second, first, envelope(name="c")])
        assert enqueued(broker) == {"thumbs.make": 1, "b": 1, "c": 1}

    def test_what_runs_again_is_not_counted_again(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        settle(broker, take_one(broker), next_attempt(sent))
        settle(broker, take_one(broker), FAILURE)
        assert broker.retry(sent.id)
        assert broker.edit(sent.id, 1, b"\x80")
        settle(broker, take_one(broker), SUCCESS)
        assert enqueued(broker) == {"thumbs.make": 1}

    def test_parts_of_a_canvas_are_counted_and_its_groups_are_not(self, broker: Broker) -> None:
        compose(broker, chain(leaf("a"), group("g", leaf("b"), leaf("c"))))
        assert enqueued(broker) == {"task.a": 1, "task.b": 1, "task.c": 1}

    def test_what_a_schedule_fires_is_counted_once(self, broker: Broker, other: Broker) -> None:
        record = ScheduleRecord(name="nightly", revision="1", body=b"\x80", due=1.0)
        broker.put_schedule(record)
        sent = [envelope(name="a"), envelope(name="a")]
        assert broker.fire(record, 2.0, sent)
        other.fire(record, 2.0, sent)
        assert enqueued(broker) == {"a": 2}

    def test_what_workers_add_is_added_up(self, broker: Broker, other: Broker) -> None:
        first = TaskCounts(
            queue="default",
            name="thumbs.make",
            minute=minute(),
            counts={"started": 2, "succeeded": 1},
            wait={-3: 1, 0: 2},
            run={12: 1},
        )
        broker.add_counts([first, added({"started": 1}, "other"), added({"timed_out_hard": 1}, queue="urgent", at=first.minute)])
        other.add_counts([first, added({"started": 1, "crashed": 4}, at=first.minute)])
        broker.add_counts([])
        found = {(each.queue, each.name): each for each in other.counts(first.minute, first.minute)}
        thumbs = found["default", "thumbs.make"]
        assert thumbs.counts == {"started": 5, "succeeded": 2, "crashed": 4}
        assert (thumbs.wait, thumbs.run) == ({-3: 2, 0: 4}, {12: 2})
        assert found["urgent", "thumbs.make"].counts == {"timed_out_hard": 1}

    def test_every_word_is_kept_but_that_of_the_store_itself(self, broker: Broker) -> None:
        now = minute()
        every = {word: number + 1 for number, word in enumerate(COUNTED)}
        broker.add_counts([added(every, at=now)])
        assert broker.counts(now, now) == [added({word: count for word, count in every.items() if word != "enqueued"}, at=now)]

    def test_they_are_asked_for_by_minute_queue_and_name(self, broker: Broker) -> None:
        now = minute()
        broker.publish([envelope(queue="default", name="seen"), envelope(queue="urgent", name="seen")])
        at = (now - DAY + 1, now - 60, now - 2, now - 1)
        broker.add_counts([added({"started": 1}, "a", at=each) for each in at] + [added({"failed": 1}, "b", "urgent", now - 1)])

        def asked(since: int, until: int, queue: str | None = None, name: str | None = None) -> list[tuple[int, str]]:
            return [(each.minute, each.name) for each in broker.counts(since, until, queue, name) if each.name != "seen"]

        assert asked(now - DAY, now) == [(at[0], "a"), (at[1], "a"), (at[2], "a"), *sorted([(at[3], "a"), (at[3], "b")])]
        assert asked(now - 60, now - 2) == [(at[1], "a"), (at[2], "a")]
        assert asked(now - 60, now - 60) == [(at[1], "a")]
        assert asked(now - 2, now, "urgent") == [(at[3], "b")]
        assert asked(now - 2, now, name="a") == [(at[2], "a"), (at[3], "a")]
        assert asked(now - 2, now, "urgent", "a") == asked(now, now - 1) == asked(now + 30, now + 50) == []

    def test_any_time_may_be_asked_for(self, broker: Broker) -> None:
        broker.add_counts([added({"started": 1})])
        assert [each.counts for each in broker.counts(0, 1 << 40)] == [{"started": 1}]
        assert broker.counts(-(1 << 40), 0) == broker.counts(1 << 40, 1 << 41) == []
