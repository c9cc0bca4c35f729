"""Settings of a framework that the process of a worker has changed since it made its application. Isolates import everything anew, and
would go by what the settings file says.

    worker ── changed() ──> boot of an isolate, header of each isolated call ──> adopt(...) ── hooks, handlers

Rule: an integration sets `app.isolate_settings`, and has handlers adopt what their call's header says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class IsolateSettings(Protocol):
    """Both ends: `changed` is called in the worker, `adopt` in the isolate."""

    def changed(self) -> dict[str, Any]:
        """Plain data; empty where nothing differs from what importing the project gives. Called for each isolated call, on any thread."""

    def adopt(self, changed: Mapping[str, Any]) -> None:
        """Make the settings of this process what they were where `changed()` answered this; the same ones again cost nothing."""
