"""Excerpts of long results and arguments: small, true to what they are cut from, and had without the rest."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stem_iso import Stem
from stem_iso.client import task_list
from stem_iso.client.task_excerpt import ALONE, LISTED, MOST_NAMES, excerpt, shortened, shortened_arguments
from stem_iso.client.task_filter import checked
from stem_iso.outcome import TaskState
from stem_iso.task.settlement import Finish
from stem_iso.testing.contract.steps import settle, take

MEGABYTE = 1 << 20
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@pytest.fixture
def app(tmp_path: Path) -> Stem:
    app = Stem(broker=f"sqlite:///{tmp_path}/jobs.db", max_payload_bytes=4 * MEGABYTE)

    @app.task(name="send", redact=("token",))
    def send(to: str, token: str = "", note: str = "", **more: Any) -> Any: ...

    return app


def succeed(app: Stem, result: bytes, **args: Any) -> str:
    id = app.enqueue("send", {"to": "ann", **args}).id
    with app.broker_pool.borrow() as broker:
        [delivery] = take(broker, 1)
        settle(broker, delivery, Finish(TaskState.SUCCEEDED, result=result))
    return id


@given(VALUES, st.integers(0, 60))
def test_a_short_value_stays_itself_and_a_long_one_is_the_beginning_of_its_text(value: Any, most: int) -> None:
    shown, is_cut = shortened(value, most)
    written = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    assert is_cut == (len(written) > most)
    assert shown == (f"{written[:most]}…" if is_cut else value)


@pytest.mark.slow
@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=MOST_NAMES), st.integers(0, 60))
def test_all_arguments_share_one_room(args: dict[str, Any], most: int) -> None:
    shown, is_cut = shortened_arguments(args, most)
    assert shown.keys() == args.keys() and (is_cut or shown == args)
    texts = [value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False) for value in shown.values()]
    assert sum(map(len, texts)) <= most + len(args)  # and the ellipses


def test_no_more_than_a_hundred_names_are_shown() -> None:
    shown, is_cut = shortened_arguments({str(number): number for number in range(250)}, 10_000)
    assert len(shown) == MOST_NAMES + 1 and shown["…"] == "150 more" and is_cut


def test_what_is_huge_is_shown_by_its_size_and_a_text_by_its_beginning(app: Stem) -> None:
    numbers, text = msgspec.msgpack.encode([0] * 2 * MEGABYTE), msgspec.msgpack.encode("é" * MEGABYTE)
    with app.broker_pool.borrow() as broker:
        first, second = broker.status([succeed(app, numbers), succeed(app, text, token="hunter2" * 400)])
    assert first is not None and second is not None
    for room in (LISTED, ALONE):
        assert excerpt(app, first, room).status.result == "… 2,097,157 bytes"
        of_text = excerpt(app, second, room)
        assert of_text.status.result == "é" * room.shown + "…" and of_text.cut == ["result"]
        assert of_text.status.args is not None and of_text.status.args["token"] == "***"


def test_long_arguments_are_cut_in_a_list_and_whole_alone(app: Stem) -> None:
    ids = [succeed(app, b"\xc0", note="y" * 5000), succeed(app, b"\xc0", note="x" * MEGABYTE)]
    with app.broker_pool.borrow() as broker:
        long, huge = broker.status(ids)
    assert long is not None and huge is not None
    listed = excerpt(app, long, LISTED)
    assert listed.cut == ["args"] and listed.status.args is not None and len(json.dumps(listed.status.args)) < 3000
    assert listed.status.args["to"] == "ann"
    assert excerpt(app, huge, LISTED).cut == ["args"]
    assert excerpt(app, huge, ALONE).cut == [] and excerpt(app, huge, ALONE).status.args == app.handle(ids[1]).status().args


def test_a_list_of_long_results_takes_the_room_of_a_few(app: Stem) -> None:
    """Whole, these forty would be 360 MiB of lists."""
    body = msgspec.msgpack.encode([0] * 2 * MEGABYTE)
    sent = [succeed(app, body) for _ in range(20)]
    body = msgspec.msgpack.encode([0] * (LISTED.decoded - 100))
    sent += [succeed(app, body) for _ in range(20)]
    found, cursor = [], None
    tracemalloc.start()
    try:
        while True:
            page = task_list.page(app, checked({}, app.clock()), 1000, cursor, True, room=LISTED)
            found += [task.id for task in page.tasks]
            assert page.cut == {task.id: ["result"] for task in page.tasks}
            if (cursor := page.cursor) is None:
                break
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == sent[::-1]
    assert peak < 32 * MEGABYTE
