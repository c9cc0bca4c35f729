"""The contract, on both forms of the SQLite broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stem_iso.brokers.base import Broker
from stem_iso.brokers.opening import open_broker
from stem_iso.testing import BrokerContract


class TestSqliteFile(BrokerContract):
    @pytest.fixture
    def broker(self, tmp_path: Path) -> Iterator[Broker]:
        broker = open_broker("sqlite:///jobs.db", cwd=str(tmp_path))
        yield broker
        broker.close()


class TestSqliteMemory(BrokerContract):
    @pytest.fixture
    def broker(self) -> Iterator[Broker]:
        broker = open_broker("memory://")
        yield broker
        broker.close()
