"""What the README says of the code is made from the code."""

from __future__ import annotations

from stem_iso.cli.defaults import markdown
from tests.cli.conftest import ROOT


def test_the_table_of_defaults_is_that_of_the_code() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert markdown() in text, "run `python -m stem_iso.cli.defaults` and put its table into the README"
