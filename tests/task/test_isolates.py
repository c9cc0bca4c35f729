"""How an entrypoint gets into an isolate: by name, by place, or pickled. The isolate's half runs in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stem_iso import Stem, TaskContext, TaskHandler, TaskOptions
from stem_iso.isolate.interfaces import FAILED, SUCCEEDED
from stem_iso.task.codec import pack
from stem_iso.worker.entrypoints import Definition, EntrypointTable, boot_of
from tests.task.making import payload_of

ROOT = Path(__file__).parents[2]

# One call in a fresh process, as the isolate's program would make it: boot, define, run; the reply and what is loaded go to stdout.
CHILD = """
import sys
from tests.task.making import RecordingPort
from stem_iso.task.context_protocol import ContextAnswer
boot_payload, definition, call = (bytes.fromhex(each) for each in sys.argv[1:])
before = set(sys.modules)
from stem_iso.worker.child.task_runner import boot
from stem_iso.task.context_protocol import encode_request
port = RecordingPort(ContextAnswer(["id-1"]))
runner = boot(boot_payload, port)
kind, body = runner.run(runner.define(definition), call, port)
foreign = [name for name in ("loky", "redis", "sqlite3", "click", "asyncio") if name in set(sys.modules) - before]
requests = [bytes(encode_request(each)).hex() for each in port.requests]
print("REPLY", kind, body.hex(), ",".join(foreign) or "-", ",".join(requests) or "-")
"""


def in_python(arguments: list[str], folder: Path, path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, env={"PYTHONPATH": path}, check=False
    )


class Child:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, app: Stem, name: str, ready: bytes | None = None, **args: Any) -> tuple[int, Any]:
        """The reply of one isolated call; `foreign` and `output` say what else there was to see."""
        boot = boot_of(app)
        if ready is None:
            ready = msgspec.msgpack.encode({})
        self.definition = EntrypointTable(app).entry(name).definition(ready)
        hexes = [each.hex() for each in (boot.payload, self.definition, payload_of(args, name=name))]
        done = in_python(["-c", CHILD, *hexes], ROOT, str(ROOT))
        assert done.returncode == 0, done.stderr
        self.output, _, last = done.stdout.rpartition("REPLY ")
        kind, body, foreign, self.requests = last.split()
        self.foreign = foreign.split(",")
        return int(kind), msgspec.msgpack.decode(bytes.fromhex(body))

    @property
    def travelled(self) -> Definition:
        return msgspec.msgpack.decode(self.definition, type=Definition)


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Child:
    monkeypatch.chdir(tmp_path)
    return Child(tmp_path)


# -- what another process can import ---------------------------------------------------------------------------------------------------

app = Stem("memory://")
apps = {"hidden": Stem("memory://")}  # no attribute of any module holds it, so nobody can import it
hidden = apps["hidden"]
del hidden


@app.task(isolate=True)
def found(context: TaskContext, where: Path) -> tuple[Path, str, bool]:
    return where / "x", __name__, context.isolated


@apps["hidden"].task(isolate=True)
def placed(path: Path) -> str:
    return f"{type(path).__name__} in {__name__}"


def entrypoint(context: TaskContext, args: dict[str, Any]) -> str:
    return f"{sorted(args)} in {__name__}"


class Handler(TaskHandler[str]):
    name = "handler"
    options = TaskOptions(isolate_entrypoint=entrypoint)


apps["hidden"].register(Handler())


def ready_of(app: Stem) -> bytes:
    from stem_iso.worker.entrypoints import signature_of

    return msgspec.msgpack.encode({handler.name: signature_of(handler) for handler in app.registry})


def test_what_the_isolate_imports_itself_travels_as_a_name(child: Child) -> None:
    assert child.run(app, found.name, ready_of(app), where="a") == (SUCCEEDED, ["a/x", __name__, False])
    assert child.travelled == Definition(name=found.name)
    assert child.foreign == ["-"]


def test_a_handler_that_was_replaced_since_does_not_travel_as_the_name_of_another(child: Child) -> None:
    other = Stem("memory://")

    @other.task(name=found.name, isolate=True)
    def replaced(where: Path) -> str:
        return "the new one"

    assert child.run(other, found.name, ready_of(app), where="a") == (SUCCEEDED, "the new one")


@pytest.mark.parametrize(("name", "args", "result"), [(placed.name, {"path": "a"}, "PosixPath in "), ("handler", {"b": 1}, "['b'] in ")])
def test_a_function_of_a_module_is_never_carried_by_value(child: Child, name: str, args: dict[str, Any], result: str) -> None:
    assert child.run(apps["hidden"], name, **args) == (SUCCEEDED, f"{result}{__name__}")
    assert child.travelled.pickled is None
    assert child.travelled.place is not None
    assert child.travelled.place.startswith(f"{__name__}:")


def test_a_closure_is_carried_with_what_it_closes_over(child: Child) -> None:
    local, factor = Stem("memory://"), 7

    @local.task(isolate=True)
    def times(n: int, path: "Path") -> list[object]:  # noqa: UP037
        return [n * factor, type(path).__name__]

    assert child.run(local, times.name, n=3, path="a") == (SUCCEEDED, [21, "PosixPath"])
    assert child.travelled.pickled is not None


def test_a_coroutine_runs_in_a_loop_of_its_own(child: Child) -> None:
    local = Stem("memory://")

    @local.task(isolate=True)
    async def later(n: int) -> int:
        import asyncio

        await asyncio.sleep(0)
        return n

    assert child.run(local, later.name, n=3) == (SUCCEEDED, 3)


def test_an_application_and_its_tasks_travel_as_names_and_work_there(child: Child) -> None:
    local = Stem("memory://")

    @local.task(queue="images", isolate=True, cpu_bound=True)
    def sibling(path: str, width: int = 3) -> None: ...

    @local.task(isolate=True)
    def parent(context: TaskContext) -> list[str]:
        handle = sibling.using(priority=3, cpus=2).enqueue("cat")
        try:
            sibling("cat")
        except LookupError as error:
            return [handle.id, str(handle.queue), str(error)]
        return []

    kind, result = child.run(local, parent.name)
    assert (kind, result[:2]) == (SUCCEEDED, ["id-1", "images"])
    assert "not in this process" in result[2]
    assert pack({"path": "cat"}).hex() in child.requests


def test_hooks_of_an_application_that_cannot_be_imported_run_as_well(child: Child) -> None:
    local = Stem("memory://")

    @local.on_isolate_start
    def load() -> None:
        print("loaded")

    local.task(name="n", isolate=True)(lambda: 3)
    assert child.run(local, "n") == (SUCCEEDED, 3)
    assert child.output == "loaded\n"


def test_memory_is_out_of_reach_of_an_isolate_and_says_so(child: Child) -> None:
    local = Stem("memory://")
    local.task(name="n", isolate=True)(lambda: local.handle("x").status())
    kind, (error, _) = child.run(local, "n")
    assert (kind, error["type"]) == (FAILED, "stem_iso.errors.BrokerUnavailable")
    assert "context" in error["message"]


class Unloadable:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return int, ("no number",)


def test_an_entrypoint_that_cannot_be_loaded_fails_its_calls_and_nothing_else(child: Child) -> None:
    local, cargo = Stem("memory://"), Unloadable()
    local.task(name="n", isolate=True)(lambda: cargo)
    kind, (error, _) = child.run(local, "n")
    assert (kind, error["type"], error["retryable"]) == (FAILED, "ValueError", False)


def test_an_entrypoint_that_cannot_be_pickled_fails_where_it_is_pickled() -> None:
    import threading

    local, lock = Stem("memory://"), threading.Lock()
    local.task(name="n", isolate=True)(lambda: lock)
    with pytest.raises(TypeError, match="pickle"):
        EntrypointTable(local).entry("n").definition(msgspec.msgpack.encode({}))


# -- the program's own file ------------------------------------------------------------------------------------------------------------

PROGRAM = """
    import sys
    from pathlib import Path
    from stem_iso import Stem
    app = Stem("memory://")
    class Refused(Exception): ...
    @app.task(isolate=True, retry_for=(Refused,))
    def make(n: int) -> str:
        return f"{n} in {__name__}"
    if __name__ == "__main__":
        from tests.task.test_isolates import Child, ready_of
        child = Child(Path("."))
        print(make.name, app.options_of(make.name).retry_for, child.run(app, make.name, ready_of(app), n=3), child.travelled.pickled)
"""


@pytest.mark.parametrize("way", ["file", pytest.param("module", marks=pytest.mark.slow), pytest.param("dashed", marks=pytest.mark.slow)])
def test_a_program_is_loaded_under_its_real_name(tmp_path: Path, way: str) -> None:
    stem = "my-shop" if way == "dashed" else "shop"
    (tmp_path / f"{stem}.py").write_text(textwrap.dedent(PROGRAM))
    command = ["-m", "shop"] if way == "module" else [f"{stem}.py"]
    done = in_python(command, tmp_path, f"{ROOT}:{tmp_path}")
    assert done.stdout == f"{stem}.make ('{stem}.Refused',) (0, '3 in {stem}') None\n", done.stderr


def test_a_program_that_enqueues_wherever_it_is_imported_is_stopped(tmp_path: Path) -> None:
    program = """
        from stem_iso import Stem
        from stem_iso.client.app_location import Location, import_app
        app = Stem("sqlite:///x.db")
        @app.task
        def make() -> None: ...
        make.enqueue()
    """
    (tmp_path / "loose.py").write_text(textwrap.dedent(program))
    code = 'from stem_iso.client.app_location import Location, import_app; import_app(Location("loose", "app"), object)'
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.stderr.strip().endswith('enqueueing while an isolate imports the module: put it below `if __name__ == "__main__":`')
    assert not (tmp_path / "x.db").exists()


@pytest.mark.slow
def test_an_application_below_the_guard_is_carried(tmp_path: Path) -> None:
    program = """
        from pathlib import Path
        from stem_iso import Stem
        if __name__ == "__main__":
            import threading
            from tests.task.test_isolates import Child
            app, lock = Stem("memory://"), threading.Lock()
            app.task(name="n", isolate=True)(lambda: __name__)
            child = Child(Path("."))
            print(child.run(app, "n"))
            app.on_isolate_start(lambda: print("hooked"))
            print(child.run(app, "n"), child.output)
            app.on_isolate_start(lambda: lock)
            try:
                child.run(app, "n")
            except AssertionError as error:
                print(str(error).splitlines()[-1])
    """
    (tmp_path / "shop.py").write_text(textwrap.dedent(program))
    for command in (["shop.py"], ["-m", "shop"]):
        done = in_python(command, tmp_path, f"{ROOT}:{tmp_path}")
        first, second, hooked, refused = done.stdout.splitlines()
        assert first == "(0, '__main__')"
        assert (second, hooked) == ("(0, '__main__') hooked", "")
        assert "make the application at the top of its module" in refused


def test_a_handler_that_looks_at_a_task_finds_its_parents_broker(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    local = Stem("sqlite:///jobs.db")
    waiting = local.enqueue("other").id
    local.task(name="n", isolate=True)(lambda: local.handle(waiting).status().name)
    (child.folder / "elsewhere").mkdir()
    monkeypatch.chdir(child.folder / "elsewhere")
    assert child.run(local, "n") == (SUCCEEDED, "other")
