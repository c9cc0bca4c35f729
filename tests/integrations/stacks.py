from __future__ import annotations

from typing import Any


def functions(exception: dict[str, Any]) -> list[str]:
    """Of the frames of an exception at Sentry, the innermost last."""
    return [frame["function"] for frame in exception["stacktrace"]["frames"]]
