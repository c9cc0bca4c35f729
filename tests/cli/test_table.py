"""Tables fit the terminal that they are shown on, whatever stands in them."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stem_iso.brokers.url import open_broker
from stem_iso.cli.table import cut, table, width_of
from stem_iso.printable import one_line
from stem_iso.testing.contract.steps import envelope
from tests.cli.conftest import ROOT

ID = "0198c3d2-7b1e-7c55-9f5e-0123456789ab"
HEAD = ("ID", "TASK", "QUEUE", "TRIES", "ERROR")
ROWS = [
    (ID, "thumbs.make", "images", "3", "ValueError: no such file"),
    (ID[::-1], "a.very.long.name.of.a.task.in.a.deep.package.of.modules", "日本語の待ち行列", "12", "x" * 100),
]
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
Text = str


def drawn(width: int | None, colour: bool = False) -> list[Text]:
    return table(HEAD, ROWS, width=width, colour=colour, tones={"ERROR": lambda _: "red"}).splitlines()


@pytest.mark.parametrize("width", [20, 40, 80, 100, 200, None])
def test_colour_moves_nothing(width: int | None) -> None:
    assert [COLOUR.sub("", line).rstrip() for line in drawn(width, colour=True)] == drawn(width)
    assert "\x1b[31m" in "".join(drawn(width, colour=True)) and "\x1b" not in "".join(drawn(width))


@pytest.mark.parametrize("width", [20, 40, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert max(map(width_of, drawn(width))) <= width


def test_without_a_terminal_nothing_is_cut() -> None:
    assert "…" not in "".join(drawn(None)) and all(cell in line for row, line in zip(ROWS, drawn(None)[1:], strict=True) for cell in row)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_what_other_commands_take_is_never_cut(width: int) -> None:
    assert all(row[0] in "\n".join(drawn(width)) for row in ROWS)


def test_as_text() -> None:
    assert drawn(100) == [
        "ID                                    TASK               QUEUE             TRIES  ERROR",
        f"{ID}  thumbs.make        images                3  ValueError: no su…",
        f"{ID[::-1]}  a.very.long.name…  日本語の待ち行列     12  xxxxxxxxxxxxxxxxx…",
    ]
    assert drawn(40)[:8] == [
        "ID",
        ID,
        "TASK   thumbs.make",
        "QUEUE  images",
        "TRIES  3",
        "ERROR  ValueError: no such file",
        "",
        "ID",
    ]
    assert drawn(40)[9:12] == ["TASK   a.very.long.name.of.a.task.in.a.d", "       eep.package.of.modules", "QUEUE  日本語の待ち行列"]


TEXTS = st.text(st.characters(codec="utf-8"), max_size=30).map(one_line)


@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), max_size=5), st.integers(10, 200))
def test_any_text_fits(rows: list[tuple[str, str, str]], width: int) -> None:
    lines = table(("A", "B", "C"), rows, width=width, colour=False).split("\n")
    assert max(map(width_of, lines)) <= width


@given(TEXTS, st.integers(1, 40))
def test_what_is_cut_says_so(text: str, width: int) -> None:
    assert width_of(cut(text, width)) <= width
    assert cut(text, width) == text or cut(text, width).endswith("…")


def on_a_terminal(folder: Path, columns: int, *command: str, **environ: str) -> list[Text]:
    """What a terminal of this width is sent."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STEM_ISO_") and name not in ("NO_COLOR", "COLUMNS")}
    environment = {**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm", **environ}
    process = subprocess.Popen([sys.executable, "-m", "stem_iso", *command], cwd=folder, env=environment, stdout=theirs)
    os.close(theirs)
    sent = b""
    try:
        while part := os.read(ours, 65_536):
            sent += part
    except OSError:  # EIO: its other end is closed
        pass
    os.close(ours)
    assert process.wait(30) == 0
    return sent.decode().replace("\r\n", "\n").splitlines()


@pytest.fixture
def queues(tmp_path: Path) -> Callable[..., list[Text]]:
    broker = open_broker(f"sqlite:///{tmp_path}/stem_iso.db")
    for name in ("images", "日本語" * 20, "red\x1b[31m" * 10):
        broker.publish([envelope(queue=name)])
    broker.close()
    return lambda columns, **environ: on_a_terminal(tmp_path, columns, "queues", **environ)


def test_a_command_fits_the_terminal_that_it_writes_to(queues: Callable[..., list[Text]]) -> None:
    for columns in (40, 80, 200):
        lines = queues(columns)
        bare = [COLOUR.sub("", line) for line in lines]
        assert max(map(width_of, bare)) <= columns
        assert "\x1b[1mQUEUE\x1b[0m" in "\n".join(lines) and "\x1b[33mnone\x1b[0m" in "\n".join(lines)
        assert "\x1b" not in "".join(bare) and r"red\x1b[31m" in "".join(bare), "what a name holds is shown, and not obeyed"


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_nobody_gets_colour_who_wants_none(queues: Callable[..., list[Text]], environ: dict[str, str]) -> None:
    assert "\x1b" not in "".join(queues(80, **environ))
