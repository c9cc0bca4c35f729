"""Transactions of a framework's databases, and what is enqueued inside one: it waits for the commit.

    enqueue ── checked, envelopes made ──┬── no transaction, or on_commit=False ──> broker
                                         └── Transactions.after_commit ── commit ──> broker
                                                                          rollback ─> never

Rules
 1. An integration sets `app.transactions`. An application without it knows of no transaction, and refuses `on_commit=True`.
 2. What can be refused (arguments, options, a payload that is too large) is refused at once; a broker that is away, where the transaction
    commits.
 3. A handle is of the task that would be enqueued. After the commit it is of the one that was: of a unique task, of the one that waits
    already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

V = TypeVar("V")


class Transactions(Protocol):
    """What an integration knows of the transactions of the thread that asks."""

    @property
    def open(self) -> bool:
        """Whether this thread is inside one."""

    def after_commit(self, call: Callable[[], object]) -> None:
        """Make the call when all that are open now have committed; never, if one of them rolls back."""

    async def in_thread(self, call: Callable[[], V]) -> V:
        """Make the call beside the loop, in the thread in which a coroutine's transactions are."""
