"""The JSON API over real brokers, with a worker beside it: what is seen, and what is done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import msgspec
import pytest

from stem_iso import Stem, Worker, chain, group
from stem_iso.brokers import records
from stem_iso.brokers.base import WorkerInfo
from stem_iso.dashboard import metrics
from stem_iso.outcome import TaskState
from stem_iso.task.settlement import Finish
from stem_iso.testing.contract.steps import settle
from tests.dashboard.conftest import ORDER
from tests.isolate.calling import eventually

UNKNOWN = "00000000-0000-7000-8000-000000000000"


@pytest.fixture
def worker(app: Stem) -> Iterator[Worker]:
    with Worker(app, concurrency=4) as worker:
        yield worker


def got(site: httpx.Client, path: str, **query: Any) -> Any:
    answer = site.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ordered(site: httpx.Client, path: str, body: Any = None) -> Any:
    answer = site.post(path, json=body, headers=ORDER)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    return dict(answer.json()["error"])


def state_of(site: httpx.Client, id: str) -> str:
    return str(got(site, f"/api/tasks/{id}")["state"])


def make(app: Stem, path: str, **options: Any) -> str:
    return app.enqueue("thumbs.make", {"path": path}, **options).id


# -- what is seen ------------------------------------------------------------------------------------------------------------------------


def test_tasks_are_found_by_all_that_one_may_ask_for(app: Stem, site: httpx.Client) -> None:
    cat, dog = make(app, "cat.png"), make(app, "dog.png", delay=3600)
    other = app.enqueue("thumbs.wait").id

    def ids(**query: Any) -> set[str]:
        return {task["id"] for task in got(site, "/api/tasks", **query)["tasks"]}

    assert ids() == {cat, dog, other}
    assert ids(state="delayed") == {dog} and ids(state="queued,delayed", queue="images") == {cat, dog}
    assert ids(text="CAT.png") == {cat} and ids(name="thumbs.w*") == {other}
    assert ids(since="1h") == {cat, dog, other} and ids(until="1h") == set()
    (first,) = got(site, "/api/tasks", limit=1)["tasks"]
    (oldest,) = got(site, "/api/tasks", limit=1, order="oldest")["tasks"]
    assert (first["id"], oldest["id"]) == (other, cat)


def test_pages_go_on_by_their_cursor(app: Stem, site: httpx.Client) -> None:
    ids, seen, cursor = {make(app, f"{n}.png") for n in range(7)}, [], None
    while True:
        page = got(site, "/api/tasks", limit=3, **({"cursor": cursor} if cursor else {}))
        seen += [task["id"] for task in page["tasks"]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert sorted(seen) == sorted(ids)


def test_lists_cut_what_is_long_and_one_task_has_more(app: Stem, site: httpx.Client) -> None:
    id = make(app, "cat" * 2000)
    with app.broker_pool.borrow() as broker:
        (delivery,) = broker.exchange("b", [], ["images"], 1).deliveries
        settle(broker, delivery, Finish(TaskState.SUCCEEDED, result=msgspec.msgpack.encode(["x" * 5000])))
    (row,) = got(site, "/api/tasks")["tasks"]
    assert row["cut"] == ["result", "args"]
    assert row["result"].startswith('["xxx') and row["result"].endswith("x…") and len(row["result"]) == 2049
    assert row["args"]["path"].startswith("catcat") and row["args"]["path"].endswith("…")
    whole = got(site, f"/api/tasks/{id}")
    assert (whole["cut"], whole["result"], whole["args"]["path"]) == ([], ["x" * 5000], "cat" * 2000)
    assert len(site.get("/tasks").text) < len(site.get(f"/tasks/{id}").text)


def test_redacted_arguments_are_shown_and_found_nowhere(app: Stem, site: httpx.Client) -> None:
    id = app.enqueue("thumbs.make", {"path": "cat.png", "password": "tr0ub4dor"}).id
    assert got(site, f"/api/tasks/{id}")["args"] == {"path": "cat.png", "password": "***"}
    assert got(site, "/api/tasks", text="tr0ub4dor")["tasks"] == []
    assert "tr0ub4dor" not in site.get("/api/tasks").text


def test_a_task_is_shown_with_its_error_its_limits_and_what_may_be_done(app: Stem, site: httpx.Client, worker: Worker) -> None:
    id = make(app, "bad.png")
    eventually(lambda: state_of(site, id) == "failed", "it does not fail")
    task = got(site, f"/api/tasks/{id}")
    assert task["error"]["type"] == "ValueError" and "no picture: bad.png" in task["error"]["traceback"]
    assert task["can"] == ["retry", "edit", "delete"] and task["max_retries"] == 0 and task["answering"] is None
    (failure,) = got(site, "/api/failures")
    assert failure["type"] == "ValueError" and failure["newest"] == [id] and "in make" in failure["place"]


def test_a_running_task_is_shown_with_its_isolate(app: Stem, site: httpx.Client, worker: Worker) -> None:
    id = app.enqueue("thumbs.stuck").id
    eventually(lambda: got(site, f"/api/tasks/{id}")["isolate"] is not None, "no isolate is shown")
    task = got(site, f"/api/tasks/{id}")
    assert task["answering"] is True and task["elapsed"] >= 0
    assert task["isolate"]["hard_time_limit"] == 3600 and task["limits"]["source"] == "isolate"
    (shown,) = got(site, "/api/workers")
    assert shown["answering"] and task["isolate"]["pid"] in [isolate["pid"] for isolate in shown["isolates"]]
    ordered(site, f"/api/tasks/{id}/terminate")
    eventually(lambda: state_of(site, id) == "cancelled", "it goes on")


def test_a_canvas_is_shown_with_all_its_parts(app: Stem, site: httpx.Client, worker: Worker) -> None:
    make_ = app.tasks["thumbs.make"]
    handle = chain(make_.s(path="a"), group([make_.s(path="b"), make_.s(path="bad")])).enqueue()
    eventually(lambda: handle.status().state.terminal, "it does not end")
    member = handle.members[1]
    canvas = got(site, f"/api/tasks/{member.id}")["canvas"]
    assert canvas["id"] == handle.id and canvas["root"]["kind"] == "chain"
    first, members = canvas["root"]["parts"]
    assert first["state"] == "succeeded" and members["kind"] == "group" and members["id"] == handle.id
    assert [(part["name"], part["state"]) for part in members["parts"]] == [("thumbs.make", "succeeded"), ("thumbs.make", "failed")]
    assert "group of 2" in canvas["text"]
    assert got(site, f"/api/tasks/{make(app, 'alone')}")["canvas"] is None


def test_a_worker_that_is_not_seen_for_five_seconds_is_not_shown_as_alive(
    app: Stem, site: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with app.broker_pool.borrow() as broker:
        broker.beat(WorkerInfo(id="w-1", boot="b", hostname="h", pid=1, queues=["images"], seats=1, spares=0))
    id = make(app, "cat.png")
    with app.broker_pool.borrow() as broker:
        assert broker.exchange("b", [], ["images"], 1).deliveries

    def served() -> list[str]:
        (queue,) = [each for each in app.queue_stats() if each.name == "images"]
        return queue.served_by

    def shown() -> tuple[bool, list[str], bool, bool]:
        (worker,), (queue,) = got(site, "/api/workers"), [each for each in got(site, "/api/queues") if each["name"] == "images"]
        (task,) = got(site, "/api/tasks", state="running")["tasks"]
        return worker["answering"], queue["silent"], task["answering"], got(site, f"/api/tasks/{id}")["answering"]

    app.clock = lambda: time.time() + 3600  # the clock of whoever looks says nothing of it
    assert shown() == (True, [], True, True)
    assert served() == ["w-1"] and "stem_iso_workers 1.0" in site.get("/metrics").text
    monkeypatch.setattr(records, "ANSWERS_WITHIN", 0.0)
    assert shown() == (False, ["w-1"], False, False)
    assert served() == []
    totals = got(site, "/api/overview")["totals"]
    assert (totals["workers"], totals["silent"]) == (0, 1)
    assert b"stem_iso_workers 0.0" in metrics.text(app)


def test_the_overview_counts_what_happened(app: Stem, site: httpx.Client, worker: Worker) -> None:
    for path in ("a", "b", "bad"):
        make(app, path)

    def hour() -> dict[str, int]:
        return dict(got(site, "/api/overview")["span_hour"]["counts"])

    eventually(lambda: (hour()["succeeded"], hour()["failed"]) == (2, 1), "nothing is counted", 60)
    overview = got(site, "/api/overview")
    assert sum(overview["hour"]["enqueued"]) == 3 and len(overview["hour"]["at"]) == 60 and len(overview["day"]["at"]) == 1440
    (queue,) = [each for each in overview["queues"] if each["name"] == "images"]
    assert queue["hour"]["counts"]["failed"] == 1 and queue["hour"]["run"]["p95"] > 0 and queue["hour"]["wait"]["p50"] >= 0
    assert overview["totals"]["workers"] == 1
    stats = got(site, "/api/stats", name="thumbs.make", minutes=5)
    assert sum(bucket["failed"] for bucket in stats["buckets"]) == 1 and len(stats["buckets"]) == 5


# -- what is done ------------------------------------------------------------------------------------------------------------------------


def test_a_failed_task_runs_again_and_a_succeeded_one_does_not(app: Stem, site: httpx.Client, worker: Worker) -> None:
    bad, good = app.enqueue("thumbs.make", {"path": "bad.png", "password": "x"}).id, make(app, "cat.png")
    eventually(lambda: (state_of(site, bad), state_of(site, good)) == ("failed", "succeeded"), "they do not end")
    assert ordered(site, f"/api/tasks/{bad}/retry")["task"]["run"] == 1
    assert "has succeeded" in refused(site.post(f"/api/tasks/{good}/retry", headers=ORDER), 409)["message"]
    eventually(lambda: state_of(site, bad) == "failed", "it does not run again")
    assert ordered(site, f"/api/tasks/{bad}/edit", {"args": {"path": "dog.png", "password": "***"}})["task"]["run"] == 2
    eventually(lambda: state_of(site, bad) == "succeeded", "it does not run with what was given")
    assert got(site, f"/api/tasks/{bad}")["args"]["path"] == "dog.png"


def test_arguments_that_do_not_fit_are_refused_by_name(app: Stem, site: httpx.Client) -> None:
    id = make(app, "cat.png", delay=3600)
    for args in ({"pth": "x"}, {"path": [1]}, {}):
        assert refused(site.post(f"/api/tasks/{id}/edit", json={"args": args}, headers=ORDER), 400)["field"] == "args"
    assert refused(site.post(f"/api/tasks/{id}/edit", json={}, headers=ORDER), 400)["field"] == "args"


def test_who_edits_what_somebody_else_has_edited_meanwhile_is_told(app: Stem, site: httpx.Client) -> None:
    id = make(app, "cat.png", delay=3600)
    seen = got(site, f"/api/tasks/{id}")["run"]
    assert ordered(site, f"/api/tasks/{id}/edit", {"args": {"path": "dog.png"}, "run": seen})["task"]["run"] == seen + 1
    late = site.post(f"/api/tasks/{id}/edit", json={"args": {"path": "cow.png"}, "run": seen}, headers=ORDER)
    assert "another run" in refused(late, 409)["message"]
    assert got(site, f"/api/tasks/{id}")["args"]["path"] == "dog.png"
    wrong = site.post(f"/api/tasks/{id}/edit", json={"args": {"path": "cow.png"}, "run": "first"}, headers=ORDER)
    assert refused(wrong, 400)["field"] == "run"


def test_a_delayed_task_runs_now(app: Stem, site: httpx.Client, worker: Worker) -> None:
    id = make(app, "cat.png", delay=3600)
    assert "run-now" in got(site, f"/api/tasks/{id}")["can"]
    ordered(site, f"/api/tasks/{id}/run-now")
    eventually(lambda: state_of(site, id) == "succeeded", "it waits on")
    refused(site.post(f"/api/tasks/{id}/run-now", headers=ORDER), 409)


def test_a_waiting_task_is_revoked_once_and_deleted_after_that(app: Stem, site: httpx.Client) -> None:
    id = make(app, "cat.png")
    refused(site.post(f"/api/tasks/{id}/delete", headers=ORDER), 409)
    assert ordered(site, f"/api/tasks/{id}/revoke")["task"]["state"] == "cancelled"
    refused(site.post(f"/api/tasks/{id}/revoke", headers=ORDER), 409)
    ordered(site, f"/api/tasks/{id}/delete")
    refused(site.get(f"/api/tasks/{id}"), 404)


@pytest.mark.parametrize("action", ["retry", "revoke", "terminate", "run-now", "delete"])
def test_an_unknown_task_is_said_so(site: httpx.Client, action: str) -> None:
    assert refused(site.post(f"/api/tasks/{UNKNOWN}/{action}", headers=ORDER), 404)["type"] == "UnknownResult"


def test_bulk_counts_first_and_does_it_then(app: Stem, site: httpx.Client) -> None:
    ids = [make(app, f"{n}.png") for n in range(3)]
    body = {"action": "revoke", "queue": "images", "text": "png"}
    assert ordered(site, "/api/bulk", {**body, "dry_run": True})["matched"] == 3
    assert {state_of(site, id) for id in ids} == {"queued"}
    answer = ordered(site, "/api/bulk", body)
    assert (answer["matched"], answer["done"], answer["refused"]) == (3, 3, 0)
    assert {state_of(site, id) for id in ids} == {"cancelled"}
    assert refused(site.post("/api/bulk", json={"action": "revoke"}, headers=ORDER), 400)["field"] == "all"
    assert refused(site.post("/api/bulk", json={"action": "explode", "state": "failed"}, headers=ORDER), 400)["field"] == "action"


def test_a_queue_is_paused_and_goes_on(app: Stem, site: httpx.Client, worker: Worker) -> None:
    assert ordered(site, "/api/queues/images/pause")["obeyed"] == [worker.id]
    id = make(app, "cat.png")
    (queue,) = [each for each in got(site, "/api/queues") if each["name"] == "images"]
    assert queue["paused"] and queue["queued"] == 1 and state_of(site, id) == "queued"
    ordered(site, "/api/queues/images/resume")
    eventually(lambda: state_of(site, id) == "succeeded", "it stays paused")


def test_a_task_name_is_paused_and_goes_on(app: Stem, site: httpx.Client, worker: Worker) -> None:
    assert ordered(site, "/api/tasks/pause?name=thumbs.make")["obeyed"] == [worker.id]
    assert got(site, "/api/overview")["paused_tasks"] == ["thumbs.make"]
    id = make(app, "cat.png")
    eventually(lambda: got(site, f"/api/tasks/{id}")["reason"] == "paused", "it is not held")
    ordered(site, "/api/tasks/resume?name=thumbs.make")
    eventually(lambda: state_of(site, id) == "succeeded", "it stays paused")
    assert refused(site.post("/api/tasks/pause", headers=ORDER), 400)["field"] == "name"


def test_a_queue_is_purged(app: Stem, site: httpx.Client) -> None:
    id = make(app, "cat.png")
    assert ordered(site, "/api/queues/images/purge") == {"name": "images", "purged": 1}
    assert got(site, f"/api/tasks/{id}")["reason"] == "purged"


def test_a_worker_gets_more_seats_and_an_isolate_is_killed(app: Stem, site: httpx.Client, worker: Worker) -> None:
    path = f"/api/workers/{worker.id}/control"
    assert ordered(site, path, {"action": "concurrency", "value": 2})["obeyed"] == [worker.id]
    id = app.enqueue("thumbs.stuck").id
    eventually(lambda: got(site, f"/api/tasks/{id}")["isolate"] is not None, "no isolate is shown")
    pid = got(site, f"/api/tasks/{id}")["isolate"]["pid"]
    assert ordered(site, path, {"action": "kill", "value": pid})["obeyed"] == [worker.id]
    eventually(lambda: state_of(site, id) == "failed", "it lives")
    assert refused(site.post(path, json={"action": "kill", "value": "x"}, headers=ORDER), 400)["field"] == "value"
    assert refused(site.post(path, json={"action": "fly"}, headers=ORDER), 400)["field"] == "action"
    assert refused(site.post("/api/workers/nobody/control", json={"action": "stop"}, headers=ORDER), 404)["type"] == "UnknownWorker"


def test_the_stack_of_what_is_stuck_is_shown_live(app: Stem, site: httpx.Client, worker: Worker) -> None:
    id = app.enqueue("thumbs.stuck").id
    eventually(lambda: got(site, f"/api/tasks/{id}")["isolate"] is not None, "no isolate is shown")
    pid = got(site, f"/api/tasks/{id}")["isolate"]["pid"]
    answer = ordered(site, f"/api/workers/{worker.id}/control", {"action": "stack", "value": pid})
    assert "in stuck" in answer["texts"][worker.id]
    ordered(site, f"/api/tasks/{id}/terminate")


def test_a_schedule_is_paused_triggered_and_removed(app: Stem, site: httpx.Client) -> None:
    app.schedule("nightly", app.tasks["thumbs.make"].s(path="all"), every=86_400)
    assert got(site, "/api/schedules")[0]["name"] == "nightly"
    ordered(site, "/api/schedules/nightly/pause")
    assert got(site, "/api/schedules")[0]["paused"]
    ordered(site, "/api/schedules/nightly/resume")
    id = ordered(site, "/api/schedules/nightly/trigger")["id"]
    assert got(site, f"/api/tasks/{id}")["args"]["path"] == "all"
    ordered(site, "/api/schedules/nightly/remove")
    assert got(site, "/api/schedules") == []
    assert refused(site.post("/api/schedules/nightly/pause", headers=ORDER), 404)["type"] == "UnknownSchedule"


def test_a_schedule_shows_what_became_of_its_last_firings(app: Stem, site: httpx.Client, worker: Worker) -> None:
    app.schedule("often", app.tasks["thumbs.make"].s(path="all"), every=0.2)

    def ended() -> list[str]:
        return [one["id"] for one in got(site, "/api/schedules")[0]["outcomes"] if one["state"] == "succeeded"]

    eventually(ended, "no firing is shown")
    ordered(site, "/api/schedules/often/pause")
    by_hand = ordered(site, "/api/schedules/often/trigger")["id"]
    eventually(lambda: state_of(site, by_hand) == "succeeded", "it does not end")
    page = site.get("/schedules").text
    assert all(f"/tasks/{id}" in page for id in ended()) and f"/tasks/{by_hand}" not in page
    assert {got(site, f"/api/tasks/{id}")["name"] for id in ended()} == {"thumbs.make"}


def test_who_did_what_is_listed(app: Stem, site: httpx.Client) -> None:
    id = make(app, "cat.png")
    ordered(site, f"/api/tasks/{id}/revoke")
    refused(site.post(f"/api/tasks/{id}/revoke", headers=ORDER), 409)
    ordered(site, "/api/queues/images/purge")
    actions = got(site, "/api/actions")
    assert [(each["action"], each["target"], each["result"]) for each in actions] == [
        ("purge", "queue images", "0 cancelled"),
        ("revoke", id, "refused"),
        ("revoke", id, "done"),
    ]
    assert {each["by"] for each in actions} == {"dashboard@127.0.0.1"}
    assert len(got(site, "/api/actions", limit=1)) == 1


def test_names_with_slashes_and_percents_find_their_way(app: Stem, site: httpx.Client) -> None:
    make(app, "cat.png", queue="a/b%2Fc?d#e", task_id="id/with ünicode%20")
    assert got(site, "/api/tasks/id%2Fwith%20%C3%BCnicode%2520")["queue"] == "a/b%2Fc?d#e"
    assert ordered(site, "/api/queues/a%2Fb%252Fc%3Fd%23e/purge")["purged"] == 1


def test_metrics_are_of_the_whole_broker(app: Stem, site: httpx.Client) -> None:
    make(app, "cat.png")
    answer = site.get("/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain")
    assert "stem_iso_broker_up 1.0" in answer.text and 'stem_iso_queue_depth{queue="images",state="queued"} 1.0' in answer.text


@pytest.mark.parametrize("pid", ["0", "x", str(2**31), "9" * 5000])
def test_the_stack_of_what_is_no_pid_is_refused(site: httpx.Client, pid: str) -> None:
    assert site.get(f"/workers/w-1/stack/{pid}").status_code == 400


def test_a_task_with_arguments_that_no_json_can_hold_hides_no_other(app: Stem, site: httpx.Client) -> None:
    """What the broker holds may be nested deeper than an answer can be: an answer has levels of its own around it."""

    @app.task(name="tests.deep", queue="images")
    def take(value: object) -> None: ...

    def send() -> list[str]:
        deep: object = []
        sent = []
        for levels in range(1, 1200):
            deep = {"a": deep}
            if levels > 900:
                with suppress(TypeError):  # deeper than can be sent
                    sent.append(app.enqueue("tests.deep", {"value": deep}).id)
        return sent

    with ThreadPoolExecutor(1) as fresh:  # from a stack of few frames more can be sent
        sent = fresh.submit(send).result()
    listed = site.get("/api/tasks?limit=1000")
    assert listed.status_code == 200
    assert all(f'"{id}"' in listed.text for id in sent)
    assert site.get(f"/api/tasks/{sent[-1]}").status_code == 200
