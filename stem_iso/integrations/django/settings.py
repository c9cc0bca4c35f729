"""STEM_ISO in Django's settings, checked.

    STEM_ISO = {
        "broker": "redis://localhost/0",                     as the keyword of `Stem`, and so are the broker's options ("max_redeliveries")
        "include": ["shop.billing"],                         modules of tasks that are not named `tasks`
        "defaults": {"hard_time_limit": 300},                the fields of TaskOptions
        "on_commit": True,                                   what is enqueued inside a transaction waits for its commit
        "queues": ["default", "mail"], "concurrency": 4,     what `manage.py stem_worker` does without that option
    }

Rules
 1. An unknown key and a wrong value are refused where the application is made: by every process of the project, at its start.
 2. Settings of the worker come after its command line and STEM_ISO_* of the environment, and before [tool.stem_iso].
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from stem_iso.brokers.records import BrokerOptions
from stem_iso.config import SETTINGS, Setting, WorkerConfig, text
from stem_iso.errors import InvalidOptions
from stem_iso.task.options import TaskOptions
from stem_iso.validation import did_you_mean, flag

V = TypeVar("V")

NAME = "STEM_ISO"
OF_BROKER = frozenset(field.name for field in fields(BrokerOptions))
OF_WORKER = {setting.name: setting for setting in SETTINGS if setting.name not in ("app", "broker", "include")}
KEYS = frozenset({"broker", "include", "defaults", "on_commit", *OF_BROKER, *OF_WORKER})


class SettingsError(InvalidOptions, ImproperlyConfigured):
    """STEM_ISO, or what belongs to it in Django's settings, cannot be meant as it stands."""


@dataclass(frozen=True, slots=True)
class DjangoSettings:
    """`options` are keywords of `Stem`; `worker` holds values by the name of the setting, as they were given."""

    broker: str | None
    include: tuple[str, ...]
    defaults: TaskOptions
    options: dict[str, Any]
    worker: dict[str, Any]

    def refusing(self, make: Callable[[], V]) -> V:
        """What `make` answers. Raises SettingsError for what it refuses of these settings."""
        try:
            return make()
        except InvalidOptions as error:
            raise SettingsError(f"{NAME}: {error}") from None

    def worker_options(self, given: Collection[str]) -> list[str]:
        """For the command line of a worker: what neither that has `given` nor the environment says."""
        words: list[str] = []
        for name, value in self.worker.items():
            setting = OF_WORKER[name]
            if name not in given and not os.environ.get(setting.variable):
                words += setting_words(setting, setting.read(value))
        return words


def setting_words(setting: Setting, value: Any) -> list[str]:
    """A setting of the worker as words of a command line."""
    option = setting.flags[-1]
    if isinstance(value, bool):
        return [option] if value else []
    if isinstance(value, tuple) and setting.name == "queues":
        value = (",".join(value),)
    return [word for each in (value if isinstance(value, tuple) else (value,)) for word in (option, str(each))]


def read_settings() -> DjangoSettings:
    """Raises SettingsError."""
    given = getattr(settings, NAME, {})
    if not isinstance(given, Mapping):
        raise SettingsError(f"{NAME}: {given!r} must be a dict, such as {{'broker': 'redis://localhost/0'}}")
    for key in given:
        if key not in KEYS:
            raise SettingsError(f"{NAME}: there is no setting {key!r}{did_you_mean(str(key).lower(), KEYS)}")
    worker = {name: value for name, value in given.items() if name in OF_WORKER and value is not None}
    _refuse_wrong({name: _checked(name, OF_WORKER[name].read, value) for name, value in worker.items()})
    return DjangoSettings(
        broker=None if given.get("broker") is None else _checked("broker", _url, given["broker"]),
        include=_modules(given.get("include", ())),
        defaults=_defaults(given),
        options={name: value for name, value in given.items() if name in OF_BROKER},
        worker=worker,
    )


def _checked(key: str, read: Callable[[Any], V], value: Any) -> V:
    try:
        return read(value)
    except ValueError as error:
        raise SettingsError(f"{NAME}[{key!r}]: {value!r} {error}") from None


def _refuse_wrong(worker: dict[str, Any]) -> None:
    try:
        WorkerConfig(**worker)
    except InvalidOptions as error:
        raise SettingsError(f"{NAME}: {error}") from None


def _url(value: Any) -> str:
    if not isinstance(value, str):  # a Path, say
        raise ValueError("must be a URL, such as 'redis://localhost/0', or f\"sqlite:///{BASE_DIR / 'jobs.db'}\"")
    return text(value)


def _modules(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple | set | frozenset) or not all(isinstance(each, str) for each in value):
        raise SettingsError(f"{NAME}['include']: {value!r} must be a list of modules, such as ['shop.billing']")
    return tuple(value)


def _defaults(given: Mapping[str, Any]) -> TaskOptions:
    said = given.get("defaults", {})
    if isinstance(said, TaskOptions):
        said = {name: getattr(said, name) for name in said.given}
    if not isinstance(said, Mapping):
        raise SettingsError(f"{NAME}['defaults']: {said!r} must be a dict of options of tasks, such as {{'hard_time_limit': 300}}")
    options: dict[str, Any] = dict(said)
    try:
        if "on_commit" in given:
            options = {"on_commit": flag("on_commit", given["on_commit"]), **options}
    except InvalidOptions as error:
        raise SettingsError(f"{NAME}: {error}") from None
    try:
        return TaskOptions(**options)
    except InvalidOptions as error:
        raise SettingsError(f"{NAME}['defaults']: {error}") from None
