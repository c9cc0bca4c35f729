"""Waiting for a result, from anywhere."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable

import pytest

from stem_iso.brokers.base import Broker, ResultWatch, StatusRecord
from stem_iso.errors import UnknownResult
from stem_iso.outcome import TaskState
from stem_iso.testing.assertions import throughout
from stem_iso.testing.contract.steps import RESULT, SUCCESS, Steps, envelope, next_attempt, settle, take, take_one


class Waiter:
    """Waits in a thread, as another process would, with a handle of its own."""

    def __init__(self, broker: Broker, id: str) -> None:
        self.answer: StatusRecord | Exception | None = None
        self.at = 0.0
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._wait, args=(broker, id))
        self._thread.start()
        self._begun.wait(5)
        throughout(lambda: self.answer is None, 0.02)  # by then it blocks: nothing shows it from outside

    def _wait(self, broker: Broker, id: str) -> None:
        self._begun.set()
        try:
            self.answer = broker.wait(id, 10)
        except (UnknownResult, TimeoutError) as error:
            self.answer = error
        self.at = time.monotonic()

    def joined(self) -> StatusRecord | Exception | None:
        self._thread.join(10)
        return self.answer


class Waiting(Steps):
    def test_what_has_ended_is_answered_at_once(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        settle(broker, take_one(broker), SUCCESS)
        assert broker.wait(sent.id, 0).result == RESULT

    def test_an_unknown_id_is_refused_at_once(self, broker: Broker) -> None:
        with pytest.raises(UnknownResult, match="nobody"):
            broker.wait("nobody", None)

    def test_the_wait_runs_out(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        started = time.monotonic()
        with pytest.raises(TimeoutError, match=sent.id):
            broker.wait(sent.id, 0.1)
        assert 0.1 <= time.monotonic() - started < 10
        with pytest.raises(TimeoutError):
            broker.wait(sent.id, 0)

    @pytest.mark.parametrize("end", ["settled", "revoked", "purged", "lost"])
    def test_it_wakes_at_once_when_the_task_ends(self, broker: Broker, other: Broker, end: str) -> None:
        # The best of some: a busy machine makes one late, a broker that polls makes all late.
        assert min(self.lateness(broker, other, end) for _ in range(4)) < 0.1

    def lateness(self, broker: Broker, other: Broker, end: str) -> float:
        sent = envelope()
        broker.publish([sent])
        waiter = Waiter(other, sent.id)
        ends: dict[str, Callable[[], object]] = {
            "settled": lambda: settle(broker, take_one(broker), SUCCESS),
            "revoked": lambda: broker.revoke(sent.id),
            "purged": lambda: broker.purge("default"),
            "lost": lambda: broker.mark(take_one(broker, "doomed").receipt) and broker.reclaim("alpha", "doomed"),
        }
        ends[end]()
        ended = time.monotonic()
        answer = waiter.joined()
        assert isinstance(answer, StatusRecord) and answer.state.terminal
        return waiter.at - ended

    def test_what_has_ended_is_answered_whenever_it_is_asked_for(self, broker: Broker, other: Broker) -> None:
        sent, going_on = envelope(), envelope(queue="other")
        broker.publish([sent, going_on])
        watch, waits = other.watch_results(), {sent.id: sent.queue, going_on.id: going_on.queue}
        assert watch.poll(waits) == {}
        settle(broker, take_one(broker), SUCCESS)
        assert self.next_ends(watch, dict(waits)) == {sent.id: TaskState.SUCCEEDED}
        for _ in range(2):
            (record,) = watch.poll(waits).values()
            assert record is not None and record.id == sent.id
        watch.close()

    def test_one_descriptor_shows_the_ends_of_many(self, broker: Broker, other: Broker) -> None:
        sent = [envelope(queue=queue) for queue in ("default", "default", "other", "default")]
        broker.publish(sent)
        waits = {each.id: each.queue for each in sent} | {"nobody": None}
        watch = other.watch_results()
        assert watch.poll(waits) == {"nobody": None}
        del waits["nobody"], waits[sent[3].id]  # that one is waited for no longer
        broker.revoke(sent[2].id)
        assert self.next_ends(watch, waits) == {sent[2].id: TaskState.CANCELLED}
        first, second, third = sorted(take(broker, 3), key=lambda delivery: delivery.receipt.id)
        for delivery in (first, second, third):
            settle(broker, delivery, next_attempt(sent[1]) if delivery.receipt.id == sent[1].id else SUCCESS)
        assert self.next_ends(watch, waits) == {sent[0].id: TaskState.SUCCEEDED}
        late = envelope()
        broker.publish([late])
        assert watch.poll({**waits, late.id: None}) == {}
        for delivery in take(broker, 3):
            settle(broker, delivery, SUCCESS)
        waits[late.id] = None
        found = self.next_ends(watch, waits)
        while waits:
            found |= self.next_ends(watch, waits)
        assert found == dict.fromkeys((sent[1].id, late.id), TaskState.SUCCEEDED)
        watch.close()

    def next_ends(self, watch: ResultWatch, waits: dict[str, str | None]) -> dict[str, TaskState]:
        """What the first poll finds that finds anything, each poll after a wake-up."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            poll = select.poll()
            poll.register(watch.fileno(), select.POLLIN)
            poll.poll(watch.interval * 1000)
            if found := watch.poll(waits):
                for id in found:
                    del waits[id]
                return {id: record.state for id, record in found.items() if record is not None}
        raise AssertionError("nothing has ended in 10 s")

    def test_a_retry_is_no_end(self, broker: Broker, other: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        waiter = Waiter(other, sent.id)
        settle(broker, take_one(broker), next_attempt(sent))
        settle(broker, take_one(broker), SUCCESS)
        answer = waiter.joined()
        assert isinstance(answer, StatusRecord)
        assert (answer.state, answer.attempt) == (TaskState.SUCCEEDED, 1)

    def test_what_is_forgotten_meanwhile_is_unknown(self, broker: Broker, other: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        waiter = Waiter(other, sent.id)
        broker.forget(sent.id)
        settle(broker, take_one(broker), SUCCESS)
        assert isinstance(waiter.joined(), UnknownResult)
