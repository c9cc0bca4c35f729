"""Django: the project's application, configured by its settings, with workers that are a command of `manage.py` (extra `django`).

    INSTALLED_APPS = [..., "stem_iso.integrations.django"]          STEM_ISO = {"broker": "redis://localhost/0", "defaults": {...}}

    shop/tasks.py    from stem_iso.integrations.django import task
                     @task(isolate=True, hard_time_limit=60)
                     def bill(order_id: int) -> None: ...

    django.setup() ── AppConfig.ready ──> imports the module `tasks` of each installed app
    web process     bill.enqueue(7) ── commit ──> broker ──> manage.py stem_worker: bill(7), between two `close_old_connections`

    settings        STEM_ISO, checked                         application    `app` and `task`
    transactions    what is enqueued waits for the commit     connections    those of the database, closed between tasks
    databases       those of the worker's process are those of its isolates, also in tests
    backend         a backend of django.tasks (Django 6)      apps, management: what Django looks for under these names

Rules
 1. To import this package is to have Django set up: where nobody has called `django.setup()` yet, it does. So each process that runs tasks
    has done so once, whatever it imports first.
 2. `StemBackend` needs Django 6; all else works with Django 5.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    import django as _django  # noqa: F401
except ImportError as error:
    raise ImportError("stem_iso.integrations.django needs Django 5.2 or later: pip install 'stem_iso[django]'") from error

from stem_iso.integrations.django.application import app, set_up, task

if TYPE_CHECKING:
    from stem_iso.integrations.django.backend import StemBackend

__all__ = ["StemBackend", "app", "task"]


def __getattr__(name: str) -> Any:
    """`StemBackend`, with its first use: Django 5.2 has nothing that it could be a backend of."""
    if name != "StemBackend":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from stem_iso.integrations.django.backend import StemBackend

    return StemBackend


set_up()  # last: it imports modules of tasks, which import `app` and `task` from here
