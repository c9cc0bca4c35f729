"""A Django project in a folder of its own: an app `shop` with a database of SQLite, and tasks whose traces are lines of files.

The same project runs on Django 5.2 and 6; what needs the latter stands below `if VERSION >= (6, 0)`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.isolate.calling import descendants, eventually

FILES = {
    "manage.py": """
import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shopsite.settings")
    execute_from_command_line(sys.argv)
""",
    "shopsite/__init__.py": "",
    "shopsite/settings.py": """
import os
from pathlib import Path

from django import VERSION

BASE_DIR = Path(__file__).parent.parent
SECRET_KEY = "for tests"
USE_TZ = True
INSTALLED_APPS = ["shop.apps.ShopConfig", "stem_iso.integrations.django"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AGE = os.environ.get("SHOP_AGE", "0")
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": BASE_DIR / "shop.sqlite3",
        "CONN_MAX_AGE": None if AGE == "None" else int(AGE),
        "OPTIONS": {"timeout": 30},
    },
    "archive": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "archive.sqlite3"},
}
STEM_ISO = {
    "broker": f"sqlite:///{BASE_DIR / 'jobs.db'}",
    "default_visibility_timeout": 30,
    "defaults": {"hard_time_limit": 60},
    "concurrency": 3,
    "include": ["shop.billing"],
}
if VERSION >= (6, 0):

    class AtOnce:
        def next_delay(self, attempt, error):
            return 0.0

    BACKEND = "stem_iso.integrations.django.StemBackend"
    TASKS = {
        "default": {"BACKEND": BACKEND, "QUEUES": ["default", "slow"], "OPTIONS": {"isolate": True, "hard_time_limit": 30}},
        "inline": {"BACKEND": BACKEND, "OPTIONS": {"max_retries": 2, "retry_strategy": AtOnce(), "retry_for": [OSError]}},
        "short": {"BACKEND": BACKEND, "OPTIONS": {"isolate": True, "hard_time_limit": 1}},
    }
""",
    "shopsite/in_memory.py": """
from shopsite.settings import *

STEM_ISO["broker"] = "memory://"
""",
    "shopsite/in_file.py": """
from shopsite.in_memory import *

DATABASES["default"]["TEST"] = {"NAME": BASE_DIR / "test.sqlite3"}
""",
    "shop/__init__.py": "",
    "shop/apps.py": """
import os
from pathlib import Path

from django.apps import AppConfig
from django.db import connection
from django.db.backends.signals import connection_created


def note(file, *words):
    descriptor = os.open(Path(__file__).parent.parent / file, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, " ".join(map(str, words)).encode() + b"\\n")
    os.close(descriptor)


class ShopConfig(AppConfig):
    name = "shop"

    def ready(self):
        note("ready", os.getpid())
        connection_created.connect(lambda connection, **_: note("opened", os.getpid(), connection.alias), weak=False)
        connection.ensure_connection()  # as an app does that looks into the database while it is set up
""",
    "shop/models.py": """
from django.db import models


class Order(models.Model):
    total = models.IntegerField()
    paid = models.BooleanField(default=False)
""",
    "shop/tasks.py": """
import os

from django import VERSION
from django.db import connection, transaction

from shop.apps import note
from shop.models import Order
from stem_iso.integrations.django import app, task


@app.on_isolate_start
def begin():
    note("hooks", os.getpid(), connection.settings_dict["NAME"])


def where():
    return {"pid": os.getpid(), "orders": Order.objects.count()}


@task(isolate=True)
def bill(order_id: int) -> int:
    order = Order.objects.get(pk=order_id)
    order.paid = True
    order.save()
    return order.total


@task(isolate=True)
def isolated() -> dict:
    return where()


@task(hard_time_limit=None)
def inline() -> dict:
    return where()


@task
async def coroutine() -> dict:
    return {"pid": os.getpid(), "orders": await Order.objects.acount()}


@task(isolate=True)
async def isolated_coroutine() -> dict:
    return {"pid": os.getpid(), "orders": await Order.objects.acount()}


@task(isolate=True, on_commit=False)
def impatient() -> int:
    return 1


@task(isolate=True, unique=True)
def once(key: str) -> str:
    return key


@task
def double(n: int) -> int:
    return 2 * n


@task(isolate=True)
def parent(fails: bool) -> list[str]:
    ids = []
    try:
        with transaction.atomic():
            ids.append(double.enqueue(1).id)
            if fails:
                raise LookupError
    except LookupError:
        pass
    return ids


@task(isolate=True)
def forking() -> list[bool]:
    Order.objects.count()
    before, (reader, writer) = connection.connection, os.pipe()
    pid = os.fork()
    if not pid:
        try:
            Order.objects.create(total=-1)
            os.write(writer, b"another" if connection.connection is not before else b"the same")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    found = os.read(reader, 10) == b"another"
    return [found, connection.connection is before, Order.objects.filter(total=-1).exists()]


if VERSION >= (6, 0):
    import time

    from django import tasks
    from django.tasks.signals import task_enqueued, task_finished, task_started

    def listener(word):
        def note_it(sender, task_result, **_):
            note("signals", word, task_result.id, task_result.status, os.getpid(), Order.objects.count())

        return note_it

    for word, signal in (("enqueued", task_enqueued), ("started", task_started), ("finished", task_finished)):
        signal.connect(listener(word), weak=False)

    class Unpayable(Exception):
        pass

    @tasks.task
    def add(a, b):
        return {"sum": a + b, "pid": os.getpid()}

    @tasks.task(takes_context=True, queue_name="slow", priority=20)
    def with_context(context, word):
        return [context.attempt, context.task_result.id, context.task_result.status, word]

    @tasks.task
    async def count_orders():
        return await Order.objects.acount()

    @tasks.task
    def unpayable():
        raise Unpayable("no card")

    @tasks.task(backend="inline")
    def flaky(path):
        note(path, "x")
        raise OSError("away")

    @tasks.task(backend="short")
    def stuck():
        time.sleep(60)

    @tasks.task(backend="inline")
    def ordered(word):
        note("order", word)

    @tasks.task
    def no_json():
        return object()
""",
    "shop/billing.py": """
from stem_iso.integrations.django import task


@task(name="shop.remind")
def remind(name: str) -> str:
    return f"Dear {name}"
""",
}
START = "import django\ndjango.setup()\n"


class Project:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in FILES.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text.lstrip())
        self.run("from django.core.management import call_command\ncall_command('migrate', run_syncdb=True, verbosity=0)\n")

    @property
    def environ(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("STEM_ISO_", "PYTEST_"))}
        return own | {"PYTHONPATH": str(self.folder), "DJANGO_SETTINGS_MODULE": "shopsite.settings"}

    def run(self, program: str, **env: str) -> str:
        """What a program prints, run in the project, where Django is set up."""
        done = subprocess.run(
            [sys.executable, "-c", START + program], cwd=self.folder, env=self.environ | env, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def manage(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """`manage.py` as people call it: in the project's folder, without a variable that names its settings."""
        environ = self.environ | env
        del environ["PYTHONPATH"], environ["DJANGO_SETTINGS_MODULE"]
        return subprocess.run(
            [sys.executable, "manage.py", *words], cwd=self.folder, env=environ, capture_output=True, text=True, timeout=120
        )

    @contextmanager
    def worker(self, *options: str, cwd: Path | None = None, **env: str) -> Iterator[ProjectWorker]:
        """`manage.py stem_worker`, which must leave with 0 when it is asked to."""
        environ = self.environ | env
        del environ["PYTHONPATH"], environ["DJANGO_SETTINGS_MODULE"]
        log = self.folder / f"worker-{len(list(self.folder.glob('worker-*')))}.log"
        command = [sys.executable, str(self.folder / "manage.py"), "stem_worker", *options]
        with log.open("wb") as stream:
            process = subprocess.Popen(command, cwd=cwd or self.folder, env=environ, stdout=stream, stderr=stream, start_new_session=True)
        worker = ProjectWorker(self, process, log)
        try:
            worker.says("serves ")
            yield worker
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, log.read_text()
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGQUIT)
                process.wait(60)

    def lines(self, file: str) -> list[list[str]]:
        """What `note` wrote."""
        path = self.folder / file
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


class ProjectWorker:
    def __init__(self, project: Project, process: subprocess.Popen[bytes], log: Path) -> None:
        self.project, self.process, self.log = project, process, log

    def says(self, text: str) -> None:
        def found() -> bool:
            assert self.process.poll() is None or text in self.log.read_text(), self.log.read_text()
            return text in self.log.read_text()

        eventually(found, f"the worker does not say {text!r}")

    @property
    def pids(self) -> list[int]:
        return [self.process.pid, *descendants(self.process.pid)]

    def holding(self, file: str) -> list[int]:
        """The worker's processes that have this file of the project open."""
        return [pid for pid in self.pids if str(self.project.folder / file) in open_files(pid)]


def open_files(pid: int) -> list[str]:
    found = []
    with suppress(OSError):  # a process that ends meanwhile
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.append(os.readlink(entry))
    return found
