"""Samples as JSON lines: the only thing that a run leaves, and all that a report is made of.

The first line of a run describes the machine (`kind` "run"); each further one is a sample or a control, and names its run. Files may be
concatenated: that is how runs are merged. Times are seconds; None says that it was not seen within the bound which the sample names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

Sample = dict[str, Any]


class Samples:
    """Writes each line at once: what a run that is interrupted has measured stays."""

    def __init__(self, path: Path, run: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = path.open("a")
        self._run = run

    def add(self, kind: str, **values: Any) -> Sample:
        sample = {"kind": kind, "run": self._run, **values}
        self._file.write(json.dumps(sample) + "\n")
        self._file.flush()
        return sample

    def close(self) -> None:
        self._file.close()


def read(paths: Iterable[Path]) -> Iterator[Sample]:
    """Lines of files, or of all files `*.jsonl` in folders; raises SystemExit with the line that is none."""
    for path in paths:
        for file in sorted(path.glob("*.jsonl")) if path.is_dir() else [path]:
            for number, line in enumerate(file.read_text().splitlines(), 1):
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise SystemExit(f"{file}:{number} is no JSON: {error}") from None


def label(sample: Sample) -> str:
    """A system under its settings, as tables name it."""
    return sample["system"] if sample["settings"] == "best" else f"{sample['system']} ({sample['settings']})"
