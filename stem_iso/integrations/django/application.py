"""Application of a Django project: the one `Stem` that its settings describe.

settings.STEM_ISO ── read_settings ──> DjangoSettings ──> app ──> task = app.task
override_settings(STEM_ISO=...) ── setting_changed ──────> app, on another broker, with other defaults
"""

from __future__ import annotations

from typing import Any

import django
from django.apps import apps
from django.core.signals import setting_changed
from django.db import connections

from stem_iso.app import Stem
from stem_iso.integrations.django.connections import ConnectionsMiddleware, begin_closed
from stem_iso.integrations.django.databases import Databases
from stem_iso.integrations.django.settings import NAME, SettingsError, read_settings
from stem_iso.integrations.django.transactions import DjangoTransactions

PACKAGE = "stem_iso.integrations.django"


def _made() -> Stem:
    """Raises SettingsError."""
    settings = read_settings()
    return settings.refusing(lambda: Stem(settings.broker, include=settings.include, defaults=settings.defaults, **settings.options))


app = _made()
app.made_in = __name__
app.transactions = DjangoTransactions()
app.isolate_settings = Databases()
app.middleware.add(ConnectionsMiddleware(app.isolate_settings))
app.on_isolate_start(begin_closed)

task = app.task


def set_up() -> None:
    """`django.setup()`, where nobody has begun it. Raises SettingsError where this package is not among INSTALLED_APPS."""
    if not apps.loading:  # stays true afterwards
        django.setup()
        connections.close_all()  # what `ready()` of an app has opened: the core of a worker needs none
    if apps.ready and not apps.is_installed(PACKAGE):
        raise SettingsError(f"INSTALLED_APPS: add {PACKAGE!r}, so that the modules of tasks are found")


def _on_setting_changed(*, setting: str, **_: Any) -> None:
    if setting == NAME:
        app.configure_as(_made())


setting_changed.connect(_on_setting_changed)
