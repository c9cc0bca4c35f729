"""Test tools that are shipped: importable without pytest, and honest when something is not so."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stem_iso import Stem, Worker, chain
from stem_iso.testing import assert_enqueued, eventually
from tests.servers.cluster import Cluster
from tests.servers.fixtures import broker_of

WITHOUT_PYTEST = """
import sys
sys.modules["pytest"] = None
from stem_iso.testing import assert_enqueued, eventually
assert eventually(lambda: 7) == 7
try:
    from stem_iso.testing import BrokerContract
except ImportError:
    print("needed for the contract alone")
"""


def test_pytest_is_needed_for_the_contract_alone() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_PYTEST], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.strip() == "needed for the contract alone", done.stderr


def test_eventually_shows_the_last_answer() -> None:
    answers = iter([0, 0, "", 5])
    assert eventually(lambda: next(answers)) == 5
    with pytest.raises(AssertionError, match=r"still \[\] after 0.01 s"):
        eventually(list, 0.01)


def test_enqueued_tasks_are_found_by_name_and_arguments(stem_app: Stem) -> None:
    make = stem_app.task(name="thumbs.make", isolate=True)(thumbnail)
    make.using(delay=60).enqueue("cat.png", width=64)
    assert assert_enqueued(stem_app, "thumbs.make").name == "thumbs.make"
    assert_enqueued(stem_app, "thumbs.make", {"path": "cat.png"})
    assert_enqueued(stem_app, "thumbs.make", {"path": "cat.png", "width": 64})
    with pytest.raises(AssertionError, match=r"mail\.send .* is not enqueued.*\n  thumbs\.make .*cat\.png"):
        assert_enqueued(stem_app, "mail.send")
    with pytest.raises(AssertionError, match=r"cat\.png"):
        assert_enqueued(stem_app, "thumbs.make", {"path": "dog.png"})
    with pytest.raises(AssertionError):
        assert_enqueued(stem_app, "thumbs.make", {"nothing": 1})


def test_a_worker_runs_beside_the_test(stem_app: Stem, stem_worker: Worker) -> None:
    double = stem_app.task(name="numbers.double")(lambda value: value * 2)
    assert double.enqueue(21).result(timeout=20) == 42


def thumbnail(path: str, width: int = 128) -> int:
    return width


def test_nothing_enqueued_says_so(stem_app: Stem) -> None:
    with pytest.raises(AssertionError, match="there is: nothing"):
        assert_enqueued(stem_app, "thumbs.make")


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
def test_what_waits_is_asserted_on_every_broker_whatever_its_arguments_are(kind: str, tmp_path: Path) -> None:
    if kind == "memory":
        assert_what_waits(Stem("memory://"))
        return
    with broker_of(kind, tmp_path) as url:
        assert_what_waits(Stem(url))


def test_what_waits_in_several_slots_of_a_cluster_is_asserted(cluster: Cluster) -> None:
    assert_what_waits(Stem(cluster.url))


def assert_what_waits(app: Stem) -> None:
    note = app.task(name="note", redact=("token",))(noted)
    at = datetime.now(UTC)
    chain(note.s(Path("/a"), at, (1, 2), "s3cret"), note.s(Path("/b"), at, (), "s3cret")).enqueue()
    note.using(delay=60, queue="later").enqueue(Path("/c"), at, (3,), "s3cret")
    envelope = assert_enqueued(app, "note", {"path": Path("/a"), "at": at, "sizes": (1, 2)}, times=1)
    assert envelope.queue == "default"
    assert_enqueued(app, "note", {"path": "/c"}, queue="later", times=1)
    assert_enqueued(app, "note", times=2)  # the second link is to come
    with pytest.raises(AssertionError, match=r"'/a'.*\n.*'/c'.*'token': '\*\*\*'") as failure:
        assert_enqueued(app, "note", {"path": Path("/d")})
    assert "s3cret" not in str(failure.value)
    app.close()


def noted(path: Path, at: datetime, sizes: tuple[int, ...], token: str) -> None:
    pass
