"""A user's program, which is never run: `mypy --strict` reads it, and must neither refuse what is right nor pass what is wrong.

What is wrong carries a `type: ignore`; one that is not needed is an error too, so a check that got lost is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, assert_type

from stem_iso import (
    Acknowledged,
    ActionInfo,
    AsyncTask,
    BulkResult,
    CanvasHandle,
    Chain,
    Envelope,
    ExponentialJitterRetryStrategy,
    GroupHandle,
    Link,
    Middleware,
    QueueStats,
    RetryStrategy,
    Signature,
    Stem,
    Task,
    TaskContext,
    TaskError,
    TaskHandle,
    TaskHandler,
    TaskOptions,
    TaskPage,
    TaskRegistry,
    TaskStats,
    TaskStatus,
    chain,
    chord,
    current_context,
    group,
    local_context,
)
from stem_iso.integrations.django import app as project_app
from stem_iso.integrations.django import task as project_task
from stem_iso.signals import Signal, TaskRetrySignal

app = Stem(broker="sqlite:///jobs.db", max_redeliveries=5, block_time=timedelta(seconds=2))
Stem(colour="red")  # type: ignore[call-arg]


@app.task(name="thumbs.make", queue="images", isolate=True, soft_time_limit=20, hard_time_limit=timedelta(seconds=30), max_retries=3)
def make(context: TaskContext, path: str, width: int = 128) -> dict[str, int]:
    context.progress(50, data={"step": "decoded"})
    context.extend_lease(timedelta(seconds=5))
    assert_type(context.enqueue(plain, {"path": path}), TaskHandle[float])
    assert_type(context.enqueue("email.send", {"to": "ann"}, queue="mail").id, str)
    context.enqueue("email.send", colour="red")  # type: ignore[call-overload]
    context.enqueue(3)  # type: ignore[call-overload]
    return {"bytes": 10}


@app.task
def plain(path: str) -> float:
    return 1.0


@app.task()
async def fetch(context: TaskContext, url: str) -> bytes:
    await context.aextend_lease(5)
    assert_type(await context.aenqueue(plain.using(delay=5), {"path": url}), TaskHandle[float])
    assert_type((await context.aenqueue("email.send")).status(), TaskStatus)
    return b""


@app.task(max_retries=2)
async def ping(host: str) -> None: ...


@app.task
def loose(context: TaskContext, path: str) -> dict[str, Any]:
    return {}


assert_type(make, Task[[str, int], dict[str, int]])  # type: ignore[assert-type]  # names of parameters cannot be written down
assert_type(make("a", width=3), dict[str, int])
assert_type(make.enqueue("a", width=3), TaskHandle[dict[str, int]])
assert_type(make.enqueue("a").result(timeout=60), dict[str, int])
assert_type(make.using(delay=30, priority=9).enqueue("a"), TaskHandle[dict[str, int]])
assert_type(make.s("a"), Signature[dict[str, int]])
assert_type(plain("a"), float)
assert_type(plain.enqueue("a").result(), float)
# Where a function with a context has an `Any` in its type, mypy gives up on telling overloads apart, and checks less; it refuses nothing.
assert_type(loose.enqueue("a"), TaskHandle[Any])
assert_type(app.enqueue_many([plain.s("a"), plain.s("b")]), list[TaskHandle[float]])
assert_type(make.enqueue("a").status(), TaskStatus)
assert_type(current_context(), TaskContext | None)
assert_type(app.schedule("a", make.s("a"), every=timedelta(minutes=5), jitter=1).next_due, datetime | None)
app.schedule("b", plain.using(queue="slow").s("a"), cron="0 3 * * *", timezone="Europe/Berlin", catch_up="some")  # type: ignore[arg-type]
app.schedule("c", plain)  # type: ignore[arg-type]

make()  # type: ignore[call-arg]
make("a", 3, 4)  # type: ignore[call-arg]
make.enqueue(3)  # type: ignore[arg-type]
make.enqueue("a", height=3)  # type: ignore[call-arg]
make.s()  # type: ignore[call-arg]
plain.enqueue(path=b"")  # type: ignore[arg-type]
make.using(priorty=3)  # type: ignore[call-arg]
make.using(eta=5)  # type: ignore[arg-type]
app.task(hard_timelimit=5)  # type: ignore[call-overload]
app.task(hard_time_limit="5")  # type: ignore[call-overload]
TaskOptions(queue=3)  # type: ignore[arg-type]
TaskOptions(memory_limit=0.5)  # type: ignore[arg-type]
TaskOptions(memory_limit="1GiB", cpu_bound=True, cpus=2)


def application_of_a_task() -> None:
    assert_type(make.app.broker, str)
    assert_type(make.app.registry, TaskRegistry)
    assert_type(make.app.revoke("id", terminate=True), bool)
    assert_type(make.enqueue("cat.png").app.broker, str)
    make.app.colour()  # type: ignore[attr-defined]


async def use() -> None:
    assert_type(await fetch("a"), bytes)
    assert_type(fetch.enqueue("a"), TaskHandle[bytes])
    assert_type(await (await fetch.aenqueue("a")).aresult(timeout=timedelta(seconds=1)), bytes)
    assert_type(await ping("a"), None)
    await ping()  # type: ignore[call-arg]
    await ping.aenqueue(3)  # type: ignore[arg-type]
    assert_type(await app.aenqueue("email.send", {"to": "ann"}), TaskHandle[Any])
    async for event in app.aevents():
        print(event.at, event.worker_id)


def takes_task(task: Task[[str], float], coroutine: AsyncTask[..., bytes]) -> float:
    return task.enqueue("a").result()


takes_task(plain, fetch)
takes_task(make, fetch)  # type: ignore[arg-type]


def send_in_isolate(context: TaskContext, args: dict[str, object]) -> None: ...


class Email(TaskHandler[None]):
    name = "email.send"
    options = TaskOptions(
        queue="email",
        max_retries=4,
        visibility_timeout=30,
        unique=True,
        unique_for=timedelta(minutes=5),
        soft_time_limit=15,
        hard_time_limit=30,
        acks_late=True,
        retry_for=(ConnectionError, "smtplib.SMTPException"),
        isolate_entrypoint=send_in_isolate,
    )

    async def call(self, context: TaskContext, args: dict[str, object]) -> None:
        context.retry(countdown=5)


class Inline(TaskHandler[int]):
    name = "inline"

    def call(self, context: TaskContext, args: dict[str, object]) -> int:
        return 3


class Attribute(TaskHandler[None]):
    name = "attribute"
    isolate_entrypoint = send_in_isolate


class Wrong(TaskHandler[int]):
    name = "wrong"

    def call(self, context: TaskContext, args: dict[str, object]) -> str:  # type: ignore[override]
        return ""


registry = TaskRegistry().register(Email()).register(Inline()).register(Attribute())
second = Stem(broker="memory://", registry=registry)
assert_type(second.registry.resolve("inline").options.hard_time_limit, float | None)
handle = second.enqueue("email.send", {"to": "ann@example.com"}, headers={"x": "1"}, meta={"by": "api"}, eta=datetime(2030, 1, 1))
second.tasks["email.send"].using(unique_key="cat").enqueue(to="ann")
second.handle(handle.id).revoke(terminate=True)


@second.on_isolate_start
def load() -> None: ...


load()


class Fixed:
    def next_delay(self, attempt: int, error: TaskError) -> float:
        return 1.0


strategies: list[RetryStrategy] = [Fixed(), ExponentialJitterRetryStrategy(base=2, max=timedelta(minutes=5))]
second.task(retry_strategy=Fixed())
with local_context(attempt=2) as context:
    assert_type(context, TaskContext)
    make("a")


# -- limits of a task ---------------------------------------------------------------------------------------------------------------


@second.task(rate_limit="100/m", max_concurrency=3)
async def limited(name: str) -> int:
    return len(name)


assert_type(limited.using(limit_key="customer-7", rate_limit=None, max_concurrency=1).enqueue("ann").result(), int)
assert_type(TaskOptions(rate_limit="10/s").rate_limit, str | None)
assert_type(TaskOptions(max_concurrency=3).max_concurrency, int | None)
second.enqueue("email.send", {"to": "ann"}, limit_key="ann")
second.task(rate_limit=10)  # type: ignore[call-overload]
limited.using(limit_keys="a")  # type: ignore[call-arg]

# -- composing ---------------------------------------------------------------------------------------------------------------------------


@app.task
def parse(page: bytes, deep: bool = False) -> list[str]:
    return []


@app.task
def pack(context: TaskContext, sizes: list[float], name: str = "") -> int:
    return 0


@app.task
def nest(lines: list[list[str]]) -> int:
    return len(lines)


assert_type(parse.after(deep=True), Link[bytes, list[str]])
assert_type(fetch.s("a") | parse.after(), Chain[list[str]])
assert_type((fetch.s("a") | parse.after(deep=True) | plain.s("x")).enqueue().result(timeout=5), float)
assert_type(chain(fetch.s("a"), parse.after(), plain.s("done")).enqueue().result(), float)
assert_type(group(plain.s(p) for p in "ab").enqueue().results(timeout=5), list[float])
assert_type(group(plain.s("a"), plain.s("b")).enqueue(), GroupHandle[float])
assert_type(next(group([plain.s("a")]).enqueue().as_completed()), float)
assert_type(chord([plain.s(p) for p in "ab"], pack.after()).enqueue().result(), int)
assert_type(group(plain.s(p) for p in "ab") | pack.after(name="x"), Chain[int])
assert_type(fetch.s("a").link_error(plain.s("x")), Signature[bytes])
assert_type(app.canvas("id"), CanvasHandle[Any])
assert_type(chord([plain.s("a")], pack.after()).link_error(plain.s("sorry")).enqueue().draw(), str)
assert_type((fetch.s("a") | chord([parse.after(), parse.after()], nest.after())).enqueue(), CanvasHandle[int])
later = chord([pack.after()], plain.s("x"))
assert_type(later, Link[list[float], float])
fetch.s("a") | later  # type: ignore[operator]

plain.s("a") | parse.after()  # type: ignore[operator]
chain(plain.s("a"), parse.after())  # type: ignore[misc]
chord([fetch.s("a")], pack.after())  # type: ignore[misc]
parse.after(shallow=True)  # type: ignore[call-arg]
parse.after(deep="yes")  # type: ignore[arg-type]
group([1, 2])  # type: ignore[arg-type]

# -- signals and middleware ------------------------------------------------------------------------------------------------------------


@app.signals.task_retry.connect
def on_retry(signal: TaskRetrySignal) -> None:
    assert_type(signal.error, TaskError | None)
    assert_type(signal.next_attempt + signal.attempt, int)
    assert_type(signal.due - signal.delay, float)


@app.signals.task_failed.connect  # type: ignore[arg-type]
def on_something_else(signal: TaskRetrySignal) -> None: ...


def on_any(signal: Signal) -> None:
    print(signal.signal, signal.at)


assert_type(on_retry, Callable[[TaskRetrySignal], None])
app.signals.task_prerun.connect(on_any)
app.signals.worker_ready.connect(lambda signal: print(signal.queues, signal.seats))
app.signals.worker_ready.connect(lambda signal: signal.task_id)  # type: ignore[attr-defined]
app.signals.task_retry.disconnect(on_retry)
app.signals.task_succeded.connect(on_any)  # type: ignore[attr-defined]
for channel in app.signals:
    channel.connect(on_any)


class Traced(Middleware):
    def enqueue(self, envelopes: Sequence[Envelope], call_next: Callable[[Sequence[Envelope]], list[str]]) -> list[str]:
        return call_next(envelopes)

    @contextmanager
    def around(self, context: TaskContext) -> Iterator[None]:
        yield


class OnlyAround:
    @contextmanager
    def around(self, context: TaskContext) -> Iterator[None]:
        yield


class AroundNothing:
    def around(self) -> None: ...


assert_type(app.middleware.add(Traced()), Traced)
app.middleware.add(OnlyAround())
app.middleware.add(AroundNothing())  # type: ignore[type-var]


@project_task(isolate=True, on_commit=False)
def bill(order: int) -> str:
    return str(order)


assert_type(project_app, Stem)
assert_type(bill.using(on_commit=True).enqueue(7), TaskHandle[str])
bill.enqueue("seven")  # type: ignore[arg-type]


# -- operators -----------------------------------------------------------------------------------------------------------------------------

page = app.list_tasks(state=["failed", "cancelled"], name="thumbs.*", since=timedelta(minutes=10), until=datetime.now(), limit=10)
assert_type(page, TaskPage)
assert_type(page.tasks, list[TaskStatus])
app.list_tasks(cursor=page.cursor, newest_first=False, text="cat.png", queue="images")
app.list_tasks(colour="red")  # type: ignore[call-arg]
app.list_tasks(since=60)  # type: ignore[arg-type]
assert_type(app.queue_stats(), list[QueueStats])
assert_type(app.task_stats("thumbs.make", minutes=60), TaskStats)
assert_type(app.pause("images"), Acknowledged)
ids: list[str] = app.resume(task="thumbs.make", timeout=timedelta(seconds=2), by="ann")
app.control("*", "concurrency", 8)
assert_type(app.bulk("retry", state="failed", dry_run=True, progress=lambda result: print(result.done)), BulkResult)
app.bulk("retyr", all=True)  # type: ignore[arg-type]
assert_type(app.actions(limit=10), list[ActionInfo])
app.handle("1").run_now()
app.handle("1").edit({"path": "cat.png", "width": "***"}, by="ann")


async def operate() -> None:
    assert_type(await app.alist_tasks(state="failed"), TaskPage)
    assert_type(await app.apause("images"), Acknowledged)
    assert_type(await app.abulk("revoke", all=True), BulkResult)
    await app.handle("1").aedit({})
