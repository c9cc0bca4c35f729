"""A canvas as somebody sees it from a shell."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Folder

COMPOSE = "from jobs import add, fail; from stem_iso import group; print((group(add.s(1), add.s(2, 3)) | {last}).enqueue().id)"


def compose(folder: Folder, last: str) -> str:
    done = folder.run("-c", COMPOSE.format(last=last))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_a_canvas_is_drawn_waited_for_and_revoked_by_its_id(folder: Folder) -> None:
    id = compose(folder, "group(add.s(3), add.s(4))")
    assert folder.stem("graph", id).stdout.splitlines() == [
        "chain",
        "├─ group of 2  waiting",
        "│  ├─ add      queued",
        "│  └─ add      queued",
        "└─ group of 2  waiting",
        "   ├─ add      waiting",
        "   └─ add      waiting",
    ]
    assert folder.worker().returncode == 0
    assert folder.json("result", id)["result"] == [4, 5]
    assert "succeeded" in folder.stem("graph", id, "--mermaid").stdout
    shown = folder.json("graph", id)
    assert shown["graph"]["type"] == "chain" and set(shown["states"].values()) == {"succeeded"}

    failed = compose(folder, "fail.s('no luck')")
    assert folder.worker().returncode == 0
    assert "no luck" in folder.stem("result", failed).stderr

    waiting = compose(folder, "add.s(3)")
    assert folder.json("revoke", waiting)["revoked"]
    assert folder.stem("queues").stdout.count("cancelled") == 0
    assert folder.stem("graph", waiting).stdout.count("revoked") == 4


def test_the_graph_of_what_is_no_canvas_is_refused(folder: Folder) -> None:
    done = folder.stem("graph", folder.enqueue("add", a=1))
    assert done.returncode == 1 and "no canvas" in done.stderr
