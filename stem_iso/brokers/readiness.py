"""Wait for descriptors to be readable, on every system: poll(2) where there is one, else select, as on Windows."""

from __future__ import annotations

import selectors
from collections.abc import Iterable

Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)


def wait_readable(descriptors: Iterable[int], seconds: float) -> None:
    """Returns when one of them is readable, or has been closed by its other side, and after so many seconds: never before."""
    with Selector() as selector:
        for descriptor in descriptors:
            selector.register(descriptor, selectors.EVENT_READ)
        selector.select(max(0.0, seconds))
