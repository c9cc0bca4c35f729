"""The application of the random canvases: a step notes that it begins, works a little, and ends as its arguments say."""

from __future__ import annotations

import json
import os
import time

from stem_iso import Stem, TaskContext
from stem_iso.outcome import TaskError
from tests.isolate.handlers import append


class AtOnce:
    """The next attempt comes at once."""

    def next_delay(self, attempt: int, error: TaskError) -> float:
        return 0.0


class Planned(Exception):
    """This step is to fail, whoever runs it and how often."""


app = Stem(
    os.environ.get("STEM_ISO_TEST_BROKER", "sqlite:///walking.db"),
    default_visibility_timeout=1,
    claim_interval=0.2,
    max_redeliveries=1000,
)


@app.task(name="step", isolate=True, max_retries=1000, retry_strategy=AtOnce(), dont_retry_for=(Planned,))
def step(context: TaskContext, ledger: str, fails: bool) -> str:
    append(ledger, json.dumps([context.id, context.previous]))
    time.sleep(0.04)
    if fails:
        raise Planned(context.id)
    return context.id
