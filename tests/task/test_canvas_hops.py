"""A canvas whose moves are carried out one by one, twice, late and in any order comes to the same as one that is moved at once."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from stem_iso.outcome import TaskState
from stem_iso.task.canvas.tree import FailureCause, Tree, parts_of
from tests.task.canvases import agrees, judge, laid, trees
from tests.task.hops import Apart, Part, Stage, cause_of

QUEUES = ("a", "b", "c")
SMALL = 12  # bytes of results: some groups have more


@dataclass
class Held:
    part: Part
    lease: int


class HopByHop(RuleBasedStateMachine):
    """Two canvases in a store whose slots know nothing of each other; at the end everything that is under way arrives."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Apart()
        self.trees: list[Tree] = []
        self.carried: list[bytes] = []  # hops that somebody still has in hand
        self.held: list[Held] = []
        self.revoking: list[list[str]] = []  # whole canvases: what is still to be revoked, in its order
        self.revoked: set[str] = set()  # by one of these, and not ended before

    @initialize(first=trees(QUEUES, "x"), second=trees(QUEUES, "y"), most=st.sampled_from([SMALL, 1 << 20]))
    def compose(self, first: Tree, second: Tree, most: int) -> None:
        self.trees, self.most = [first, second], most
        for tree in self.trees:
            self.store.compose(laid(tree, most))

    # -- relays -----------------------------------------------------------------------------------------------------------------

    @precondition(lambda self: any(slot.outbox for slot in self.store.slots.values()))
    @rule(data=st.data(), many=st.integers(1, 8), removed=st.booleans(), kept=st.booleans())
    def relay(self, data: st.DataObject, many: int, removed: bool, kept: bool) -> None:
        """Carry some out. Not removed: the relay died before it could. Kept: another one has a copy, and sleeps."""
        for _ in range(many):
            waiting = [(slot, number) for slot in self.store.slots.values() for number in slot.outbox]
            if not waiting:
                return
            slot, number = waiting[data.draw(st.integers(0, len(waiting) - 1))]
            self.store.arrive(slot.outbox[number])
            if kept:
                self.carried.append(slot.outbox[number])
            if removed:
                del slot.outbox[number]

    @precondition(lambda self: self.carried)
    @rule(data=st.data())
    def a_copy_arrives_late(self, data: st.DataObject) -> None:
        self.store.arrive(data.draw(st.sampled_from(self.carried)))

    # -- workers ----------------------------------------------------------------------------------------------------------------

    def parts(self, *stages: Stage) -> list[Part]:
        return [part for part in self.store.seen.values() if part.stage in stages]

    @precondition(lambda self: self.parts(Stage.READY))
    @rule(data=st.data())
    def lease(self, data: st.DataObject) -> None:
        part = data.draw(st.sampled_from(self.parts(Stage.READY)))
        assert part.ref.id not in self.revoked
        self.held.append(Held(part, self.store.lease(part)))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), how=st.sampled_from(["succeeds", "succeeds", "fails", "once more"]))
    def end(self, data: st.DataObject, how: str) -> None:
        """Whoever holds it, or held it once and does not know better."""
        held = data.draw(st.sampled_from(self.held))
        self.settle(held, how)

    def settle(self, held: Held, how: str) -> None:
        part = held.part
        ended = {"succeeds": msgspec.msgpack.encode(part.ref.id), "fails": cause_of(part, TaskState.FAILED)}
        self.store.settle(part, held.lease, ended.get(how))

    @precondition(lambda self: self.parts(Stage.LEASED))
    @rule(data=st.data())
    def a_lease_runs_out(self, data: st.DataObject) -> None:
        part = data.draw(st.sampled_from(self.parts(Stage.LEASED)))
        self.store.settle(part, part.lease, None)

    # -- producers --------------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.whole())
    @rule(data=st.data())
    def revoke_one(self, data: st.DataObject) -> None:
        parts = [ref.id for tree in self.whole() for ref in parts_of(tree)]
        self.store.revoke(self.store.seen[data.draw(st.sampled_from(parts))])

    @precondition(lambda self: self.whole() and not self.revoking)
    @rule(data=st.data())
    def revoke_all(self, data: st.DataObject) -> None:
        self.revoking.append([ref.id for ref in parts_of(data.draw(st.sampled_from(self.whole())))])

    def whole(self) -> list[Tree]:
        """Those of which every part is in its place."""
        return [tree for tree in self.trees if all(ref.id in self.store.seen for ref in parts_of(tree))]

    @precondition(lambda self: any(self.revoking))
    @rule(many=st.integers(1, 9))
    def the_revoke_goes_on(self, many: int) -> None:
        order = self.revoking[-1]
        for id in order[:many]:
            part = self.store.seen[id]
            if part.stage is not Stage.ENDED:
                self.revoked.add(id)
            self.store.revoke(part)
        del order[:many]

    # -- the end ----------------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not self.trees:
            return
        while any(slot.outbox for slot in self.store.slots.values()) or self.parts(Stage.READY, Stage.LEASED) or any(self.revoking):
            self.go_on()
        for hop in self.carried:
            self.store.arrive(hop)
        left = [msgspec.msgpack.decode(hop)["type"] for slot in self.store.slots.values() for hop in slot.outbox.values()]
        assert set(left) <= {"Placed"}, "a late copy moved something"  # what is placed once more says so once more
        for tree in self.trees:
            self.compare(tree)

    def go_on(self) -> None:
        for slot in list(self.store.slots.values()):
            for number in list(slot.outbox):
                self.store.arrive(slot.outbox.pop(number))
        if any(self.revoking):
            self.the_revoke_goes_on(9)
        for part in self.parts(Stage.READY):
            self.held.append(Held(part, self.store.lease(part)))
        for held in self.held:
            self.settle(held, "succeeds")

    def compare(self, tree: Tree) -> None:
        seen = self.store.seen
        named = {id: part.ended.id for id, part in seen.items() if isinstance(part.ended, FailureCause)}
        for id, expected in judge(tree, self.store.fates, named, self.most).items():
            part = seen[id]
            assert len(part.begun) <= 1
            if expected.state is None:
                assert (part.stage, part.begun) == (Stage.DROPPED, [])
                continue
            assert part.stage is Stage.ENDED, f"{id} hangs"
            assert not isinstance(part.ended, FailureCause) or part.ended.id == id or part.ended.id not in self.revoked
            assert isinstance(part.ended, bytes) is (expected.state is TaskState.SUCCEEDED)
            assert not expected.by or (isinstance(part.ended, FailureCause) and part.ended.id in expected.by)
            if part.begun and id not in laid(tree).first:
                assert agrees(expected.before, part.begun[0].previous)


TestHopByHop = HopByHop.TestCase
TestHopByHop.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
