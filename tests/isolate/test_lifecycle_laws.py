"""The life of one isolate: each call is reported exactly once, whatever happens in whatever order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stem_iso.isolate.engine.lifecycle import (
    CALL_ENDING,
    Answered,
    Cause,
    Died,
    Ended,
    EndedByKeeper,
    IllegalTransition,
    Lifecycle,
    NeverStarted,
    State,
)
from stem_iso.outcome import Succeeded

STEPS = ("ready", "assigned", "replied", "kept", "killed", "exited")


class Story:
    """Feeds random events, as far as they are legal, and keeps count of what a caller would hear."""

    def __init__(self) -> None:
        self.life = Lifecycle()
        self.assigned = self.reported = self.requeued = 0
        self.killed = False

    def play(self, step: str, cause: Cause, started: bool, verdict: bool) -> None:
        life = self.life
        if step == "ready":
            life.ready()
        elif step == "assigned":
            life.assigned()
            assert not self.killed, "nothing is assigned after a kill"
            self.assigned += 1
        elif step == "replied":
            self.reported += life.replied(Succeeded(b"")) is not None
        elif step == "kept":
            self.killed |= life.keep(Succeeded(b""))
        elif step == "killed":
            self.killed |= life.killed(cause)
        else:
            ending = life.exited(started=started, verdict=verdict)
            self.requeued += isinstance(ending, NeverStarted)
            self.reported += ending is not None and not isinstance(ending, NeverStarted)


moves = st.lists(st.tuples(st.sampled_from(STEPS), st.sampled_from(list(Cause)), st.booleans(), st.booleans()), max_size=30)


@given(moves)
def test_every_call_is_reported_exactly_once_or_given_to_another(steps: list[tuple[str, Cause, bool, bool]]) -> None:
    story = Story()
    for step in [*steps, ("exited", Cause.LIMIT, True, False)]:
        before = (story.life.state, story.life.working, story.life.reply, story.life.cause)
        try:
            story.play(*step)
        except IllegalTransition:
            assert before == (story.life.state, story.life.working, story.life.reply, story.life.cause), "an illegal event changes nothing"
        assert 0 <= story.assigned - story.reported - story.requeued <= 1
    assert story.life.state is State.GONE
    assert story.assigned == story.reported + story.requeued


def busy() -> Lifecycle:
    life = Lifecycle()
    life.ready()
    life.assigned()
    return life


@given(st.sampled_from(list(Cause)), st.booleans(), st.booleans())
def test_a_complete_reply_wins_over_whatever_condemned_it(cause: Cause, started: bool, verdict: bool) -> None:
    life = busy()
    assert life.killed(cause)
    assert life.replied(Succeeded(b"late")) is None, "a kill is reported only after the exit"
    assert life.exited(started=started, verdict=verdict) == Answered(Succeeded(b"late"))


@given(st.sampled_from(list(Cause)), st.sampled_from(list(Cause)), st.booleans())
def test_the_first_cause_stands(first: Cause, second: Cause, verdict: bool) -> None:
    life = busy()
    assert life.killed(first)
    assert not life.killed(second)
    assert life.cause is first


@given(st.sampled_from([None, *Cause]), st.booleans(), st.booleans(), st.booleans())
def test_the_order_in_which_an_ending_is_named(cause: Cause | None, started: bool, verdict: bool, before_limit: bool) -> None:
    life = busy()
    if cause is not None:
        life.killed(cause)
    ending = life.exited(started=started, verdict=verdict, before_limit=before_limit)
    if before_limit and (cause in (Cause.LIMIT, Cause.SILENCE) or (cause is None and verdict)):
        assert ending == (Died() if started else NeverStarted()), "a limit that came later ended nothing"
    elif cause in CALL_ENDING:
        assert ending == Ended(cause)
    elif verdict:
        assert ending == EndedByKeeper()
    elif not started:
        assert ending == NeverStarted()
    else:
        assert ending == (Died() if cause is None else Ended(cause))


def test_a_reply_with_leftovers_is_reported_only_when_they_are_dead() -> None:
    life = busy()
    assert life.keep(Succeeded(b"x"))
    assert life.state is State.DYING
    assert life.exited(started=True, verdict=False) == Answered(Succeeded(b"x"))


def test_an_exit_without_a_call_is_nobodys_outcome() -> None:
    life = Lifecycle()
    life.ready()
    assert life.exited(started=False, verdict=False) is None


def test_a_second_exit_is_illegal() -> None:
    life = Lifecycle()
    life.exited(started=False, verdict=False)
    with pytest.raises(IllegalTransition):
        life.exited(started=False, verdict=False)
