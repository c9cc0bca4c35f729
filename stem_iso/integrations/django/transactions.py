"""Transactions of Django's databases: `client.transactions.Transactions` for the application of a project.

    with transaction.atomic():                outermost block of a connection ── commit ──> call
        bill.enqueue(7)                        └ connection.on_commit(...)       rollback, of a savepoint too ─> never

Rules
 1. What is enqueued inside transactions of several databases waits for all of them.
 2. The transaction that a TestCase opens around each test never commits, and does not count: what a test enqueues outside of a block of its
    own goes at once, as it would without the test. Inside one, `captureOnCommitCallbacks(execute=True)` serves, as for every `on_commit`.
 3. A coroutine has no transaction of its own. It may be called from one, by `async_to_sync`, whose thread is asked then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.db import connections

V = TypeVar("V")


class DjangoTransactions:
    """Of whichever thread asks: a connection is a thread's own."""

    @property
    def open(self) -> bool:
        return any(map(_in_transaction, connections.all(initialized_only=True)))

    def after_commit(self, call: Callable[[], object]) -> None:
        waiting = {connection.alias: connection for connection in connections.all(initialized_only=True) if _in_transaction(connection)}

        def committed(alias: str) -> Callable[[], None]:
            def count_down() -> None:
                waiting.pop(alias, None)
                if not waiting:
                    call()

            return count_down

        for alias, connection in list(waiting.items()):
            connection.on_commit(committed(alias))

    async def in_thread(self, call: Callable[[], V]) -> V:
        made: V = await sync_to_async(call, thread_sensitive=True)()
        return made


def _in_transaction(connection: Any) -> bool:
    blocks = connection.atomic_blocks
    return bool(connection.in_atomic_block) and not (blocks and all(getattr(block, "_from_testcase", False) for block in blocks))
