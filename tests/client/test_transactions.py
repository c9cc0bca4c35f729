"""An application waits for the transactions that its integration knows of, and for no others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from stem_iso import InvalidOptions, PayloadTooLarge, Stem, TaskOptions, UnknownResult, chain

V = TypeVar("V")


class Ledger:
    """Transactions of one database, kept by hand."""

    def __init__(self) -> None:
        self.open = False
        self.calls: list[Callable[[], object]] = []

    def after_commit(self, call: Callable[[], object]) -> None:
        self.calls.append(call)

    async def in_thread(self, call: Callable[[], V]) -> V:
        return call()

    def commit(self) -> None:
        self.open = False
        while self.calls:
            self.calls.pop(0)()


def known(app: Stem, id: str) -> bool:
    try:
        return bool(app.handle(id).status())
    except UnknownResult:
        return False


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def app(ledger: Ledger) -> Stem:
    app = Stem("memory://", max_payload_bytes=1000)
    app.transactions = ledger
    app.task(name="double")(double)
    app.task(name="hasty", on_commit=False)(double)
    app.task(name="once", unique=True)(double)
    return app


def double(n: int) -> int:
    return 2 * n


def test_a_task_is_sent_with_the_commit_and_one_that_does_not_wait_at_once(app: Stem, ledger: Ledger) -> None:
    ledger.open = True
    waiting = [app.enqueue("double", {"n": 1}), app.enqueue("hasty", {"n": 1}, on_commit=True), app.enqueue("unknown", {"n": 1})]
    sent = [app.enqueue("hasty", {"n": 1}), app.enqueue("double", {"n": 1}, on_commit=False)]
    assert [known(app, handle.id) for handle in (*waiting, *sent)] == [False, False, False, True, True]
    ledger.commit()
    assert all(known(app, handle.id) for handle in waiting)


def test_outside_of_a_transaction_nothing_waits(app: Stem, ledger: Ledger) -> None:
    assert known(app, app.enqueue("double", {"n": 1}).id)
    assert ledger.calls == []


def test_a_batch_keeps_its_order_where_only_some_of_it_waits(app: Stem, ledger: Ledger) -> None:
    ledger.open = True
    handles = app.enqueue_many([app.tasks[name].s(n=number) for number, name in enumerate(("double", "hasty", "double", "hasty"))])
    assert [known(app, handle.id) for handle in handles] == [False, True, False, True]
    ledger.commit()
    assert [handle.status().args for handle in handles] == [{"n": number} for number in range(4)]


def test_a_canvas_waits_if_one_of_its_calls_does(app: Stem, ledger: Ledger) -> None:
    ledger.open = True
    hasty, whole = app.tasks["hasty"], chain(app.tasks["hasty"].s(n=1), app.tasks["double"].s(n=1)).enqueue()
    assert not known(app, whole.id)
    assert known(app, chain(hasty.s(n=1), hasty.s(n=2)).enqueue().id)
    ledger.commit()
    assert known(app, whole.id)


def test_a_handle_is_after_the_commit_of_the_task_that_holds_the_lock(app: Stem, ledger: Ledger) -> None:
    first = app.enqueue("once", {"n": 1})
    ledger.open = True
    second = app.enqueue("once", {"n": 1})
    assert second.id != first.id
    ledger.commit()
    assert second == first


def test_what_is_too_large_is_refused_before_the_commit(app: Stem, ledger: Ledger) -> None:
    ledger.open = True
    with pytest.raises(PayloadTooLarge):
        app.enqueue("unknown", {"text": "x" * 2000})
    assert ledger.calls == []


def test_defaults_of_the_application_hold_for_tasks_whose_code_is_elsewhere(ledger: Ledger) -> None:
    app = Stem("memory://", defaults=TaskOptions(on_commit=False))
    app.transactions, ledger.open = ledger, True
    assert known(app, app.enqueue("elsewhere").id)


async def _enqueued(app: Stem) -> Any:
    return await app.aenqueue("double", {"n": 1})


def test_a_coroutine_asks_in_the_thread_of_its_transactions(app: Stem, ledger: Ledger) -> None:
    import asyncio

    ledger.open = True
    handle = asyncio.run(_enqueued(app))
    assert not known(app, handle.id)
    ledger.commit()
    assert known(app, handle.id)


def test_an_application_that_knows_no_transactions_refuses_to_wait_for_one() -> None:
    app = Stem("memory://")
    with pytest.raises(InvalidOptions, match=r"double: on_commit \(True\) means nothing here; leave it out, or use .*integrations.django"):
        app.enqueue("double", {"n": 1}, on_commit=True)
    assert known(app, app.enqueue("double", {"n": 1}, on_commit=False).id)
