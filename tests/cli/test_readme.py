"""What the README says of the code is made from the code."""

from __future__ import annotations

import inspect

from stem_iso import Worker
from stem_iso.cli.defaults_table import markdown
from stem_iso.config import WorkerConfig
from tests.cli.conftest import ROOT


def test_the_table_of_defaults_is_that_of_the_code() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert markdown() in text, "run `python -m stem_iso.cli.defaults_table` and put its table into the README"


def test_an_embedded_worker_has_the_defaults_of_the_command() -> None:
    config, parameters = WorkerConfig(), inspect.signature(Worker.__init__).parameters
    shared = {"spares", "shutdown_timeout", "max_tasks_per_isolate", "max_memory_per_isolate", "unregistered_grace", "burst"}
    assert {name: parameters[name].default for name in shared} == {name: getattr(config, name) for name in shared}
