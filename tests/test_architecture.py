"""The shape of the package, held by a look at its imports.

    cli, testing ──> worker ──> app ──> client ──> brokers ──> task ──> validation, outcome, events, errors
                       └──────> isolate ──────────────────────────────> validation, outcome, errors

No arrow points back, and no modules stand in a circle. Both count what is imported below `if TYPE_CHECKING:` and inside functions too: who
reads one of two modules that name each other has to read both, whenever Python does. Each rule is also fed a planted offender, because a
check that cannot fail holds nothing.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

GROUND = frozenset({"errors", "outcome", "events", "validation", "text", "printable", "json_data"})
CLIENT = frozenset({*GROUND, "signals", "config", "task", "brokers", "client"})
WORKER = frozenset({*CLIENT, "app", "isolate", "worker"})
MAY_IMPORT: dict[str, frozenset[str]] = {  # a room, or one module of a room
    "json_data": frozenset(),
    "outcome": frozenset({"json_data"}),
    "text": frozenset(),
    "printable": frozenset(),
    "errors": frozenset({"outcome"}),
    "events": frozenset({"outcome", "json_data"}),
    "validation": frozenset({"errors"}),
    "config": GROUND | {"isolate.machine"},
    "signals": GROUND | {"task"},
    "task": GROUND | {"task"},
    "isolate": (GROUND - {"events", "printable"}) | {"isolate"},
    "brokers": GROUND | {"task", "brokers"},
    "client": CLIENT,
    "app": CLIENT,
    "worker": WORKER,
    "cli": WORKER | {"cli", "dashboard"},
    "testing": WORKER | {"testing"},
    "integrations": WORKER | {"integrations"},
    "dashboard": CLIENT | {"app", "dashboard"},
    "": WORKER,  # the package itself: public names
}
# `python -m stem_iso` and `python -m stem_iso.worker` are commands, so they belong to the edge wherever Python wants them to lie.
EDGES = frozenset({"__main__", "worker.__main__"})

CHILD_MAY_IMPORT = frozenset(
    {
        "errors",
        "outcome",
        "json_data",
        "validation",
        "text",
        "isolate.interfaces",
        "isolate.log_record",
        "isolate.limits",
        "isolate.wire",
        "isolate.shared_row",
        "isolate.linux",
        "isolate.payload",
        "isolate.remote_errors",
        "isolate.interpreter",
        "isolate.main_module",
        "isolate.keeper.process_tree",
    }
)

IMPURE = frozenset(
    {"time", "random", "asyncio", "os", "io", "socket", "select", "signal", "subprocess", "threading", "mmap", "logging", "sqlite3"}
)
PURE = frozenset(
    {
        "isolate.wire",
        "isolate.engine.lifecycle",
        "isolate.engine.allocator",
        "isolate.engine.deadlines",
        "isolate.engine.keeper_watchdog",
        "isolate.engine.frames",
        "isolate.engine.stacks",
        "isolate.shared_row",
        "worker.admission",
        "cli.top.figures",
        "cli.top.grid",
        "cli.top.panes",
        "cli.top.recent",
        "cli.top.texts",
        "cli.top.theme",
    }
)
EXCUSED = {
    "task.context": {"time", "logging"},  # what a handler holds: it gives the time that is left, and logs
    "task.retry_policy": {"random"},  # a strategy is the user's to replace, so the shipped one throws its own dice
    "isolate.shared_row": {"mmap", "threading"},  # its subject is shared memory, and who may write a row
}

SITES = {
    "loky": {"isolate.keeper.spawn", "isolate.child.registration"},  # the start, and where what loky makes in an isolate is registered
    "sqlite3": {"brokers.sqlite.connection"},
    "redis": {"brokers.redis.driver.connection"},
    "cloudpickle": {"isolate.payload", "isolate.main_module"},
    "threadpoolctl": {"isolate.child.cpu_pinning"},
    "setproctitle": {"isolate.keeper.keeper", "isolate.child.main"},
    "uuid_utils": {"client.enqueue"},
    "textual": {"cli.top.screen", "cli.top.view", "cli.top.dialogs", "cli.top.stylesheet"},
    "rich": {"cli.top.view"},  # comes with textual
    "cronsim": {"task.cron"},
    "prometheus_client": {"client.metrics"},
    "sentry_sdk": {"integrations.sentry"},
    "opentelemetry": {"integrations.otel"},
    "django": {
        "integrations.django",
        "integrations.django.application",
        "integrations.django.apps",
        "integrations.django.backend",
        "integrations.django.backend_task",
        "integrations.django.connections",
        "integrations.django.databases",
        "integrations.django.settings",
        "integrations.django.transactions",
        "integrations.django.management.commands.stem_worker",
    },
}
LONGEST_MODULE, LONGEST_FUNCTION = 400, 40


@dataclass(frozen=True)
class Source:
    """One module. `name` is dotted and leaves `stem_iso.` out; the package itself is ""."""

    name: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def layer(self) -> str:
        return "cli" if self.name in EDGES else self.name.partition(".")[0]

    def imports(self, nodes: Iterable[ast.AST]) -> Iterator[str]:
        """Names that are imported, wherever in the file; `from stem_iso import errors` counts as `stem_iso.errors`."""
        for node in nodes:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0 and node.module, f"{self.name}: imports are absolute here"
                yield from (f"{node.module}.{alias.name}" for alias in node.names)

    def ours(self) -> Iterator[str]:
        """Of this package, for types alone too."""
        names = self.imports(ast.walk(self.tree))
        return (name.removeprefix("stem_iso").removeprefix(".") for name in names if name.partition(".")[0] == "stem_iso")

    def foreign(self) -> set[str]:
        """Of others, at run time: a name that only a checker reads loads no library."""
        return {name.partition(".")[0] for name in self.imports(_at_run_time(self.tree))}


def _at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _at_run_time(child)


def sources(folder: Path) -> Iterator[Source]:
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        yield Source(".".join(parts[:-1] if parts[-1] == "__init__" else parts), path.read_text(encoding="utf-8"))


# -- the rules: each names what is wrong in one module ---------------------------------------------------------------------------------


def arrows(source: Source) -> Iterator[str]:
    if source.layer not in MAY_IMPORT:
        yield f"{source.name}: say in MAY_IMPORT to which room {source.layer!r} belongs"
        return
    allowed = MAY_IMPORT.get(source.name, MAY_IMPORT[source.layer])
    for name in source.ours():
        if name.partition(".")[0] in MAY_IMPORT and not any(f"{name}.".startswith(f"{each}.") for each in allowed):
            yield f"{source.name} imports stem_iso.{name}: {source.layer} may not import that"


def purity(source: Source) -> Iterator[str]:
    if source.layer == "task" or source.name in PURE:
        for name in sorted(source.foreign() & IMPURE - EXCUSED.get(source.name, set())):
            yield f"{source.name} imports {name}: it decides, so clock, dice and I/O come in as arguments"


def independence(source: Source) -> Iterator[str]:
    if source.name.startswith("isolate.child"):
        for name in source.ours():
            if not any(f"{name}.".startswith(f"{allowed}.") for allowed in {*CHILD_MAY_IMPORT, "isolate.child"}):
                yield f"{source.name} imports stem_iso.{name}: the isolate's side knows nothing of the parent's"


def import_sites(source: Source) -> Iterator[str]:
    for name in sorted(source.foreign()):
        if name in SITES and source.name not in SITES[name]:
            yield f"{source.name} imports {name}, which has its place in {', '.join(sorted(SITES[name])) or 'no module'}"
        if name == "click" and source.layer != "cli":
            yield f"{source.name} imports click, which belongs to the command line"


def sizes(source: Source) -> Iterator[str]:
    lines = source.text.count("\n")
    if lines > LONGEST_MODULE and "one idea" not in source.text[:2000]:
        yield f"{source.name} has {lines} lines: which second idea hides in it? If none, its head says why it is one idea"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > LONGEST_FUNCTION:
                yield f"{source.name}.{node.name} has {length} lines"


def heads(source: Source) -> Iterator[str]:
    if source.tree.body and not ast.get_docstring(source.tree):
        yield f"{source.name} has no head that says what it is for"


Rule = Callable[[Source], Iterator[str]]
RULES: list[Rule] = [arrows, purity, independence, import_sites, sizes, heads]


@cache
def package() -> list[Source]:
    """Parsed once for all rules."""
    return list(sources(ROOT / "stem_iso"))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rule(rule: Rule) -> None:
    found = package()
    assert len(found) > 50
    assert [fault for source in found for fault in rule(source)] == []


def test_programs_are_as_short_as_the_package() -> None:
    found = list(sources(ROOT / "entrypoints"))
    assert found
    assert [fault for source in found for rule in (sizes, heads) for fault in rule(source)] == []


# -- circles ---------------------------------------------------------------------------------------------------------------------------


def circle(found: Sequence[Source]) -> list[str]:
    """Modules of which each imports the next, and the last one the first; nothing where there is no such circle."""
    modules = {source.name for source in found if source.name}  # the package itself names things lazily, by a table
    graph = {source.name: {module for name in source.ours() if (module := _module_of(name, modules))} for source in found}
    for name, needed in graph.items():
        needed.discard(name)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def _module_of(name: str, modules: set[str]) -> str:
    """Of `task.options.TaskOptions`, the module `task.options`."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def test_no_modules_stand_in_a_circle() -> None:
    assert circle(package()) == []


LEFT, RIGHT = "client.left", "client.right"


@pytest.mark.parametrize(
    "back",
    [
        "from stem_iso.client.left import Left",
        "from stem_iso.client import left",
        "def late():\n    import stem_iso.client.left",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from stem_iso.client.left import Left",
    ],
    ids=["by-name", "by-module", "late", "for-types-alone"],
)
def test_a_planted_circle_is_found(back: str) -> None:
    there = Source(LEFT, "from stem_iso.client.right import Right")
    assert circle([there, Source(RIGHT, back), Source("client", "")]) in ([LEFT, RIGHT, LEFT], [RIGHT, LEFT, RIGHT])
    assert circle([there, Source(RIGHT, ""), Source("client", "")]) == []


# -- names -----------------------------------------------------------------------------------------------------------------------------


def twice_named(found: Sequence[Source]) -> dict[str, list[str]]:
    """Public classes whose name stands in more than one module, with these modules: a reader would take one for the other."""
    places: dict[str, list[str]] = defaultdict(list)
    for source in found:
        for node in source.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(source.name)
    return {name: modules for name, modules in places.items() if len(modules) > 1}


def test_no_class_name_stands_in_two_modules() -> None:
    assert twice_named(package()) == {}


def test_a_planted_name_that_stands_twice_is_found() -> None:
    planted = [Source("task.left", "class Row: ..."), Source("task.right", "class Row: ...\nclass Other: ...")]
    assert twice_named(planted) == {"Row": ["task.left", "task.right"]}


# -- the documents ---------------------------------------------------------------------------------------------------------------------

DOCUMENTS = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "SECURITY.md"]
NAMED_FILE = re.compile(r"(?<![\w./-])(?:stem_iso|tests)/[\w/]+\.py\b")


def missing_files(text: str) -> list[str]:
    return [path for path in NAMED_FILE.findall(text) if not (ROOT / path).is_file()]


def test_the_files_named_in_the_documents_exist() -> None:
    assert len(NAMED_FILE.findall((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))) > 50
    assert {path.name: missing for path in DOCUMENTS if (missing := missing_files(path.read_text(encoding="utf-8")))} == {}


def test_a_file_that_is_gone_is_found() -> None:
    assert missing_files("see `stem_iso/manager.py`, `stem_iso/app.py` and `tests/isolate/gone.py`") == [
        "stem_iso/manager.py",
        "tests/isolate/gone.py",
    ]


PLANTED: list[tuple[Rule, str, str]] = [
    (arrows, "task.settlement", "from stem_iso.brokers.base import Broker"),
    (arrows, "isolate.engine.engine", "from stem_iso import task"),
    (arrows, "isolate.engine.engine", "def late():\n    import stem_iso.worker.core"),
    (arrows, "app", "from stem_iso.isolate import interfaces"),
    (arrows, "brokers.base", "try:\n    from stem_iso.app import Stem\nexcept ImportError: ..."),
    (arrows, "worker.core", "from stem_iso.cli.root import run"),
    (arrows, "app", "from stem_iso.integrations.sentry import SentryMiddleware"),
    (arrows, "worker.core", "from stem_iso.integrations import otel"),
    (arrows, "integrations.sentry", "from stem_iso.cli.root import run"),
    (arrows, "config", "from stem_iso.isolate.engine import engine"),
    (arrows, "client.task", "from stem_iso.app import Stem"),
    (arrows, "task.context", "from stem_iso.client.result import TaskHandle"),
    (arrows, "errors", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from stem_iso.task.options import TaskOptions"),
    (arrows, "client.task", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from stem_iso.app import Stem"),
    (arrows, "manager", ""),
    (purity, "task.settlement", "import time"),
    (purity, "task.deep.new", "def f():\n    from random import random"),
    (purity, "isolate.engine.allocator", "import os.path"),
    (purity, "task.context", "import asyncio"),
    (purity, "worker.admission", "import time"),
    (independence, "isolate.child.main", "from stem_iso.isolate.engine.engine import Engine"),
    (independence, "isolate.child.main", "from stem_iso.task import codec"),
    (
        independence,
        "isolate.child.main",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from stem_iso.isolate.keeper.spawn import Fds",
    ),
    (import_sites, "isolate.pool.pool", "import loky.backend"),
    (import_sites, "app", "from sqlite3 import connect"),
    (import_sites, "worker.core", "def f():\n    import cloudpickle"),
    (import_sites, "app", "import click"),
    (import_sites, "integrations.otel", "import sentry_sdk"),
    (sizes, "app", "x = 1\n" * 401),
    (sizes, "app", "class A:\n    async def f(self):\n" + "        x = 1\n" * 40),
    (heads, "app", "x = 1"),
]


@pytest.mark.parametrize(("rule", "name", "text"), PLANTED)
def test_a_planted_offender_is_found(rule: Rule, name: str, text: str) -> None:
    assert list(rule(Source(name, text))) != []


@pytest.mark.parametrize(
    ("rule", "name", "text"),
    [
        (arrows, "errors", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from stem_iso.outcome import TaskError"),
        (purity, "task.settlement", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from logging import Logger"),
        (arrows, "worker.__main__", "from stem_iso.cli.root import run"),
        (purity, "task.context", "import time"),
        (purity, "isolate.engine.engine", "import time"),
        (independence, "isolate.child.main", "from stem_iso.isolate import wire"),
        (independence, "isolate.engine.engine", "from stem_iso.isolate.engine import allocator"),
        (import_sites, "isolate.keeper.spawn", "import loky"),
    ],
)
def test_what_is_allowed_is_not_found(rule: Rule, name: str, text: str) -> None:
    assert list(rule(Source(name, text))) == []
