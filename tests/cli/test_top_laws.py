"""What `stem-iso top` shows is a function of what was read: laws of its lines, columns, figures and states, without a terminal."""

from __future__ import annotations

import itertools
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stem_iso.brokers.records import ANSWERS_WITHIN, IsolateInfo, WorkerInfo
from stem_iso.cli.table import width_of
from stem_iso.cli.top import background, figures, plain, texts
from stem_iso.cli.top.actions import ACTIONS, actions_for
from stem_iso.cli.top.grid import Column, Pane, Row, Span, Tone, fit, head_line, line, natural_widths, packed, text_of
from stem_iso.cli.top.panes import LATE, NAMES, ORDERS, pane, queue_state, totals, where
from stem_iso.cli.top.recent import MOST, Recent
from stem_iso.cli.top.snapshot import Away, Failure, SeenWorker, Snapshot, Subject, TimeOut
from stem_iso.cli.top.theme import DARK, LIGHT, Palette, contrast
from stem_iso.client.queue_stats import QueueStats
from stem_iso.events import FailedEvent, TimeoutEvent
from stem_iso.outcome import TaskError
from tests.cli.test_printable_laws import HOSTILE, harmless

NOW = 1_800_000_000.0
SECONDS = st.floats(0, 1e7)
AGES = st.one_of(st.none(), SECONDS)
COUNTS = st.integers(0, 10**9)

ISOLATES = st.builds(
    IsolateInfo,
    pid=st.integers(1, 2**22),
    state=st.sampled_from(["starting", "spare", "busy", "shared"]),
    task_id=st.one_of(st.none(), HOSTILE),
    name=st.one_of(st.none(), HOSTILE),
    started_at=st.one_of(st.none(), st.floats(NOW - 1e6, NOW + 100)),
    soft_time_limit=st.one_of(st.none(), st.floats(0.001, 1e5)),
    hard_time_limit=st.one_of(st.none(), st.floats(0.001, 1e5)),
    memory=st.one_of(st.none(), st.integers(0, 2**45)),
    memory_limit=st.one_of(st.none(), st.integers(1, 2**45)),
    cores=st.lists(st.integers(0, 500), max_size=6),
)
WORKERS = st.builds(
    WorkerInfo,
    id=HOSTILE,
    boot=st.just("b"),
    hostname=HOSTILE,
    pid=st.integers(1, 2**22),
    queues=st.lists(HOSTILE, max_size=3),
    seats=st.integers(0, 500),
    spares=st.integers(0, 9),
    running=st.lists(HOSTILE, max_size=3),
    started_at=st.floats(0, NOW),
    isolates=st.lists(ISOLATES, max_size=4),
    draining=st.booleans(),
)
QUEUES = st.builds(
    QueueStats,
    name=HOSTILE,
    queued=COUNTS,
    delayed=COUNTS,
    running=COUNTS,
    dead=COUNTS,
    oldest_age=AGES,
    paused=st.booleans(),
    rate=st.floats(0, 1e6),
    served_by=st.lists(HOSTILE, max_size=2),
    by_priority=st.dictionaries(st.integers(0, 9), COUNTS, max_size=4),
)
TIME_OUTS = st.builds(
    TimeOut,
    at=st.floats(-1e18, 1e18),
    task_id=HOSTILE,
    name=HOSTILE,
    queue=HOSTILE,
    level=st.sampled_from(["soft", "hard", "silence"]),
    limit=AGES,
    stack=HOSTILE,
    worker_id=HOSTILE,
)
FAILURES = st.builds(
    Failure, at=st.floats(-1e18, 1e18), task_id=HOSTILE, name=HOSTILE, queue=HOSTILE, reason=HOSTILE, message=HOSTILE, traceback=HOSTILE
)
SNAPSHOTS = st.builds(
    Snapshot,
    at=st.floats(NOW - 10, NOW),
    place=HOSTILE,
    queues_at=st.floats(NOW - 100, NOW),
    workers=st.lists(st.builds(SeenWorker, info=WORKERS, silent_for=st.floats(0, 30)), max_size=3),
    queues=st.lists(QUEUES, max_size=4),
    time_outs=st.lists(TIME_OUTS, max_size=3),
    failures=st.lists(FAILURES, max_size=3),
    note=HOSTILE,
)


def panes(snapshot: Snapshot) -> list[Pane]:
    return [pane(name, snapshot, NOW, order) for name in NAMES for order in ORDERS[name]]


def worker(id: str = "w1", isolates: Any = (), **fields: Any) -> WorkerInfo:
    fields = {"boot": "b", "hostname": "host", "pid": 7, "queues": ["default"], "seats": 4, "spares": 1, **fields}
    return WorkerInfo(id=id, isolates=list(isolates), **fields)


def queue(name: str = "default", **fields: Any) -> QueueStats:
    zeros = {"queued": 0, "delayed": 0, "running": 0, "dead": 0, "oldest_age": None, "paused": False, "rate": 0.0, "served_by": []}
    return QueueStats(**{"name": name, "by_priority": {}, **zeros, **fields})


# -- lines ---------------------------------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(SNAPSHOTS, st.integers(8, 300))
def test_each_line_is_as_wide_as_it_is_asked_to_be_and_harmless(snapshot: Snapshot, width: int) -> None:
    for shown in panes(snapshot):
        widths = fit(shown.columns, natural_widths(shown), width)
        drawn = [head_line(shown.columns, widths, width), *(line(shown.columns, row, widths, width) for row in shown.rows)]
        for text in map(text_of, drawn):
            assert width_of(text) == width
            assert harmless(text)
            assert not any(unicodedata.category(letter) == "Cs" for letter in text)


@settings(max_examples=60)
@given(SNAPSHOTS)
def test_plain_lines_are_harmless_and_one_a_row(snapshot: Snapshot) -> None:
    shown = list(plain.lines(snapshot))
    assert all(harmless(part) for text in shown for part in text.split("\n"))
    rows = sum(len(pane(name, snapshot, NOW, ORDERS[name][0]).rows) for name in NAMES)
    assert sum(text.count("\n") + 1 for text in shown) <= rows * 2 + 16


@settings(max_examples=60)
@given(SNAPSHOTS, st.integers(10, 200))
def test_everything_about_a_row_is_harmless_lines_that_fit(snapshot: Snapshot, width: int) -> None:
    for row in itertools.chain.from_iterable(shown.rows for shown in panes(snapshot)):
        assert isinstance(row.subject, Subject)
        title, text = texts.details(row.subject, NOW)
        assert harmless(title)
        for part in texts.folded(text, width):
            assert harmless(part)
            assert width_of(part) <= width
        for action in actions_for(row.subject):
            assert harmless(action.question(row.subject))


@given(HOSTILE, st.integers(10, 60))
def test_nothing_of_a_text_is_lost_when_it_is_folded(text: str, width: int) -> None:
    from stem_iso.printable import lines

    whole = "".join(lines(text, "").split())
    assert "".join("".join(texts.folded(text, width)).split()) == whole


@given(HOSTILE, st.integers(80, 200))
def test_a_long_place_leaves_the_filter_its_room(place: str, width: int) -> None:
    shown = text_of(texts.heading(None, f"sqlite:///{place * 9}/jobs.db", NOW, width, "thumbs"))
    assert "filter: thumbs" in shown and "jobs.db" in shown
    assert width_of(shown) <= width


@given(SNAPSHOTS, st.integers(20, 200))
def test_the_lines_above_fit(snapshot: Snapshot, width: int) -> None:
    assert width_of(text_of(texts.heading(snapshot, snapshot.place, NOW, width, "some words"))) >= 0
    for spans in packed(totals(snapshot, NOW), width):
        assert harmless(text_of(spans))
        assert width_of(text_of(spans)) <= width or len(spans) == 1
    assert harmless(text_of(texts.heading(snapshot, snapshot.place, NOW, width, "some\x1bwords")))


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 60), st.integers(0, 9), st.booleans()), min_size=1, max_size=12),
    st.integers(1, 200),
)
def test_the_columns_of_the_highest_rank_go_first(given: list[tuple[int, int, int, bool]], width: int) -> None:
    columns = [Column(str(place), least, rank=rank, stretch=stretch) for place, (least, _, rank, stretch) in enumerate(given)]
    widths = fit(columns, [natural for _, natural, _, _ in given], width)
    assert widths
    assert sum(widths.values()) + 2 * (len(widths) - 1) <= width
    gone = [columns[place].rank for place in range(len(columns)) if place not in widths]
    assert all(rank >= columns[place].rank for rank in gone for place in widths) or len(widths) == 1


def test_at_80_columns_the_limits_of_an_isolate_can_be_seen() -> None:
    isolate = IsolateInfo(
        pid=4711,
        state="busy",
        task_id="x",
        name="thumbs.make",
        started_at=NOW - 40,
        soft_time_limit=30,
        hard_time_limit=60,
        memory=120 << 20,
        memory_limit=512 << 20,
    )
    shown = pane(
        "isolates",
        Snapshot(at=NOW, queues_at=NOW, place="", workers=[SeenWorker(info=worker(isolates=[isolate]), silent_for=0)]),
        NOW,
        "worker",
    )
    text = text_of(line(shown.columns, shown.rows[1], fit(shown.columns, natural_widths(shown), 78), 78))
    assert text.split() == ["4711", "past", "soft", "thumbs.make", "40s", text.split()[5], "30s/1m", "120/512", "MiB"]
    assert figures.MARK in text.split()[5]


# -- figures -------------------------------------------------------------------------------------------------------------------------------


@given(st.floats(0, 99 * 86_400 - 3600))
def test_a_duration_takes_six_characters_at_most(seconds: float) -> None:
    assert len(figures.duration(seconds)) <= 6


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0s"),
        (0.04, "0.0s"),
        (9.96, "10s"),
        (59.6, "1m00s"),
        (3599.7, "1h00m"),
        (86_399, "23h59m"),
        (86_400, "1d00h"),
        (None, "-"),
        (-3, "0.0s"),
    ],
)
def test_durations(seconds: float | None, shown: str) -> None:
    assert figures.duration(seconds) == shown


@pytest.mark.parametrize(
    ("used", "limit", "shown"),
    [
        (120 << 20, 512 << 20, "120/512 MiB"),
        (100 << 10, 512 << 20, "0.1/512 MiB"),
        (0, 1 << 30, "0/1.0 GiB"),
        (5, None, "5 B"),
        (None, 1 << 30, "-"),
        (1023 << 20, None, "1.0 GiB"),
    ],
)
def test_memory_is_said_in_the_unit_of_its_limit(used: int | None, limit: int | None, shown: str) -> None:
    assert figures.size_against(used, limit) == shown


@given(COUNTS)
def test_a_count_takes_five_characters_at_most_and_is_right_to_one_percent(number: int) -> None:
    shown = figures.count(number)
    assert len(shown) <= 5
    value = float(shown.rstrip("kMG")) * {"k": 1e3, "M": 1e6, "G": 1e9}.get(shown[-1], 1)
    assert value == pytest.approx(number, rel=0.01)


def test_what_is_rare_does_not_look_like_nothing() -> None:
    assert [figures.rate(each) for each in (0, 1 / 60, 0.5, 18.44, 99.96, 12_345)] == [
        "0",
        "1.0/min",
        "0.5/s",
        "18.4/s",
        "100/s",
        "12.3k/s",
    ]


@given(st.floats(-1, 3), st.integers(1, 80), st.one_of(st.none(), st.floats(0, 1)))
def test_a_bar_shows_what_is_not_nothing_and_leaves_room_for_what_is_not_all(share: float, width: int, mark: float | None) -> None:
    shown = figures.bar(share, width, mark)
    assert len(shown) == width
    assert (figures.MARK in shown) == (mark is not None)
    plain = figures.bar(share, width)
    assert (figures.FULL in plain or figures.HALF in plain) == (share > 0)
    assert (plain == figures.FULL * width) == (share >= 1)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 80))
def test_more_is_no_shorter_bar(one: float, other: float, width: int) -> None:
    def halves(share: float) -> int:
        shown = figures.bar(share, width)
        return 2 * shown.count(figures.FULL) + shown.count(figures.HALF)

    small, large = sorted((one, other))
    assert halves(small) <= halves(large)


@given(st.lists(st.integers(0, 300)))
def test_cores_are_named_in_runs_and_all_of_them(numbers: list[int]) -> None:
    shown = figures.cores(numbers)
    found = []
    for run in filter(None, shown.split(",")):
        first, _, last = run.partition("-")
        found += range(int(first), int(last or first) + 1)
    assert found == sorted(set(numbers))


# -- states --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({}, ""),
        ({"queued": 3, "oldest_age": 1.0, "served_by": ["w1"]}, ""),
        ({"queued": 3, "oldest_age": LATE + 1, "served_by": ["w1"]}, "late"),
        ({"queued": 3, "oldest_age": 1.0}, "no worker"),
        ({"queued": 3, "oldest_age": 1.0, "served_by": ["gone"]}, "no worker"),
        ({"delayed": 1}, "no worker"),
        ({"queued": 3, "oldest_age": LATE + 1, "paused": True}, "paused"),
    ],
)
def test_what_is_wrong_with_a_queue_is_a_word(fields: dict[str, Any], word: str) -> None:
    assert queue_state(queue(**fields), {"w1"})[0] == word


def states(isolate: IsolateInfo, silent_for: float = 0.0) -> list[str]:
    snapshot = Snapshot(at=NOW, queues_at=NOW, place="", workers=[SeenWorker(info=worker(isolates=[isolate]), silent_for=silent_for)])
    return [row.cells[1].text for row in pane("isolates", snapshot, NOW, "worker").rows if row.heading is None]


@pytest.mark.parametrize(("elapsed", "word"), [(1, "busy"), (31, "past soft"), (61, "past hard")])
def test_a_task_past_its_limit_says_so(elapsed: float, word: str) -> None:
    isolate = IsolateInfo(pid=1, state="busy", task_id="x", started_at=NOW - elapsed, soft_time_limit=30, hard_time_limit=60)
    assert states(isolate) == [word]
    assert states(isolate, silent_for=ANSWERS_WITHIN) == ["unknown"]


def test_the_time_of_what_a_silent_worker_ran_stands_still() -> None:
    isolate = IsolateInfo(pid=1, state="busy", task_id="x", started_at=NOW - 40)
    workers = [SeenWorker(info=worker(isolates=[isolate]), silent_for=30.0)]
    rows = pane("isolates", Snapshot(at=NOW, queues_at=NOW, place="", workers=workers), NOW, "worker").rows
    assert "! not answering for 30s" in text_of(rows[0].heading or ())
    assert rows[1].cells[3].text == "10s"


def test_a_task_that_no_isolate_names_has_a_row() -> None:
    isolate = IsolateInfo(pid=1, state="busy", task_id="x", name="thumbs.make", started_at=NOW)
    snapshot = Snapshot(
        at=NOW, queues_at=NOW, place="", workers=[SeenWorker(info=worker(isolates=[isolate], running=["x", "y"]), silent_for=0)]
    )
    rows = pane("isolates", snapshot, NOW, "worker").rows[1:]
    assert [(row.cells[1].text, row.cells[2].text) for row in rows] == [("busy", "thumbs.make"), ("running", "y")]


# -- order, filter, totals -----------------------------------------------------------------------------------------------------------------


def test_queues_in_their_orders() -> None:
    queues = [queue("a", queued=1, oldest_age=5.0), queue("b", queued=9, oldest_age=1.0), queue("c")]
    snapshot = Snapshot(at=NOW, queues_at=NOW, place="", queues=queues)
    found = {order: [row.cells[0].text for row in pane("queues", snapshot, NOW, order).rows] for order in ORDERS["queues"]}
    assert found == {"name": ["a", "b", "c"], "oldest": ["a", "b", "c"], "deepest": ["b", "a", "c"]}


def test_a_filter_keeps_the_heading_of_what_it_keeps() -> None:
    from stem_iso.cli.top.grid import filtered

    rows = [
        Row(("1",), heading=(Span("w1"),), search="w1"),
        Row(("2",), search="thumbs"),
        Row(("3",), search="mail"),
        Row(("4",), heading=(Span("w2"),), search="w2"),
        Row(("5",), search="mail"),
    ]

    def kept(*words: str) -> list[str]:
        return [row.key[0] for row in filtered(rows, words)]

    assert kept() == ["1", "2", "3", "4", "5"]
    assert kept("thumbs") == ["1", "2"]
    assert kept("mail") == ["1", "3", "4", "5"]
    assert kept("w2") == ["4", "5"]
    assert kept("mail", "thumbs") == []


def test_the_totals_name_what_is_wrong() -> None:
    snapshot = Snapshot(
        at=NOW,
        queues_at=NOW,
        place="",
        workers=[SeenWorker(info=worker(), silent_for=9), SeenWorker(info=worker("w2", running=["x"]), silent_for=0)],
        queues=[queue(queued=2, oldest_age=400.0, dead=3), queue("b", paused=True, queued=1, oldest_age=9000.0)],
    )
    assert [span.text for span in totals(snapshot, NOW)] == [
        "2 workers", "! 1 not answering", "1/8 busy", "3 queued", "oldest 6m40s", "1 queue paused", "3 dead",
    ]  # fmt: skip


def test_the_absence_of_the_broker_is_said_with_since_when() -> None:
    assert texts.absence(None, NOW, NOW + 2) is None
    silence = texts.absence(None, NOW, NOW + 4)
    assert silence is not None and silence.since == NOW
    said = text_of(texts.banner(Away(NOW, "nobody\x1blistens"), None, NOW + 12))
    assert f"since {figures.clock(NOW)} (12s)" in said and r"nobody\x1blistens" in said


# -- time-outs and failures ----------------------------------------------------------------------------------------------------------------

OF = {"worker_id": "w1", "task_id": "x", "name": "hang", "queue": "default", "run": 0, "attempt": 0}
STACK = 'Stack (most recent call last):\n  File "/srv/jobs.py", line 12 in hang\n  File "/srv/deep.py", line 8 in spin'


def test_the_innermost_frame_is_where_it_was_stuck() -> None:
    assert where(STACK) == "deep.py:8 in spin"
    assert where("") == where("nothing of the kind") == ""


def test_of_one_attempt_the_hard_limit_takes_the_place_of_the_soft_one() -> None:
    recent = Recent()
    for at, level in ((1.0, "soft"), (2.0, "hard")):
        recent.on_event(TimeoutEvent(at=at, level=level, limit=at, elapsed=at, stack=STACK, **OF))  # type: ignore[arg-type]
    recent.on_event(TimeoutEvent(at=3.0, level="hard", limit=2.0, elapsed=2.0, silent=True, **{**OF, "attempt": 1}))  # type: ignore[arg-type]
    assert [(each.at, each.level) for each in recent.time_outs()] == [(3.0, "silence"), (2.0, "hard")]


def test_a_failure_stands_once_with_its_newest_end_and_goes_when_it_is_tried_again() -> None:
    recent = Recent()
    for run, message in ((0, "first"), (1, "second")):
        error = TaskError(type="ValueError", message=message)
        recent.on_event(FailedEvent(at=1.0 + run, reason="error", error=error, **{**OF, "run": run}))  # type: ignore[arg-type]
    assert [each.message for each in recent.failures()] == ["second"]
    recent.drop(recent.standing())
    assert recent.failures() == []


@given(st.lists(st.tuples(st.floats(0, 1e9), st.integers(0, 400)), max_size=600))
def test_of_very_many_the_newest_are_kept(ends: list[tuple[float, int]]) -> None:
    recent, newest = Recent(), dict[int, float]()
    for at, id in ends:
        recent.on_event(FailedEvent(at=at, reason="error", **{**OF, "task_id": str(id)}))  # type: ignore[arg-type]
        newest[id] = max(at, newest.get(id, 0.0))
    kept = [each.at for each in recent.failures()]
    assert kept == sorted(kept, reverse=True)
    assert len(kept) == min(MOST, len(newest))
    if len(newest) <= MOST:
        assert kept == sorted(newest.values(), reverse=True)


# -- keys, colours -------------------------------------------------------------------------------------------------------------------------


@given(SNAPSHOTS)
def test_a_key_means_one_thing_at_most_on_each_row(snapshot: Snapshot) -> None:
    for row in itertools.chain.from_iterable(shown.rows for shown in panes(snapshot)):
        keys = [action.key for action in actions_for(row.subject)]  # type: ignore[arg-type]
        assert len(keys) == len(set(keys))


def test_what_changes_something_has_a_question_and_says_what_comes_of_it() -> None:
    for action in ACTIONS:
        assert action.reads or action.consequence
        assert f"  {action.key} " in texts.HELP


@pytest.mark.parametrize("palette", [DARK, LIGHT], ids=lambda palette: palette.name)
def test_all_text_can_be_read_on_all_that_lies_behind_it(palette: Palette) -> None:
    behind = (palette.background, palette.chosen, palette.bar)
    assert {(tone, back): round(ratio, 1) for tone in Tone for back in behind if (ratio := contrast(palette.tones[tone], back)) < 4.5} == {}
    assert contrast(palette.background, palette.tones[Tone.ACCENT]) >= 4.5  # a button that has the focus


def test_the_help_fits_the_smallest_terminal() -> None:
    assert max(map(width_of, texts.HELP.splitlines())) <= 68


@pytest.mark.parametrize(
    ("answer", "palette"),
    [
        (b"\x1b]11;rgb:0000/0000/0000\x1b\\\x1b[?62;22c", DARK),
        (b"\x1b]11;rgb:ffff/fafa/f0f0\x07\x1b[?1c", LIGHT),
        (b"\x1b]11;rgb:ee/ee/ee\x07\x1b[?1c", LIGHT),
        (b"\x1b]11;rgba:1e1e/1e1e/2e2e/ffff\x07", DARK),
        (b"\x1b[?62;22c", None),
        (b"", None),
    ],
)
def test_the_terminal_says_whether_it_is_dark(answer: bytes, palette: Palette | None) -> None:
    assert background.of_answer(answer) is palette


def test_a_variable_says_whether_the_terminal_is_dark() -> None:
    found = {value: background.of_variable(value) for value in ("15;0", "0;15", "0;default;7", "12;8", "", "default", "1;x")}
    assert found == {"15;0": DARK, "0;15": LIGHT, "0;default;7": LIGHT, "12;8": DARK, "": None, "default": None, "1;x": None}
