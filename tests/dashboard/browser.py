"""Chromium for the tests of pages, and what it complains about: errors of scripts, of the console, of the content security policy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import ConsoleMessage, Page

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Names of functions that no page has: whoever's script runs calls one.
WATCH = "addEventListener('securitypolicyviolation', (event) => console.error('CSP ' + event.violatedDirective + ' ' + event.blockedURI))"


@dataclass
class Tab:
    """One page. `complaints`: all that a reader of the console would see as an error."""

    page: Page
    url: str
    scripts: bool = True
    complaints: list[str] = field(default_factory=list)

    def note(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(f"{message.text} {message.location.get('url', '')}")

    def open(self, path: str) -> Page:
        self.page.goto(self.url + path)
        if self.scripts and self.page.locator("#pulse").count():
            self.ready()
        return self.page

    def ready(self) -> None:
        """Waits until the page's scripts run: a button does nothing before."""
        self.page.locator("#pulse:not([data-state=''])").wait_for()

    def said(self, text: str) -> None:
        """Waits for a notice."""
        self.page.locator("#toasts", has_text=text).wait_for()

    def agree(self) -> None:
        """To what the open dialog asks."""
        self.page.locator("#confirm [data-field=yes]").click()


@contextmanager
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def tab(browser: Any, url: str, **options: Any) -> Iterator[Tab]:
    """In a context of its own: nothing is kept of another one."""
    context = browser.new_context(**options)
    context.set_default_timeout(60_000)
    context.add_init_script(WATCH)
    made = Tab(context.new_page(), url, options.get("java_script_enabled", True))
    made.page.on("console", made.note)
    made.page.on("pageerror", lambda error: made.complaints.append(f"script: {error}"))
    made.page.on("dialog", lambda dialog: (made.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    try:
        yield made
    finally:
        context.close()
