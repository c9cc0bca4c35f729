"""The roads of an operator, with a real browser over a real broker and a worker: he sees what is stuck, kills it, retries, pauses.

Texts of users that look like markup are shown as texts on every page: no script of theirs runs, and nothing is refused by the policy.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stem_iso import Stem, Worker
from stem_iso.brokers.operations import Action
from stem_iso.dashboard import dashboard
from stem_iso.task.envelope import Envelope
from tests.dashboard import browser
from tests.dashboard.browser import Tab
from tests.dashboard.conftest import served
from tests.isolate.calling import descendants, eventually

pytestmark = [
    pytest.mark.integrations,
    pytest.mark.skipif(not browser.CHROMIUM.exists(), reason=f"{browser.CHROMIUM} is not there: these tests are for Debian's Chromium"),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    pytest.importorskip("playwright", reason="playwright is not installed")
    with browser.chromium() as found:
        yield found


@pytest.fixture
def worker(alone: Stem) -> Iterator[Worker]:
    with Worker(alone, concurrency=4) as running:
        yield running


@pytest.fixture
def visit(alone: Stem, chromium: Any) -> Iterator[Tab]:
    """A tab at the dashboard of `alone`. It must have nothing to complain about at the end."""
    with served(dashboard(alone)) as url, browser.tab(chromium, url) as tab:
        yield tab
        assert tab.complaints == []


def state_of(app: Stem, id: str) -> str:
    return app.handle(id).status().state.value


def comes_to(app: Stem, id: str, state: str) -> None:
    eventually(lambda: state_of(app, id) == state, f"it does not come to {state}")


def failed(app: Stem, *paths: str) -> list[str]:
    ids = [app.enqueue("thumbs.make", {"path": path}).id for path in paths]
    for id in ids:
        comes_to(app, id, "failed")
    return ids


# -- the roads -----------------------------------------------------------------------------------------------------------------------------


def test_a_stuck_task_shows_where_it_is_and_is_killed(alone: Stem, worker: Worker, visit: Tab) -> None:
    id = alone.enqueue("thumbs.stuck").id
    comes_to(alone, id, "running")
    page = visit.open("/workers")
    row = page.locator("tr", has_text="thumbs.stuck")
    row.get_by_role("meter", name="elapsed").wait_for()
    row.get_by_role("link", name="thumbs.stuck").click()
    visit.ready()
    page.locator("#look .stack", has_text="stuck").wait_for()
    page.get_by_role("button", name="Kill").click()
    visit.agree()
    visit.said("It is being killed.")
    page.locator("#live .badge.cancelled").first.wait_for()  # the page says so by itself
    assert state_of(alone, id) == "cancelled"


def test_the_stack_has_a_page_of_its_own(alone: Stem, worker: Worker, visit: Tab) -> None:
    comes_to(alone, alone.enqueue("thumbs.stuck").id, "running")
    page = visit.open("/workers")
    page.locator("tr", has_text="thumbs.stuck").get_by_role("link", name="Stack").click()
    page.locator(".stack .inner", has_text="stuck").wait_for()


def test_an_isolate_is_killed_where_it_is_listed(alone: Stem, worker: Worker, visit: Tab) -> None:
    id = alone.enqueue("thumbs.stuck").id
    comes_to(alone, id, "running")
    page = visit.open("/workers")
    page.locator("tr", has_text="thumbs.stuck").get_by_role("button", name="Kill").click()
    visit.agree()
    visit.said("is being killed")
    comes_to(alone, id, "failed")


def test_a_failed_task_is_edited_and_retried(alone: Stem, worker: Worker, visit: Tab) -> None:
    (id,) = failed(alone, "bad.png")
    page = visit.open("/failures")
    page.get_by_role("link", name="The newest one").click()
    page.locator(".errorhead", has_text="ValueError").wait_for()
    visit.ready()
    page.get_by_role("button", name="Retry").click()
    visit.agree()
    visit.said("It runs again.")
    eventually(lambda: alone.handle(id).status().run == 1 and state_of(alone, id) == "failed", "it does not run again")
    page.locator("[data-edit][data-run='1']").wait_for()
    page.get_by_role("button", name="Edit arguments").click()
    page.locator("#edit-dialog textarea").fill('{"path": ')
    page.get_by_role("button", name="Save and run").click()
    page.locator("#edit-wrong", has_text="no JSON").wait_for()
    page.locator("#edit-dialog textarea").fill('{"path": "good.png"}')
    page.get_by_role("button", name="Save and run").click()
    comes_to(alone, id, "succeeded")
    page.locator("#live .badge.succeeded").first.wait_for()


def test_a_queue_is_paused_and_goes_on(alone: Stem, worker: Worker, visit: Tab) -> None:
    alone.enqueue("thumbs.make", {"path": "a"}).result(timeout=60)
    page = visit.open("/queues")
    row = page.locator("tr", has_text="images")
    row.get_by_role("button", name="Pause").click()
    visit.agree()
    visit.said("images is paused.")
    row.locator(".badge", has_text="paused").wait_for()
    with alone.broker_pool.borrow() as broker:
        assert broker.paused().queues == {"images"}
    row.get_by_role("button", name="Resume").click()
    visit.agree()
    visit.said("images goes on.")
    assert alone.enqueue("thumbs.make", {"path": "b"}).result(timeout=60) == 1


def test_all_that_match_are_retried_after_a_preview(alone: Stem, worker: Worker, visit: Tab) -> None:
    ids = failed(alone, "bad1.png", "bad2.png", "bad3.png")
    (other,) = failed(alone, "bad-other.png")
    page = visit.open("/tasks?state=failed&text=bad1")
    page.get_by_label("In its arguments").fill("bad")
    page.get_by_label("Task", exact=True).fill("thumbs.*")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**/tasks?*name=*")
    visit.ready()
    page.locator("#bulk").get_by_role("button", name="Retry").click()
    page.locator("#bulk-dialog [data-field=matched]", has_text="4").wait_for()
    assert all(alone.handle(id).status().run == 0 for id in ids)  # a preview does nothing
    page.locator("#bulk-dialog [data-field=yes]", has_text="Retry 4").click()
    visit.said("Retry: 4 done.")
    assert [alone.handle(id).status().run for id in [*ids, other]] == [1, 1, 1, 1]


def test_picked_tasks_alone_are_deleted(alone: Stem, worker: Worker, visit: Tab) -> None:
    ids = failed(alone, "bad1.png", "bad2.png", "bad3.png")
    page = visit.open("/tasks?state=failed")
    for id in ids[:2]:
        page.locator(f'input[value="{id}"]').check()
    page.locator("#bulk", has_text="2 picked").get_by_role("button", name="Delete").click()
    visit.agree()
    visit.said("Delete: 2 done.")
    page.locator("#live tbody tr").nth(0).wait_for()
    eventually(lambda: page.locator("#live tbody tr").count() == 1, "the list still shows them")


def test_the_list_is_live_and_keeps_what_was_picked(alone: Stem, visit: Tab) -> None:
    first = alone.enqueue("thumbs.make", {"path": "first"}).id
    page = visit.open("/tasks")
    page.locator(f'input[value="{first}"]').check()
    second = alone.enqueue("thumbs.make", {"path": "second"}).id
    page.locator(f'input[value="{second}"]').wait_for()
    assert page.locator(f'input[value="{first}"]').is_checked() and not page.locator(f'input[value="{second}"]').is_checked()


def test_keys_lead_from_page_to_page(alone: Stem, visit: Tab) -> None:
    alone.enqueue("thumbs.make", {"path": "x"})
    page = visit.open("/")
    page.locator("#pulse[data-state=live]").wait_for()
    page.keyboard.press("g")
    page.keyboard.press("t")
    page.wait_for_url("**/tasks")
    visit.ready()
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.textContent") == "thumbs.make"
    page.keyboard.press("x")
    assert page.locator("#live input[data-pick]").first.is_checked()
    page.keyboard.press("?")
    page.locator("#keys[open]").wait_for()
    page.get_by_label("Single keys are on").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.locator("#keys[open]").count() == 0


# -- texts of users ------------------------------------------------------------------------------------------------------------------------

MARKUP = "</script></textarea>'\"><img src=x onerror=alert(1)><script>alert(2)</script>{{7*7}}\x1b[31m\u202e"
PAGES = ("/", "/tasks", "/failures", "/queues", "/workers", "/schedules", "/limits", "/actions")


def evil(name: str) -> str:
    return f'{name}"><img/src=x/onerror=alert(1)>'


@pytest.fixture
def hostile(alone: Stem) -> str:
    """A broker full of texts that look like markup; the id of a task that has failed with one."""

    @alone.task(name=evil("task"), queue=evil("queue"), max_retries=0, max_concurrency=1)
    def fails(value: str) -> None:
        raise ValueError(value)

    alone.schedule(evil("schedule"), fails.s(MARKUP), every=3600)
    with alone.broker_pool.borrow() as broker:
        broker.log_action(Action(at=alone.clock(), by=MARKUP, action=MARKUP, target=MARKUP, result=MARKUP))
        broker.publish([Envelope(id=evil("id/../x?#%2F"), name=evil("task"), args=msgspec.Raw(b"\x80"), not_before=alone.clock() + 3600)])
    alone.pause(task=evil("paused"), timeout=0)
    return fails.enqueue(MARKUP).id


def test_texts_that_look_like_markup_are_texts_on_every_page(alone: Stem, hostile: str, visit: Tab) -> None:
    with Worker(alone, concurrency=2):
        comes_to(alone, hostile, "failed")
        page = visit.open("/")
        for path in PAGES:
            visit.open(path)
            assert page.locator("main img").count() == 0 and page.locator("main script").count() == 0, path
        visit.open("/tasks")
        page.locator(f"tr[id='task-{evil('id/../x?#%2F')}'] a.name").click()
        page.locator("h1 + p", has_text=evil("id/../x?#%2F")).wait_for()
        visit.ready()
        page.get_by_role("button", name="Run now").click()
        visit.agree()
        visit.said("It is ready now.")
        visit.open(f"/tasks/{hostile}")
        page.locator(".errorhead", has_text="ValueError").wait_for()
        visit.ready()
        shown = page.locator("#live").inner_text()
        assert "<script>alert(2)</script>{{7*7}}\\x1b[31m\\u202e" in shown
        page.get_by_role("button", name="Edit arguments").click()
        assert page.evaluate("JSON.parse(document.querySelector('#edit-dialog textarea').value).value") == MARKUP


def test_answers_of_the_server_that_look_like_markup_are_texts_in_notices(alone: Stem, visit: Tab) -> None:
    id = alone.enqueue("thumbs.make", {"path": "x"}, delay=3600).id
    page = visit.open(f"/tasks/{id}")
    page.get_by_role("button", name="Edit arguments").click()
    page.locator("#edit-dialog textarea").fill('{"<img src=x onerror=alert(1)>": 1}')
    visit.complaints.clear()
    page.get_by_role("button", name="Save and run").click()
    page.locator("#edit-wrong", has_text="<img src=x onerror=alert(1)>").wait_for()
    assert page.locator("main img, dialog img").count() == 0
    visit.complaints[:] = [each for each in visit.complaints if "400" not in each]  # the console says that it was refused


@pytest.mark.parametrize("path", ["/tasks?name=", "/tasks?cursor=", "/failures?queue=", "/tasks/", "/nothing/"])
def test_addresses_that_hold_markup_run_nothing(path: str, visit: Tab) -> None:
    page = visit.open(path + "%22%3E%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E%3Cscript%3Ealert(2)%3C%2Fscript%3E")
    page.locator("main h1, main .empty").first.wait_for()
    assert page.locator("main img, main script").count() == 0
    visit.complaints[:] = [each for each in visit.complaints if "status of 40" not in each]


def test_an_address_that_begins_as_one_of_another_site_stays_here(visit: Tab) -> None:
    page = visit.open("//example.com/tasks")
    assert page.get_by_role("link", name="Try again").get_attribute("href") == "/example.com/tasks"
    visit.complaints.clear()


# -- what goes away ------------------------------------------------------------------------------------------------------------------------


def test_a_worker_that_does_not_answer_is_said_so(alone: Stem, tmp_path: Path, visit: Tab) -> None:
    started = subprocess.Popen(
        [sys.executable, "-m", "stem_iso.worker", "-A", "tests.dashboard.shop:app", "-c", "1"],
        env={**os.environ, "STEM_ISO_TEST_BROKER": f"sqlite:///{tmp_path}/jobs.db"},
        stderr=subprocess.DEVNULL,
    )
    try:
        page = visit.open("/workers")
        page.locator(".badge", has_text="answers").wait_for()
        stopped = [started.pid, *descendants(started.pid)]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            page.locator(".badge", has_text="not seen for").wait_for()
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        page.locator(".badge", has_text="answers").wait_for()
    finally:
        started.terminate()
        started.wait()


def test_a_task_that_is_deleted_while_one_looks_is_said_to_be_gone(alone: Stem, worker: Worker, visit: Tab) -> None:
    (id,) = failed(alone, "bad.png")
    page = visit.open(f"/tasks/{id}")
    with alone.broker_pool.borrow() as broker:
        broker.forget(id)
    page.locator("#gone", has_text="not known any more").wait_for()
    visit.complaints[:] = [each for each in visit.complaints if "404" not in each]


def test_a_server_that_goes_away_is_said_and_the_page_comes_back(alone: Stem, chromium: Any) -> None:
    with served(dashboard(alone)) as url, browser.tab(chromium, url) as tab:
        page = tab.open("/queues")
        page.locator("#pulse[data-state=live]").wait_for()
        page.route("**/queues", lambda route: route.fulfill(status=503, body="away"))
        page.locator("#away", has_text="The broker does not answer.").wait_for()
        assert page.locator("body.stale").count() == 1
        page.unroute("**/queues")
        page.locator("#away").wait_for(state="hidden")
        page.locator("#pulse[data-state=live]").wait_for()


# -- for everybody -------------------------------------------------------------------------------------------------------------------------


def test_pages_can_be_read_without_scripts(alone: Stem, worker: Worker, chromium: Any) -> None:
    (id,) = failed(alone, "bad.png")
    with served(dashboard(alone)) as url, browser.tab(chromium, url, java_script_enabled=False) as tab:
        for path in (*PAGES, f"/tasks/{id}"):
            page = tab.open(path)
            assert page.locator("h1").count() == 1, path
        assert "bad.png" in page.locator("#live").inner_text() and " UTC" in page.locator("#live").inner_text()


@pytest.mark.parametrize("width", [360, 768, 1440, 3840])
def test_no_page_is_wider_than_the_screen(alone: Stem, worker: Worker, chromium: Any, width: int) -> None:
    failed(alone, "bad.png", "bad-" + "x" * 300)
    comes_to(alone, alone.enqueue("thumbs.stuck").id, "running")
    with served(dashboard(alone)) as url, browser.tab(chromium, url, viewport={"width": width, "height": 900}) as tab:
        for path in PAGES:
            page = tab.open(path)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_the_switch_of_light_and_dark_is_kept(visit: Tab) -> None:
    page = visit.open("/limits")
    ground: Callable[[], str] = lambda: page.evaluate("getComputedStyle(document.body).backgroundColor")  # noqa: E731
    light = ground()
    page.get_by_role("button", name="Light or dark").click()
    dark = ground()
    assert light != dark
    visit.open("/actions")
    assert ground() == dark


def test_a_token_opens_the_page_that_was_asked_for(alone: Stem, chromium: Any) -> None:
    with served(dashboard(alone, token="tr0ub4dor")) as url, browser.tab(chromium, url) as tab:
        page = tab.open("/tasks?state=failed")
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button", name="Log in").click()
        page.get_by_text("This is not the token.").wait_for()
        page.get_by_label("Token").fill("tr0ub4dor")
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url("**/tasks?state=failed")
        page.locator("#pulse[data-state=live]").wait_for()
        page.get_by_role("button", name="Log out").click()
        page.get_by_label("Token").wait_for()


def test_a_dashboard_that_only_shows_has_no_buttons_that_do(alone: Stem, worker: Worker, chromium: Any) -> None:
    (id,) = failed(alone, "bad.png")
    with served(dashboard(alone, read_only=True)) as url, browser.tab(chromium, url) as tab:
        for path in (*PAGES, f"/tasks/{id}"):
            page = tab.open(path)
            assert page.locator("[data-post], [data-bulk], [data-edit], [data-retry-ids]").count() == 0, path
