"""Laws of canvases: how a tree is laid out, and what an end moves."""

from __future__ import annotations

from collections import Counter

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from stem_iso.outcome import TaskError, TaskState
from stem_iso.task.canvas.tree import (
    LINK_FAILED,
    MEMBER_FAILED,
    Canvas,
    Count,
    Drop,
    FailureCause,
    Move,
    Skip,
    Start,
    Then,
    Tree,
    entries,
    error_of,
    failure_map,
    gathered,
    group_of,
    last_of,
    leaves,
    moves,
    parts_of,
)
from tests.task.canvases import groups_in, laid, trees
from tests.task.making import errors

laws = settings(max_examples=200, deadline=None)
QUEUES = ("a", "b", "c")

causes = st.builds(
    FailureCause,
    id=st.just("t1"),
    name=st.just("shop.charge"),
    state=st.sampled_from([TaskState.FAILED, TaskState.CANCELLED]),
    reason=st.none() | st.sampled_from(["revoked", "not-retryable"]),
    error=st.none() | errors,
)


def thens_of(canvas: Canvas) -> dict[str, Then]:
    return {step.envelope.id: step.then for step in canvas.steps} | {join.id: join.then for join in canvas.joins}


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
def test_an_end_moves_each_neighbour_once_and_in_the_right_way(tree: Tree, cause: FailureCause) -> None:
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
def test_a_move_is_a_message_that_says_all(tree: Tree, cause: FailureCause) -> None:
    decoder = msgspec.msgpack.Decoder(Move)
    for id, then in thens_of(laid(tree)).items():
        for move in (*moves(then, id, b"\x01"), *moves(then, id, cause)):
            assert decoder.decode(msgspec.msgpack.encode(move)) == move


@laws
@given(causes, st.sampled_from([LINK_FAILED, MEMBER_FAILED]))
def test_an_error_names_the_task_that_began_it(cause: FailureCause, reason: str) -> None:
    error = error_of(cause, reason)
    assert f"{cause.name} ({cause.id})" in error.message
    assert not error.retryable
    fields = msgspec.msgpack.decode(failure_map(cause))
    assert (fields["id"], fields["name"], fields["state"], fields["reason"]) == (cause.id, cause.name, cause.state.value, cause.reason)
    original = cause.error or TaskError(type="stem_iso.errors.TaskCancelled")
    assert msgspec.convert(fields, TaskError).type == error.type == original.type
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
