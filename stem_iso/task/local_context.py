"""Local context: one simulated attempt, for a test of a handler or a script that calls it.

with local_context(id="order-7", attempt=2):
    charge("ann", 500)          # sees the third attempt of order-7
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from stem_iso.task.context import TaskContext, entered
from stem_iso.task.context_port import LocalPort
from stem_iso.task.context_protocol import CallHeader

LOCAL_ID = "00000000-0000-7000-8000-000000000000"


@contextmanager
def local_context(
    *,
    id: str = LOCAL_ID,
    queue: str = "default",
    run: int = 0,
    attempt: int = 0,
    max_retries: int = 0,
    headers: Mapping[str, Any] | None = None,
    meta: Mapping[str, Any] | None = None,
) -> Iterator[TaskContext]:
    """What tasks that are called directly see as their context, inside the block. Needs no broker and enforces no limits.

    It stands for one attempt: `id`, and with it `idempotency_key`, is the same for all that is called in it.
    """
    header = CallHeader(
        id=id, name="", queue=queue, run=run, attempt=attempt, max_retries=max_retries, headers=dict(headers or {}), meta=dict(meta or {})
    )
    with entered(TaskContext(header, LocalPort())) as context:
        yield context
