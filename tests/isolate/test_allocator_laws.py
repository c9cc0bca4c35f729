"""The allocator: how many isolates, and which call goes where, played at random against its rules."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stem_iso.isolate.engine.allocator import BOOT_TRIES, Allocator, Assign, GiveUp, Order, Retire, Spawn


class FleetPlay(RuleBasedStateMachine):
    """The driver of the allocator, with isolates that boot, answer, die and get stuck as the dice say."""

    def __init__(self) -> None:
        super().__init__()
        self.allocator: Allocator[int, int] = Allocator(2, 1)
        self.now = 0.0
        self.calls = 0
        self.priority: dict[int, int] = {}
        self.arrival: dict[int, int] = {}
        self.waiting: set[int] = set()
        self.running: dict[int, int] = {}  # isolate -> call
        self.booting: set[int] = set()
        self.idle: set[int] = set()
        self.dying: set[int] = set()
        self.ended: list[int] = []
        self.spawned_at: list[float] = []

    def execute(self, orders: list[Order[int]]) -> None:
        for order in orders:
            match order:
                case Assign(isolate, call):
                    assert isolate in self.idle, "assigned to an isolate that is not free"
                    assert call in self.waiting
                    before = min(self.waiting, key=lambda each: (-self.priority[each], self.arrival[each]))
                    assert call == before, "calls start by priority, then arrival"
                    self.idle.remove(isolate)
                    self.waiting.remove(call)
                    self.running[isolate] = call
                case Spawn(isolate):
                    assert self.now >= self.allocator.boot_after, "a spawn within the backoff"
                    assert isolate not in self.booting | self.idle | self.dying | set(self.running)
                    self.booting.add(isolate)
                case Retire(isolate):
                    self.idle.remove(isolate)
                    self.dying.add(isolate)
                case GiveUp(call):
                    assert self.allocator.boot_failures >= BOOT_TRIES
                    self.waiting.remove(call)
                    self.ended.append(call)

    @rule(priority=st.integers(0, 3))
    def submit(self, priority: int) -> None:
        self.calls += 1
        self.priority[self.calls] = priority
        self.waiting.add(self.calls)
        self.arrival[self.calls] = self.allocator._arrivals + 1
        arrival, orders = self.allocator.submit(self.calls, priority, self.now)
        assert arrival == self.arrival[self.calls]
        self.execute(orders)

    @precondition(lambda self: self.booting)
    @rule(data=st.data())
    def ready(self, data: st.DataObject) -> None:
        isolate = data.draw(st.sampled_from(sorted(self.booting)))
        self.booting.remove(isolate)
        self.idle.add(isolate)
        self.execute(self.allocator.ready(isolate, self.now))

    @precondition(lambda self: self.booting)
    @rule(data=st.data())
    def boot_fails(self, data: st.DataObject) -> None:
        isolate = data.draw(st.sampled_from(sorted(self.booting)))
        self.booting.remove(isolate)
        self.execute(self.allocator.boot_failed(isolate, self.now))

    @precondition(lambda self: set(self.running) - self.dying)
    @rule(data=st.data())
    def reply(self, data: st.DataObject) -> None:
        isolate = data.draw(st.sampled_from(sorted(set(self.running) - self.dying)))
        self.ended.append(self.running.pop(isolate))
        self.idle.add(isolate)
        self.execute(self.allocator.freed(isolate, self.now))

    @precondition(lambda self: set(self.running) - self.dying)
    @rule(data=st.data())
    def reply_and_wear_out(self, data: st.DataObject) -> None:
        isolate = data.draw(st.sampled_from(sorted(set(self.running) - self.dying)))
        self.ended.append(self.running.pop(isolate))
        self.dying.add(isolate)
        self.allocator.answered(isolate)
        self.allocator.killed(isolate)
        self.execute(self.allocator.decide(self.now))

    @precondition(lambda self: (set(self.running) | self.idle) - self.dying)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        isolate = data.draw(st.sampled_from(sorted((set(self.running) | self.idle) - self.dying)))
        self.idle.discard(isolate)
        self.dying.add(isolate)
        self.allocator.killed(isolate)

    @precondition(lambda self: self.dying)
    @rule(data=st.data(), started=st.booleans(), stuck=st.booleans())
    def die(self, data: st.DataObject, started: bool, stuck: bool) -> None:
        isolate = data.draw(st.sampled_from(sorted(self.dying)))
        self.dying.remove(isolate)
        call = self.running.pop(isolate, None)
        if call is not None and (started or stuck):
            self.ended.append(call)
        elif call is not None:
            self.waiting.add(call)
            self.allocator.requeue(call, self.priority[call], self.arrival[call])
        self.execute((self.allocator.stuck if stuck else self.allocator.exited)(isolate, self.now))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(sorted(self.waiting)))
        assert self.allocator.withdraw(self.arrival[call])
        assert not self.allocator.withdraw(self.arrival[call]), "taken back twice"
        self.waiting.remove(call)
        self.ended.append(call)

    @rule(size=st.integers(1, 4), spares=st.integers(0, 2))
    def resize(self, size: int, spares: int) -> None:
        self.execute(self.allocator.resize(size, spares, self.now))

    @rule(seconds=st.floats(0.01, 40))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.execute(self.allocator.decide(self.now))

    @invariant()
    def the_books_agree(self) -> None:
        assert set(self.allocator.idle) == self.idle
        assert self.allocator.booting == self.booting
        assert self.allocator.busy == set(self.running)
        assert self.allocator.waiting == len(self.waiting)
        assert sorted([*self.ended, *self.waiting, *self.running.values()]) == list(range(1, self.calls + 1)), "a call was lost or doubled"

    @invariant()
    def no_call_waits_beside_a_free_isolate(self) -> None:
        assert not (self.waiting and self.idle and len(self.running) < self.allocator.size)

    @invariant()
    def a_call_that_waits_has_an_isolate_coming(self) -> None:
        if self.waiting and len(self.running) < self.allocator.size and self.now >= self.allocator.boot_after:
            assert self.idle or self.booting or self.dying

    def teardown(self) -> None:
        # No churn: nothing is spawned or retired by asking again.
        assert self.allocator.decide(self.now) == []


FleetPlay.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestFleet = FleetPlay.TestCase


def test_never_more_isolates_than_seats_and_spares() -> None:
    allocator: Allocator[int, int] = Allocator(2, 1)
    alive: set[int] = set()
    for call in range(50):
        _, orders = allocator.submit(call, 0, 0.0)
        alive |= {order.isolate for order in orders if isinstance(order, Spawn)}
    assert len(alive) == 3


def test_on_demand_and_a_spare_beside() -> None:
    allocator: Allocator[str, str] = Allocator(4, 1)
    assert allocator.decide(0.0) == [Spawn(1)]
    assert allocator.ready(1, 0.0) == []
    assert allocator.submit("a", 0, 0.0)[1] == [Assign(1, "a"), Spawn(2)]


def test_boots_that_fail_give_up_nothing_while_others_boot_or_run() -> None:
    allocator: Allocator[int, int] = Allocator(5, 0)
    for call in range(5):
        allocator.submit(call, 0, 0.0)
    now = 0.0
    for _ in range(2 * BOOT_TRIES):
        failing = max(allocator.booting)
        assert not any(isinstance(order, GiveUp) for order in allocator.boot_failed(failing, now))
        now = allocator.boot_after
        allocator.decide(now)
        if len(allocator.booting) == 1:
            break
        allocator.ready(min(allocator.booting), now)
        assert allocator.boot_failures, "one that was begun before says nothing of those after it"
    assert allocator.waiting + len(allocator.busy) == 5
