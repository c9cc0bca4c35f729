"""Frames are read from what faulthandler and traceback write, and from nothing else."""

from __future__ import annotations

import traceback

import pytest

from stem_iso.integrations.stack_frames import StackFrame, stack_frames


def test_a_stuck_stack_is_read_with_its_innermost_frame_last() -> None:
    text = 'Stack (most recent call last):\n  File "/srv/a b.py", line 7 in crunch\n  File "/srv/c.py", line ??? in <module>'
    assert stack_frames(text) == [StackFrame("/srv/a b.py", 7, "crunch"), StackFrame("/srv/c.py", None, "<module>")]


def test_of_errors_that_led_to_each_other_the_last_one_counts() -> None:
    def first() -> None:
        raise KeyError("first")

    def second() -> None:
        try:
            first()
        except KeyError:
            raise ValueError("second") from None

    def third() -> None:
        try:
            first()
        except KeyError as error:
            raise ValueError("third") from error

    for function in (second, third):
        with pytest.raises(ValueError, match=r"second|third") as caught:
            function()
        found = stack_frames("".join(traceback.format_exception(caught.value)))
        assert [frame.function for frame in found][-1] == function.__name__
        assert "first" not in [frame.function for frame in found]


@pytest.mark.parametrize("text", ["", "no frames here", '  File "cut.py", line'])
def test_what_is_no_stack_has_no_frames(text: str) -> None:
    assert stack_frames(text) == []
