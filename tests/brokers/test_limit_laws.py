"""The buckets of the SQLite broker under any order of calls, with clocks that are moved by hand.

The two laws are looked at after every step; at the end of a run everything must get through, and nothing may be left behind.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stem_iso.brokers.base import BrokerOptions, Delivery, Permit, Receipt, Settlement, Verdict
from stem_iso.brokers.sqlite.rate_limits import FALLBACK
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.task.rate_limit import Rate, TaskLimits
from stem_iso.task.settlement import GiveBack
from stem_iso.testing.contract.steps import CANCEL, FAILURE, SUCCESS, envelope, next_attempt, settle, take, take_one
from tests.brokers.stores import HandClock, ask, in_file, in_memory

BUCKETS = {
    "rate": TaskLimits("rate", Rate(3, 10.0)),
    "places": TaskLimits("places", concurrency=2),
    "both": TaskLimits("both", Rate(4, 20.0), 1),
}
LEASE = 15.0
TAKEN = Permit(Verdict.DONE)


def rows(turn: Transaction) -> tuple[int, int, int]:
    """What the limits keep: buckets, starts, and marks on tasks."""
    marks = turn.one("SELECT count(*) FROM task WHERE slot IS NOT NULL OR waits IS NOT NULL")
    return turn.one("SELECT count(*) FROM bucket"), turn.one("SELECT count(*) FROM start"), marks


class Line(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = HandClock()
        self.broker = in_memory(self.clock, BrokerOptions(default_visibility_timeout=LEASE, max_redeliveries=10_000))
        self.latest = self.clock.wall
        self.leased: dict[Receipt, Delivery] = {}
        self.running: dict[Receipt, str] = {}
        self.starts: dict[str, list[float]] = {name: [] for name in BUCKETS}
        self.bucket_of: dict[str, str] = {}
        # Of ids. Those of `envelope` count on over all examples: what is sorted by them would stand in another order in each.
        self.numbers = count(1)

    @rule(name=st.sampled_from(sorted(BUCKETS)), many=st.integers(1, 4), priority=st.sampled_from([0, 0, 5]))
    def publish(self, name: str, many: int, priority: int) -> None:
        sent = [envelope(id=f"task-{next(self.numbers)}", name=name, priority=priority) for _ in range(many)]
        self.broker.publish(sent)
        self.bucket_of |= {one.id: name for one in sent}

    @rule(want=st.integers(1, 4), boot=st.sampled_from(["alpha", "beta"]))
    def lease(self, want: int, boot: str) -> None:
        for delivery in take(self.broker, want, boot):
            self.leased[delivery.receipt] = delivery

    @precondition(lambda self: self.leased)
    @rule(data=st.data())
    def acquire(self, data: st.DataObject) -> None:
        receipt = data.draw(st.sampled_from(sorted(self.leased, key=str)))
        del self.leased[receipt]
        self.asked(receipt)

    def asked(self, receipt: Receipt) -> None:
        name = self.bucket_of[receipt.id]
        permit = self.broker.acquire(receipt, BUCKETS[name])
        if permit == TAKEN:
            self.running[receipt] = name
            self.starts[name].append(self.clock.lease)
            assert self.broker.acquire(receipt, BUCKETS[name]) == TAKEN
        elif permit.verdict is Verdict.DONE:
            assert self.full(name)
            assert settle(self.broker, Delivery(receipt, b"", "default", 0, LEASE), SUCCESS) is Verdict.LOST

    def full(self, name: str) -> bool:
        limits = BUCKETS[name]
        rate, starts = limits.rate, self.starts[name]
        if limits.concurrency is not None and list(self.running.values()).count(name) >= limits.concurrency:
            return True
        return rate is not None and len(starts) >= rate.count and starts[-rate.count] + rate.period > self.clock.lease

    @precondition(lambda self: self.running or self.leased)
    @rule(data=st.data(), plan=st.sampled_from(["success", "failure", "cancel", "give back", "retry", "retry later"]))
    def settle(self, data: st.DataObject, plan: str) -> None:
        receipt = data.draw(st.sampled_from(sorted([*self.running, *self.leased], key=str)))
        self.running.pop(receipt, None)
        self.leased.pop(receipt, None)
        again = next_attempt(envelope(id=receipt.id), not_before=self.clock.wall + 7 if plan.endswith("later") else None)
        plans = {"success": SUCCESS, "failure": FAILURE, "cancel": CANCEL, "give back": GiveBack()}
        self.broker.exchange(receipt.boot, [Settlement(receipt, plans.get(plan, again))], [], 0)

    @precondition(lambda self: self.bucket_of)
    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        self.broker.revoke(data.draw(st.sampled_from(sorted(self.bucket_of))))

    @rule()
    def purge(self) -> None:
        self.broker.purge("default")

    @rule(boot=st.sampled_from(["alpha", "beta"]))
    def reclaim(self, boot: str) -> None:
        lost = {found.id for found in self.broker.reclaim("gamma", predecessor=boot)}
        self.running = {receipt: name for receipt, name in self.running.items() if receipt.id not in lost}
        self.leased = {receipt: delivery for receipt, delivery in self.leased.items() if receipt.id not in lost}

    @rule(seconds=st.sampled_from([0.5, 3.0, 9.5]))
    def time_passes(self, seconds: float) -> None:
        self.clock.pass_by(seconds)

    @rule(seconds=st.sampled_from([-500.0, 500.0]))
    def the_wall_clock_is_stepped(self, seconds: float) -> None:
        self.latest = max(self.latest, self.clock.wall)
        self.clock.wall += seconds

    @rule()
    def sweep(self) -> None:
        self.broker.sweep()

    @invariant()
    def no_more_run_than_may(self) -> None:
        for name, limits in BUCKETS.items():
            if limits.concurrency is not None:
                assert list(self.running.values()).count(name) <= limits.concurrency

    @invariant()
    def no_more_begin_than_may(self) -> None:
        for name, limits in BUCKETS.items():
            if limits.rate is not None:
                starts = self.starts[name]
                pairs = zip(starts, starts[limits.rate.count :], strict=False)
                assert all(later - earlier >= limits.rate.period - 1e-6 for earlier, later in pairs)

    def teardown(self) -> None:
        """With a worker that does nothing but run what it may, everything gets through, soon; then nothing is kept."""
        for receipt in [*self.running, *self.leased]:
            self.broker.exchange(receipt.boot, [Settlement(receipt, SUCCESS)], [], 0)
        self.running.clear()
        waiting = sum(one.queued + one.delayed for one in self.broker.queues())
        # What was stepped back has to be made up for: due times are wall clock.
        self.clock.wall = max(self.latest, self.clock.wall) + 1000
        for _ in range(12 * waiting + 20):
            for delivery in take(self.broker, 10):
                self.asked(delivery.receipt)
            for receipt in list(self.running):
                self.broker.exchange(receipt.boot, [Settlement(receipt, SUCCESS)], [], 0)
                del self.running[receipt]
            self.clock.pass_by(1.0)
        assert not any(one.queued or one.delayed or one.running for one in self.broker.queues())
        self.clock.pass_by(FALLBACK)
        self.broker.sweep()
        assert self.broker._database.read(rows) == (0, 0, 0)


TestLimitLaws = Line.TestCase
TestLimitLaws.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


@pytest.mark.parametrize("limits", [TaskLimits("places", concurrency=10), TaskLimits("rate", Rate(10, 1.0))])
def test_a_line_costs_one_refusal_each_and_no_more_looks_while_it_waits(limits: TaskLimits) -> None:
    clock = HandClock()
    broker = in_memory(clock)
    broker.publish([envelope(name="places") for _ in range(300)])
    asked = 0
    running: list[Delivery] = []
    for _ in range(3000):  # 30 s, and each attempt takes one of them
        for delivery in take(broker, 1):
            asked += 1
            if broker.acquire(delivery.receipt, limits) == TAKEN:
                running.append(delivery)
        clock.pass_by(0.01)
        if running and clock.lease % 1.0 < 0.01:
            broker.exchange("alpha", [Settlement(one.receipt, SUCCESS) for one in running], [], 0)
            running = []
    assert sum(one.queued + one.delayed for one in broker.queues()) <= 10
    assert asked <= 2 * 300 + 20  # and four looks a second, from the second minute on


def test_what_stands_in_line_by_mistake_is_looked_at_within_minutes() -> None:
    """A deploy raised the limit while the one that ran went on for hours: nothing wakes the line."""
    clock = HandClock()
    broker = in_memory(clock)
    broker.publish([envelope() for _ in range(20)])
    one, ten = TaskLimits("thumbs.make", concurrency=1), TaskLimits("thumbs.make", concurrency=10)
    assert [broker.acquire(delivery.receipt, one) == TAKEN for delivery in take(broker, 20)].count(True) == 1
    running = 1
    for _ in range(70):
        clock.pass_by(1.0)
        while found := take(broker, 20):
            running += [broker.acquire(delivery.receipt, ten) == TAKEN for delivery in found].count(True)
    assert running == 10


def test_a_reboot_does_not_open_a_daily_limit_again(tmp_path: Path) -> None:
    clock, daily = HandClock(lease=90_000.0), TaskLimits("thumbs.make", Rate(2, 86_400.0))
    before = in_file(tmp_path / "jobs.db", clock)
    before.publish([envelope() for _ in range(4)])
    assert [before.acquire(delivery.receipt, daily) == TAKEN for delivery in take(before, 2)] == [True, True]
    before.close()
    clock.wall += 3600
    clock.lease, clock.machine = 20.0, "second boot"
    after = in_file(tmp_path / "jobs.db", clock)
    permit = after.acquire(take_one(after, "beta").receipt, daily)
    assert 0 < permit.wait <= FALLBACK + 1
    clock.pass_by(82_000)
    assert not any(after.acquire(delivery.receipt, daily) == TAKEN for delivery in take(after, 4, "beta"))
    clock.pass_by(900)
    assert after.acquire(take_one(after, "beta").receipt, daily) == TAKEN
    after.close()


def test_a_rate_keeps_the_times_of_no_more_starts_than_it_counts(tmp_path: Path) -> None:
    clock = HandClock()
    broker = in_file(tmp_path / "jobs.db", clock)
    broker.publish([envelope() for _ in range(40)])
    for _ in range(40):
        delivery = take_one(broker)
        assert broker.acquire(delivery.receipt, TaskLimits("thumbs.make", Rate(5, 1.0))) == TAKEN
        settle(broker, delivery, SUCCESS)
        clock.pass_by(0.25)
    assert ask(tmp_path / "jobs.db", "SELECT count(*) FROM start") == [(5,)]
    broker.close()


def test_as_many_are_called_as_may_begin_and_no_more() -> None:
    clock, limits = HandClock(), TaskLimits("thumbs.make", Rate(10, 1.0))
    broker = in_memory(clock)
    broker.publish([envelope() for _ in range(20)])
    for _ in range(10):
        assert broker.acquire(take_one(broker).receipt, limits) == TAKEN
        clock.pass_by(0.05)
    assert not any(broker.acquire(delivery.receipt, limits) == TAKEN for delivery in take(broker, 10))
    clock.pass_by(0.62)  # three may begin, the next one in 30 ms
    assert broker.acquire(take_one(broker).receipt, limits) == TAKEN  # who comes late calls the others
    assert [broker.acquire(delivery.receipt, limits) == TAKEN for delivery in take(broker, 10)] == [True, True]
    assert take(broker, 10) == []
    clock.pass_by(0.05)
    assert [broker.acquire(delivery.receipt, limits) == TAKEN for delivery in take(broker, 10)] == [True]
