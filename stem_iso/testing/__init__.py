"""Helpers for tests of tasks, and the contract for those who write a broker.

    from stem_iso.testing import BrokerContract      every rule of the contract, as tests: subclass it and give it a fixture `broker`
    from stem_iso.testing import assert_enqueued     what an application has sent
    from stem_iso.testing import eventually          wait for something with a bound, without a sleep of a guessed length
    pytest_plugins = ["stem_iso.testing.plugin"]     fixtures `stem_app` and `stem_worker`

pytest is needed by the contract and the plugin alone, and imported with them.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from stem_iso.testing.assertions import assert_enqueued, eventually

if TYPE_CHECKING:
    from stem_iso.testing.contract import BrokerContract

__all__ = ["BrokerContract", "assert_enqueued", "eventually"]


def __getattr__(name: str) -> Any:
    if name != "BrokerContract":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if "stem_iso.testing.contract" not in sys.modules:
        import pytest

        pytest.register_assert_rewrite("stem_iso.testing.contract")  # so that a failing rule shows both sides
    from stem_iso.testing.contract import BrokerContract

    return BrokerContract
