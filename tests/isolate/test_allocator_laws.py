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
        self.fleet: Allocator[int, int] = Allocator(2, 1)
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

    def obey(self, orders: list[Order[int]]) -> None:
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
                    assert self.now >= self.fleet.boot_after, "a spawn within the backoff"
                    assert isolate not in self.booting | self.idle | self.dying | set(self.running)
                    self.booting.add(isolate)
                case Retire(isolate):
                    self.idle.remove(isolate)
                    self.dying.add(isolate)
                case GiveUp(call):
                    assert self.fleet.boot_failures >= BOOT_TRIES
                    self.waiting.remove(call)
                    self.ended.append(call)

    @rule(priority=st.integers(0, 3))
    def submit(self, priority: int) -> None:
        self.calls += 1
        self.priority[self.calls] = priority
        self.waiting.add(self.calls)
        self.arrival[self.calls] = self.fleet._arrivals + 1
        arrival, orders = self.fleet.submit(self.calls, priority, self.now)
        assert arrival == self.arrival[self.calls]
        self.obey(orders)

    @precondition(lambda self: self.booting)
    @rule(data=st.data())
    def ready(self, data: st.DataObject) -> None:
        isolate = data.draw(st.sampled_from(sorted(self.booting)))
        self.booting.remove(isolate)
        self.idle.add(isolate)
        self.obey(self.fleet.ready(isolate, self.now))

    @precondition(lambda self: self.booting)
    @rule(data=st.data())
    def boot_fails(self, data: st.DataObject) -> None:
        isolate = data.draw(st.sampled_from(sorted(self.booting)))
        self.booting.remove(isolate)
        self.obey(self.fleet.boot_failed(isolate, self.now))

    @precondition(lambda self: set(self.running) - self.dying)
    @rule(data=st.data())
    def reply(self, data: st.DataObject) -> None:
        isolate = data.draw(st.sampled_from(sorted(set(self.running) - self.dying)))
        self.ended.append(self.running.pop(isolate))
        self.idle.add(isolate)
        self.obey(self.fleet.freed(isolate, self.now))

    @precondition(lambda self: set(self.running) - self.dying)
    @rule(data=st.data())
    def reply_and_wear_out(self, data: st.DataObject) -> None:
        isolate = data.draw(st.sampled_from(sorted(set(self.running) - self.dying)))
        self.ended.append(self.running.pop(isolate))
        self.dying.add(isolate)
        self.fleet.answered(isolate)
        self.fleet.condemned(isolate)
        self.obey(self.fleet.decide(self.now))

    @precondition(lambda self: (set(self.running) | self.idle) - self.dying)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        isolate = data.draw(st.sampled_from(sorted((set(self.running) | self.idle) - self.dying)))
        self.idle.discard(isolate)
        self.dying.add(isolate)
        self.fleet.condemned(isolate)

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
            self.fleet.requeue(call, self.priority[call], self.arrival[call])
        self.obey((self.fleet.stuck if stuck else self.fleet.gone)(isolate, self.now))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(sorted(self.waiting)))
        assert self.fleet.withdraw(self.arrival[call])
        assert not self.fleet.withdraw(self.arrival[call]), "taken back twice"
        self.waiting.remove(call)
        self.ended.append(call)

    @rule(size=st.integers(1, 4), spares=st.integers(0, 2))
    def resize(self, size: int, spares: int) -> None:
        self.obey(self.fleet.resize(size, spares, self.now))

    @rule(seconds=st.floats(0.01, 40))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.obey(self.fleet.decide(self.now))

    @invariant()
    def the_books_agree(self) -> None:
        assert set(self.fleet.idle) == self.idle
        assert self.fleet.booting == self.booting
        assert self.fleet.busy == set(self.running)
        assert self.fleet.waiting == len(self.waiting)
        assert sorted([*self.ended, *self.waiting, *self.running.values()]) == list(range(1, self.calls + 1)), "a call was lost or doubled"

    @invariant()
    def no_call_waits_beside_a_free_isolate(self) -> None:
        assert not (self.waiting and self.idle and len(self.running) < self.fleet.size)

    @invariant()
    def a_call_that_waits_has_an_isolate_coming(self) -> None:
        if self.waiting and len(self.running) < self.fleet.size and self.now >= self.fleet.boot_after:
            assert self.idle or self.booting or self.dying

    def teardown(self) -> None:
        # No churn: nothing is spawned or retired by asking again.
        assert self.fleet.decide(self.now) == []


FleetPlay.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestFleet = FleetPlay.TestCase


def test_never_more_isolates_than_seats_and_spares() -> None:
    fleet: Allocator[int, int] = Allocator(2, 1)
    alive: set[int] = set()
    for call in range(50):
        _, orders = fleet.submit(call, 0, 0.0)
        alive |= {order.isolate for order in orders if isinstance(order, Spawn)}
    assert len(alive) == 3


def test_on_demand_and_a_spare_beside() -> None:
    fleet: Allocator[str, str] = Allocator(4, 1)
    assert fleet.decide(0.0) == [Spawn(1)]
    assert fleet.ready(1, 0.0) == []
    assert fleet.submit("a", 0, 0.0)[1] == [Assign(1, "a"), Spawn(2)]


def test_boots_that_fail_give_up_nothing_while_others_boot_or_run() -> None:
    fleet: Allocator[int, int] = Allocator(5, 0)
    for call in range(5):
        fleet.submit(call, 0, 0.0)
    now = 0.0
    for _ in range(2 * BOOT_TRIES):
        failing = max(fleet.booting)
        assert not any(isinstance(order, GiveUp) for order in fleet.boot_failed(failing, now))
        now = fleet.boot_after
        fleet.decide(now)
        if len(fleet.booting) == 1:
            break
        fleet.ready(min(fleet.booting), now)
        assert fleet.boot_failures, "one that was begun before says nothing of those after it"
    assert fleet.waiting + len(fleet.busy) == 5
