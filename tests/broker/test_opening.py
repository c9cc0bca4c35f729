"""URLs, options, and what a mistake in them is answered with."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from stem_iso.brokers.base import BrokerOptions
from stem_iso.brokers.opening import open_broker, parse_url
from stem_iso.brokers.sqlite.memory import MemoryStore
from stem_iso.errors import BrokerUnavailable, InvalidOptions
from stem_iso.testing.contract.desk import envelope


def test_options_come_from_the_query_and_a_keyword_wins() -> None:
    address, options = parse_url("sqlite:///jobs.db?sync=full&block_time=2&max_redeliveries=0", {"block_time": timedelta(seconds=7)})
    assert (address.scheme, address.path) == ("sqlite", "jobs.db")
    assert options == BrokerOptions(sync="full", block_time=7.0, max_redeliveries=0)


def test_paths_are_relative_or_absolute_by_the_number_of_slashes(tmp_path: Path) -> None:
    assert open_broker("sqlite:///a/jobs.db", cwd=str(tmp_path)).url == f"sqlite:///{tmp_path}/a/jobs.db"
    assert open_broker("sqlite:////var/jobs.db", cwd=str(tmp_path)).url == "sqlite:////var/jobs.db"
    assert open_broker("sqlite:///my%20jobs.db", cwd=str(tmp_path)).url == f"sqlite:///{tmp_path}/my jobs.db"
    assert open_broker("sqlite:///jobs.db").url == f"sqlite:///{os.getcwd()}/jobs.db"
    assert open_broker("memory://").url == "memory://"


@pytest.mark.parametrize(
    ("url", "overrides", "says"),
    [
        ("redis://localhost/0", {}, "not in this version"),
        ("rediss://localhost/0", {}, "not in this version"),
        ("unix:///run/redis.sock", {}, "not in this version"),
        ("redis+cluster://a,b", {}, "not in this version"),
        ("sqlit:///x.db", {}, "did you mean 'sqlite'"),
        ("jobs.db", {}, "sqlite:///jobs.db"),
        ("sqlite://jobs.db", {}, "sqlite:///jobs.db"),
        ("sqlite://", {}, "sqlite:///stem_iso.db"),
        ("sqlite:///", {}, "names no file"),
        ("sqlite:///folder/", {}, "names no file"),
        ("sqlite:///:memory:", {}, "memory://"),
        ("memory://name", {}, "no path"),
        ("memory://?blocktime=1", {}, "did you mean 'block_time'"),
        ("memory://?block_time", {}, "block_time=VALUE"),
        ("memory://", {"synch": "full"}, "did you mean 'sync'"),
        ("memory://", {"sync": "ful"}, "normal or full"),
        ("memory://", {"block_time": 0}, "block_time is 0"),
        ("memory://", {"block_time": "soon"}, "'soon'"),
        ("memory://", {"claim_interval": float("nan")}, "above 0"),
        ("memory://", {"dead_letter_ttl": float("inf")}, "above 0"),
        ("memory://", {"max_redeliveries": -1}, "from 0 up"),
        ("memory://", {"max_redeliveries": True}, "from 0 up"),
        ("memory://", {"max_payload_bytes": 1.5}, "whole number"),
        ("memory://", {"max_result_bytes": 0}, "from 1 up"),
        ("memory://", {"max_result_bytes": None}, "whole number"),
    ],
)
def test_a_mistake_is_named_with_the_way_out(url: str, overrides: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidOptions) as caught:
        parse_url(url, overrides)
    assert says in str(caught.value)


def test_nothing_is_opened_and_sqlite3_is_not_imported_before_the_first_use(tmp_path: Path) -> None:
    program = """
import sys
from stem_iso.brokers.opening import open_broker
brokers = [open_broker("sqlite:///jobs.db"), open_broker("memory://")]
assert "sqlite3" not in sys.modules
brokers[1].queues()
assert "sqlite3" in sys.modules
"""
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_memory_brokers_share_the_store_they_were_given() -> None:
    store = MemoryStore()
    first, second, stranger = (open_broker("memory://", store=given) for given in (store, store, None))
    first.publish([envelope()])
    assert len(second.queues()) == 1
    assert stranger.queues() == []


def test_a_missing_folder_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(BrokerUnavailable, match="there is no folder"):
        open_broker("sqlite:///nowhere/jobs.db", cwd=str(tmp_path)).publish([envelope()])
