"""Commands as people run them: real processes, in a folder with a module of the user's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
JOBS = """
import time
from stem_iso import Stem, TaskContext

app = Stem()

@app.task(name="add", isolate=True)
def add(a: int, b: int = 1) -> int:
    return a + b

@app.task(name="fail", isolate=True)
def fail(text: str) -> None:
    raise ValueError(text)

@app.task(name="hang", isolate=True, soft_time_limit=0.2, hard_time_limit=0.4)
def hang() -> None:
    while True:
        pass

@app.task(name="pack", queue="images", isolate=True)
def pack(context: TaskContext, path: str) -> bytes:
    context.progress(50, data={"path": path})
    return path.encode()
"""


@dataclass
class Folder:
    """A working folder with `jobs.py`, and a broker in it."""

    path: Path
    environ: dict[str, str] = field(default_factory=dict)

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text)

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("STEM_ISO_")}
        environ |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **self.environ}
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen([sys.executable, *command], cwd=self.path, env=environ, text=True, **pipes)

    def run(self, *command: str, within: float = 60) -> subprocess.CompletedProcess[str]:
        process = self.start(*command)
        try:
            out, err = process.communicate(timeout=within)
        finally:
            process.kill()
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def stem(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("-c", "from stem_iso.cli import main; main()", *arguments)

    def json(self, *arguments: str, code: int = 0) -> Any:
        """The one JSON value that a command prints."""
        done = self.stem(*arguments, "--json")
        assert done.returncode == code, done
        return json.loads(done.stdout)

    def enqueue(self, name: str, /, **args: Any) -> str:
        done = self.stem("enqueue", name, "-A", "jobs", "--args", json.dumps(args))
        assert done.returncode == 0, done
        return done.stdout.strip()

    def worker(self, *options: str) -> subprocess.CompletedProcess[str]:
        """One that ends when all is done."""
        return self.run("-m", "stem_iso.worker", "-A", "jobs:app", "--burst", *options)

    @contextmanager
    def working(self, *options: str) -> Iterator[subprocess.Popen[str]]:
        """One that works while the block runs, and says where it works before it begins."""
        process = self.start("-m", "stem_iso.worker", "-A", "jobs:app", *options, stdout=subprocess.DEVNULL)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.communicate(timeout=40)
            finally:
                process.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path)
    made.write("jobs.py", JOBS)
    return made
