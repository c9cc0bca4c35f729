"""A pytest plugin: an application in memory, and a worker that runs beside the test.

pytest_plugins = ["stem_iso.testing.plugin"]        in conftest.py

def test_a_thumbnail_is_made(stem_app, stem_worker):
    make = stem_app.task(name="thumbs.make")(thumbs.make)
    assert make.enqueue("cat.png").result(timeout=5) == {"bytes": 10}
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from stem_iso.app import Stem
    from stem_iso.worker.worker import Worker


@pytest.fixture
def stem_app() -> Iterator[Stem]:
    """A `Stem` on a memory:// store of its own. Override it to test an application of yours."""
    from stem_iso.app import Stem

    app = Stem(broker="memory://")
    yield app
    app.close()


@pytest.fixture
def stem_worker(stem_app: Stem) -> Iterator[Worker]:
    """A worker of `stem_app` on every queue; at the end of the test it finishes what it runs."""
    from stem_iso.worker.worker import Worker

    with Worker(stem_app) as worker:
        yield worker
