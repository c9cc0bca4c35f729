"""Retry policy: the delay before the next attempt, and the errors that get one.

    delay of attempt n, seconds
      max ┤            ┌──────────   capped = min(base · 2^n, max)
          │        ┌───┘             drawn evenly from [0.75 · capped, capped]: failed tasks do not come back as one herd
     base ┤───┬────┘

A strategy is user code and may be wrong: `safe_delay` turns whatever it does into a delay, and says what was wrong with it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

from stem_iso import errors
from stem_iso.errors import InvalidOptions
from stem_iso.outcome import TaskError
from stem_iso.task.failure import message_of
from stem_iso.task.names import dotted
from stem_iso.validation import LONGEST, Duration, duration, is_number


@runtime_checkable
class RetryStrategy(Protocol):
    def next_delay(self, attempt: int, error: TaskError) -> float:
        """Seconds to wait after `attempt` (0-based) ended with `error`."""
        ...


class ExponentialJitterRetryStrategy:
    """`capped = min(base * 2**attempt, max)`, the delay uniform in [0.75 * capped, capped]. `base` and `max` are seconds or timedeltas.

    `dice` returns numbers in [0, 1). Raises InvalidOptions.
    """

    def __init__(self, base: Duration = 2.0, max: Duration = 300.0, *, dice: Callable[[], float] = random.random) -> None:
        self.base, self.max, self._dice = duration("base", base), duration("max", max), dice
        if self.base > self.max:
            raise InvalidOptions(f"base ({self.base:g} s) must not be above max ({self.max:g} s)")

    def next_delay(self, attempt: int, error: TaskError) -> float:
        # 2**1100 would overflow a float; by then every base has met its cap.
        capped = min(self.base * 2.0 ** min(attempt, 1000), self.max)
        return capped * (0.75 + 0.25 * self._dice())

    def __repr__(self) -> str:
        return f"<ExponentialJitterRetryStrategy {self.base:g} s → {self.max:g} s>"


def strategy(name: str, value: Any) -> RetryStrategy | None:
    """Raises InvalidOptions."""
    if value is not None and not callable(getattr(value, "next_delay", None)):
        raise InvalidOptions(f"{name}: {value!r} has no method next_delay(attempt, error) -> seconds")
    checked: RetryStrategy | None = value
    return checked


def safe_delay(strategy: RetryStrategy, attempt: int, error: TaskError, default: RetryStrategy) -> tuple[float, str | None]:
    """The strategy's delay; where it raises or answers no number of seconds >= 0: the default's, and a text that says what was wrong."""
    try:
        delay: Any = strategy.next_delay(attempt, error)
        if is_number(delay) and 0 <= delay < math.inf:
            return float(min(delay, LONGEST)), None
        problem = f"answered a {type(delay).__name__} that is no number of seconds >= 0"
    except BaseException as failure:  # user code, in the worker's core: KeyboardInterrupt or CancelledError must not end that
        problem = f"raised {type(failure).__name__}: {message_of(failure)}"
    return default.next_delay(attempt, error), f"retry strategy {type(strategy).__name__} {problem}"


def dotted_names(name: str, value: Any) -> tuple[str, ...] | None:
    """Exception types, or their dotted names, as dotted names. One alone may be given without a tuple."""
    if value is None:
        return None
    several = (value,) if isinstance(value, str | type) or not isinstance(value, Iterable) else value
    return tuple(_dotted_name(name, one) for one in several)


def _dotted_name(name: str, one: Any) -> str:
    if isinstance(one, type) and issubclass(one, BaseException):
        return dotted(one)
    if not isinstance(one, str) or not all(part.isidentifier() for part in one.split(".")):
        raise InvalidOptions(f"{name}: {one!r} is neither an exception type nor a dotted name of one")
    package, _, last = one.rpartition(".")
    if package == "builtins":
        return last
    if package == "stem_iso" and hasattr(errors, last):
        return f"{errors.__name__}.{last}"  # as people import it, not as it is called inside
    return one


def matches(kinds: Iterable[str], named: Iterable[str]) -> bool:
    """Whether one of an error's classes (dotted names, nearest first) is among those named."""
    return not set(named).isdisjoint(kinds)
