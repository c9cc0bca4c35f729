from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stem_iso import TaskFailed
from tests.command.conftest import Command
from tests.integrations.django_project import Project, ProjectWorker

pytest.importorskip("sentry_sdk")
pytest.importorskip("opentelemetry.sdk")

TASKS = {
    "isolated.error": {"price": 84},
    "isolated.refused": {},
    "inline.error": {},
    "inline.async": {},
    "inline.async.stuck": {},
    "isolated.stuck": {},
    "isolated.segfault": {},
    "isolated.hog": {"size": 400 << 20},
    "isolated.mixed": {},
    "isolated.result": {},
    "isolated.asked": {},
}
PARENT = f"00-{'a' * 32}-{'b' * 16}-01"


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("django"))


@pytest.fixture(scope="module")
def worker(project: Project) -> Iterator[ProjectWorker]:
    with project.worker() as worker:
        yield worker


@dataclass
class Ran:
    """A worker by command that has run all of TASKS, and one that succeeds, and is over. `ids` are by name."""

    ids: dict[str, str]
    core: int
    events: list[dict[str, Any]]
    spans: list[dict[str, Any]]

    def events_of(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["tags"]["task"] == name]

    def event_of(self, name: str) -> dict[str, Any]:
        found = self.events_of(name)
        assert len(found) == 1, (name, [event["exception"] for event in found])
        return found[0]

    def attempts_of(self, name: str) -> list[dict[str, Any]]:
        found = [span for span in self.spans if span["name"] == f"run {name}"]
        return sorted(found, key=lambda span: int(span["attributes"]["stem_iso.attempt"]))


def run_all(folder: Path, names: dict[str, Any], **env: str) -> Ran:
    worker = Command(folder, application="tests.integrations.app:app", env={"STEM_ISO_TEST_REPORTS": str(folder), **env})
    try:
        handles = {name: worker.enqueue(name, args=args, headers={"traceparent": PARENT}) for name, args in names.items()}
        fine = worker.enqueue("isolated.fine")
        for name, handle in handles.items():
            with pytest.raises(TaskFailed):
                raise AssertionError(f"{name} succeeded with {handle.result(timeout=120)!r}")
        assert fine.result(timeout=60) == 1
        core = worker.core
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
    finally:
        worker.close()
    ids = {name: handle.id for name, handle in handles.items()} | {"isolated.fine": fine.id}
    return Ran(ids, core, lines(folder / "events"), lines(folder / "spans"))


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    assert "STEM_ISO_TEST_REPORTS" not in os.environ
    return run_all(tmp_path_factory.mktemp("reports"), TASKS)
