"""Applications of several modules: what is imported where, and what a worker says of what it serves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Folder

APP = """
from stem_iso import Stem
app = Stem()
"""
BOOT = """
import os
SET_UP = []

def set_up():
    SET_UP.append(os.getpid())

set_up()
from shop.app import app
"""
TASKS = """
import os
from shop.app import app

def where() -> list:
    import shop.boot  # in every process it is there already
    return [os.getpid(), shop.boot.SET_UP]

@app.task(name="shop.isolated", isolate=True)
def isolated() -> list:
    return where()

@app.task(name="shop.inline")
def inline() -> list:
    return where()
"""


@pytest.fixture
def shop(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    for package in ("shop", "shop/orders", "shop/empty"):
        (tmp_path / package).mkdir()
        folder.write(f"{package}/__init__.py", "")
    folder.write("shop/app.py", APP)
    folder.write("shop/boot.py", BOOT)
    folder.write("shop/tasks.py", TASKS)
    return folder


def serve(folder: Folder, application: str, *options: str, code: int = 0) -> str:
    """The log of a worker that ends when all is done."""
    done = folder.run("-m", "stem_iso.worker", "-A", application, "--burst", *options)
    assert done.returncode == code, done
    return done.stderr


def enqueue(folder: Folder, name: str, **options: str) -> str:
    done = folder.stem("enqueue", name, *(word for key, value in options.items() for word in (f"--{key}", value)))
    assert done.returncode == 0, done
    return done.stdout.strip()


@pytest.mark.parametrize("name", ["shop.isolated", "shop.inline"])
def test_what_is_set_up_in_the_module_that_was_named_holds_wherever_tasks_run(shop: Folder, name: str) -> None:
    """The tasks lie elsewhere, and so does the application."""
    id = enqueue(shop, name)
    serve(shop, "shop.boot", "--include", "shop.tasks")
    pid, set_up = shop.json("result", id)["result"]
    assert set_up == [pid], "set up once in the process of the task, before the task's module asked for it"


@pytest.mark.parametrize("way", ["code", "option", "variable", "file", "discovered"])
def test_modules_of_tasks_can_be_named_in_each_way(shop: Folder, way: str) -> None:
    shop.write(
        "shop/orders/tasks.py", 'from shop.app import app\n@app.task(name="ship", isolate=True)\ndef ship() -> str:\n    return "shipped"\n'
    )
    options: list[str] = []
    if way == "code":
        shop.write("shop/app.py", APP.replace("Stem()", 'Stem(include=["shop.orders.tasks"])'))
    elif way == "option":
        options = ["--include", "shop.tasks", "--include", "shop.orders.tasks"]
    elif way == "variable":
        shop.environ["STEM_ISO_INCLUDE"] = "shop.orders.tasks"
    elif way == "file":
        shop.write("pyproject.toml", '[tool.stem_iso]\ninclude = ["shop.orders.tasks"]\n')
    else:
        shop.write("shop/app.py", APP + '\napp.autodiscover("shop")\n')
    id = enqueue(shop, "ship")
    log = serve(shop, "shop.app", *options)
    assert shop.json("result", id)["result"] == "shipped"
    assert f"serves {3 if way in ('option', 'discovered') else 1} task" in log and "of shop.app:app" in log


@pytest.mark.parametrize(("text", "line"), [("import nowhere", "nowhere"), ("x = 1\n1 / 0", "line 2"), ("def f(:", "line 1")])
def test_a_module_that_does_not_import_is_named_with_its_line(shop: Folder, text: str, line: str) -> None:
    shop.write("shop/broken.py", text)
    log = serve(shop, "shop.app", "--include", "shop.broken", code=2)
    assert "importing 'shop.broken' failed" in log and "shop/broken.py" in log and line in log


def test_a_module_that_is_not_there_is_a_slip_of_the_option(shop: Folder) -> None:
    log = serve(shop, "shop.app", "--include", "shop.takss", code=2)
    assert "include 'shop.takss': there is no module" in log and "Traceback" not in log


def test_a_worker_says_what_it_serves_and_what_looks_like_a_slip(shop: Folder) -> None:
    log = serve(shop, "shop.boot", "--include", "shop.tasks", "-Q", "defualt,images", "-l", "debug")
    assert "serves 2 tasks of shop.app:app (1 isolated, 1 inline)" in log
    assert "tasks: shop.inline, shop.isolated" in log
    assert "isolated without hard_time_limit, so that nothing ends what hangs: shop.isolated" in log
    assert "queue 'defualt': no task declares it; did you mean 'default'?" in log and "queue 'images'" in log


TYPED = """
from __future__ import annotations

from typing import TYPE_CHECKING

from shop.app import app

if TYPE_CHECKING:
    from decimal import Decimal

    from stem_iso import TaskContext


@app.task(name="pay")
def pay(context: TaskContext, order: int, price: Decimal, *more: list[Decimal], note: "1 / 0" = "") -> dict[str, Decimal]:
    return {}


@app.task(name="plain")
def plain(context: TaskContext, anything, word: str = ""):
    return word
"""


def test_a_worker_warns_of_annotations_that_cannot_be_resolved(shop: Folder) -> None:
    shop.write("shop/typed.py", TYPED)
    log = serve(shop, "shop.app", "--include", "shop.typed")
    missing = "and there is no 'Decimal' when it runs; import it outside of `if TYPE_CHECKING`"
    for line in (
        f"pay: parameter 'price' arrives as plain data: it is annotated 'Decimal', {missing}",
        f"pay: parameter 'more' arrives as plain data: it is annotated 'list[Decimal]', {missing}",
        f"pay: its result arrives as plain data: it is annotated 'dict[str, Decimal]', {missing}",
    ):
        assert line in log
    assert "pay: parameter 'note' arrives as plain data: it is annotated " in log and "(ZeroDivisionError: division by zero)" in log
    assert log.count("arrives as plain data") == 4, log


BUSY = """
from shop.app import app

class Busy(Exception): ...

def work() -> None:
    raise Busy

WELL_NAMED = [("shop.busy.Busy", "elsewhere.Busy"), Busy]
for number, names in enumerate([("shop.busy.Bsy",), "Busy", "json.JSONDecodeError", "shop.busy.work", *WELL_NAMED]):
    app.task(name=f"work-{number}", retry_for=names, max_retries=1)(work)
app.task(name="never", retry_for=Busy)(work)
app.task(name="sometimes", dont_retry_for=Busy)(work)
"""


def test_names_of_errors_that_no_error_bears_are_warned_of(shop: Folder) -> None:
    shop.write("shop/busy.py", BUSY)
    log = serve(shop, "shop.app", "--include", "shop.busy")
    warnings = [line.partition("WARNING ")[2].strip() for line in log.splitlines() if "WARNING" in line]
    assert warnings == [
        "work-0: retry_for names 'shop.busy.Bsy', which shop.busy does not have; did you mean 'shop.busy.Busy'?",
        "work-1: retry_for names 'Busy', which is no built-in exception; did you mean 'shop.busy.Busy'?",
        "work-2: retry_for names 'json.JSONDecodeError', whose own name is 'json.decoder.JSONDecodeError': write that, or the class itself",
        "work-3: retry_for names 'shop.busy.work', which is no exception",
        "never: retry_for without max_retries (0), so that nothing is retried; give max_retries to the task, or where it is enqueued",
    ]


def test_a_wrong_name_in_the_defaults_is_one_line(shop: Folder) -> None:
    shop.environ |= {"STEM_ISO_DEFAULT_RETRY_FOR": "ValueErorr,KeyError"}
    log = serve(shop, "shop.boot", "--include", "shop.tasks")
    names = "shop.inline, shop.isolated: retry_for names 'ValueErorr', which is no built-in exception; did you mean 'ValueError'?"
    assert log.count(names) == 1 and log.count("WARNING") == 1


def test_an_application_without_tasks_is_warned_of(shop: Folder) -> None:
    assert "shop.app:app declares no task" in serve(shop, "shop.app")


def test_settings_that_disagree_are_told_once(shop: Folder) -> None:
    shop.environ["STEM_ISO_CONCURRENCY"] = "3"
    shop.environ["STEM_ISO_BROKER"] = "redis://:hunter2@elsewhere/0"
    shop.write("shop/app.py", APP.replace("Stem()", 'Stem("sqlite:///here.db")'))
    log = serve(shop, "shop.boot", "-c", "2")
    assert log.count("STEM_ISO_CONCURRENCY (3) is overruled by --concurrency (2)") == 1
    assert log.count("STEM_ISO_BROKER (redis://***@elsewhere/0) is overruled by the broker that the application names in code") == 1
    assert "hunter2" not in log


def test_an_unknown_task_is_warned_of_once_and_a_burst_that_leaves_it_fails(shop: Folder) -> None:
    ids = [enqueue(shop, "shop.isolatde") for _ in range(3)]
    log = serve(shop, "shop.boot", "--include", "shop.tasks", code=1)
    assert log.count("no task is named 'shop.isolatde' here; did you mean 'shop.isolated'?: it is given back, for 60 s at most") == 1
    assert "left in the queue, because no task bears the name: 'shop.isolatde'" in log
    assert [shop.json("status", id)["state"] for id in ids] == ["queued"] * 3


def test_defaults_hold_in_the_worker_and_in_the_order_of_settings(shop: Folder) -> None:
    shop.write(
        "shop/app.py",
        "import time\nfrom stem_iso import Stem, TaskOptions\napp = Stem(defaults=TaskOptions(hard_time_limit=60, max_retries=0))\n"
        '@app.task(name="hang", isolate=True)\ndef hang() -> None:\n    time.sleep(60)\n',
    )
    shop.environ["STEM_ISO_DEFAULT_HARD_TIME_LIMIT"] = "0.2"
    id = enqueue(shop, "hang")
    log = serve(shop, "shop.app")
    assert "hard time limit of 0.2 s" in shop.json("result", id, code=1)["error"]["message"]
    assert "isolated without hard_time_limit" not in log
    shop.write("pyproject.toml", "[tool.stem_iso.defaults]\nhard_time_limti = 3\n")
    assert "did you mean 'hard_time_limit'" in serve(shop, "shop.app", code=2)
