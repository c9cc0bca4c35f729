"""What people mistype, and what they get: one line, an exit code, and never a traceback that is not theirs."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Folder


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["wrker"], "did you mean 'worker'"),
        (["queues", "--jsn"], "--json"),
        (["queues", "--broker", "reddis://localhost/0"], "did you mean 'redis'"),
        (["queues", "--broker", "memory://"], "memory:// lives in one process"),
        (["queues", "--broker", "jobs.db"], "sqlite:///jobs.db"),
        (["queues", "-A", "nothere:app"], "no module 'nothere'"),
        (["queues", "-A", "jobs:ap"], "did you mean 'app'"),
        (["queues", "-A", "jobs:add"], "not a Stem"),
        (["queues", "-A", "two"], "two has app, other"),
        (["queues", "-A", "./jobs.py"], "module:app"),
        (["enqueue", "add", "--args", '{"a": 1'], "line 1, column 8"),
        (["enqueue", "add", "--args", "[1]"], "object of parameter names"),
        (["enqueue", "add", "-A", "jobs", "--args", '{"wrong": 1}'], "wrong"),
        (["dlq", "replay"], "--all"),
        (["dlq", "list", "--since", "yesterday"], "is no date"),
        (["worker"], "which application"),
        (["worker", "-A", "jobs", "--spaers", "1"], "--spares"),
        (["worker", "-A", "jobs", "--spares", "one"], "--spares: 'one' must be a whole number"),
        (["worker", "-A", "jobs", "-Q", ""], "--queues: '' is empty"),
        (["worker", "-A", "jobs", "-Q", "default", "--broker", "memory://"], "memory:// lives in one process"),
        (["worker", "-A", "jobs", "--broker", "redis://localhost/zero"], "'zero' is no number"),
        (["worker", "-A", "nothere"], "no module 'nothere'"),
    ],
)
def test_a_wrong_word_ends_with_2(folder: Folder, command: list[str], message: str) -> None:
    folder.write("two.py", "from stem_iso import Stem\napp = Stem()\nother = Stem('sqlite:///other.db')\n")
    done = folder.stem(*command)
    assert done.returncode == 2, done
    assert message.replace("two has app", "it has app") in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("command", [["queues"], ["worker"]])
@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("import nowhere.at_all\n", "No module named 'nowhere'"),
        ("def f():\n    1 / 0\nf()\n", "ZeroDivisionError"),
        ("import sys\nsys.exit('no settings')\n", "no settings"),
        ("from stem_iso import Stem\napp = Stem(\n", "SyntaxError"),
    ],
)
def test_a_broken_module_shows_its_own_traceback(folder: Folder, command: list[str], module: str, message: str) -> None:
    folder.write("broken.py", module)
    done = folder.stem(*command, "-A", "broken:app")
    assert done.returncode == 2, done
    assert message in done.stderr and 'broken.py", line' in done.stderr
    assert "stem_iso/" not in done.stderr and "importlib" not in done.stderr


@pytest.mark.parametrize("command", [["status", "nothing"], ["result", "nothing"], ["revoke", "nothing"], ["dlq", "show", "nothing"]])
def test_an_unknown_id_ends_with_1(folder: Folder, command: list[str]) -> None:
    done = folder.stem(*command)
    assert done.returncode == 1, done
    assert "nothing" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["queues"], ["enqueue", "add", "-A", "jobs", "--args", '{"a": 1}'], ["worker", "-A", "jobs"]])
def test_a_broker_out_of_reach_ends_with_3(folder: Folder, command: list[str]) -> None:
    done = folder.stem(*command, "--broker", f"sqlite:///{folder.path}/no/such/folder/jobs.db")
    assert done.returncode == 3, done
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_every_command_says_what_it_does(folder: Folder) -> None:
    for command in (
        [],
        ["worker"],
        ["enqueue"],
        ["status"],
        ["result"],
        ["revoke"],
        ["queues"],
        ["workers"],
        ["events"],
        ["dlq", "replay"],
    ):
        done = folder.stem(*command, "--help")
        assert done.returncode == 0 and "Usage:" in done.stdout, done


@pytest.mark.slow
def test_the_application_may_come_from_the_environment_or_the_file(folder: Folder) -> None:
    folder.environ["STEM_ISO_BROKER"] = f"sqlite:///{folder.path}/environ.db"
    id = folder.enqueue("add", a=1)
    folder.write("pyproject.toml", "[tool.stem_iso]\napp = 'jobs'\nburst = true\nlog_format = 'json'\n")
    worked = folder.run("-m", "stem_iso.worker")
    assert worked.returncode == 0, worked
    assert (worked.stdout + worked.stderr).startswith("{")
    assert folder.json("result", id)["result"] == 2


def test_importing_the_package_imports_none_of_the_rest(folder: Folder) -> None:
    done = folder.run(
        "-c", "import sys, stem_iso, jobs; print(*sorted({'click', 'loky', 'sqlite3', 'asyncio', 'cloudpickle'} & set(sys.modules)))"
    )
    assert done.returncode == 0 and done.stdout.strip() == "", done
