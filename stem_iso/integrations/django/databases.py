"""Databases of the process of a worker, in its isolates: `client.isolate_settings.IsolateSettings` for the application of a project.

    tests   runner: DATABASES["default"]["NAME"] "shop" ── "test_shop"      the worker beside the test (`stem_worker`) is in this process
    worker  changed() ── {"default": {"NAME": "test_shop"}} ── boot, header of each call ──> isolate: adopt(...) ──> handler

Rules
 1. Compared is with the settings as the application was made, in both processes. A worker by command never changes them, and sends nothing.
 2. A database in the memory of another process cannot be reached. What connects to it raises `UnreachableDatabase`; what uses no database
    runs. Never is the one of the settings file used instead.
 3. What changes in the worker later holds for the calls that begin later: a test database that is made, or destroyed, while it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.signals import connection_created

from stem_iso.integrations.django.connections import of_coroutines
from stem_iso.task.failure import NotRetryable

KEYS = ("NAME", "USER", "PASSWORD")  # what runners of tests change; the last two with Oracle, whose test databases are users

Changes = Mapping[str, Mapping[str, str]]  # by alias


class UnreachableDatabase(NotRetryable, ImproperlyConfigured):
    """The database of this alias is in the memory of another process."""


class Databases:
    """Made with the application."""

    def __init__(self) -> None:
        self._made_with = {alias: {key: settings.get(key) for key in KEYS} for alias, settings in connections.settings.items()}
        self._adopted: Changes = {}
        self._unreachable: frozenset[str] = frozenset()

    def changed(self) -> dict[str, Any]:
        found = {}
        for alias, before in self._made_with.items():
            now = connections.settings.get(alias, before)  # else a test has taken it away
            changed = {key: str(now.get(key)) for key in KEYS if str(now.get(key)) != str(before[key])}
            if changed:
                found[alias] = changed
        return found

    def adopt(self, changed: Changes) -> None:
        if changed == self._adopted:
            return
        _close()
        of_coroutines().submit(_close).result()
        for alias, before in self._made_with.items():
            connections.settings.get(alias, {}).update({**before, **changed.get(alias, {})})
        self._adopted, self._unreachable = changed, frozenset(unreachable(changed))
        connection_created.connect(self._refuse, dispatch_uid=__name__)

    def _refuse(self, *, connection: Any, **_: Any) -> None:
        """Raises UnreachableDatabase for what SQLite has just made: an empty database in the memory of this process."""
        if connection.alias not in self._unreachable:
            return
        made, connection.connection = connection.connection, None  # `connection.close()` spares a database in memory
        made.close()
        name = f"DATABASES[{connection.alias!r}]"
        raise UnreachableDatabase(
            f"{name} is in the memory of the process that runs the tests, and an isolate is another process. Give the tests a file:"
            f' {name}["TEST"] = {{"NAME": "test.sqlite3"}}; or run what they enqueue in place, with stem_iso.testing.test_mode'
        )


def unreachable(changed: Changes) -> list[str]:
    """The aliases of databases that no other process can see."""
    names = {alias: settings.get("NAME", "") for alias, settings in changed.items()}
    return [alias for alias, name in names.items() if name == ":memory:" or "mode=memory" in name]


def _close() -> None:
    """The connections of this thread, and what pools of psycopg keep: they are to the database before."""
    for connection in connections.all(initialized_only=True):
        connection.close()
        if hasattr(connection, "close_pool"):
            connection.close_pool()
