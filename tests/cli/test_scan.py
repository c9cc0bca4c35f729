"""The demo does what it shows: the matches are right, and what never ends is killed while the rest goes on."""

from __future__ import annotations

import re
import signal
import sysconfig
from pathlib import Path

import pytest

from stem_iso.testing import eventually
from tests.cli.conftest import Folder

ORDINARY = [r"^\s*def\s+(\w+)", r"\bimport\b", r"(\w+)\s+\1\b"]
ENDLESS = r"(a+)+$"


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A small part of the standard library."""
    folder = tmp_path / "sources"
    folder.mkdir()
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted((library / "json").glob("*.py")) + sorted((library / "concurrent" / "futures").glob("*.py")):
        (folder / f"{path.parent.name}_{path.name}").write_bytes(path.read_bytes())
    return folder


def by_re(pattern: str, folder: Path) -> int:
    return sum(len(re.findall(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)) for path in folder.glob("*.py"))


@pytest.mark.slow
def test_ordinary_patterns_match_what_re_matches_and_an_endless_one_is_killed(folder: Folder, sources: Path) -> None:
    patterns = [word for pattern in [*ORDINARY, ENDLESS] for word in ("--pattern", pattern)]
    done = folder.run("-m", "entrypoints.scan", "--path", str(sources), *patterns)
    assert done.returncode == 0, done
    for pattern in ORDINARY:
        line = next(line for line in done.stdout.splitlines() if line.startswith(pattern))
        assert int(line.removeprefix(pattern).split()[0].replace(",", "")) == by_re(pattern, sources) > 0
    assert f"! {ENDLESS} has run for 1." in done.stdout
    assert "scan (tasks.py:" in done.stdout and "count (tasks.py:" in done.stdout
    assert re.search(r"file      .*/provoking\.py\n", done.stdout)
    killed = re.search(r"limit     2 s; signalled ([\d.]+) ms and dead ([\d.]+) ms after it", done.stdout)
    assert killed is not None and 0 <= float(killed[1]) <= float(killed[2]) < 1000


@pytest.mark.slow
def test_ctrl_c_stops_all_and_leaves_nothing(folder: Folder, sources: Path) -> None:
    folder.environ["TMPDIR"] = str(folder.path)
    process = folder.start("-m", "entrypoints.scan", "--path", str(sources), "--pattern", ENDLESS)
    assert process.stdout is not None
    while not process.stdout.readline().startswith("!"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, complaint = process.communicate(timeout=30)
    assert process.returncode == 130 and complaint == ""
    assert out.endswith("stopped\n")
    assert list(folder.path.glob("stem_iso-scan-*")) == []
    assert _with_variable("TMPDIR", str(folder.path)) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_its_worker_does_not_outlive_it(folder: Folder, sources: Path, number: int) -> None:
    folder.environ["TMPDIR"] = str(folder.path)
    process = folder.start("-m", "entrypoints.scan", "--path", str(sources), "--pattern", ENDLESS)
    assert process.stdout is not None
    while not process.stdout.readline().startswith("!"):
        assert process.poll() is None
    process.send_signal(number)
    process.communicate(timeout=30)
    eventually(lambda: not _with_variable("TMPDIR", str(folder.path)), 30)
    if number == signal.SIGHUP:
        assert process.returncode == 130
        assert list(folder.path.glob("stem_iso-scan-*")) == []


def _with_variable(name: str, value: str) -> list[int]:
    """Processes that inherited this variable: those that the program started, and theirs."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and f"{name}={value}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_a_pattern_that_is_none_is_refused(folder: Folder) -> None:
    done = folder.run("-m", "entrypoints.scan", "--pattern", "(")
    assert done.returncode == 2 and "is no regular expression" in done.stderr
