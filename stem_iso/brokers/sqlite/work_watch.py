"""Wake-ups of a worker: new work, and revokes of what it holds."""

from __future__ import annotations

from stem_iso.brokers.sqlite.notifications import Topic
from stem_iso.brokers.sqlite.transaction import Database


class SqliteWorkWatch:
    """See `stem_iso.brokers.base.WorkWatch`. Commits without a wake-up are seen by `data_version`.

    A wake-up is believed without a look into the file, which a task that has come would wait for. What is committed meanwhile without one
    may be in it or not, so the look after it counts as a change, whatever it finds.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listener = database.listener(Topic.WORK)
        self._seen: int | None = database.version()  # None: there was a wake-up since
        self.interval = self._listener.interval

    def fileno(self) -> int:
        return self._listener.fileno()

    def changed(self) -> bool:
        if self._listener.notified():
            self._seen = None
            return True
        seen, self._seen = self._seen, self._database.version()
        return seen != self._seen

    def close(self) -> None:
        self._listener.close()
