"""Laws of a worker's end: it never goes back, never ends with a task in a seat, and always ends."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from stem_iso.worker.shutdown import ShutdownPhase, StopRequest, moved, requested

facts = st.fixed_dictionaries(
    {"running": st.integers(0, 2), "unstored": st.integers(0, 2), "grace_over": st.booleans(), "patience_over": st.booleans()}
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(ShutdownPhase), facts)
def test_a_worker_never_goes_back_to_an_earlier_phase(phase, facts):
    assert moved(phase, **facts) >= phase
    assert all(requested(phase, request) >= phase for request in StopRequest)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([ShutdownPhase.DRAINING, ShutdownPhase.KILLING]), facts)
def test_no_worker_ends_while_something_runs(phase, facts):
    if facts["running"]:
        assert moved(phase, **facts) <= ShutdownPhase.KILLING


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(ShutdownPhase), facts)
def test_outcomes_are_stored_before_the_end_as_long_as_there_is_patience(phase, facts):
    if phase < ShutdownPhase.OVER and facts["unstored"] and not facts["patience_over"]:
        assert moved(phase, **facts) < ShutdownPhase.OVER


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(ShutdownPhase))
def test_a_running_worker_ends_only_when_somebody_asks(phase):
    calm = {"running": 0, "unstored": 0, "grace_over": True, "patience_over": True}
    assert (moved(phase, **calm) is ShutdownPhase.RUNNING) == (phase is ShutdownPhase.RUNNING)


def test_asked_to_drain_with_nothing_to_do_it_is_over_in_one_look():
    assert (
        moved(requested(ShutdownPhase.RUNNING, StopRequest.DRAIN), running=0, unstored=0, grace_over=False, patience_over=False)
        is ShutdownPhase.OVER
    )
