"""Virtual environments of systems: one for each set of pinned requirements, made on first use, kept until its pins change."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

from bench.systems import System


def interpreter(system: System, cache: Path) -> Path:
    """A Python in which the system can be imported. Raises SystemExit with pip's own words if it cannot be installed."""
    if not system.requirements:
        return Path(sys.executable)
    pins = "\n".join([f"python {sys.version_info[0]}.{sys.version_info[1]}", *sorted(system.requirements)])
    folder = cache.absolute() / f"{system.name}-{hashlib.sha256(pins.encode()).hexdigest()[:10]}"
    python, stamp = folder / "bin" / "python", folder / "stamp"
    if stamp.exists():
        return python
    print(f"making {folder}", file=sys.stderr, flush=True)
    venv.create(folder, with_pip=True, clear=folder.exists())
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *system.requirements]
    made = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if made.returncode:
        raise SystemExit(f"{system.name}: {' '.join(system.requirements)} cannot be installed:\n{made.stderr[-2000:]}")
    stamp.touch()
    return python


def versions(python: Path, system: System) -> dict[str, str]:
    """Of what was asked for, as installed."""
    code = "import sys, importlib.metadata as m; print('\\n'.join(f'{n} {m.version(n)}' for n in sys.argv[1:]))"
    wanted = [requirement.partition("==")[0].partition("[")[0] for requirement in system.requirements]
    told = subprocess.run([str(python), "-c", code, *wanted], capture_output=True, text=True)
    return dict(line.split() for line in told.stdout.splitlines() if line)
