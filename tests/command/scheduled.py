"""An application with a schedule in its code; each run writes for when it was due."""

from __future__ import annotations

import os

from stem_iso import Stem, TaskContext
from tests.isolate import handlers

app = Stem(os.environ.get("STEM_ISO_TEST_BROKER", "sqlite:///scheduled.db"))


@app.task(name="note")
def note(context: TaskContext, ledger: str) -> None:
    handlers.append(ledger, str(context.headers["due"]))


if ledger := os.environ.get("STEM_ISO_TEST_LEDGER"):
    app.schedule("tick", note.s(ledger), every=0.1, catch_up="all")
