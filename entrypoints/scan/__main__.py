"""Starts a worker, enqueues, shows, sums up, stops the worker. Needs no server; all it writes lies in a temporary folder."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from entrypoints.scan.files import batches, sources, trap
from entrypoints.scan.service import worker

if TYPE_CHECKING:
    from entrypoints.scan.summary import Tally
    from entrypoints.scan.tasks import Scanned
    from stem_iso import TaskHandle

PATTERNS = (
    r"^\s*(?:from\s+[\w.]+\s+)?import\s+\w+",
    r"^\s*(?:async\s+)?def\s+(\w+)\s*\(",
    r"^class\s+\w+\s*(?:\([^)]*\))?:",
    r"\bexcept\s*:",
    r"https?://[^\s\"'<>)]+",
    r"\braise\s+NotImplementedError\b",
    r"\b0[xX][0-9a-fA-F]{8,}\b",
    r"\blambda\b[^:\n]*:",
    r"\"[^\"\\\n]*(?:\\.[^\"\\\n]*)*\"",
    r"\b(?:19|20)\d\d-[01]\d-[0-3]\d\b",
    r"(\w+)\s+\1\b",
)
CATASTROPHE = r"(a+)+$"
LOOK = 2.0  # seconds between looks at a worker that has no result for us: one that could not start is reported, not waited for


def main() -> int:
    arguments = _arguments()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    with tempfile.TemporaryDirectory(prefix="stem_iso-scan-") as folder:
        # Before the tasks are imported: their application asks the environment where its broker is, and so does the worker.
        os.environ["STEM_ISO_BROKER"] = f"sqlite:///{folder}/scan.db"
        try:
            return _scan(arguments.pattern or [*PATTERNS, CATASTROPHE], arguments.path, Path(folder))
        except KeyboardInterrupt:
            with suppress(OSError):  # the terminal may have been closed
                print("\nstopped", flush=True)
            return 130


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m entrypoints.scan", description="Regular expressions over many files, under limits.")
    parser.add_argument("--pattern", action="append", type=_pattern, metavar="REGEX", help="may be given again")
    parser.add_argument("--path", action="append", type=Path, default=[], metavar="FOLDER", help="default: Python's own sources")
    return parser.parse_args()


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from None
    return text


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _scan(patterns: Sequence[str], folders: Sequence[Path], folder: Path) -> int:
    from entrypoints.scan.live import Live
    from entrypoints.scan.summary import Tally, summary
    from entrypoints.scan.tasks import HARD, SOFT, app, scan

    # First, so that what hangs is seen while the rest goes on.
    paths = [trap(folder), *sources(folders)]
    work = [(pattern, batch) for batch in batches(paths) for pattern in patterns]
    print(f"{len(patterns)} patterns over {len(paths)} files: {len(work)} tasks; soft limit {SOFT:g} s, hard limit {HARD:g} s", flush=True)
    log, live, began = folder / "worker.reporting.log", Live(len(work)), time.monotonic()
    patterns_by_id: dict[str, str] = {}
    tallies = {pattern: Tally(pattern) for pattern in patterns}
    with live.following(patterns_by_id), worker(log) as process:
        handles = app.enqueue_many(scan.s(pattern, batch) for pattern, batch in work)
        patterns_by_id.update((handle.id, pattern) for handle, (pattern, _) in zip(handles, work, strict=True))
        for handle in handles:
            while not _collected(handle, tallies[patterns_by_id[handle.id]]):
                if process.poll() is not None:
                    print(f"\nthe worker has ended with {process.returncode}; it says:\n{log.read_text()}", file=sys.stderr)
                    return 1
        live.finish({status.id for tally in tallies.values() for status in tally.failed})
        print(summary(list(tallies.values()), live.killed, len(paths), time.monotonic() - began), flush=True)
    return 0


def _collected(handle: TaskHandle[Scanned], tally: Tally) -> bool:
    """Whether the task has ended within a while."""
    from stem_iso import TaskFailed

    try:
        tally.add(handle.result(timeout=LOOK))
    except TaskFailed as failure:
        tally.failed.append(failure.status)
    except TimeoutError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
