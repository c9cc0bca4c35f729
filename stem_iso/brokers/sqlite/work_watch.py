"""Wake-ups of a worker: new work, and revokes of what it holds."""

from __future__ import annotations

from stem_iso.brokers.sqlite.notifications import Topic
from stem_iso.brokers.sqlite.transaction import Database


class SqliteWorkWatch:
    """See `stem_iso.brokers.base.WorkWatch`. Commits without a wake-up are seen by `data_version`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listener = database.listener(Topic.WORK)
        self._seen = database.version()
        self.interval = self._listener.interval

    def fileno(self) -> int:
        return self._listener.fileno()

    def changed(self) -> bool:
        notified = self._listener.notified()
        seen, self._seen = self._seen, self._database.version()  # read after the wake-up, which it thereby covers
        return notified or seen != self._seen

    def close(self) -> None:
        self._listener.close()
