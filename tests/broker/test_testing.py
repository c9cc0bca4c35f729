"""What is shipped for tests: importable without pytest, and honest when something is not so."""

from __future__ import annotations

import subprocess
import sys

import pytest

from stem_iso.testing import eventually

WITHOUT_PYTEST = """
import sys
sys.modules["pytest"] = None
from stem_iso.testing import assert_enqueued, eventually
assert eventually(lambda: 7) == 7
try:
    from stem_iso.testing import BrokerContract
except ImportError:
    print("needed for the contract alone")
"""


def test_pytest_is_needed_for_the_contract_alone() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_PYTEST], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.strip() == "needed for the contract alone", done.stderr


def test_eventually_shows_the_last_answer() -> None:
    answers = iter([0, 0, "", 5])
    assert eventually(lambda: next(answers)) == 5
    with pytest.raises(AssertionError, match=r"still \[\] after 0.01 s"):
        eventually(list, 0.01)
