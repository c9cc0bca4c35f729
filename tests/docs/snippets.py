"""What a guide shows: its blocks of Python, each with the text that it says they print."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Snippet:
    code: str
    prints: str | None  # None: nothing is said

    def of(self, file: str) -> bool:
        """Whether it is a piece of this file, and no program."""
        return self.code.startswith(f"# {file}\n")


def snippets(name: str) -> list[Snippet]:
    """Of the file of this name, relative to the sources."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return [Snippet(code, prints or None) for code, prints in re.findall(r"```python\n(.*?)```(?:\n+```text\n(.*?)```)?", text, re.DOTALL)]


def codes(name: str) -> list[str]:
    """The blocks alone."""
    return [snippet.code for snippet in snippets(name)]
