"""What arrives at Sentry of real workers: the real SDK, with a transport that writes to a file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integrations.conftest import TASKS, Ran, run_all
from tests.integrations.stacks import functions

pytestmark = pytest.mark.integrations  # a worker by command that runs each kind of failure, once for all tests here


def last(event: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = event["exception"]["values"][-1]
    return found


def earlier(event: dict[str, Any]) -> list[str]:
    crumbs = event.get("breadcrumbs", {}).get("values", [])
    return [crumb["message"] for crumb in crumbs if crumb.get("category") == "stem_iso.attempt"]


def test_each_task_that_failed_is_one_event_and_the_others_are_none(ran: Ran) -> None:
    assert sorted(event["tags"]["task"] for event in ran.events) == sorted(TASKS)
    assert {event["tags"]["task_id"] for event in ran.events} == {ran.ids[name] for name in TASKS}


def test_an_error_arrives_as_its_exception_with_frames_and_local_variables_from_its_isolate(ran: Ran) -> None:
    event = ran.event_of("isolated.error")
    assert event["pid"] != ran.core
    assert (last(event)["type"], last(event)["value"]) == ("ValueError", "no discount of 42 in attempt 2")
    frame = last(event)["stacktrace"]["frames"][-1]
    assert (frame["function"], frame["vars"]["discount"], frame["in_app"]) == ("isolated_error", "42", True)
    assert functions(last(event)) == ["isolated_error"], "frames of the library stand above the handler"
    assert event["fingerprint"] == ["isolated.error", "ValueError"]
    assert {name: event["tags"][name] for name in ("task", "queue", "attempt", "customer")} == {
        "task": "isolated.error",
        "queue": "default",
        "attempt": "2",
        "customer": "c-1",
    }
    assert event["tags"]["worker"]
    assert event["transaction"] == "isolated.error"


def test_attempts_before_the_last_are_its_breadcrumbs(ran: Ran) -> None:
    assert earlier(ran.event_of("isolated.error")) == [
        "attempt 0: ValueError: no discount of 42 in attempt 0",
        "attempt 1: ValueError: no discount of 42 in attempt 1",
    ]
    assert earlier(ran.event_of("inline.error")) == ["attempt 0: LookupError: inline 0"]
    assert earlier(ran.event_of("isolated.refused")) == []
    (crash,) = earlier(ran.event_of("isolated.mixed"))
    assert crash.startswith("attempt 0: stem_iso.errors.IsolateCrashed: ")


def test_an_error_that_policy_does_not_retry_is_the_last_attempt(ran: Ran) -> None:
    event = ran.event_of("isolated.refused")
    assert (event["tags"]["attempt"], last(event)["value"]) == ("0", "not worth another attempt")
    assert event["pid"] != ran.core


@pytest.mark.parametrize(("name", "function"), [("inline.error", "inline_error"), ("inline.async", "inline_async")])
def test_an_inline_handler_is_no_different(ran: Ran, name: str, function: str) -> None:
    event = ran.event_of(name)
    assert last(event)["type"] == "LookupError"
    assert functions(last(event)) == [function]
    assert event["pid"] != ran.core


def test_a_time_out_is_sent_by_the_core_with_the_stack_of_the_stuck_handler(ran: Ran) -> None:
    event = ran.event_of("isolated.stuck")
    assert event["pid"] == ran.core
    assert (last(event)["type"], last(event)["module"]) == ("TimeoutException", "stem_iso.errors")
    assert functions(last(event))[-2:] == ["isolated_stuck", "crunch"]
    frame = last(event)["stacktrace"]["frames"][-1]
    assert frame["context_line"].strip() == "time.sleep(60)"
    assert event["fingerprint"] == ["isolated.stuck", "stem_iso.errors.TimeoutException"]
    assert (event["tags"]["attempt"], event["tags"]["queue"]) == ("1", "default")
    (before,) = earlier(event)
    assert before.startswith("attempt 0: stem_iso.errors.TimeoutException: ")


def test_a_coroutine_that_is_stopped_at_its_limit_is_a_time_out_and_no_cancellation(ran: Ran) -> None:
    assert last(ran.event_of("inline.async.stuck"))["type"] == "TimeoutException"


def test_a_crash_is_sent_by_the_core_with_its_fault_stack(ran: Ran) -> None:
    event = ran.event_of("isolated.segfault")
    assert event["pid"] == ran.core
    assert last(event)["type"] == "IsolateCrashed"
    assert "SIGSEGV" in last(event)["value"]
    assert "isolated_segfault" in functions(last(event))


def test_a_memory_kill_is_sent_by_the_core(ran: Ran) -> None:
    event = ran.event_of("isolated.hog")
    assert (event["pid"], last(event)["type"]) == (ran.core, "MemoryLimitExceeded")
    assert event["fingerprint"] == ["isolated.hog", "stem_iso.errors.MemoryLimitExceeded"]


def test_a_result_that_cannot_be_stored_is_sent_although_no_handler_raised(ran: Ran) -> None:
    assert last(ran.event_of("isolated.result"))["type"] == "TypeError"


def test_a_retry_that_is_asked_for_in_vain_is_the_error_behind_it(ran: Ran) -> None:
    event = ran.event_of("isolated.asked")
    assert (last(event)["type"], last(event)["value"], event["tags"]["attempt"]) == ("ConnectionError", "away", "1")


def test_with_retries_each_attempt_is_an_event(tmp_path: Path) -> None:
    names = {name: TASKS[name] for name in ("isolated.error", "isolated.mixed")}
    ran = run_all(tmp_path, names, STEM_ISO_TEST_RETRIES="1")
    assert sorted((event["tags"]["task"], event["tags"]["attempt"], last(event)["type"]) for event in ran.events) == [
        *(("isolated.error", number, "ValueError") for number in "012"),
        ("isolated.mixed", "0", "IsolateCrashed"),
        ("isolated.mixed", "1", "ValueError"),
    ]


def test_without_a_dsn_nothing_happens(tmp_path: Path) -> None:
    program = """
import sentry_sdk
from stem_iso import Stem, Worker
from stem_iso.integrations.sentry import SentryMiddleware, StemIntegration
sentry_sdk.init(integrations=[StemIntegration()])
app = Stem(broker="memory://")
app.middleware.add(SentryMiddleware())

@app.task(name="wrong", max_retries=1, retry_strategy=lambda *_: 0.0)
def wrong():
    raise ValueError("wrong")

if __name__ == "__main__":
    handle = app.enqueue("wrong")
    Worker(app, burst=True).run()
    print(handle.status().state, handle.status().error.type)
"""
    assert run(tmp_path, program.replace(", max_retries=1, retry_strategy=lambda *_: 0.0", "")) == "failed ValueError\n"


@pytest.mark.parametrize(("module", "blocked"), [("sentry", "sentry_sdk"), ("otel", "opentelemetry")])
def test_an_sdk_that_is_missing_is_an_import_error_that_names_the_extra(tmp_path: Path, module: str, blocked: str) -> None:
    program = f"""
import sys
sys.modules[{blocked!r}] = None
try:
    import stem_iso.integrations.{module}
except ImportError as error:
    print(error)
"""
    assert f"pip install 'stem_iso[{module}]'" in run(tmp_path, program)


EMBEDDED = """
import json, logging, sys
import sentry_sdk
from sentry_sdk.transport import Transport
from stem_iso import Stem, Worker
from stem_iso.integrations.sentry import StemIntegration

class ToFile(Transport):
    def capture_envelope(self, envelope):
        event = envelope.get_event()
        with open("events", "a") as events:
            events.write(json.dumps(event, default=str) + chr(10))

SETUP
app = Stem(broker="sqlite:///jobs.db")
log = logging.getLogger("shop")

@app.task(name="logs", isolate=True, hard_time_limit=60, redact=("card",))
def logs(card):
    order = {"card": card, "size": 3}
    try:
        raise LookupError("no stock")
    except LookupError:
        log.exception("refused")

@app.task(name="fails", isolate=True, hard_time_limit=60, redact=("card",))
def fails(user, card):
    charge(card)

def charge(card, fee=7):
    raise ValueError("declined")

if __name__ == "__main__":
    MAIN
    logging.basicConfig(filename="program.log", format="%(name)s %(message)s")
    TASKS
    Worker(app, burst=True).run()
"""
INIT = 'sentry_sdk.init(dsn="https://key@sentry.example/1", transport=ToFile, integrations=[StemIntegration()])'


def embedded(folder: Path, tasks: str, *, in_main: bool = False) -> list[dict[str, Any]]:
    program = EMBEDDED.replace("SETUP", "" if in_main else INIT).replace("MAIN", INIT if in_main else "pass").replace("TASKS", tasks)
    run(folder, program)
    return [json.loads(line) for line in (folder / "events").read_text().splitlines()]


@pytest.mark.parametrize("in_main", [False, True])
def test_what_a_handler_logs_is_one_event_of_a_worker_within_a_program_wherever_sentry_is_set_up(tmp_path: Path, in_main: bool) -> None:
    (event,) = embedded(tmp_path, 'logs.enqueue("s3cret")', in_main=in_main)
    assert (event["logger"], event["level"]) == ("shop", "error")
    assert "refused" in event["logentry"]["message"]
    assert (tmp_path / "program.log").read_text().count("refused") == 1, "the program's own handlers have it all the same"


def test_what_a_task_redacts_is_in_no_event(tmp_path: Path) -> None:
    secret = '"s3" + "cret"'  # for lines of the source are shown, too
    events = embedded(tmp_path, f'logs.enqueue({secret}); fails.enqueue("ann", {secret})')
    assert "s3cret" not in json.dumps(events)
    (failed,) = [event for event in events if event["transaction"] == "fails"]
    fails, charge = last(failed)["stacktrace"]["frames"][-2:]
    assert fails["vars"] == {"user": "'ann'", "card": "***"} and charge["vars"] == {"card": "***", "fee": "7"}
    (logged,) = [event for event in events if event["transaction"] == "logs"]
    assert last(logged)["stacktrace"]["frames"][-1]["vars"]["order"] == {"card": "***", "size": "3"}


EVERYWHERE = """
import json, logging, threading, types
import sentry_sdk
from sentry_sdk.transport import Transport
from stem_iso import Stem, Worker
from stem_iso.integrations.sentry import StemIntegration

class ToFile(Transport):
    def capture_envelope(self, envelope):
        with open("items", "a") as items:
            for item in envelope.items:
                body = item.payload.json or json.loads(item.payload.get_bytes())
                items.write(json.dumps([item.headers["type"], body], default=str) + chr(10))

def mine(item, hint):
    item["attributes"]["seen"] = str(item["attributes"].get("card"))
    return item

sentry_sdk.init(
    dsn="https://key@sentry.example/1", transport=ToFile, integrations=[StemIntegration()], enable_logs=True, before_send_log=mine,
    traces_sample_rate=1.0, attach_stacktrace=True,
)
app = Stem(broker="sqlite:///jobs.db")
log = logging.getLogger("shop")

def everywhere(card):
    order = {"card": card, "lines": [{"card": card, "size": 3}], "me": None}
    order["me"] = order
    deep = {"data": {"object": {"charges": {"first": {"card": card}}}}}
    thing = types.SimpleNamespace(size=3, card=card)
    sentry_sdk.set_context("payment", {"card": card, "size": 3})
    sentry_sdk.set_context("card", {"number": card})
    sentry_sdk.set_extra("order", order)
    sentry_sdk.set_extra("card", card)
    sentry_sdk.set_tag("card", card)
    sentry_sdk.set_user({"card": card, "username": "ann"})
    sentry_sdk.add_breadcrumb(message="crumb", data={"card": card, "size": 3})
    with sentry_sdk.start_transaction(name="traced"), sentry_sdk.start_span(name="step") as span:
        span.set_data("card", card)
        span.set_data("size", 3)
    thread = threading.Thread(target=log.warning, args=("in a thread",), kwargs={"extra": {"card": card}})
    thread.start()
    thread.join()
    log.warning("a dict with %(card)s", {"card": card})
    log.error("refused %(card)s of %(size)s", {"card": card, "size": 3}, extra={"card": card, "deep": {"card": card, "size": 3}})
    raise ValueError("declined")

@app.task(name="isolated", isolate=True, hard_time_limit=60, redact=("card",))
def isolated(card):
    everywhere(card)

@app.task(name="inline", redact=("card",))
def inline(card):
    everywhere(card)

@app.task(name="open")
def shown(card):
    log.error("open", extra={"card": card})

if __name__ == "__main__":
    isolated.enqueue("s3" + "cret")
    inline.enqueue("s3" + "cret")
    shown.enqueue("public")
    Worker(app, burst=True).run()
"""


def test_what_a_task_redacts_is_in_nothing_that_is_sent_of_it(tmp_path: Path) -> None:
    run(tmp_path, EVERYWHERE)
    items = [json.loads(line) for line in (tmp_path / "items").read_text().splitlines()]
    for crumb in (crumb for _, body in items if "breadcrumbs" in body for crumb in body["breadcrumbs"]["values"]):
        crumb.pop("message", None)  # a text: of it nothing is known
    assert "s3cret" not in json.dumps(items)
    events = [body for kind, body in items if kind == "event"]
    for task in ("isolated", "inline"):
        (failed,) = [
            each
            for each in events
            if each["tags"].get("task") == task and "exception" in each and each["exception"]["values"][-1]["type"] == "ValueError"
        ]
        assert failed["contexts"]["payment"] == {"card": "***", "size": 3}
        assert failed["contexts"]["card"] == {"number": "***"} and failed["contexts"]["stem_iso"]["id"]
        assert failed["extra"]["card"] == "***" and failed["extra"]["order"]["lines"] == [{"card": "***", "size": 3}]
        assert (failed["tags"]["card"], failed["tags"]["task"]) == ("***", task)
        assert failed["user"] == {"card": "***", "username": "ann"}
        assert {"card": "***", "size": 3} in [crumb.get("data") for crumb in failed["breadcrumbs"]["values"]]
    refused = [each for each in events if (each.get("logentry") or {}).get("params")]
    assert [each["logentry"] for each in refused] == [
        {"message": "refused %(card)s of %(size)s", "formatted": "refused %(card)s of %(size)s", "params": {"card": "***", "size": 3}}
    ] * 2
    assert [each["extra"]["deep"] for each in refused] == [{"card": "***", "size": 3}] * 2
    spans = [body["spans"] for kind, body in items if kind == "transaction" and body["transaction"] == "traced"]
    assert [(step["data"]["card"], step["data"]["size"]) for (step,) in spans] == [("***", 3)] * 2


def test_what_a_task_redacts_is_in_none_of_its_logs(tmp_path: Path) -> None:
    run(tmp_path, EVERYWHERE)
    lines = (tmp_path / "items").read_text().splitlines()
    logs = [log for kind, body in map(json.loads, lines) if kind == "log" for log in body["items"]]
    of = {body: [log["attributes"] for log in logs if log["body"] == body] for body in {log["body"] for log in logs}}
    assert [(each["card"]["value"], each["seen"]["value"]) for each in of["in a thread"]] == [("***", "***")] * 2, "the user's own hook too"
    assert [each["sentry.message.parameter.card"]["value"] for each in of["a dict with %(card)s"]] == ["***"] * 2
    assert [each["sentry.message.parameter.size"]["value"] for each in of["refused %(card)s of %(size)s"]] == [3] * 2
    assert of["open"][0]["card"]["value"] == "public", "a task that redacts nothing is shown"
    assert "s3cret" not in json.dumps(logs)


def test_the_frames_of_the_library_have_no_local_variables_and_those_of_the_caller_have_theirs(tmp_path: Path) -> None:
    program = """
import json
import sentry_sdk
from sentry_sdk.transport import Transport
from stem_iso import Stem, Worker
from stem_iso.errors import InvalidOptions
from stem_iso.integrations.sentry import SETUP

class ToStdout(Transport):
    def capture_envelope(self, envelope):
        print(json.dumps(envelope.get_event(), default=str))

sentry_sdk.init(dsn="https://key@sentry.example/1", transport=ToStdout, integrations=[INTEGRATIONS])
app = Stem(broker="memory://")
app.middleware.add(SETUP())

@app.task(redact=("pin",))
def pinned(pin: int, who: str): ...

def view(who):
    pinned.enqueue(who=who, pin="s3" + "cret")

def url(port):
    Stem("redis://:%s@localhost:%s/0" % ("s3" + "cret", port)).enqueue("any")

for call, value in ((view, "ann"), (url, "port"), (url, "[")):
    try:
        call(value)
    except Exception as error:
        sentry_sdk.capture_exception(error)
"""
    for setup in ("StemIntegration", "SentryMiddleware"):
        using = program.replace("INTEGRATIONS", "SETUP()" if setup == "StemIntegration" else "")
        using = using if setup == "SentryMiddleware" else using.replace("app.middleware.add(SETUP())", "")
        found = run(tmp_path, using.replace("SETUP", setup))
        events = [json.loads(line) for line in found.splitlines()]
        assert len(events) == 3 and "s3cret" not in found
        frames = [frame for event in events for value in event["exception"]["values"] for frame in value["stacktrace"]["frames"]]
        assert {frame["module"].partition(".")[0] for frame in frames if "vars" in frame} == {"__main__"}
        assert any(frame["module"].startswith("stem_iso.") for frame in frames)
        assert {"who": "'ann'"} in [frame.get("vars") for frame in frames if frame["function"] == "view"]


def run(folder: Path, program: str) -> str:
    (folder / "program.py").write_text(program)
    done = subprocess.run([sys.executable, "program.py"], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
