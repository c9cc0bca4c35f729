"""`stem-iso top` as people see it: the full screen by textual's pilot, over real stores and workers; and the program on a terminal."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from stem_iso import Stem, Worker
from stem_iso.brokers.records import IsolateInfo, WorkerInfo
from stem_iso.cli.top.reader import Reader
from stem_iso.cli.top.screen import Top
from stem_iso.cli.top.theme import DARK, LIGHT
from stem_iso.testing import eventually
from tests.cli.conftest import Folder
from tests.cli.top_tasks import EVIL, flaky, inline, spin, wait
from tests.servers.finding import Binary, binaries, versions
from tests.servers.fixtures import broker_of, found
from tests.servers.server import Server

BOUND = 60.0
STEM_ISO = ("-c", "from stem_iso.cli import main; main()")


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Stem]:
    with closing(Stem(f"sqlite:///{tmp_path}/jobs.db", claim_interval=0.1)) as app:
        yield app


@dataclass
class Watched:
    """A screen that is driven, and what can be read on it."""

    top: Top
    pilot: Pilot[Any]

    @property
    def text(self) -> str:
        """What is on the screen; of a dialog, what is in it."""
        return "\n".join(strip.text.rstrip() for strip in self.top.screen._compositor.render_strips())

    async def shows(self, *wanted: str) -> str:
        """All of these at once, within a bound; patterns."""
        deadline = time.monotonic() + BOUND
        while not all(re.search(each, self.text) for each in wanted):
            assert self.top.is_running, "the screen has ended"
            assert time.monotonic() < deadline, f"{wanted} not in\n{self.text}"
            await self.pilot.pause(0.05)
        return self.text

    async def choose(self, pattern: str) -> None:
        """Move the cursor down to the row."""
        await self.pilot.press("home")
        while not re.search(rf"▸ .*{pattern}", await self.shows(pattern)):
            before = self.text
            await self.pilot.press("down")
            assert self.text != before or re.search(rf"▸ .*{pattern}", self.text), f"no row {pattern} in\n{before}"


@asynccontextmanager
async def watched(app: Stem, size: tuple[int, int] = (120, 40), palette: Any = DARK) -> AsyncIterator[Watched]:
    place = app.site.shown
    top = Top(app, Reader(app, place), place, palette)
    async with top.run_test(size=size) as pilot:
        yield Watched(top, pilot)


def seen_worker(**fields: Any) -> WorkerInfo:
    now = time.time()
    isolate = IsolateInfo(
        pid=4711,
        state="busy",
        task_id="id-1",
        name="thumbs.make",
        started_at=now - 12,
        soft_time_limit=3000,
        hard_time_limit=6000,
        memory=120 << 20,
        memory_limit=512 << 20,
        cores=[0, 1],
    )
    known = {
        "id": "w1",
        "boot": "b1",
        "hostname": "host",
        "pid": 7,
        "queues": ["default"],
        "seats": 4,
        "spares": 1,
        "running": ["id-1"],
        "started_at": now - 3700,
        "isolates": [isolate, IsolateInfo(pid=4712, state="spare")],
    }
    return WorkerInfo(**{**known, **fields})


def beat(app: Stem, **fields: Any) -> None:
    """As a worker does: what it says of itself goes into the store."""
    with app.broker_pool.borrow() as broker:
        broker.beat(seen_worker(**fields))


# -- what is shown -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (300, 90)], ids=str)
def test_an_isolate_stands_below_its_worker_with_its_limits(app: Stem, size: tuple[int, int]) -> None:
    beat(app)

    async def look() -> None:
        async with watched(app, size) as screen:
            text = await screen.shows("thumbs.make")
            assert re.search(r"w1  1/4 busy  default", text)
            assert re.search(r"4711  busy +thumbs\.make +1\ds  ╸[─┃]+ *50m/1h40m +120/512 MiB", text)
            assert "4712  spare" in text
            assert "1 worker   1/4 busy" in text
            assert all(len(line) <= size[0] for line in text.splitlines())

    asyncio.run(look())


@pytest.mark.parametrize("size", [(20, 5), (1, 1), (80, 24), (400, 10)], ids=str)
def test_a_window_of_any_size_is_drawn_and_may_change(app: Stem, size: tuple[int, int]) -> None:
    beat(app)

    async def look() -> None:
        async with watched(app, size) as screen:
            for other in ((120, 40), size, (80, 24)):
                await screen.pilot.resize_terminal(*other)
                await screen.pilot.pause()
            await screen.shows("thumbs.make")

    asyncio.run(look())


def test_nothing_that_others_wrote_is_obeyed_or_taken_for_markup(app: Stem) -> None:
    beat(
        app,
        id=f"w{EVIL}",
        hostname=EVIL,
        isolates=[IsolateInfo(pid=1, state="busy", task_id=EVIL, name=f"a{EVIL}", started_at=time.time())],
    )

    async def look() -> None:
        async with watched(app) as screen:
            text = await screen.shows(r"a\\x1b\]0;owned")
            assert r"\x1b[2J[bold red]x[/]\u202e" in text
            await screen.pilot.press("down", "enter")
            text = await screen.shows(r"Isolate 1")
            assert r"\x1b[2J[bold red]x[/]\u202e" in text
            assert not set(text) & set("\x1b\x07\u202e")
            await screen.pilot.press("escape", "x")
            text = await screen.shows(r"Revoke a")
            assert "[bold red]x[/]" in text and not set(text) & set("\x1b\x07\u202e")

    asyncio.run(look())


def test_a_queue_that_nobody_serves_says_so(app: Stem) -> None:
    app.enqueue("thumbs.make", {}, queue="images")

    async def look() -> None:
        async with watched(app, (80, 24)) as screen:
            await screen.pilot.press("2")
            assert re.search(r"images +no worker +1 ", await screen.shows("images"))

    asyncio.run(look())


def test_a_filter_leaves_the_rows_that_match_and_escape_brings_all_back(app: Stem) -> None:
    isolates = [
        IsolateInfo(pid=place, state="busy", task_id=f"id-{place}", name=name, started_at=time.time())
        for place, name in enumerate(("mail.send", "thumbs.make", "pdf.make"), 100)
    ]
    beat(app, isolates=isolates, running=[isolate.task_id for isolate in isolates])

    async def look() -> None:
        async with watched(app) as screen:
            await screen.shows("mail.send")
            await screen.pilot.press("slash", *"MAKE", "enter")
            text = await screen.shows("filter: MAKE", "thumbs.make", "2 of 3")
            assert "pdf.make" in text and "mail.send" not in text
            await screen.pilot.press("escape")
            await screen.shows("mail.send")

    asyncio.run(look())


def test_keys_move_between_panes_orders_and_colours(app: Stem) -> None:
    for number in range(40):
        app.enqueue("thumbs.make", {}, queue=f"q{number:02}")

    async def look() -> None:
        async with watched(app, (80, 24), LIGHT) as screen:
            await screen.pilot.press("2")
            await screen.shows("▸ q00", "by name")
            await screen.pilot.press("end")
            await screen.shows("▸ q39")
            await screen.pilot.press("s")
            await screen.shows("by oldest")
            await screen.pilot.press("t")
            assert screen.top.theme == DARK.name
            await screen.pilot.press("question_mark")
            await screen.shows("ACT, after a question")
            await screen.pilot.press("q", "tab")
            await screen.shows("▸3 Time-outs")
            await screen.pilot.press("q")
        assert screen.top.return_value == 0

    asyncio.run(look())


def test_the_cursor_stays_on_its_task_when_others_come_and_go(app: Stem) -> None:
    def busy(pid: int, name: str, elapsed: float) -> IsolateInfo:
        return IsolateInfo(pid=pid, state="busy", task_id=f"id-{pid}", name=name, started_at=time.time() - elapsed)

    mine = busy(200, "mine", 50)
    beat(app, isolates=[mine, busy(201, "younger", 10)], running=["id-200", "id-201"])

    async def look() -> None:
        async with watched(app) as screen:
            await screen.choose("mine")
            beat(app, isolates=[busy(100, "older", 900), mine], running=["id-100", "id-200"])
            await screen.shows("older", "▸ +200 +busy +mine")
            beat(app, isolates=[busy(100, "older", 900)], running=["id-100"])
            await screen.shows("1/4 busy", "▸ +100 +busy +older")

    asyncio.run(look())


@pytest.mark.slow
def test_a_worker_that_has_not_been_seen_for_five_seconds_is_marked(app: Stem) -> None:
    beat(app)

    async def look() -> None:
        async with watched(app) as screen:
            await screen.shows("4711  busy")
            await screen.shows(r"w1  ! not answering for \d", "! 1 not answering", "4711  unknown")
            beat(app)
            await screen.shows("4711  busy")
            assert "not answering" not in screen.text

    asyncio.run(look())


# -- what is done --------------------------------------------------------------------------------------------------------------------------


@dataclass
class Shop:
    """An application whose worker runs, and a file for which its tasks wait."""

    app: Stem
    worker: Worker
    file: str

    def open(self) -> None:
        Path(self.file).touch()


@contextmanager
def shop(app: Stem, folder: Path) -> Iterator[Shop]:
    for function in (wait, spin, flaky):
        app.task(name=function.__name__, isolate=True, max_retries=0, **({"hard_time_limit": 0.5} if function is spin else {}))(function)
    app.task(name="inline")(inline)
    with Worker(app, concurrency=2, spares=0) as worker:
        made = Shop(app, worker, str(folder / "file"))
        try:
            yield made
        finally:
            made.open()
            worker.stop(at_once=True)


def watch(app: Stem, folder: Path, look: Callable[[Shop, Watched], Any], size: tuple[int, int] = (120, 40)) -> None:
    async def run(made: Shop) -> None:
        async with watched(app, size) as screen:
            await screen.shows(re.escape(made.worker.id))
            await look(made, screen)

    with shop(app, folder) as made:
        asyncio.run(run(made))


@pytest.mark.slow
def test_an_isolate_shows_where_it_is_and_is_killed_after_a_yes(app: Stem, tmp_path: Path) -> None:
    async def look(shop: Shop, screen: Watched) -> None:
        handle = app.enqueue("wait", {"path": shop.file})
        await screen.choose(r"busy +wait")
        await screen.pilot.press("i")
        await screen.shows(r"Stack of isolate \d+, wait", r"top_tasks\.py\", line \d+ in wait")
        await screen.pilot.press("escape", "k")
        await screen.shows(r"Kill isolate \d+ of worker .* which runs\s+wait")
        await screen.pilot.press("enter")  # the cursor is on no
        assert handle.status().state == "running"
        await screen.pilot.press("k", "y")
        await screen.shows(r"done: isolate \d+ is killed")
        await screen.shows(r"wait +.*IsolateCrashed")
        assert handle.status().state == "failed"
        assert any(action.action.startswith("kill") for action in app.actions())

    watch(app, tmp_path, look)


@pytest.mark.slow
def test_a_task_that_ended_while_it_was_asked_is_not_replaced_by_the_next(app: Stem, tmp_path: Path) -> None:
    async def look(shop: Shop, screen: Watched) -> None:
        app.enqueue("wait", {"path": shop.file})
        await screen.choose(r"busy +wait")
        await screen.pilot.press("k")
        await screen.shows("Kill isolate")
        shop.open()
        with app.broker_pool.borrow() as broker:
            eventually(lambda: not any(each.task_id for each in broker.workers()[0].isolates), within=BOUND)
        await screen.pilot.press("y")
        await screen.shows("not done: isolate .*nothing was done")

    watch(app, tmp_path, look)


@pytest.mark.slow
@pytest.mark.parametrize(("key", "state"), [("x", "running"), ("X", "cancelled")])
def test_a_task_is_revoked_or_terminated(app: Stem, tmp_path: Path, key: str, state: str) -> None:
    async def look(shop: Shop, screen: Watched) -> None:
        handle = app.enqueue("wait", {"path": shop.file})
        await screen.choose(r"busy +wait")
        await screen.pilot.press(key, "y")
        await screen.shows("done: task .*revoked")
        if state == "cancelled":
            eventually(lambda: handle.status().state == "cancelled", within=BOUND)
        else:
            assert handle.status().state == state
            shop.open()
            eventually(lambda: handle.status().state.terminal, within=BOUND)

    watch(app, tmp_path, look)


@pytest.mark.slow
def test_a_queue_is_paused_and_resumed(app: Stem, tmp_path: Path) -> None:
    async def look(shop: Shop, screen: Watched) -> None:
        await screen.pilot.press("2")
        await screen.choose(r"default")
        await screen.pilot.press("p", "n")
        assert not app.queue_stats()[0].paused
        await screen.pilot.press("p", "y")
        await screen.shows("done: queue default is paused; obeyed: ", r"default +paused", "1 queue paused")
        shop.open()
        handle = app.enqueue("wait", {"path": shop.file})
        await screen.shows(r"default +paused +1 ")
        await screen.pilot.press("p", "y")
        await screen.shows("done: queue default goes on")
        assert handle.result(timeout=BOUND) == "done"

    watch(app, tmp_path, look)


@pytest.mark.slow
def test_a_failed_task_runs_again_and_leaves_the_list(app: Stem, tmp_path: Path) -> None:
    async def look(shop: Shop, screen: Watched) -> None:
        handle = app.enqueue("flaky", {"path": shop.file})
        await screen.shows("ValueError: no file")
        shop.open()
        await screen.pilot.press("4")
        await screen.choose("flaky")
        await screen.pilot.press("r", "y")
        await screen.shows(f"done: task {handle.id} runs again")
        await screen.shows("no failures")
        assert handle.result(timeout=BOUND) == "done"
        assert "retry" in [action.action for action in app.actions()]

    watch(app, tmp_path, look, (140, 40))


@pytest.mark.slow
def test_a_time_out_shows_where_its_handler_was_stuck(app: Stem, tmp_path: Path) -> None:
    async def look(shop: Shop, screen: Watched) -> None:
        stuck, deadline = r"hard 0\.5s +spin +top_tasks\.py:\d+ in spin", time.monotonic() + BOUND
        while not re.search(stuck, screen.text) and time.monotonic() < deadline:
            # The first may be over before its worker has found out that somebody listens, and is then known by its failure alone.
            handle = app.enqueue("spin", {})
            while not handle.status().state.terminal and time.monotonic() < deadline:
                await screen.pilot.pause(0.05)
            await screen.pilot.pause(1.0)  # the screen reads once a second
        await screen.shows(stuck, r'File ".*", line \d+ in spin')
        await screen.pilot.press("3", "enter")
        await screen.shows("Time-out of spin", r"limit +hard, 0\.5s", "in spin")

    watch(app, tmp_path, look, (140, 44))


@pytest.mark.slow
def test_a_task_in_no_isolate_has_its_name_and_time(app: Stem, tmp_path: Path) -> None:
    async def look(shop: Shop, screen: Watched) -> None:
        app.enqueue("inline", {"path": shop.file})
        await screen.shows(r"- +running +inline +\d\.\ds")

    watch(app, tmp_path, look)


# -- a broker that is away -----------------------------------------------------------------------------------------------------------------


def newest() -> Binary:
    return binaries()[0] if binaries() else found(versions()[0])


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_a_broker_that_is_away_is_said_to_be_and_comes_back(tmp_path: Path, how: str) -> None:
    async def look(server: Server, app: Stem) -> None:
        async with watched(app) as screen:
            await screen.shows("thumbs.make")
            server.kill() if how == "killed" else server.freeze()
            await screen.shows(r"! The broker has not answered since \d\d:\d\d:\d\d \(\d", "this is from then", "thumbs.make")
            if how == "killed":
                await screen.shows(r"from then\. redis://")  # and why
            await screen.pilot.press("question_mark")  # keys go on
            await screen.shows("ACT, after a question")
            await screen.pilot.press("escape")
            if how == "killed":
                server.start()
                await screen.shows(r"0 workers", "no workers")  # it has forgotten all
            else:
                server.thaw()
                await screen.shows("1 worker  ")
            assert "has not answered" not in screen.text

    with closing(Server(newest())) as server, closing(Stem(server.url)) as app:
        beat(app)
        asyncio.run(look(server, app))


@pytest.mark.slow
def test_the_screen_is_left_at_once_while_the_broker_hangs(tmp_path: Path) -> None:
    async def look(server: Server, app: Stem) -> float:
        async with watched(app) as screen:
            await screen.shows("thumbs.make")
            await screen.choose("thumbs.make")
            server.freeze()
            await screen.pilot.press("x", "y")
            await screen.shows("revoke: on its way")
            await screen.shows("has not answered")
            began = time.monotonic()
            await screen.pilot.press("q")
        return time.monotonic() - began

    with closing(Server(newest())) as server:
        app = Stem(server.url)
        beat(app)
        assert asyncio.run(look(server, app)) < BOUND / 4
        server.thaw()


# -- the program ---------------------------------------------------------------------------------------------------------------------------


class Terminal:
    """A program on a terminal of its own, which answers as an xterm with a white background does."""

    def __init__(self, folder: Folder, *command: str, size: tuple[int, int] = (80, 24), **environ: str) -> None:
        self.said = b""
        self._changed = threading.Condition()
        self._fd, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        self.before = termios.tcgetattr(inner)
        folder.environ |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", **environ}
        self.process = folder.start(*command, stdin=inner, stdout=inner, stderr=inner, start_new_session=True)
        self._inner = inner
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while select.select([self._fd], [], [])[0]:
            try:
                part = os.read(self._fd, 65536)
            except OSError:
                return
            if b"\x1b]11;?" in part:
                os.write(self._fd, b"\x1b]11;rgb:ffff/ffff/ffff\x1b\\\x1b[?62;22c")
            with self._changed:
                self.said += part
                self._changed.notify_all()

    def type(self, keys: bytes) -> None:
        os.write(self._fd, keys)

    def wait_for(self, wanted: bytes, after: int = 0) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: wanted in self.said[after:], BOUND), self.said[-4000:]

    def end(self) -> int:
        """The exit code, once it has ended by itself."""
        code = self.process.wait(BOUND)
        assert termios.tcgetattr(self._inner)[3] == self.before[3], "the terminal is left as it was not"
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._inner)
        os.close(self._fd)


SHOWN, LEFT, CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


@pytest.mark.integrations
@pytest.mark.parametrize(
    ("leave", "code"),
    [(b"q", 0), (b"\x11", 0), (b"\x03", 130), (signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=["q", "ctrl-q", "ctrl-c", "INT", "TERM", "HUP"],
)
def test_the_terminal_is_left_as_it_was(folder: Folder, leave: bytes | signal.Signals, code: int) -> None:
    folder.enqueue("add", a=1)
    with closing(Terminal(folder, *STEM_ISO, "top", "-A", "jobs")) as terminal:
        terminal.wait_for(b"1 queued")
        assert SHOWN in terminal.said
        assert b"48;2;252;252;251" in terminal.said  # the light palette, as the terminal is white
        if isinstance(leave, bytes):
            terminal.type(leave)
        else:
            terminal.process.send_signal(leave)
        assert terminal.end() == code
        terminal.wait_for(LEFT)
        terminal.wait_for(CURSOR, terminal.said.rindex(LEFT))
        assert b"Traceback" not in terminal.said


@pytest.mark.integrations
def test_ctrl_z_puts_it_aside_and_cont_brings_it_back(folder: Folder) -> None:
    with closing(Terminal(folder, *STEM_ISO, "top", "-A", "jobs")) as terminal:
        terminal.wait_for(b"0 queued")
        terminal.type(b"\x1a")
        terminal.wait_for(LEFT)
        eventually(lambda: " T " in Path(f"/proc/{terminal.process.pid}/stat").read_text(), within=BOUND)
        before = len(terminal.said)
        terminal.process.send_signal(signal.SIGCONT)
        terminal.wait_for(b"0 queued", before)
        terminal.wait_for(b"quit", before)
        terminal.type(b"q")
        assert terminal.end() == 0


@pytest.mark.integrations
def test_once_on_a_terminal_is_lines_and_no_screen(folder: Folder) -> None:
    folder.enqueue("add", a=1)
    with closing(Terminal(folder, *STEM_ISO, "top", "-A", "jobs", "--once")) as terminal:
        assert terminal.end() == 0
        terminal.wait_for(b"no failures")
        assert b"1 queued" in terminal.said
        assert SHOWN not in terminal.said


def test_without_a_terminal_it_is_lines(folder: Folder) -> None:
    folder.enqueue("add", a=1)
    done = folder.stem("top", "-A", "jobs")
    assert done.returncode == 0, done
    assert "\x1b" not in done.stdout
    assert f"sqlite:///{folder.path}/stem_iso.db" in done.stdout
    assert "0 workers, 0/0 busy, 1 queued" in done.stdout
    assert re.search(r"^default +no worker +1 ", done.stdout, re.MULTILINE)


def test_looking_makes_no_database(folder: Folder) -> None:
    shown = folder.json("top", "-A", "jobs")
    assert (shown["workers"], shown["queues"]) == ([], [])
    assert "no such database" in shown["note"]
    assert not list(folder.path.glob("*.db*"))


def test_a_broker_that_is_away_is_an_exit_code_of_its_own(folder: Folder) -> None:
    done = folder.stem("top", "--once", "--broker", "redis://127.0.0.1:1/0")
    assert done.returncode == 3 and "redis://127.0.0.1:1/0" in done.stderr


WITHOUT = ("-c", "import sys; sys.modules['textual'] = sys.modules['rich'] = None; from stem_iso.cli import main; main()")


@pytest.mark.integrations
def test_where_textual_is_not_installed_the_extra_is_named(folder: Folder) -> None:
    with closing(Terminal(folder, *WITHOUT, "top", "-A", "jobs")) as terminal:
        assert terminal.end() == 2
        terminal.wait_for(b"pip install 'stem_iso[tui]'")


def test_lines_need_no_textual(folder: Folder) -> None:
    done = folder.run(*WITHOUT, "top", "-A", "jobs")
    assert done.returncode == 0, done
    assert "no workers" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_lines_show_a_worker_that_runs(tmp_path: Path, folder: Folder, kind: str) -> None:
    with broker_of(kind, tmp_path) as url, closing(Stem(url, claim_interval=0.1)) as app, shop(app, tmp_path) as made:
        app.enqueue("wait", {"path": made.file})
        app.enqueue("flaky", {"path": made.file})
        eventually(lambda: app.list_tasks(state="failed").tasks, within=BOUND)
        with app.broker_pool.borrow() as broker:
            eventually(lambda: any(each.task_id for each in broker.workers()[0].isolates), within=BOUND)
        done = folder.stem("top", "--once", "--broker", url)
    assert done.returncode == 0, done
    assert re.search(rf"^{made.worker.id}  \d/2 busy", done.stdout, re.MULTILINE)
    assert re.search(r"^\d+ +busy +wait ", done.stdout, re.MULTILINE)
    assert r"ValueError: no file \x1b]0;owned\x07" in done.stdout
