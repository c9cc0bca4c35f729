"""`manage.py stem_worker`: a worker of the project's application, with the worker's own options.

    manage.py stem_worker -c 4 ── settings, checks ── exec ──> python -m stem_iso.worker -A stem_iso.integrations.django -c 4

The process becomes the worker's launcher, which runs no code of the project and signals reach as ever; the core and the isolates set Django
up for themselves.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from stem_iso.config import SETTINGS
from stem_iso.integrations.django.application import PACKAGE
from stem_iso.integrations.django.settings import read_settings, setting_words
from stem_iso.isolate import interpreter

OPTIONS = [setting for setting in SETTINGS if setting.name != "app"]
SEVERAL = frozenset({"include", "secret_env"})


class StemWorkerCommand(BaseCommand):
    help = "Runs a worker of stem_iso for this project. Each option may be given in STEM_ISO, or as a variable of the environment."

    def add_arguments(self, parser: CommandParser) -> None:
        for setting in OPTIONS:
            shown = f"{setting.meaning}  [{setting.variable}]".replace("%", "%%")
            if setting.name == "burst":
                parser.add_argument(*setting.flags, dest=setting.name, action="store_true", default=None, help=shown)
            else:
                action = "append" if setting.name in SEVERAL else "store"
                parser.add_argument(*setting.flags, dest=setting.name, metavar=setting.metavar, action=action, help=shown)
        parser.add_argument("--reload", action="store_true", help="For development: start anew whenever a Python file changes.")

    def handle(self, *args: Any, **options: Any) -> None:
        given = {setting.name for setting in OPTIONS if options.get(setting.name) is not None}
        words = ["--reload"] if options.get("reload") else []
        for setting in OPTIONS:
            if setting.name in given:
                value = options[setting.name]
                words += setting_words(setting, tuple(value) if isinstance(value, list) else value)
        words = [*read_settings().worker_options(given), *words]
        command = [sys.executable, *interpreter.arguments(), "-m", "stem_iso.worker", "-A", PACKAGE, *words]
        if not self._called_from_command_line:  # by `call_command`: its program goes on
            code = subprocess.run(command, env=_environment(), check=False).returncode
            if code:
                raise CommandError(f"the worker has ended with {code}", returncode=code)
            return
        connections.close_all()
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, command, _environment())


Command = StemWorkerCommand  # Django looks for this name


def _environment() -> dict[str, str]:
    """With the project's folder among those where Python looks, if a worker would not look there by itself: that of manage.py, which may
    be another than the working folder, and `--pythonpath`."""
    environ = dict(os.environ)
    known = environ.get("PYTHONPATH", "").split(os.pathsep)
    folders = [folder for folder in _folders() if folder not in (os.getcwd(), *known)]
    if folders:
        environ["PYTHONPATH"] = os.pathsep.join([*folders, *(each for each in known if each)])
    return environ


def _folders() -> list[str]:
    """Up to the standard library: what stands before it in the search path was put there for this program."""
    library = os.path.dirname(os.__file__)
    path = interpreter.search_path()
    before = next((number for number, entry in enumerate(path) if entry.startswith(library) or entry.endswith(".zip")), len(path))
    return path[:before]
