"""Workers and producers of an old commit and of this tree share a store, as they do while a deployment goes on.

    old worker: queues old, both        producers of either tree, in processes of their own,
    new worker: queues new, both        enqueue for either worker, and look at what the other has enqueued

Each task notes each of its attempts and the tree that it ran in. Nothing is lost, nothing runs twice, and all ends as in one tree.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.command.conftest import ROOT, Command
from tests.isolate.calling import eventually
from tests.servers.fixtures import broker_of

OLD = "8c6f8cdd65b1e694bd2cb89f463c83ef613e55d8"  # before the package was laid out in rooms; the stored formats are the same since
OPTIONS = "default_visibility_timeout=8&claim_interval=0.1"  # a disk that is busy for 2 s must not cost anybody a lease
TREES = ("old", "new")
OTHER = {"old": "new", "new": "old"}


def git(*words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, check=False)


@pytest.fixture(scope="module")
def old_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of the old commit; what it depends on is this environment's."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("the old tree is made of git's history, and this is an export without it, or git is not installed")
    if git("cat-file", "-e", OLD + "^{commit}").returncode:
        pytest.skip(f"the old tree is made of git's history, and this clone is too shallow to have {OLD[:7]}: `git fetch --unshallow`")
    folder = tmp_path_factory.mktemp("old")
    archive = git("archive", OLD, "stem_iso", "pyproject.toml")
    assert archive.returncode == 0, archive.stderr.decode()
    subprocess.run(["tar", "x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


@dataclass
class Producer:
    """A process that calls the functions of `two_trees`, in its tree."""

    process: subprocess.Popen[str]

    def call(self, function: str, *args: Any, **options: Any) -> Any:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(json.dumps([function, args, options]) + "\n")
        stdin.flush()
        line = stdout.readline()
        assert line, f"the producer ended in {function}{args}"
        return json.loads(line)

    def enqueue(self, name: str, queue: str, **args: Any) -> str:
        id: str = self.call("enqueue", name, args, queue=queue)
        return id

    def close(self) -> None:
        self.process.communicate(timeout=30)


@dataclass
class Store:
    """One store, and who works with it."""

    folder: Path
    broker: str
    paths: dict[str, Path]
    held: ExitStack
    producers: dict[str, Producer] = field(default_factory=dict)
    workers: dict[str, Command] = field(default_factory=dict)

    def environment(self, tree: str) -> dict[str, str]:
        own = {"PYTHONPATH": str(self.paths[tree]), "STEM_ISO_TEST_FOLDER": str(self.folder), "STEM_ISO_TEST_BROKER": self.broker}
        return {**os.environ, **own, "STEM_ISO_BROKER": self.broker}

    def produce(self, tree: str) -> None:
        command = [sys.executable, "-m", "two_trees"]
        process = subprocess.Popen(
            command, cwd=self.folder, env=self.environment(tree), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.producers[tree] = Producer(process)
        self.held.callback(self.producers[tree].close)
        assert self.producers[tree].call("tree") == str(self.paths[tree])

    def work(self, tree: str) -> None:
        """Returns when it has carried out a task."""
        log = self.folder / tree
        log.mkdir(exist_ok=True)
        worker = Command(
            log,
            *("-Q", f"{tree},both", "-c", "2", "--spares", "0"),
            broker=self.broker,
            env=self.environment(tree),
            application="two_trees:app",
            cwd=self.folder,
        )
        self.held.callback(worker.close)
        self.workers[tree] = worker
        id = self.producers[tree].enqueue("inline", tree, value=0)
        try:
            assert self.producers[tree].call("result", id) == [str(self.paths[tree]), 0]
        except AssertionError as error:
            error.add_note(f"the worker's log:\n{worker.log.read_text()}")
            raise

    def attempts(self, id: str) -> list[tuple[int, int, str]]:
        """Of this task, as they began: run, attempt, and the tree."""
        ledger = self.folder / "ledger"
        names = {str(path): tree for tree, path in self.paths.items()}
        lines = [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.exists() else []
        return [(run, attempt, names[path]) for one, run, attempt, path in lines if one == id]

    def begun(self, id: str) -> None:
        eventually(lambda: self.attempts(id), "it does not begin")

    def open(self, gate: str) -> None:
        (self.folder / gate).touch()

    def assert_once_each(self) -> None:
        """No attempt of any task began twice."""
        lines = [json.loads(line) for line in (self.folder / "ledger").read_text().splitlines()]
        counted = Counter((id, run, attempt) for id, run, attempt, _ in lines)
        assert {each: count for each, count in counted.items() if count > 1} == {}


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def shared_store(request: pytest.FixtureRequest, old_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """With a producer of either tree: workers take seconds to start, so the tests of one store have them in common."""
    folder = tmp_path_factory.mktemp(request.param)
    shutil.copy(Path(__file__).with_name("two_trees.py"), folder)
    with broker_of(request.param, folder, oldest=True) as url, ExitStack() as held:
        store = Store(folder, f"{url}?{OPTIONS}", {"old": old_tree, "new": ROOT}, held)
        for tree in TREES:
            store.produce(tree)
        yield store


@pytest.fixture
def store(shared_store: Store) -> Store:
    """With a worker of either tree."""
    for tree in TREES:
        if tree not in shared_store.workers:
            shared_store.work(tree)
    return shared_store


@pytest.mark.slow
def test_an_old_and_a_new_worker_serve_producers_of_either_tree(store: Store) -> None:
    each_results_are_read_in_the_other_tree(store)
    retries_and_delays(store)
    canvases_cross_the_trees(store)
    dead_letters_are_replayed_from_the_other_tree(store)
    revokes_reach_the_other_tree(store)
    a_unique_id_is_one_for_both(store)
    cores = sorted(worker.core for worker in store.workers.values())
    assert [store.producers[tree].call("workers") for tree in TREES] == [cores, cores]
    store.assert_once_each()


def each_results_are_read_in_the_other_tree(store: Store) -> None:
    sent = []
    for number, (by, queue, name) in enumerate(product(TREES, (*TREES, "both"), ("isolated", "inline"))):
        sent.append((by, queue, number, store.producers[by].enqueue(name, queue, value=number)))
    for by, queue, number, id in sent:
        found = store.producers[OTHER[by]].call("result", id)
        paths = [str(store.paths[tree]) for tree in (TREES if queue == "both" else (queue,))]
        assert found in [[path, number] for path in paths], (found, store.attempts(id))
        assert len(store.attempts(id)) == 1


def retries_and_delays(store: Store) -> None:
    pairs = list(product(TREES, TREES))
    failing = [(by, queue, store.producers[by].enqueue("fails_once", queue)) for by, queue in pairs]
    late = [(by, queue, store.producers[by].call("enqueue", "isolated", {"value": 5}, queue=queue, delay=0.5)) for by, queue in pairs]
    for by, queue, id in failing:
        assert store.producers[OTHER[by]].call("result", id) == 1
        assert store.attempts(id) == [(0, 0, queue), (0, 1, queue)]
    for by, queue, id in late:
        assert store.producers[OTHER[by]].call("result", id) == [str(store.paths[queue]), 5]
        assert store.producers[OTHER[by]].call("waited", id) >= 0.5


def canvases_cross_the_trees(store: Store) -> None:
    old, new = (str(store.paths[tree]) for tree in TREES)
    for by in TREES:
        producer, reader = store.producers[by], store.producers[OTHER[by]]
        chained = producer.call("enqueue_chain", ["old", "new", "old", "new"])
        grouped = producer.call("enqueue_group", ["old", "new", "new", "old"])
        packed = [(last, producer.call("enqueue_chord", ["old", "new"], last)) for last in TREES]
        assert reader.call("result", chained) == [f"0 {old}", f"1 {new}", f"2 {old}", f"3 {new}"]
        assert reader.call("result", grouped, canvas=True) == [[old, 0], [new, 1], [new, 2], [old, 3]]
        for last, id in packed:
            assert reader.call("result", id) == [str(store.paths[last]), [[old, 0], [new, 1]]]


def dead_letters_are_replayed_from_the_other_tree(store: Store) -> None:
    for queue in TREES:
        buried, replayer = store.producers[queue], store.producers[OTHER[queue]]
        id = buried.enqueue("fails_in_its_first_run", queue)
        assert buried.call("result", id)["state"] == "failed"
        assert replayer.call("replay", id) == [None]
        assert replayer.call("result", id) == 1
        assert store.attempts(id) == [(0, 0, queue), (1, 0, queue)]


def revokes_reach_the_other_tree(store: Store) -> None:
    for by, queue in product(TREES, TREES):
        producer, revoker = store.producers[by], store.producers[OTHER[by]]
        running = producer.enqueue("hold", queue, gate="never")
        waiting = producer.call("enqueue", "isolated", {"value": 0}, queue=queue, delay=600)
        store.begun(running)
        for id in (running, waiting):
            assert revoker.call("revoke", id, True) is True
            assert producer.call("result", id) == {"state": "cancelled", "reason": "revoked"}
        assert len(store.attempts(running)) == 1 and not store.attempts(waiting)


def a_unique_id_is_one_for_both(store: Store) -> None:
    for by, queue in product(TREES, TREES):
        gate = f"gate-{by}-{queue}"
        options = {"queue": queue, "unique": True, "unique_key": gate}
        first, *others = (
            store.producers[tree].call("enqueue", "hold", {"gate": gate}, **options) for tree in (by, OTHER[by], by, OTHER[by])
        )
        assert others == [first] * 3
        store.begun(first)
        store.open(gate)
        assert store.producers[OTHER[by]].call("result", first) == str(store.paths[queue])
        assert len(store.attempts(first)) == 1
        assert store.producers[OTHER[by]].call("enqueue", "hold", {"gate": gate}, **options) != first


@pytest.mark.slow
def test_each_takes_over_what_the_other_leaves(store: Store) -> None:
    hand_over(store, "old")
    store.work("old")
    hand_over(store, "new")


def hand_over(store: Store, leaver: str) -> None:
    """The leaver is killed while it is alone, with a task that runs, one that awaits its retry, and one that is delayed."""
    taker = OTHER[leaver]
    producer, reader = store.producers[leaver], store.producers[taker]
    end(store, taker, signal.SIGTERM)
    gate = f"gate of {leaver}"
    retrying, running = (producer.enqueue(name, "both", gate=gate) for name in ("again", "hold"))
    store.begun(retrying)
    store.begun(running)
    late = producer.call("enqueue", "isolated", {"value": 7}, queue="both", delay=2)
    end(store, leaver, signal.SIGKILL)
    store.work(taker)
    eventually(lambda: store.attempts(retrying)[-1][2] == taker, "its retry was not taken over")
    eventually(lambda: len(store.attempts(running)) == 2, "what was running was not taken over")
    store.open(gate)
    assert [reader.call("result", id) for id in (retrying, running)] == [str(store.paths[taker])] * 2
    assert reader.call("result", late)[1] == 7
    assert [tree for _, _, tree in store.attempts(running)] == [leaver, taker]
    assert len(store.attempts(late)) == 1


def end(store: Store, tree: str, number: signal.Signals) -> None:
    worker = store.workers.pop(tree)
    worker.send(number)
    worker.wait()
