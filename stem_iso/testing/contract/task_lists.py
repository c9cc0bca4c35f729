"""Lists of tasks: every state, every filter, both orders, a page at a time, and each task once whatever happens to it meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from stem_iso.brokers.base import Broker, DeadFilter
from stem_iso.brokers.operations import LISTED_STATES, ListedTask, TaskFilter
from stem_iso.outcome import TaskState
from stem_iso.task.envelope import Envelope
from stem_iso.task.rate_limit import TaskLimits
from stem_iso.task.settlement import Finish
from stem_iso.testing.assertions import eventually
from stem_iso.testing.contract.canvas_steps import chain, compose, group, leaf
from stem_iso.testing.contract.steps import (
    CANCEL,
    FAILURE,
    SUCCESS,
    Steps,
    envelope,
    give_back,
    next_attempt,
    settle,
    status,
    take,
    take_one,
)

EVERY = TaskFilter()
LATER = 1e12
DAY = 86_400.0
MOST_STEPS = 1000


def sent(broker: Broker, *ids: str, **fields: Any) -> list[Envelope]:
    """One after the other, so that there is no doubt which came first."""
    envelopes = [envelope(id=id, **{"enqueued_at": time.time(), **fields}) for id in ids]
    for each in envelopes:
        broker.publish([each])
    return envelopes


def in_state(state: str, **fields: Any) -> TaskFilter:
    return TaskFilter(states=[state], **fields)


def listed(broker: Broker, which: TaskFilter = EVERY, limit: int = 100, newest_first: bool = False) -> list[str]:
    return [each.record.id for each in walked(broker, which, limit, newest_first)]


def walked(
    broker: Broker, which: TaskFilter = EVERY, limit: int = 100, newest_first: bool = False, meanwhile: Callable[[], object] = lambda: None
) -> list[ListedTask]:
    """The whole list; `meanwhile` is called between two steps of it."""
    found: list[ListedTask] = []
    after: str | None = None
    for _ in range(MOST_STEPS):
        page = broker.list_tasks(which, limit, after, newest_first)
        assert len(page.tasks) <= limit
        found += page.tasks
        if page.next is None:
            return found
        after = page.next
        meanwhile()
    raise AssertionError(f"the list does not end: {[each.record.id for each in found]}")


def one_of_each(broker: Broker) -> None:
    """Tasks that are named for their states, in the order of these names."""
    sent(broker, "cancelled", "failed", "succeeded", "retried", "running", "waiting retry", priority=9)
    held = {delivery.receipt.id: delivery for delivery in take(broker)}
    for id, plan in (("cancelled", CANCEL), ("failed", FAILURE), ("succeeded", SUCCESS)):
        settle(broker, held[id], plan)
    settle(broker, held["retried"], next_attempt(envelope(id="retried", enqueued_at=time.time())))
    settle(broker, held["waiting retry"], next_attempt(envelope(id="waiting retry", enqueued_at=time.time()), not_before=LATER))
    sent(broker, "delayed", not_before=LATER)
    sent(broker, "queued")


STATES = {
    "queued": ["retried", "queued"],
    "delayed": ["waiting retry", "delayed"],
    "running": ["running"],
    "retried": ["retried", "waiting retry"],
    "succeeded": ["succeeded"],
    "failed": ["failed"],
    "cancelled": ["cancelled"],
}
IN_ORDER = ["cancelled", "failed", "succeeded", "retried", "running", "waiting retry", "delayed", "queued"]


class TaskLists(Steps):
    # -- which ------------------------------------------------------------------------------------------------------------------

    def test_nothing_is_listed_of_an_empty_store(self, broker: Broker) -> None:
        page = broker.list_tasks(EVERY, 10)
        assert (page.tasks, page.next) == ([], None)

    def test_each_state_lists_its_own(self, broker: Broker) -> None:
        one_of_each(broker)
        assert {state: listed(broker, in_state(state)) for state in LISTED_STATES} == STATES

    def test_no_state_means_all_of_them_and_several_mean_any(self, broker: Broker) -> None:
        one_of_each(broker)
        assert listed(broker) == IN_ORDER
        assert listed(broker, TaskFilter(states=LISTED_STATES)) == IN_ORDER
        assert listed(broker, TaskFilter(states={"failed", "queued", "retried"})) == ["failed", "retried", "waiting retry", "queued"]
        assert listed(broker, TaskFilter(states=[])) == []

    @pytest.mark.parametrize("state", [None, *LISTED_STATES])
    def test_the_newest_come_first_where_that_is_asked(self, broker: Broker, state: str | None) -> None:
        one_of_each(broker)
        which = EVERY if state is None else in_state(state)
        assert listed(broker, which, newest_first=True) == listed(broker, which)[::-1]

    def test_a_record_is_the_status(self, broker: Broker) -> None:
        one_of_each(broker)
        for each in walked(broker):
            assert each.record == status(broker, each.record.id)

    def test_arguments_and_result_are_there(self, broker: Broker) -> None:
        args = msgspec.msgpack.encode({"path": "cat.png"})
        sent(broker, "a", args=msgspec.Raw(args))
        settle(broker, take_one(broker), SUCCESS)
        [one] = walked(broker)
        assert (one.record.args, one.record.result) == (args, SUCCESS.result)

    def test_by_queue(self, broker: Broker) -> None:
        sent(broker, "a", "b"), sent(broker, "c", queue="images"), sent(broker, "d", queue="images", not_before=LATER)
        assert listed(broker, TaskFilter(queue="images")) == ["c", "d"]
        assert listed(broker, in_state("queued", queue="images")) == ["c"]
        assert listed(broker, TaskFilter(queue="nobody")) == []

    def test_by_name_as_a_shell_pattern(self, broker: Broker) -> None:
        for name in ("thumbs.make", "thumbs.clear", "mail.send", "thumbsXmake"):
            sent(broker, name, name=name)
        assert listed(broker, TaskFilter(name="thumbs.*")) == ["thumbs.make", "thumbs.clear"]
        assert listed(broker, TaskFilter(name="*.??nd")) == ["mail.send"]
        assert listed(broker, TaskFilter(name="[mx]ail.send")) == ["mail.send"]
        assert listed(broker, TaskFilter(name="thumbs.make")) == ["thumbs.make"]
        assert listed(broker, TaskFilter(name="thumbs")) == listed(broker, TaskFilter(name="")) == []

    def test_by_time_both_ends_included(self, broker: Broker) -> None:
        now = time.time()
        for number, ago in enumerate((3 * DAY, 2 * DAY, DAY, 60.0, 0.0)):
            sent(broker, f"at-{number}", enqueued_at=now - ago)
        assert listed(broker, TaskFilter(since=now - DAY)) == ["at-2", "at-3", "at-4"]
        assert listed(broker, TaskFilter(until=now - DAY)) == ["at-0", "at-1", "at-2"]
        assert listed(broker, TaskFilter(since=now - 2 * DAY, until=now - 60.0)) == ["at-1", "at-2", "at-3"]
        assert listed(broker, TaskFilter(since=now + 1)) == listed(broker, TaskFilter(until=now - 4 * DAY)) == []
        assert listed(broker, TaskFilter(since=now, until=now - DAY)) == []

    def test_all_that_is_given_must_match(self, broker: Broker) -> None:
        now = time.time()
        sent(broker, "old", name="a.b", queue="x", enqueued_at=now - DAY)
        sent(broker, "right", name="a.b", queue="x", enqueued_at=now)
        sent(broker, "name", name="b.b", queue="x", enqueued_at=now), sent(broker, "queue", name="a.b", queue="y", enqueued_at=now)
        settle(broker, take_one(broker, queues=["y"]), SUCCESS)
        assert listed(broker, TaskFilter(states=["queued"], queue="x", name="a.*", since=now - 60, until=now)) == ["right"]

    def test_what_comes_due_is_queued(self, broker: Broker) -> None:
        sent(broker, "soon", not_before=time.time() + 0.1)
        eventually(lambda: listed(broker, in_state("queued")) == ["soon"])
        assert listed(broker, in_state("delayed")) == []

    def test_one_that_waits_for_a_limit_is_delayed(self, broker: Broker) -> None:
        sent(broker, "first", "second")
        first, second = take(broker)
        limits = TaskLimits("bucket", None, 1)
        broker.acquire(first.receipt, limits), broker.acquire(second.receipt, limits)
        assert listed(broker, in_state("delayed")) == ["second"]
        assert (listed(broker, in_state("queued")), listed(broker, in_state("running"))) == ([], ["first"])

    def test_what_has_expired_or_is_forgotten_is_not_listed(self, broker: Broker) -> None:
        sent(broker, "forgotten", "expired", "kept")
        for delivery in take(broker):
            ttl = 0.05 if delivery.receipt.id == "expired" else DAY
            settle(broker, delivery, Finish(TaskState.SUCCEEDED, result=SUCCESS.result, ttl=ttl))
        broker.forget("forgotten")
        eventually(lambda: listed(broker) == ["kept"])
        assert listed(broker, in_state("succeeded")) == ["kept"]

    def test_parts_of_a_canvas_are_listed_and_its_groups_are_not(self, broker: Broker) -> None:
        compose(broker, chain(leaf("first"), group("g", leaf("one"), leaf("two")), leaf("last")))
        assert sorted(listed(broker)) == sorted(listed(broker, in_state("queued"))) == ["first", "last", "one", "two"]
        settle(broker, take_one(broker), SUCCESS)
        for delivery in take(broker):
            settle(broker, delivery, SUCCESS)
        assert sorted(listed(broker, in_state("succeeded"))) == ["first", "one", "two"]
        settle(broker, take_one(broker), SUCCESS)
        assert sorted(listed(broker)) == ["first", "last", "one", "two"]

    def test_an_empty_group_is_none_of_them_either(self, broker: Broker) -> None:
        compose(broker, chain(leaf("first"), group("g")))
        settle(broker, take_one(broker), SUCCESS)
        assert listed(broker) == ["first"]

    # -- pages ------------------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("newest_first", [False, True])
    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 1000])
    def test_pages_of_any_size_make_one_list(self, broker: Broker, limit: int, newest_first: bool) -> None:
        one_of_each(broker)
        for state in (None, *LISTED_STATES):
            which = EVERY if state is None else in_state(state)
            assert listed(broker, which, limit, newest_first) == listed(broker, which, 100, newest_first)

    def test_a_list_ends_with_its_last_task(self, broker: Broker) -> None:
        sent(broker, "a", "b")
        page = broker.list_tasks(EVERY, 2)
        assert page.next is None or broker.list_tasks(EVERY, 2, page.next).tasks == []
        assert broker.list_tasks(EVERY, 3).next is None

    @pytest.mark.parametrize("newest_first", [False, True])
    def test_a_list_goes_on_behind_any_task(self, broker: Broker, newest_first: bool) -> None:
        one_of_each(broker)
        all_of_them = walked(broker, EVERY, 100, newest_first)
        for number, each in enumerate(all_of_them):
            rest = broker.list_tasks(EVERY, 100, each.position, newest_first).tasks
            assert [one.record.id for one in rest] == [one.record.id for one in all_of_them[number + 1 :]]

    def test_the_order_is_the_same_whatever_the_filter(self, broker: Broker) -> None:
        one_of_each(broker)
        places = {each.record.id: each.position for each in walked(broker)}
        for state in LISTED_STATES:
            assert all(places[each.record.id] == each.position for each in walked(broker, in_state(state)))

    @pytest.mark.parametrize("after", ["nonsense", "", "-", "1.5", " ", "0x10", "9" * 400, "1\x00", "NaN", "٣"])
    def test_what_is_no_position_is_refused(self, broker: Broker, after: str) -> None:
        sent(broker, "a")
        with pytest.raises(ValueError, match="position"):
            broker.list_tasks(EVERY, 10, after)

    def test_a_page_says_no_more_than_was_asked_for(self, broker: Broker) -> None:
        broker.publish([envelope(id=f"task-number-{number}") for number in range(1200)])
        page = broker.list_tasks(EVERY, 1000)
        assert 0 < len(page.tasks) <= 1000 and page.next is not None
        assert len(listed(broker, EVERY, 1000)) == 1200

    # -- each once, whatever happens to it meanwhile ------------------------------------------------------------------------------------

    @pytest.mark.parametrize("newest_first", [False, True])
    def test_each_task_is_met_once_while_states_change(self, broker: Broker, other: Broker, newest_first: bool) -> None:
        known = [each.id for each in sent(broker, *(f"t{number:02}" for number in range(12)))]
        number = 0

        def work() -> None:
            nonlocal number
            number += 1
            for delivery in take(other, 1):
                if number % 4 == 0:
                    give_back(other, delivery)
                elif number % 4 == 1:
                    settle(other, delivery, next_attempt(envelope(id=delivery.receipt.id, enqueued_at=1.0)))
                else:
                    settle(other, delivery, SUCCESS if number % 4 == 2 else FAILURE)
            if number <= 6:  # one comes for each that is listed: the list would never end
                sent(other, f"new-{number}")

        met = [each.record.id for each in walked(broker, EVERY, 1, newest_first, work)]
        assert [id for id in met if id in known] == (known[::-1] if newest_first else known)
        assert len(met) == len(set(met))

    @pytest.mark.parametrize("newest_first", [False, True])
    @pytest.mark.parametrize("how", ["retry", "replay", "edit", "edit in line", "run now"])
    def test_each_task_is_met_once_while_they_are_put_in_line_anew(self, broker: Broker, newest_first: bool, how: str) -> None:
        due = LATER if how == "run now" else None
        known = [each.id for each in sent(broker, *(f"t{number}" for number in range(6)), not_before=due)]
        if how in ("retry", "replay", "edit"):
            for delivery in take(broker):
                settle(broker, delivery, FAILURE)
        places = {each.record.id: each.position for each in walked(broker)}
        left = [known[0], known[-1], *known[1:-1]]

        def anew() -> None:
            for id in left[:2]:
                left.remove(id)
                again(broker, id, how)

        met = walked(broker, EVERY, 1, newest_first, anew)
        assert [each.record.id for each in met] == (known[::-1] if newest_first else known)
        while left:
            anew()
        assert {each.record.id: each.position for each in walked(broker)} == places
        assert listed(broker, in_state("queued"), 1, newest_first) == (known[::-1] if newest_first else known)

    def test_one_that_is_put_in_line_anew_again_and_again_stays_where_it_was(self, broker: Broker) -> None:
        sent(broker, "a", "b")
        for _ in range(3):
            for delivery in take(broker):
                settle(broker, delivery, FAILURE)
            again(broker, "b", "retry")
            again(broker, "a", "retry")
            assert listed(broker) == ["a", "b"]
        assert [delivery.receipt.id for delivery in take(broker)] == ["b", "a"], "but in line it is as one that comes now"

    def test_nobody_gets_the_place_of_one_that_was_put_in_line_anew(self, broker: Broker) -> None:
        """The newest of all, and then more come: two tasks at one place would be one for whoever goes on behind it."""
        sent(broker, "a", "b")
        for delivery in take(broker):
            settle(broker, delivery, FAILURE)
        again(broker, "b", "retry")
        sent(broker, "c", "d")
        places = [each.position for each in walked(broker)]
        assert listed(broker, EVERY, 1) == ["a", "b", "c", "d"]
        assert len(set(places)) == 4


def again(broker: Broker, id: str, how: str) -> None:
    if how == "replay":
        (answer,) = broker.replay(DeadFilter(ids=[id]))
        assert answer.refused is None
        return
    found = broker.retry(id) if how == "retry" else broker.run_now(id) if how == "run now" else broker.edit(id, 0, b"\x80")
    assert found is not None and found.refused is None, found
