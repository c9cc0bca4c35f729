"""Workers by command whose Redis server is killed, or whose cluster loses a master, while they run tasks."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from stem_iso import TaskHandle
from stem_iso.brokers.url import open_broker
from stem_iso.errors import BrokerUnavailable
from tests.command.conftest import Command
from tests.isolate.calling import eventually
from tests.servers.cluster import Cluster
from tests.servers.server import Server, until

pytestmark = pytest.mark.repeat
Start = Callable[..., Command]
Serve = Callable[..., Server]
QUEUE = "si:{default}"


def lines(ledger: Path, word: str) -> int:
    return ledger.read_text().count(word) if ledger.exists() else 0


def lease_end(server: Server, id: str) -> float:
    score = server.do("ZSCORE", f"{QUEUE}:z", id)
    return float(score) if isinstance(score, bytes) else 0.0


def outcome(handle: TaskHandle[Any], bound: float = 20) -> Any:
    """Of a producer that is as patient as the worker."""
    deadline = time.monotonic() + bound
    while time.monotonic() < deadline:
        with suppress(BrokerUnavailable):
            return handle.result(timeout=deadline - time.monotonic())
    raise AssertionError(f"{handle} did not end in {bound:g} s")


@pytest.mark.slow
def test_tasks_go_on_while_the_server_is_dead_and_their_outcomes_are_stored_when_it_is_back(
    command: Start, server: Serve, tmp_path: Path
) -> None:
    durable = server(aof="always")
    worker = command(broker=durable.url).ready()
    ledger = tmp_path / "ledger"
    naps = [worker.enqueue("nap", args={"ledger": str(ledger), "seconds": 1.0}) for _ in range(4)]
    later = worker.enqueue("echo", args={"value": 5})
    eventually(lambda: lines(ledger, "start") == 4, "four naps have begun")
    durable.kill()
    with pytest.raises(BrokerUnavailable):
        worker.enqueue("echo", args={"value": 6})
    worker.says("the broker cannot be reached")
    eventually(lambda: lines(ledger, "end") == 4, "they end without a server")
    durable.start()
    assert [outcome(nap) for nap in naps] == [0] * 4
    assert outcome(later) == 5
    assert lines(ledger, "start") == 4
    worker.ready()


@pytest.mark.slow
def test_who_holds_a_lease_renews_it_before_another_claims_it(command: Start, server: Serve, tmp_path: Path) -> None:
    durable = server(aof="always")
    holder = command(broker=durable.url).ready()
    ledger, gate = tmp_path / "ledger", tmp_path / "gate"
    handle = holder.enqueue("inline.wait", args={"ledger": str(ledger), "gate": str(gate)}, visibility_timeout=1.0)
    eventually(lambda: lines(ledger, "start") == 1, "it has begun")
    other = command(broker=durable.url)
    with closing(open_broker(durable.url)) as looking:
        eventually(lambda: len(looking.workers()) == 2, "both are at work")
    durable.kill()
    holder.says("the next try is in 1.6 s")  # 1.5 s of failing: the lease has run out
    os.kill(holder.core, signal.SIGSTOP)
    try:
        durable.start()
        assert outcome(other.enqueue("echo", args={"value": 5})) == 5  # the other one is back first
    finally:
        os.kill(holder.core, signal.SIGCONT)
    eventually(lambda: lease_end(durable, handle.id) > time.time(), "it is renewed")
    gate.touch()
    assert outcome(handle)
    assert lines(ledger, "start") == 1


@pytest.mark.slow
def test_a_worker_goes_on_when_its_master_is_killed_and_a_replica_takes_over(command: Start, cluster: Cluster, tmp_path: Path) -> None:
    worker = command(broker=cluster.url).ready()
    ledger, gate = tmp_path / "ledger", tmp_path / "gate"
    held = worker.enqueue("inline.wait", args={"ledger": str(ledger), "gate": str(gate)})
    eventually(lambda: lines(ledger, "start") == 1, "it has begun")
    cluster.replicated(QUEUE)
    cluster.master_of(QUEUE).kill()
    until(lambda: cluster.could_serve(QUEUE), "a replica has taken over")
    gate.touch()
    assert outcome(held)
    assert outcome(insisted(worker)) == 7
    assert lines(ledger, "start") == 1


def insisted(worker: Command) -> TaskHandle[Any]:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with suppress(BrokerUnavailable):
            return worker.enqueue("echo", args={"value": 7})
    raise AssertionError("the cluster takes no task")
