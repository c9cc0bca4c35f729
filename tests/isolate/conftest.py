from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.isolate.calling import Calls


@pytest.fixture
def engines() -> Iterator[Callable[..., Calls]]:
    """Makes engines that are closed with the test."""
    made: list[Calls] = []

    def make(**options: Any) -> Calls:
        made.append(Calls(**options))
        return made[-1]

    yield make
    for calls in made:
        calls.engine.close()


@pytest.fixture
def calls(engines: Callable[..., Calls]) -> Calls:
    return engines()
