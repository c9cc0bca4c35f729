"""The page about Django, followed from an empty `django-admin startproject`: its files are written, its worker runs, its tests pass."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import django
import pytest

from tests.docs.snippets import snippets

pytestmark = pytest.mark.integrations

URLS = """
from django.urls import path

from shop.views import buy

urlpatterns = [path("buy/", buy)]
"""
PROGRAM = """
from django.test import Client
from stem_iso.integrations.django import app
from shop.tasks import remind

task = Client(SERVER_NAME="localhost").post("/buy/", {"total": "9.90"}).json()["task"]
print(app.handle(task).result(timeout=60), remind.enqueue().result(timeout=60))
print([schedule.name for schedule in app.schedules.infos()])
"""
FRAMEWORK = """
from django import tasks


@tasks.task
def greet(name: str) -> str:
    return f"Hello {name}"
"""
GREET = """
from shop.tasks import greet
from stem_iso.integrations.django import app

result = greet.using(queue_name="mail", priority=10).enqueue("Ann")
app.handle(result.id).result(timeout=60)
result.refresh()
print(result.status, result.return_value)
"""


def manage(folder: Path, *words: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "manage.py", *words]
    done = subprocess.run(command, cwd=folder, input=given, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture
def site(tmp_path: Path) -> Path:
    subprocess.run([sys.executable, "-m", "django", "startproject", "mysite", "."], cwd=tmp_path, check=True)
    manage(tmp_path, "startapp", "shop")
    for snippet in snippets("docs/django.md"):
        name, needs_six = snippet.code.partition("\n")[0].removeprefix("# "), ", Django 6"
        path = tmp_path / name.removesuffix(needs_six)
        if not name.endswith(needs_six) or django.VERSION >= (6, 0):
            path.write_text((path.read_text() if path.name == "settings.py" else "") + snippet.code)
    (tmp_path / "mysite" / "urls.py").write_text(URLS)
    manage(tmp_path, "makemigrations", "shop")
    manage(tmp_path, "migrate")
    return tmp_path


def test_the_page_leads_to_a_task_that_runs(site: Path) -> None:
    if django.VERSION >= (6, 0):
        with (site / "shop" / "tasks.py").open("a") as file:
            file.write(FRAMEWORK)
    log = site / "worker.log"
    with log.open("wb") as stream:
        worker = subprocess.Popen([sys.executable, "manage.py", "stem_worker", "-c", "4"], cwd=site, stdout=stream, stderr=stream)
    try:
        assert manage(site, "shell", "-v", "0", given=PROGRAM).stdout == "billed 9.90 0\n['remind']\n"
        if django.VERSION >= (6, 0):
            assert manage(site, "shell", "-v", "0", given=GREET).stdout == "SUCCESSFUL Hello Ann\n"
        environ = os.environ | {"DJANGO_SETTINGS_MODULE": "mysite.settings"}
        command = [sys.executable, "-m", "stem_iso", "workers", "--json", "-A", "stem_iso.integrations.django"]
        (found,) = json.loads(subprocess.run(command, cwd=site, env=environ, capture_output=True, text=True, check=True).stdout)
        assert found["broker"] == f"sqlite:///{site}/jobs.db" and "default" in found["queues"]
    finally:
        worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0, log.read_text()


def test_the_tests_of_the_page_pass(site: Path) -> None:
    assert "Ran 3 tests" in manage(site, "test").stderr
