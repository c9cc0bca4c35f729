"""The public interface, from the side of a user who runs `mypy --strict`."""

from __future__ import annotations

from pathlib import Path

from mypy import api

HERE = Path(__file__).parent


def test_a_users_program_passes_where_it_is_right_and_nowhere_else(tmp_path: Path) -> None:
    out, err, code = api.run(["--strict", "--warn-unused-ignores", "--cache-dir", str(tmp_path), str(HERE / "user.py")])
    assert (code, err) == (0, ""), out
