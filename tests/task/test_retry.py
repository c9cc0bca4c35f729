"""A strategy is user code: whatever it answers, there is a delay, and a word about what was wrong."""

from __future__ import annotations

import math
from asyncio import CancelledError
from typing import Any

import pytest

from stem_iso.outcome import TaskError
from stem_iso.task.retry_policy import ExponentialJitterRetryStrategy, RetryStrategy, matches, safe_delay

ERROR = TaskError(type="ValueError")
DEFAULT = ExponentialJitterRetryStrategy(8, 8, dice=lambda: 0.0)


class Answering:
    def __init__(self, answer: Any) -> None:
        self.answer, self.asked = answer, []

    asked: list[tuple[int, TaskError]]

    def next_delay(self, attempt: int, error: TaskError) -> Any:
        self.asked.append((attempt, error))
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


class Unprintable(BaseException):
    def __str__(self) -> str:
        raise RuntimeError


class Incomparable(float):
    def __ge__(self, other: object) -> bool:
        raise KeyboardInterrupt

    __le__ = __lt__ = __gt__ = __ge__


ENDS = [SystemExit(1), KeyboardInterrupt(), CancelledError(), GeneratorExit()]


@pytest.mark.parametrize(("answer", "delay"), [(0, 0.0), (3, 3.0), (2.5, 2.5)])
def test_a_number_is_taken_as_it_is(answer: Any, delay: float) -> None:
    strategy = Answering(answer)
    assert safe_delay(strategy, 4, ERROR, DEFAULT) == (delay, None)
    assert strategy.asked == [(4, ERROR)]
    assert isinstance(strategy, RetryStrategy)


@pytest.mark.parametrize(
    "answer", [-1, math.nan, math.inf, -math.inf, None, True, "3", 1j, ZeroDivisionError("x"), *ENDS, Unprintable(), Incomparable(1)]
)
def test_anything_else_falls_back_to_the_default_and_is_reported(answer: Any) -> None:
    delay, message = safe_delay(Answering(answer), 0, ERROR, DEFAULT)
    assert delay == 6.0
    assert message is not None
    assert "Answering" in message


def test_a_delay_of_ages_stays_a_time_that_a_clock_can_hold() -> None:
    delay, message = safe_delay(Answering(10**400), 0, ERROR, DEFAULT)
    assert (delay < 1e11, message) == (True, None)


def test_kinds_match_by_any_class_of_the_error() -> None:
    assert matches(("shop.Refused", "ValueError"), ("ValueError",))
    assert not matches(("shop.Refused",), ("Refused",))
