"""Whole programs with an `IsolatePool`: where their functions stand, how they end, and what is left when they are killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.isolate.calling import BOUND, assert_dead, descendants, pid_in

PROGRAM = dedent("""
    from dataclasses import dataclass
    from stem_iso import IsolatePool

    FACTOR = 3

    @dataclass
    class Point:
        x: int

    class Broken(Exception):
        pass

    def times(value):
        return value * FACTOR

    def moved(point):
        return Point(point.x + 1)

    def broken():
        raise Broken("mine", 1)

    if __name__ == "__main__":
        with IsolatePool(1, spares=0) as pool:
            FACTOR = 5  # since the function was defined
            assert pool.submit(times, 4).result() == 20
            assert pool.submit(moved, Point(1)).result() == Point(2)
            assert list(pool.map(moved, [Point(1), Point(2)], chunksize=2)) == [Point(2), Point(3)]
            error = pool.submit(broken).exception()
            assert type(error) is Broken and error.args == ("mine", 1), error
            assert pool.submit(lambda: Point).result() is Point
        print("all well")
""")


def run(*command: str, text: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run([sys.executable, *command], input=text, capture_output=True, text=True, timeout=BOUND, cwd=cwd, env=env)


@pytest.mark.parametrize("way", ["by path", "-m", "-c", "stdin", "as a package"])
def test_functions_and_classes_of_the_main_module_travel_both_ways(tmp_path: Path, way: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text(PROGRAM)
    command, text = {
        "by path": (("program.py",), ""),
        "-m": (("-m", "program"), ""),
        "-c": (("-c", PROGRAM), ""),
        "stdin": (("-",), PROGRAM),
        "as a package": (("-m", "package"), ""),
    }[way]
    done = run(*command, text=text, cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("all well\n", 0), done.stderr


def test_functions_typed_into_a_repl_run(tmp_path: Path) -> None:
    typed = dedent("""
        from stem_iso import IsolatePool
        pool = IsolatePool(1, spares=0)
        def triple(value):
            return value * 3

        pool.submit(triple, 4).result()
        def triple(value):
            return value * 300

        pool.submit(triple, 4).result()
        pool.shutdown()
    """)
    done = run("-i", "-q", text=typed)
    assert done.stdout.split() == ["12", "1200"], done.stderr
    assert done.returncode == 0


def test_a_program_that_forgets_to_shut_down_finishes_what_it_submitted(tmp_path: Path) -> None:
    forgetful = dedent(f"""
        import os, time
        from stem_iso import IsolatePool
        from tests.isolate import work
        pool = IsolatePool(1)
        futures = [pool.submit(time.sleep, 0.2)]
        for number in range(5):
            pool.submit(work.append, {str(tmp_path / "ledger")!r}, str(number))
        pool.submit(work.print_text, "printed at last").add_done_callback(lambda future: os.write(1, b"called back\\n"))
    """)
    done = run("-c", forgetful)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ledger").read_text().split() == ["0", "1", "2", "3", "4"]
    assert sorted(done.stdout.splitlines()) == ["called back", "printed at last"]


def test_a_line_that_a_function_prints_is_written_in_one_piece_on_unbuffered_streams_too() -> None:
    program = dedent("""
        from stem_iso import IsolatePool
        from tests.isolate import work
        with IsolatePool(1) as pool:
            pool.submit(work.print_text, "a line")
    """)
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # each write is a message
    with ours:
        with its:
            done = subprocess.run(
                [sys.executable, "-u", "-c", program], stdout=its, stderr=its, cwd=Path(__file__).parents[2], timeout=BOUND
            )
        assert done.returncode == 0
        written = [ours.recv(1000) for _ in range(3)]
    assert written == [b"a line\n", b"a line\n", b""]


@pytest.mark.parametrize(
    "program",
    [
        "pool = IsolatePool(2)",
        "IsolatePool(2)",
        "pool = IsolatePool(2); pool.submit(abs, 1).cancel(); raise SystemExit(0)",
        "pool = IsolatePool(2); futures = [pool.submit(abs, n) for n in range(100)]; del pool",
        # From 3.12 on Python warns of any fork beside threads, and a pool has some, as every executor; the fork is this program's own.
        "import os, warnings\nwarnings.simplefilter('ignore', DeprecationWarning)\n"
        "pool = IsolatePool(2)\nif os.fork() == 0: raise SystemExit(0)\nassert os.wait()[1] == 0; pool.submit(abs, 1).result()",
        "import threading\npool = IsolatePool(2)\nthreading.Thread(target=lambda: pool.submit(abs, 1).result()).start()",
        "import asyncio\npool = IsolatePool(2)\nassert asyncio.run(pool.run(abs, -1)) == 1",
        "pool = IsolatePool(2)\nimport atexit\natexit.register(lambda: pool.submit(abs, 1).result())",
        "pool = IsolatePool(1, initializer=exit)",
    ],
)
def test_a_program_never_hangs_at_its_end_because_of_us(program: str) -> None:
    done = run("-c", f"from stem_iso import IsolatePool\n{program}")
    assert (done.returncode, done.stderr) == (0, "")


KILLED = dedent("""
    import sys
    from stem_iso import IsolatePool
    from tests.isolate import handlers
    pool = IsolatePool(2)
    pool.submit(abs, 1).result()
    folder = sys.argv[1]
    futures = [pool.submit(handlers.write_pid_and_spin, folder + "/spin"), pool.submit(handlers.daemon, folder + "/daemon")]
    print("runs", flush=True)
    futures[0].result()
""")


def started(tmp_path: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A program with a spinning call, a daemon with an empty environment, and all that is below it."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    program = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "runs\n"
    pids = [pid_in(tmp_path / name) for name in ("spin", "daemon")]
    return program, [*pids, *descendants(program.pid)]


def test_a_program_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    program, below = started(tmp_path)
    assert len(below) >= 5
    program.kill()
    program.communicate()
    assert_dead(*below, within=1.0)


def test_one_ctrl_c_ends_a_waiting_program_and_all_it_started(tmp_path: Path) -> None:
    program, below = started(tmp_path)
    program.send_signal(signal.SIGINT)
    _, stderr = program.communicate(timeout=BOUND)
    assert "KeyboardInterrupt" in stderr
    assert_dead(*below, within=1.0)


IN_HANDLERS = dedent("""
    import concurrent.futures, faulthandler, os, signal, sys, threading, time
    from stem_iso import IsolatePool

    pool = IsolatePool(1)
    pool.submit(time.sleep, 100)
    futures = [pool.submit(time.sleep, 1) for _ in range(2000)]

    def wait_for_ever():
        while True:
            concurrent.futures.wait(futures, timeout=0.0)

    def handle(*_):
        {in_handler}
        signal.setitimer(signal.ITIMER_REAL, 0.002)

    threading.Thread(target=wait_for_ever, daemon=True).start()
    sys.setswitchinterval(0.0005)
    signal.signal(signal.SIGALRM, handle)
    faulthandler.dump_traceback_later(30, exit=True)
    handle()
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        pool.submit(pow, 2, 3)
    print("went on", flush=True)
    os._exit(0)
""")


@pytest.mark.slow
@pytest.mark.repeat
@pytest.mark.parametrize("in_handler", ["futures.pop().cancel() if futures else None", "pool.submit(pow, 1, 1)", "repr(pool)"])
def test_a_signal_handler_may_use_the_pool_wherever_it_interrupts_it(in_handler: str) -> None:
    done = run("-c", IN_HANDLERS.format(in_handler=in_handler))
    assert (done.returncode, done.stdout) == (0, "went on\n"), done.stderr


@pytest.mark.slow
def test_a_program_without_free_descriptors_gets_an_error_and_can_end() -> None:
    done = run(
        "-c",
        dedent("""
            import os, resource
            from stem_iso import IsolateBootError, IsolatePool

            held = []
            def launched_without_a_free_descriptor(*args):
                launch(*args)
                try:
                    while True:
                        held.append(os.open("/dev/null", os.O_RDONLY))
                except OSError:
                    pass

            with IsolatePool(1, spares=0) as pool:
                isolates = pool._backend.engine._isolates
                launch, isolates._launch = isolates._launch, launched_without_a_free_descriptor  # chooses the moment
                resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
                error = pool.submit(pow, 2, 3).exception(5)
                assert isinstance(error, IsolateBootError) and ("descriptor" in error.traceback or "open files" in error.traceback), error
                isolates._launch = launch
                for fd in held:
                    os.close(fd)
                assert pool.submit(pow, 2, 3).result(5) == 8
            print("all well")
        """),
    )
    assert done.stdout == "all well\n", done.stderr


def test_a_search_path_may_hold_what_import_ignores() -> None:
    done = run(
        "-c",
        dedent("""
            import pathlib, sys
            from stem_iso import IsolatePool
            sys.path.append(pathlib.Path("/"))
            with IsolatePool(1, spares=0) as pool:
                print(pool.submit(pow, 2, 3).result(20))
        """),
    )
    assert done.stdout == "8\n", done.stderr


def test_a_start_that_cannot_be_asked_for_is_a_failed_boot() -> None:
    done = run(
        "-c",
        dedent("""
            import os, sys
            from stem_iso import IsolateBootError, IsolatePool
            endless, deep = [], []
            endless.append(endless)
            for _ in range(100_000):
                deep = [deep]
            named = {"TypeError": [object()], "ValueError": endless, "RecursionError": deep, "AttributeError": [1234]}
            with IsolatePool(1, spares=0, secrets=["A_SECRET"]) as pool:
                for name, argv in named.items():
                    sys.argv = argv
                    os.environ["A_SECRET"] = "1234567" if name == "AttributeError" else ""
                    error = pool.submit(pow, 2, 3).exception(20)
                    assert isinstance(error, IsolateBootError) and name in error.traceback, error
                sys.argv = [""]
                print(pool.submit(pow, 2, 3).result(20))
        """),
    )
    assert done.stdout == "8\n", done.stderr


def test_a_pool_ends_at_once_while_a_forked_child_of_its_program_lives() -> None:
    done = run(
        "-c",
        dedent("""
            import os, signal, time
            from stem_iso import IsolatePool
            pool = IsolatePool(1)
            pool.submit(pow, 2, 3).result(20)
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            began = time.monotonic()
            pool.shutdown()
            taken = time.monotonic() - began
            os.kill(child, signal.SIGKILL)
            print("at once" if taken < 4 else taken)
        """),
    )
    assert done.stdout == "at once\n", done.stderr


@pytest.mark.slow
def test_a_soft_limit_that_passes_while_the_function_is_imported_is_raised_in_it(tmp_path: Path) -> None:
    (tmp_path / "slow_import.py").write_text("import time\ntime.sleep(0.5)\ndef idle():\n    time.sleep(5)\n    return 'ran on'\n")
    done = run(
        "-c",
        dedent("""
            import slow_import
            from stem_iso import IsolatePool
            with IsolatePool(1, spares=0) as pool:
                pool.submit(pow, 2, 3).result(20)
                for _ in range(2):
                    print(repr(pool.with_limits(soft=0.1, hard=20, raise_soft=True).submit(slow_import.idle).exception(20)))
        """),
        cwd=tmp_path,
    )
    assert done.stdout == "SoftTimeLimitExceeded('soft time limit reached')\n" * 2, done.stderr


def test_a_module_of_the_working_folder_that_is_named_like_one_of_pythons_is_not_run_by_the_runtime(tmp_path: Path) -> None:
    for name in ("json", "signal", "struct"):
        (tmp_path / f"{name}.py").write_text(f"print('{name} of the folder')\nraise SystemExit(9)\n")
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "main.py").write_text(
        "import os\nfrom stem_iso import IsolatePool\n"
        "with IsolatePool(1) as pool:\n    print(pool.submit(os.environ.get, 'PYTHONSAFEPATH').result(20))\n"
    )
    done = run(str(tmp_path / "program" / "main.py"), cwd=tmp_path)
    assert done.stdout == "None\n", done.stdout + done.stderr


GEVENT = """
import select, sys, types
monkey = types.ModuleType("gevent.monkey")
monkey.is_module_patched = lambda name: name in ("threading", "select")  # as after monkey.patch_all(), which removes select.epoll as well
sys.modules["gevent.monkey"] = monkey
"""


@pytest.mark.parametrize(("patched", "named"), [(GEVENT, "select, threading"), ("", "select")])
def test_a_program_that_gevent_has_patched_gets_an_error_with_the_way_out(patched: str, named: str) -> None:
    for made in ("IsolatePool(1)", "Worker(Stem('memory://')).run()"):
        done = run("-c", f"import select\nfrom stem_iso import IsolatePool, Stem, Worker\n{patched}\ndel select.epoll\n{made}")
        last = done.stderr.splitlines()[-1]
        assert last.startswith("RuntimeError: ") and f"{named} of this process are replaced" in last, done.stderr
        assert "monkey.patch_all(select=False, socket=False, subprocess=False, queue=False, thread=False)" in last
