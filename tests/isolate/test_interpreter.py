"""The interpreter of an isolate is the program's: its flags, its search path, and multiprocessing as in any program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from stem_iso import IsolatePool
from stem_iso.isolate.interpreter import reordered, warnings_of
from tests.isolate.calling import BOUND
from tests.isolate.parallel import current, default_after_a_process, joined, pool_of, semaphore_name, start_method, through_loky

ROOT = str(Path(__file__).parents[2])


def run(*command: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=BOUND, cwd=cwd, env={**os.environ, **env})


# -- multiprocessing -------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_function_may_use_multiprocessing_as_any_program() -> None:
    with IsolatePool(1, spares=0) as pool:
        limited = pool.with_limits(hard=60)
        assert limited.submit(joined, None).result() == 0
        assert limited.submit(start_method, "spawn").result() == "spawn"
        assert limited.submit(default_after_a_process).result() == "fork"  # nothing of the call before
        for method in ("fork", "spawn", "forkserver"):
            assert limited.submit(joined, method).result() == 0
            assert limited.submit(pool_of, method).result() == [2, 4, 6]
        assert limited.submit(through_loky).result() == [2, 4, 6]
        assert limited.submit(current).result() == ("MainProcess", False, None)
        assert limited.submit(semaphore_name).result().startswith("/mp-")


@pytest.mark.slow
def test_functions_of_a_script_may_use_multiprocessing_as_any_script(tmp_path: Path) -> None:
    script = dedent("""
        import multiprocessing as mp, sys
        from concurrent.futures import ProcessPoolExecutor
        from stem_iso import IsolatePool

        def double(x):
            return 2 * x

        def by_pool(method):
            with mp.get_context(method).Pool(2) as pool:
                return pool.map(double, [1, 2, 3])

        def by_executor(method):
            with ProcessPoolExecutor(1, mp_context=mp.get_context(method)) as pool:
                return list(pool.map(double, [1, 2, 3]))

        if __name__ == "__main__":
            with IsolatePool(1, spares=0) as pool:
                for function in (by_pool, by_executor):
                    for method in ("fork", "spawn", "forkserver"):
                        print(function.__name__, method, pool.with_limits(hard=60).submit(function, method).result())
    """)
    (tmp_path / "script.py").write_text(script)
    wanted = [f"{name} {method} [2, 4, 6]" for name in ("by_pool", "by_executor") for method in ("fork", "spawn", "forkserver")]
    for command in (("script.py",), ("-m", "script")):
        done = run(*command, cwd=tmp_path, PYTHONPATH=ROOT)
        assert done.stdout.splitlines() == wanted, done.stderr


# -- flags -----------------------------------------------------------------------------------------------------------------------------

LOOK = dedent("""
    import sys
    def look():
        flags = [name for name in dir(sys.flags) if name[0] != "_" and isinstance(getattr(sys.flags, name), int)]
        options = {name: value for name, value in sys._xoptions.items() if name != "importtime"}
        return [{name: getattr(sys.flags, name) for name in flags}, sys.warnoptions, options]
""")
PROGRAM = dedent("""
    from stem_iso import IsolatePool
    from look import look
    import sys
    if __name__ == "__main__":
        with IsolatePool(1, spares=0) as pool:
            isolate, here = pool.submit(look).result(), look()
        print("same" if isolate == here else f"{here} here\\n{isolate} there")
""")


@pytest.mark.parametrize(
    ("flags", "env"),
    [
        (["-O", "-W", "error::UserWarning", "-X", "utf8", "-B", "-b", "-u"], {}),
        (["-OO", "-X", "dev", "-X", "frozen_modules=off", "-s", "-bb"], {"PYTHONWARNINGS": "ignore::ImportWarning,once"}),
        (["-q", "-X", "importtime", "-X", "int_max_str_digits=5000"], {"PYTHONOPTIMIZE": "1", "PYTHONSAFEPATH": "1"}),
        (["-E"], {"PYTHONPATH": "{bad}", "PYTHONWARNINGS": "error"}),
        (["-I"], {"PYTHONHOME": "/nowhere"}),
        (["-P"], {}),
        (["-S"], {}),
    ],
)
def test_an_isolate_has_the_flags_of_its_program(tmp_path: Path, flags: list[str], env: dict[str, str]) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "json.py").write_text("1 / 0")
    (tmp_path / "look.py").write_text(LOOK)
    (tmp_path / "prog.py").write_text(f"import sys; sys.path += [{str(tmp_path)!r}, *{[each for each in sys.path if each]!r}]\n{PROGRAM}")
    given = {name: value.format(bad=tmp_path / "bad") for name, value in env.items()}
    done = run(*flags, str(tmp_path / "prog.py"), **given)
    assert done.stdout == "same\n", (done.stdout, done.stderr[-2000:])


def test_what_python_adds_to_the_warning_options_by_itself_is_not_given_twice() -> None:
    assert warnings_of(["error"], [""], False, 0) == ["error"]
    assert warnings_of(["default", "once", "error", "default::BytesWarning"], ["once"], True, 1) == ["error"]
    assert warnings_of(["once", "error::BytesWarning"], [], False, 2) == ["once"]
    assert warnings_of(["error"], ["once"], False, 1) == ["error"]  # somebody changed the list since


# -- search path -----------------------------------------------------------------------------------------------------------------------

WHICH = dedent("""
    import sys
    from stem_iso import IsolatePool
    def which():
        import stringprep
        return [stringprep.__file__, sys.path]
    if __name__ == "__main__":
        with IsolatePool(1, spares=0) as pool:
            isolate, here = pool.submit(which).result(), which()
        print("same" if isolate == here else f"{here} here, {isolate} there", stringprep_is_ours(here[0]))
""")


@pytest.mark.parametrize(
    ("flags", "cwd_first"), [(["prog.py"], False), (["-P", "prog.py"], False), (["-I", "prog.py"], False), (["-m", "prog"], True)]
)
def test_an_isolate_looks_where_its_program_looks(tmp_path: Path, flags: list[str], cwd_first: bool) -> None:
    """A file of the working folder that is named like a module of the standard library, or like one that we import ourselves."""
    downloads, there = tmp_path / "downloads", tmp_path / "there"
    for folder in (downloads, there):
        folder.mkdir()
    (downloads / "stringprep.py").write_text("")
    for ours in ("json", "msgspec", "loky", "selectors", "setproctitle", "pickle", "socket"):
        (downloads / f"{ours}.py").write_text("raise SystemExit('imported from the working folder')")
    judge = f"def stringprep_is_ours(file): return file.startswith({str(downloads)!r})\n"
    path = f"import sys; sys.path += {[each for each in sys.path if each]!r}\n" if "-I" in flags else ""
    (there / "prog.py").write_text(path + judge + WHICH)
    if cwd_first:
        # As with any `python -m`, the program itself would import them from there: here it has imported its own before.
        (downloads / "prog.py").write_text(
            f"import sys; sys.path.pop(0); import stem_iso.isolate.pool.pool; sys.path.insert(0, {str(downloads)!r})\n{judge}{WHICH}"
        )
    command = [*flags[:-1], str(there / "prog.py")] if not cwd_first else flags
    done = run(*command, cwd=downloads, **({} if cwd_first else {"PYTHONPATH": ROOT}))
    assert done.stdout == f"same {cwd_first}\n", done.stderr[-2000:]


def test_our_own_imports_look_into_the_standard_library_first() -> None:
    library = "/usr/lib/python3.11"
    zipped = f"/usr/lib/python{sys.version_info.major}{sys.version_info.minor}.zip"
    path = ["/work", zipped, library, f"{library}/lib-dynload", f"{library}/site-packages"]
    assert reordered(path, library, ["/checkout"]) == [
        zipped,
        library,
        f"{library}/lib-dynload",
        "/checkout",
        "/work",
        f"{library}/site-packages",
    ]
