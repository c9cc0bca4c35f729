"""What is scanned: the sources of this Python's standard library, and one file that provokes."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

ENOUGH = 1000
# Backtracking doubles with each letter: forty of them are years.
TRAP = "# a line that a careless pattern never gets over\n" + "a" * 40 + "b\n"


def sources(folders: Sequence[Path]) -> list[Path]:
    """All Python files below the folders; without a folder the standard library's, with what is installed beside it where that is small."""
    if folders:
        return sorted({path for folder in folders for path in _below(folder)})
    library = Path(sysconfig.get_paths()["stdlib"])
    own = [path for path in _below(library) if not {"site-packages", "dist-packages"} & set(path.parts)]
    if len(own) < ENOUGH:
        own += _below(Path(sysconfig.get_paths()["purelib"]))
    return sorted(set(own))


def _below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*.py") if path.is_file())


def trap(folder: Path) -> Path:
    path = folder / "provoking.py"
    path.write_text(TRAP)
    return path


def batches(paths: Sequence[Path], size: int = 50) -> list[list[Path]]:
    return [list(paths[start : start + size]) for start in range(0, len(paths), size)]
