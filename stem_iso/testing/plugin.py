"""A pytest plugin: an application in memory, and a worker that runs beside the test. pytest loads it wherever stem_iso is installed.

    @pytest.fixture
    def stem_app():                                     in conftest.py: your own application, put on a broker in memory for each test
        return shop.app

    def test_an_order_is_shipped(stem_app, stem_worker):
        assert shop.ship.enqueue(7).result(timeout=30) == "shipped"

Without an override `stem_app` is an application without tasks. Nothing is imported before a fixture is used.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from stem_iso.app import Stem
    from stem_iso.worker.worker import Worker

NAME = "stem_app"
GRACE = 1.0  # seconds


@pytest.fixture
def stem_app() -> Stem:
    """A `Stem` on a memory:// store of its own. Override it to test an application of yours."""
    from stem_iso.app import Stem

    return Stem(broker="memory://")


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> Generator[None, Any, Any]:
    """Whoever made the application: from here to the end of the test it is on a broker in memory, and its own is not touched."""
    made = yield
    if fixturedef.argname == NAME and fixturedef.cached_result is not None:
        from stem_iso.app import Stem
        from stem_iso.testing.mode import MemorySite

        app = fixturedef.cached_result[0]
        if not isinstance(app, Stem):
            raise TypeError(f"the fixture {NAME} answers {app!r}; it must be a Stem")
        stack = ExitStack()
        stack.enter_context(app.on_site(MemorySite(app)))
        fixturedef.addfinalizer(stack.close)
    return made


@pytest.fixture
def stem_worker(stem_app: Stem) -> Iterator[Worker]:
    """A worker of `stem_app` on every queue. What still runs at the end of the test has GRACE seconds to end, then it is killed."""
    from stem_iso.worker.worker import Worker

    with Worker(stem_app, shutdown_timeout=GRACE) as worker:
        yield worker
