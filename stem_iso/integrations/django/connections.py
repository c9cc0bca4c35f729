"""Database connections of the processes that run tasks: closed between tasks as Django closes them between requests.

    boot of an isolate ── begin_closed ──> what imports have opened is closed: a spare that waits holds none
    task ── around ──> close_old_connections ── handler ── close_old_connections        CONN_MAX_AGE and CONN_HEALTH_CHECKS hold
    handler forks ──> the child's first query opens a connection of its own

Rules
 1. An isolate is a process that was started, and not forked from one that has Django: no connection of another process reaches it.
 2. Where the handler is in a thread, its connections are this thread's. Where it awaits the ORM, they are those of the one thread that
    asgiref keeps for that. An isolate starts that thread as it boots, so that it is not taken for something a handler left behind.
 3. What runs in the caller's own thread, as in `stem_iso.testing.test_mode`, leaves the caller's connections alone, and coroutines use them
    too: the rows of a TestCase are seen by no other.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any

from asgiref.sync import SyncToAsync, async_to_sync
from django.db import close_old_connections, connections, reset_queries

from stem_iso.client.event_loop import in_loop
from stem_iso.client.isolate_settings import IsolateSettings
from stem_iso.task.context import TaskContext

_inherited: list[Any] = []  # connections of a parent, in the child of a fork: closing or collecting one could end the parent's


class ConnectionsMiddleware:
    """Around each handler, on the application of a project. An isolate has the databases of its worker by then."""

    def __init__(self, databases: IsolateSettings) -> None:
        self._databases = databases

    @contextmanager
    def around(self, context: TaskContext) -> Iterator[None]:
        if context.in_place:
            context.run_coroutine = _in_callers_thread
            yield
            return
        if context.isolated:
            self._databases.adopt(context.header.settings)
        _renew(context)
        try:
            yield
        finally:
            _renew(context)


def _in_callers_thread(awaitable: Awaitable[Any]) -> Any:
    """Run a coroutine whose calls of the ORM come back to this thread."""

    async def steps() -> Any:
        return await awaitable

    return async_to_sync(steps)()


def _renew(context: TaskContext) -> None:
    """Close what is too old or broken."""
    if in_loop():  # nobody waits: that thread does one thing after the other
        of_coroutines().submit(close_old)
        return
    close_old()
    if context.isolated:  # whose handler may have run a loop of its own
        of_coroutines().submit(close_old).result()


def close_old() -> None:
    reset_queries()
    close_old_connections()


def begin_closed() -> None:
    """A hook of `on_isolate_start`."""
    connections.close_all()
    of_coroutines().submit(connections.close_all).result()
    os.register_at_fork(after_in_child=_let_go)


def _let_go() -> None:
    for connection in connections.all(initialized_only=True):
        _inherited.append(connection)
        del connections[connection.alias]


def of_coroutines() -> Any:
    """The executor of asgiref's one thread."""
    return SyncToAsync.single_thread_executor
