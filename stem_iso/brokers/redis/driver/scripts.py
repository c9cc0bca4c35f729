"""The scripts: `common.lua`, then the script's own text, known to a server by the SHA1 of both."""

from __future__ import annotations

from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parents[1] / "scripts"


class Script(NamedTuple):
    digest: str
    text: bytes


@cache
def script(stem: str) -> Script:
    """Read once in a process; an edit of a file is seen by processes that start after it."""
    text = (FOLDER / "common.lua").read_bytes() + b"\n" + (FOLDER / f"{stem}.lua").read_bytes()
    return Script(sha1(text, usedforsecurity=False).hexdigest(), text)
