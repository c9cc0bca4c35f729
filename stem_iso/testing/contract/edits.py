"""Run now and edit: what waits, or has failed, is changed by hand; anything else is refused and left as it was."""

from __future__ import annotations

import time

import msgspec
import pytest

from stem_iso.brokers.base import Broker, Replayed
from stem_iso.outcome import TaskState
from stem_iso.task.envelope import decode
from stem_iso.task.rate_limit import TaskLimits
from stem_iso.task.settlement import Finish
from stem_iso.testing.assertions import eventually
from stem_iso.testing.contract.canvas_steps import chain, compose, group, leaf
from stem_iso.testing.contract.delays import quiet, wakes
from stem_iso.testing.contract.steps import (
    ALL,
    CANCEL,
    FAILURE,
    SUCCESS,
    Steps,
    counts,
    envelope,
    ids,
    next_attempt,
    settle,
    status,
    take,
    take_one,
)

LATER = 1e12
NEW = msgspec.msgpack.encode({"path": "dog.png"})
ONE = TaskLimits("bucket", None, 1)


def run_now(broker: Broker, id: str) -> str | None:
    answer = broker.run_now(id)
    assert answer is not None and answer.id == id
    return answer.refused


def edit(broker: Broker, id: str, run: int = 0, args: bytes = NEW) -> str | None:
    before = broker.status([id])[0]
    answer = broker.edit(id, run, args)
    assert answer is not None and answer.id == id
    if answer.refused is None:
        assert answer.run == run + 1
    else:
        assert broker.status([id])[0] == before
        assert before is None or answer.run == before.run
    return answer.refused


class RunNow(Steps):
    def test_a_delayed_task_is_ready_at_once(self, broker: Broker, other: Broker) -> None:
        sent = envelope(not_before=LATER, priority=3, headers={"x": "1"})
        broker.publish([sent])
        assert other.run_now(sent.id) == Replayed(sent.id, 0)
        assert counts(broker) == (1, 0, 0, 0)
        found = status(broker, sent.id)
        assert (found.state, found.run, found.attempt) == (TaskState.QUEUED, 0, 0)
        again = decode(take_one(broker).body)
        assert (again.id, again.run, again.attempt, again.priority, again.headers) == (sent.id, 0, 0, 3, {"x": "1"})
        assert again.not_before is None or again.not_before <= time.time()

    def test_a_waiting_retry_keeps_its_attempt(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        settle(broker, take_one(broker), next_attempt(sent, not_before=LATER))
        assert run_now(broker, sent.id) is None
        assert status(broker, sent.id).state is TaskState.RETRIED
        delivery = take_one(broker)
        assert (decode(delivery.body).run, decode(delivery.body).attempt) == (0, 1)
        assert settle(broker, delivery, SUCCESS)

    def test_its_place_in_line_is_that_of_one_that_comes_now(self, broker: Broker) -> None:
        late, early, high = envelope(not_before=LATER), envelope(), envelope(priority=5)
        broker.publish([late])
        broker.publish([early])
        assert run_now(broker, late.id) is None
        broker.publish([high])
        assert ids(take(broker)) == [high.id, early.id, late.id]

    def test_a_unique_one_keeps_its_lock(self, broker: Broker) -> None:
        first, second = (envelope(lock="default/thumbs.make/cat", not_before=LATER) for _ in range(2))
        broker.publish([first])
        assert run_now(broker, first.id) is None
        assert broker.publish([second]) == [first.id]
        settle(broker, take_one(broker), SUCCESS)
        assert broker.publish([second]) == [second.id]

    def test_it_wakes_an_idle_worker(self, broker: Broker, other: Broker) -> None:
        sent = envelope(not_before=LATER)
        broker.publish([sent])
        watch = broker.watch("alpha", ["default"])
        take(broker)
        quiet(watch)
        assert run_now(other, sent.id) is None
        assert wakes(watch)
        watch.close()

    def test_anything_else_is_refused(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        assert run_now(broker, sent.id) == "not-delayed"
        delivery = take_one(broker)
        assert run_now(broker, sent.id) == "not-delayed"
        settle(broker, delivery, FAILURE)
        assert run_now(broker, sent.id) == "not-delayed"
        assert counts(broker) == (0, 0, 0, 1)

    def test_a_second_time_is_refused(self, broker: Broker) -> None:
        sent = envelope(not_before=LATER)
        broker.publish([sent])
        assert (run_now(broker, sent.id), run_now(broker, sent.id)) == (None, "not-delayed")
        assert ids(take(broker)) == [sent.id]

    def test_unknown_is_none(self, broker: Broker) -> None:
        assert broker.run_now("nobody") is None

    def test_what_waits_for_its_canvas_is_refused_and_a_delayed_part_is_not(self, broker: Broker) -> None:
        compose(broker, chain(leaf("a"), group("g", leaf("b"))), a={"not_before": LATER})
        assert (run_now(broker, "b"), run_now(broker, "g")) == ("not-delayed", "not-delayed")
        assert run_now(broker, "a") is None
        settle(broker, take_one(broker), SUCCESS)
        assert take_one(broker).receipt.id == "b"

    def test_what_waits_for_a_limit_is_refused_and_keeps_its_place(self, broker: Broker) -> None:
        broker.publish([envelope(id="first")])
        broker.publish([envelope(id="second")])
        first, second = take(broker)
        broker.acquire(first.receipt, ONE), broker.acquire(second.receipt, ONE)
        assert run_now(broker, "second") == "not-delayed"
        assert take(broker) == [] and status(broker, "second").reason == "concurrency-limit"
        settle(broker, first, SUCCESS)
        assert eventually(lambda: take(broker))[0].receipt.id == "second"

    def test_one_that_was_run_now_can_be_revoked(self, broker: Broker) -> None:
        sent = envelope(not_before=LATER)
        broker.publish([sent])
        assert run_now(broker, sent.id) is None
        assert broker.revoke(sent.id)
        assert take(broker) == [] and counts(broker) == (0, 0, 0, 0)


class Edits(Steps):
    def test_what_waits_runs_with_the_new_arguments_in_its_old_place(self, broker: Broker, other: Broker) -> None:
        first, second = envelope(headers={"x": "1"}, max_retries=2, expires=LATER), envelope()
        broker.publish([first])
        broker.publish([second])
        assert other.edit(first.id, 0, NEW) == Replayed(first.id, 1)
        found = status(broker, first.id)
        assert (found.state, found.run, found.attempt, found.args) == (TaskState.QUEUED, 1, 0, NEW)
        deliveries = take(broker)
        assert ids(deliveries) == [first.id, second.id]
        again = decode(deliveries[0].body)
        assert (bytes(again.args), again.run, again.attempt, again.headers, again.max_retries) == (NEW, 1, 0, {"x": "1"}, 2)
        settle(broker, deliveries[0], SUCCESS)
        assert (status(broker, first.id).state, status(broker, first.id).run, status(broker, first.id).args) == (
            TaskState.SUCCEEDED,
            1,
            NEW,
        )

    def test_what_is_delayed_keeps_its_due_time(self, broker: Broker) -> None:
        due = time.time() + 3600
        sent = envelope(not_before=due)
        broker.publish([sent])
        assert edit(broker, sent.id) is None
        assert counts(broker) == (0, 1, 0, 0) and take(broker) == []
        assert status(broker, sent.id).not_before == pytest.approx(due, abs=0.01)
        assert run_now(broker, sent.id) is None
        again = decode(take_one(broker).body)
        assert (bytes(again.args), again.run) == (NEW, 1)

    def test_a_waiting_retry_begins_at_its_first_attempt_when_it_was_due(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        settle(broker, take_one(broker), next_attempt(sent, not_before=time.time() + 0.3))
        assert edit(broker, sent.id) is None
        found = status(broker, sent.id)
        assert (found.state, found.run, found.attempt, found.redeliveries) == (TaskState.QUEUED, 1, 0, 0)
        assert (found.reason, found.error) == (None, None)
        (delivery,) = eventually(lambda: take(broker))
        again = decode(delivery.body)
        assert (bytes(again.args), again.run, again.attempt) == (NEW, 1, 0)

    @pytest.mark.parametrize("ending", [FAILURE, CANCEL], ids=["failed", "cancelled"])
    def test_what_ended_badly_runs_again_with_them(self, broker: Broker, ending: Finish) -> None:
        sent = envelope(expires=1e12, headers={"x": "1"})
        broker.publish([sent])
        settle(broker, take_one(broker), ending, meta={"seen": 1})
        assert edit(broker, sent.id) is None
        assert broker.dead_letters(ALL) == []
        found = status(broker, sent.id)
        assert (found.state, found.run, found.attempt, found.args) == (TaskState.QUEUED, 1, 0, NEW)
        assert (found.error, found.reason, found.finished_at, found.meta) == (None, None, None, {"seen": 1})
        again = decode(take_one(broker).body)
        assert (bytes(again.args), again.run, again.expires, again.headers, again.meta) == (NEW, 1, None, {"x": "1"}, {"seen": 1})

    def test_again_and_again(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        for run in range(3):
            assert edit(broker, sent.id, run, msgspec.msgpack.encode({"n": run})) is None
        delivery = take_one(broker)
        assert decode(delivery.body).run == 3
        settle(broker, delivery, FAILURE)
        assert edit(broker, sent.id, 3) is None
        assert decode(take_one(broker).body).run == 4

    def test_what_runs_is_refused(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        delivery = take_one(broker)
        assert edit(broker, sent.id) == "running"
        assert settle(broker, delivery, SUCCESS)
        assert edit(broker, sent.id) == "succeeded"

    def test_who_saw_another_run_is_refused(self, broker: Broker, other: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        assert edit(broker, sent.id, 0, msgspec.msgpack.encode({"n": 1})) is None
        assert edit(other, sent.id, 0) == "changed"
        assert edit(other, sent.id, 7) == "changed"
        delivery = take_one(broker)
        assert msgspec.msgpack.decode(decode(delivery.body).args) == {"n": 1}
        settle(broker, delivery, FAILURE)
        assert broker.retry(sent.id) == Replayed(sent.id, 2)
        assert edit(other, sent.id, 1) == "changed"

    def test_unknown_and_forgotten_are_none(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        settle(broker, take_one(broker), FAILURE)
        broker.forget(sent.id)
        assert broker.edit("nobody", 0, NEW) is broker.edit(sent.id, 0, NEW) is None

    def test_what_is_too_large_is_refused(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        huge = msgspec.msgpack.encode({"path": "x" * broker.options.max_payload_bytes})
        assert edit(broker, sent.id, 0, huge) == "too-large"
        settle(broker, take_one(broker), FAILURE)
        assert edit(broker, sent.id, 0, huge) == "too-large"

    def test_parts_of_a_canvas_and_groups_are_refused(self, broker: Broker) -> None:
        compose(broker, chain(leaf("a"), group("g", leaf("b")), leaf("c")))
        assert [edit(broker, id) for id in ("a", "b", "c")] == ["canvas"] * 3
        assert edit(broker, "g") == "canvas"
        settle(broker, take_one(broker), FAILURE)
        assert [edit(broker, id) for id in ("a", "b", "g")] == ["canvas"] * 3

    def test_bytes_that_are_no_envelope_are_refused(self, broker: Broker) -> None:
        sent = envelope(args=msgspec.Raw(b"\xc1"))
        broker.publish([sent])
        assert edit(broker, sent.id) == "undecodable"
        settle(broker, take_one(broker), Finish(TaskState.FAILED, reason="undecodable"))
        assert edit(broker, sent.id) == "undecodable"

    def test_a_unique_one_keeps_its_lock_takes_it_again_or_is_refused(self, broker: Broker) -> None:
        first, second = (envelope(lock="default/thumbs.make/cat") for _ in range(2))
        broker.publish([first])
        assert edit(broker, first.id) is None
        assert broker.publish([second]) == [first.id]
        settle(broker, take_one(broker), FAILURE)
        assert edit(broker, first.id, 1) is None
        assert broker.publish([second]) == [first.id]
        settle(broker, take_one(broker), FAILURE)
        assert broker.publish([second]) == [second.id]
        assert edit(broker, first.id, 2) == "unique"

    def test_one_that_waits_for_a_limit_runs_with_them_when_there_is_room(self, broker: Broker) -> None:
        broker.publish([envelope(id="first")])
        broker.publish([envelope(id="second")])
        first, second = take(broker)
        broker.acquire(first.receipt, ONE), broker.acquire(second.receipt, ONE)
        assert edit(broker, "second") is None
        settle(broker, first, SUCCESS)
        delivery = eventually(lambda: take(broker))[0]
        again = decode(delivery.body)
        assert (again.id, bytes(again.args), again.run) == ("second", NEW, 1)
        assert broker.acquire(delivery.receipt, ONE).wait == 0

    def test_an_edited_one_that_waited_at_a_limit_does_not_keep_the_next_one_from_its_turn(self, broker: Broker) -> None:
        """Its key may be another one now."""
        for id in ("first", "second", "third"):
            broker.publish([envelope(id=id)])
        first, second, third = take(broker)
        broker.acquire(first.receipt, ONE), broker.acquire(second.receipt, ONE), broker.acquire(third.receipt, ONE)
        assert edit(broker, "second") is None
        settle(broker, first, SUCCESS)
        got: set[str] = set()

        def both() -> bool:
            for delivery in take(broker):
                if delivery.receipt.id == "second":
                    assert broker.acquire(delivery.receipt, TaskLimits("another", None, 1)).wait == 0
                got.add(delivery.receipt.id)
            return got == {"second", "third"}

        eventually(both)

    def test_an_edit_wakes_an_idle_worker(self, broker: Broker, other: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        settle(broker, take_one(broker), FAILURE)
        watch = broker.watch("alpha", ["default"])
        take(broker)
        quiet(watch)
        assert edit(other, sent.id) is None
        assert wakes(watch)
        watch.close()

    def test_the_old_run_cannot_be_published_again(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        assert edit(broker, sent.id) is None
        assert broker.publish([sent]) == [sent.id]
        assert [decode(delivery.body).run for delivery in take(broker)] == [1]
