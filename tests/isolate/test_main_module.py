"""The functions of a script share one `__main__` in their isolate, as they do in a process of multiprocessing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.isolate.calling import BOUND

ROOT = str(Path(__file__).parents[2])


def run(folder: Path, *command: str, text: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": ROOT}
    return subprocess.run([sys.executable, *command], input=text, capture_output=True, text=True, timeout=BOUND, cwd=folder, env=env)


SCRIPT = dedent("""
    import functools, pickle, sys, threading
    from stem_iso import IsolatePool

    MODEL, SEEN, CONFIG = "untrained", [], {"factor": 2}
    LOCK = threading.Lock()

    class Base:
        made = 0
        def __init__(self):
            type(self).made += 1

    class Left(Base):
        pass

    class Right(Base):
        other = Left

    Left.other = Right
    DEFAULT = Left()

    def logged(function):
        @functools.wraps(function)
        def wrapper(*args):
            SEEN.append(function.__name__)
            return function(*args)
        return wrapper

    def load(name):
        global MODEL
        MODEL = f"trained, from {name}"

    def predict(x, calls=[]):
        calls.append(x)
        SEEN.append(x)
        return MODEL, len(calls), list(SEEN)

    @functools.lru_cache
    def once(x):
        SEEN.append("once")
        return x

    @logged
    def scaled(x):
        return x * CONFIG["factor"]

    def holders(given):
        assert type(DEFAULT) is Left and Left.other is Right and Right.other is Left
        return Left(), isinstance(given, Right), Left.made

    def by_name():
        main = sys.modules["__main__"]
        return pickle.loads(pickle.dumps(by_name)) is by_name is main.by_name and main.__name__ == __name__ == "__main__"

    def deleted():
        global MODEL
        del MODEL
        return "MODEL" in globals()

    def locked():
        return LOCK

    if __name__ == "__main__":
        with IsolatePool(1, spares=0, initializer=load, initargs=("m.bin",)) as pool:
            def call(function, *args):
                return pool.submit(function, *args).result(60)
            assert call(predict, 1) == ("trained, from m.bin", 1, [1])
            assert call(predict, 2) == ("trained, from m.bin", 2, [1, 2])
            assert list(pool.map(predict, [3, 4], chunksize=2))[-1][1:] == (4, [1, 2, 3, 4])
            assert call(lambda: MODEL) == "trained, from m.bin"
            assert [call(once, 5), call(once, 5)] == [5, 5]
            assert call(scaled, 5) == 10
            assert call(lambda: SEEN[4:]) == ["once", "scaled"]
            CONFIG["factor"] = 3  # what the program changes arrives, and nothing else is as new
            assert call(scaled, 5) == 15
            MODEL = "changed by the program"
            assert call(predict, 6)[:2] == ("changed by the program", 5)
            left, right, made = call(holders, Right())
            assert type(left) is Left and right and made == 2, (left, right, made)
            assert call(holders, Right())[2] == 3
            assert call(by_name)
            assert "LOCK" not in dir(pool) and isinstance(pool.submit(locked).exception(60), TypeError)
            assert call(deleted) is False
            assert SEEN == [] and MODEL == "changed by the program"
        print("all well")
""")


@pytest.mark.parametrize("way", ["by path", "-m", "stdin"])
def test_functions_of_a_script_share_its_globals_in_their_isolate(tmp_path: Path, way: str) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = {"by path": ("script.py",), "-m": ("-m", "script"), "stdin": ("-",)}[way]
    done = run(tmp_path, *command, text=SCRIPT if way == "stdin" else "")
    assert (done.stdout, done.returncode) == ("all well\n", 0), done.stderr


def test_a_replaced_definition_replaces_what_uses_it(tmp_path: Path) -> None:
    typed = dedent("""
        from stem_iso import IsolatePool
        pool = IsolatePool(1, spares=0)
        SEEN = []
        def rate(): return 3

        class Price:
            def __init__(self, value): self.value = value * rate()

        def price(value): SEEN.append(value); return Price(value).value, len(SEEN)

        pool.submit(price, 4).result()
        def rate(): return 5

        pool.submit(price, 4).result()
        class Price:
            def __init__(self, value): self.value = -value

        pool.submit(price, 4).result()
        pool.shutdown()
    """)
    done = run(tmp_path, "-i", "-q", text=typed)
    assert done.stdout.split("\n")[:3] == ["(12, 1)", "(20, 2)", "(-4, 3)"], done.stderr


def test_what_cannot_be_loaded_fails_its_calls_and_is_loaded_when_it_can_be(tmp_path: Path) -> None:
    script = dedent("""
        import os
        from stem_iso import IsolatePool

        class Fragile:
            def __reduce__(self):
                return os.stat, (PATH,)

        PATH = os.getcwd() + "/later"
        VALUE = Fragile()

        def use():
            return type(VALUE).__name__

        with IsolatePool(1, spares=0) as pool:
            print(type(pool.submit(use).exception(60)).__name__)
            open(PATH, "w").close()
            print(pool.submit(use).result(60))
    """)
    (tmp_path / "script.py").write_text(script)
    assert run(tmp_path, "script.py").stdout.split() == ["FileNotFoundError", "stat_result"]


def test_handlers_that_stand_in_main_share_its_globals(tmp_path: Path) -> None:
    """An application that is made below the guard: what isolates cannot import is carried to them."""
    script = dedent("""
        from stem_iso import Stem, Worker

        SEEN = []

        def count(value: int) -> int:
            SEEN.append(value)
            return len(SEEN)

        def total() -> int:
            return sum(SEEN)

        if __name__ == "__main__":
            app = Stem("memory://")
            counted, summed = app.task(isolate=True)(count), app.task(isolate=True)(total)
            with Worker(app, concurrency=1, spares=0):
                print([counted.enqueue(value).result(timeout=60) for value in (5, 6)], summed.enqueue().result(timeout=60))
    """)
    (tmp_path / "script.py").write_text(script)
    done = run(tmp_path, "script.py")
    assert done.stdout == "[1, 2] 11\n", done.stderr
