"""The contract, on both forms of the SQLite broker, on each Redis that is found, and on a cluster of three masters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stem_iso.brokers.base import Broker
from stem_iso.brokers.url import open_broker
from stem_iso.testing import BrokerContract
from tests.servers.cluster import Cluster


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


class TestRedis(BrokerContract):
    @pytest.fixture
    def broker(self, redis_url: str) -> Iterator[Broker]:
        self.url = redis_url  # the broker's own shows no password
        broker = open_broker(redis_url)
        yield broker
        broker.close()

    def another(self, broker: Broker) -> Broker:
        return open_broker(self.url, broker.options)


class TestRedisCluster(BrokerContract):
    @pytest.fixture
    def broker(self, cluster: Cluster) -> Iterator[Broker]:
        broker = open_broker(cluster.url)
        yield broker
        broker.close()
