"""Where an application's broker is: its URL, its options, and the folder that a relative path means."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stem_iso.brokers.opening import open_broker, parse_url
from stem_iso.errors import BrokerUnavailable
from stem_iso.locate import current_app

if TYPE_CHECKING:
    from stem_iso.brokers.base import Broker
    from stem_iso.brokers.sqlite.memory import MemoryStore


class Site:
    """Resolved once, when the application is made; nothing is opened by that. Raises InvalidOptions."""

    def __init__(self, url: str | None, overrides: Mapping[str, Any]) -> None:
        self.url, self.folder = _configured() if url is None else url, os.getcwd()
        self.overrides = dict(overrides)  # what the application said; it holds on another URL too
        self.address, self.options = parse_url(self.url, self.overrides)
        self.in_isolate = False  # set by the boot of an isolate, before any handler runs
        self._store: MemoryStore | None = None  # made by the first thread that opens a `memory://` broker, shared by all

    @property
    def shown(self) -> str:
        """For people: without options and passwords."""
        if self.address.scheme == "sqlite":
            return f"sqlite:///{os.path.join(self.folder, self.address.path)}"
        return f"{self.address.scheme}://{self.address.path}"

    def open(self) -> Broker:
        """A broker for one thread; it opens nothing before its first use. Raises BrokerUnavailable."""
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


def _configured() -> str:
    from stem_iso.settings import broker_url

    return broker_url()
