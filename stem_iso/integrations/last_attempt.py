"""Whether the attempt that an error ends is its task's last one, decided where the handler runs, by the function that the core uses."""

from __future__ import annotations

from stem_iso.task.context import RetryRequested, TaskContext
from stem_iso.task.failure import failed
from stem_iso.task.policy import Policy
from stem_iso.task.settlement import retries


def tried_again(error: BaseException, context: TaskContext) -> bool:
    """What it needs (`max_retries`, `retry_for`, `dont_retry_for`) comes with the call."""
    if isinstance(error, RetryRequested):
        asked = error.retry.max_retries
        return context.attempt < (context.max_retries if asked is None else asked)
    header = context.header
    policy = Policy(max_retries=context.max_retries, retry_for=header.retry_for, dont_retry_for=header.dont_retry_for)
    return retries(context.attempt, failed(error, context.main), policy)
