"""Broker configuration of an application: its URL, its options, and the folder that a relative path means."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from stem_iso.brokers.url import open_broker, parse_url
from stem_iso.client.app_location import current_app
from stem_iso.errors import BrokerUnavailable

if TYPE_CHECKING:
    from stem_iso.brokers.base import Broker
    from stem_iso.brokers.sqlite.memory import MemoryStore


LEAST_SECRET = 8  # characters


class BrokerConfig:
    """Resolved once, when the application is made; nothing is opened by that. Raises InvalidOptions."""

    def __init__(self, url: str | None, overrides: Mapping[str, Any]) -> None:
        self.url, self.folder = _configured() if url is None else url, os.getcwd()
        self.overrides = dict(overrides)  # what the application said; it holds on another URL too
        self.address, self.options = parse_url(self.url, self.overrides)
        self.in_isolate = False  # set by the boot of an isolate, before any handler runs
        self.withheld = False  # whether what leaves this process, or came into it, is the URL for people alone: `withhold`
        self._store: MemoryStore | None = None  # made by the first thread that opens a `memory://` broker, shared by all

    @property
    def shown(self) -> str:
        """For people: without options and passwords."""
        if self.address.scheme == "sqlite":
            return f"sqlite:///{os.path.join(self.folder, self.address.path)}"
        return f"{self.address.scheme}://{self.address.path}"

    @property
    def public(self) -> str:
        """The URL as others may have it: its options, and no password."""
        query = "&".join(f"{quote(name)}={quote(value)}" for name, value in self.address.options.items())
        return f"{self.shown}{'&' if '?' in self.shown else '?'}{query}" if query else self.shown

    def withhold(self, secrets: Sequence[str]) -> None:
        """No isolate is to have the URL where it is, or holds, what one of these variables says."""
        values = [value for name in secrets if (value := os.environ.get(name))]
        self.withheld = self.withheld or "STEM_ISO_BROKER" in secrets or any(_holds(self.url, value) for value in values)

    def open(self) -> Broker:
        """A broker for one thread; it opens nothing before its first use. Raises BrokerUnavailable."""
        if self.withheld and self.in_isolate:
            raise BrokerUnavailable(
                f"{self.shown}: the way in is a secret of the worker's (--secret-env): enqueue and revoke by the context"
            )
        return open_broker(self.url, self.options, cwd=self.folder, store=self._shared_store())

    def _shared_store(self) -> MemoryStore | None:
        if self.address.scheme != "memory":
            return None
        if self.in_isolate or current_app.get(None) is not None:
            raise BrokerUnavailable("memory:// lives in the worker's process, out of reach here: enqueue and revoke by the context")
        from stem_iso.brokers.sqlite.memory import MemoryStore

        if self._store is None:
            # setdefault decides between threads that come at once: all get the store of the first.
            self._store = vars(self).setdefault("_first_store", MemoryStore())
        return self._store


def _holds(url: str, secret: str) -> bool:
    """Whether one is in the other: a variable may say the whole URL, or its password alone; what is shorter is found by chance."""
    before, at, _ = url.partition("://")[2].rpartition("@")
    password = unquote(before.partition(":")[2]) if at else ""
    return secret == url or (password != "" and password in secret) or (len(secret) >= LEAST_SECRET and secret in unquote(url))


def _configured() -> str:
    from stem_iso.config import broker_url

    return broker_url()
