"""Errors of tasks that a broker ends because their workers were lost. Pure."""

from __future__ import annotations

from stem_iso.outcome import TaskError


def at_most_once() -> TaskError:
    return _lost("its worker was lost, and it runs at most once (acks_late=False)")


def too_often(times: int, most: int) -> TaskError:
    """`times`: how many workers held it; `most`: `max_redeliveries`."""
    return _lost(f"{times} workers were lost while they held it (max_redeliveries is {most})")


def _lost(message: str) -> TaskError:
    return TaskError(type="stem_iso.errors.LeaseLost", message=message, retryable=False)
