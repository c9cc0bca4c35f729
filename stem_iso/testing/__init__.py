"""Helpers for tests of tasks, and the contract for those who write a broker.

    from stem_iso.testing import BrokerContract      every rule of the contract, as tests: subclass it and give it a fixture `broker`
    from stem_iso.testing import test_mode           tasks run where they are enqueued, in memory
    from stem_iso.testing import assert_enqueued     what an application has sent
    from stem_iso.testing import eventually          wait for something with a bound, without a sleep of a guessed length
    stem_app, stem_worker                            fixtures of pytest, there as soon as stem_iso is installed (`plugin`)

pytest is needed by the contract and the plugin alone, and imported with them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stem_iso.testing.assertions import assert_enqueued, eventually
    from stem_iso.testing.contract import BrokerContract
    from stem_iso.testing.mode import TasksInPlace, test_mode

__all__ = ["BrokerContract", "TasksInPlace", "assert_enqueued", "eventually", "test_mode"]

_HOMES = {
    "assert_enqueued": "assertions",
    "eventually": "assertions",
    "test_mode": "mode",
    "TasksInPlace": "mode",
    "BrokerContract": "contract",
}


def __getattr__(name: str) -> Any:
    """Imported when it is asked for: pytest imports this package wherever it is installed."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = f"{__name__}.{_HOMES[name]}"
    if name == "BrokerContract":
        import pytest

        pytest.register_assert_rewrite(home)  # so that a failing rule shows both sides
    return getattr(import_module(home), name)
