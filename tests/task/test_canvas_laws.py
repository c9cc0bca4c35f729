"""Laws of canvases: how a tree is laid out, what an end moves, and that moves carried out one by one, twice and late come to the same."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from stem_iso.outcome import TaskError
from stem_iso.task.canvas import (
    LINK_FAILED,
    MEMBER_FAILED,
    Canvas,
    Cause,
    Count,
    Drop,
    Leaf,
    Move,
    Parallel,
    Series,
    Skip,
    Start,
    Then,
    Tree,
    entries,
    error_of,
    gathered,
    last_of,
    lay,
    leaves,
    moves,
    told_of,
)
from stem_iso.task.envelope import Envelope
from stem_iso.task.parts import group_of, parts_of
from stem_iso.task.status import TaskState
from tests.task.canvases import agrees, judge, trees
from tests.task.hops import Apart, Part, Stage, cause_of
from tests.task.making import errors

laws = settings(max_examples=200, deadline=None)
QUEUES = ("a", "b", "c")
SMALL = 12  # bytes of results: some groups have more

causes = st.builds(
    Cause,
    id=st.just("t1"),
    name=st.just("shop.charge"),
    state=st.sampled_from([TaskState.FAILED, TaskState.CANCELLED]),
    reason=st.none() | st.sampled_from(["revoked", "not-retryable"]),
    error=st.none() | errors,
)


def laid(tree: Tree, most: int = 16 << 20) -> Canvas:
    envelopes = [Envelope(id=leaf.id, name=leaf.name, queue=leaf.queue, args=msgspec.Raw(b"\x80")) for leaf in leaves(tree)]
    return lay(tree, envelopes, most)


def thens_of(canvas: Canvas) -> dict[str, Then]:
    return {step.envelope.id: step.then for step in canvas.steps} | {join.id: join.then for join in canvas.joins}


def groups_in(tree: Tree) -> list[Parallel]:
    match tree:
        case Leaf():
            return []
        case Series(parts=inner):
            return [group for each in inner for group in groups_in(each)]
        case Parallel(members=inner):
            return [tree, *(group for each in inner for group in groups_in(each))]


# -- how it is laid out ----------------------------------------------------------------------------------------------------------------


@laws
@given(trees(QUEUES))
def test_each_task_is_one_step_and_each_group_one_join(tree: Tree) -> None:
    canvas = laid(tree)
    groups = groups_in(tree)
    assert [step.envelope.id for step in canvas.steps] == [leaf.id for leaf in leaves(tree)]
    assert sorted((join.id, join.size) for join in canvas.joins) == sorted((group.id, len(group.members)) for group in groups)
    assert Counter(ref.id for ref in parts_of(tree)) == Counter(thens_of(canvas).keys())
    assert [group_of(tree, group.id) for group in groups] == groups
    assert group_of(tree, "another") is None


@laws
@given(trees(QUEUES))
def test_each_part_is_begun_by_one_other_or_is_first_or_counts_its_members(tree: Tree) -> None:
    canvas = laid(tree)
    thens = thens_of(canvas)
    begun = Counter(canvas.first) + Counter(ref.id for then in thens.values() for ref in (*then.start, *then.errors))
    counting = {join.id for join in canvas.joins if join.size}
    assert begun == Counter(thens.keys() - counting)
    queues = {leaf.id: leaf.queue for leaf in leaves(tree)}
    assert all(ref.queue == queues.get(ref.id, "") for then in thens.values() for ref in (*then.start, *then.errors))


@laws
@given(trees(QUEUES))
def test_a_group_counts_each_place_once(tree: Tree) -> None:
    canvas = laid(tree)
    places = sorted((then.join, then.index) for then in thens_of(canvas).values() if then.join is not None)
    assert places == sorted((join.id, index) for join in canvas.joins for index in range(join.size))


@laws
@given(trees(QUEUES))
def test_everything_leads_to_the_outcome(tree: Tree) -> None:
    canvas = laid(tree)
    thens = thens_of(canvas)
    of_errors = {ref.id for then in thens.values() for ref in then.errors}
    assert canvas.id == last_of(tree).id
    assert {id for id, then in thens.items() if not then.start and then.join is None} == {canvas.id} | of_errors
    assert canvas.first == tuple(ref.id for ref in entries(tree))
    assert of_errors.isdisjoint(canvas.first)


@laws
@given(trees(QUEUES))
def test_revoked_from_the_end_nothing_is_begun_by_what_comes_after_it(tree: Tree) -> None:
    order = {ref.id: number for number, ref in enumerate(parts_of(tree))}
    for id, then in thens_of(laid(tree)).items():
        moved = [ref.id for ref in (*then.start, *then.errors)] + ([then.join] if then.join else [])
        assert all(order[target] < order[id] for target in moved)


# -- what an end moves -----------------------------------------------------------------------------------------------------------------


def targets(found: list[Move]) -> Counter[str]:
    return Counter(move.join if isinstance(move, Count) else move.target.id for move in found)


@laws
@given(trees(QUEUES), causes)
def test_an_end_moves_each_neighbour_once_and_in_the_right_way(tree: Tree, cause: Cause) -> None:
    for id, then in thens_of(laid(tree)).items():
        neighbours = Counter([ref.id for ref in (*then.start, *then.errors)] + ([then.join] if then.join else []))
        well, badly = moves(then, id, b"\x01"), moves(then, id, cause)
        assert targets(well) == targets(badly) == neighbours
        assert {move.target for move in well if isinstance(move, Start)} == set(then.start)
        assert {move.target for move in well if isinstance(move, Drop)} == set(then.errors)
        assert {move.target for move in badly if isinstance(move, Skip)} == set(then.start)
        assert {move.target for move in badly if isinstance(move, Start)} == set(then.errors)
        assert all(move.parent == id for move in (*well, *badly) if isinstance(move, Start))
        assert all(move.ended == b"\x01" for move in well if isinstance(move, Count))
        assert all(move.ended == cause for move in badly if isinstance(move, Count))
        assert all(move.cause == cause for move in badly if isinstance(move, Skip))


@laws
@given(trees(QUEUES), causes)
def test_a_move_is_a_message_that_says_all(tree: Tree, cause: Cause) -> None:
    decoder = msgspec.msgpack.Decoder(Move)
    for id, then in thens_of(laid(tree)).items():
        for move in (*moves(then, id, b"\x01"), *moves(then, id, cause)):
            assert decoder.decode(msgspec.msgpack.encode(move)) == move


@laws
@given(causes, st.sampled_from([LINK_FAILED, MEMBER_FAILED]))
def test_an_error_names_the_task_that_began_it(cause: Cause, reason: str) -> None:
    error = error_of(cause, reason)
    assert f"{cause.name} ({cause.id})" in error.message
    assert not error.retryable
    told = msgspec.msgpack.decode(told_of(cause))
    assert (told["id"], told["name"], told["state"], told["reason"]) == (cause.id, cause.name, cause.state.value, cause.reason)
    original = cause.error or TaskError(type="stem_iso.errors.TaskCancelled")
    assert msgspec.convert(told, TaskError).type == error.type == original.type
    assert error.traceback == original.traceback


@laws
@given(
    st.lists(st.recursive(st.integers(0, 1 << 40) | st.binary(max_size=9), lambda inner: st.lists(inner, max_size=3)), max_size=6),
    st.integers(0, 30),
)
def test_results_are_gathered_in_their_order_or_not_at_all(values: list[object], most: int) -> None:
    results = [msgspec.msgpack.encode(value) for value in values]
    found = gathered(results, most)
    assert (found is None) is (sum(map(len, results)) > most)
    assert found is None or msgspec.msgpack.decode(found) == values


# -- hop by hop ------------------------------------------------------------------------------------------------------------------------


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
        named = {id: part.ended.id for id, part in seen.items() if isinstance(part.ended, Cause)}
        for id, expected in judge(tree, self.store.fates, named, self.most).items():
            part = seen[id]
            assert len(part.begun) <= 1
            if expected.state is None:
                assert (part.stage, part.begun) == (Stage.DROPPED, [])
                continue
            assert part.stage is Stage.ENDED, f"{id} hangs"
            assert not isinstance(part.ended, Cause) or part.ended.id == id or part.ended.id not in self.revoked
            assert isinstance(part.ended, bytes) is (expected.state is TaskState.SUCCEEDED)
            assert not expected.by or (isinstance(part.ended, Cause) and part.ended.id in expected.by)
            if part.begun and id not in laid(tree).first:
                assert agrees(expected.before, part.begun[0].previous)


TestHopByHop = HopByHop.TestCase
TestHopByHop.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
