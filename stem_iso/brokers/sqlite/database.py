"""A database file, for many processes.

    transaction = mutex (threads of this object) → opened, and still the file of that name? → lock file
                  → BEGIN IMMEDIATE … COMMIT, or a single statement → unlock → wake those who listen

Opened by first use, again after a fork, after an error, and when the file was removed or replaced under us: SQLite would go on writing into
the unlinked one without a word.

Who only looks makes no file and brings none up to date: where the file is not there, `read` reads an empty store; where it is of an
earlier version, a view of it (`connection.make_view`). The first `write` opens the file for good.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from stem_iso.brokers.sqlite import schema
from stem_iso.brokers.sqlite.clock import StoreClock
from stem_iso.brokers.sqlite.connection import Busy, Connection, Full, make_view, network_of, prepare, version_of
from stem_iso.brokers.sqlite.fork_safety import fork_guard
from stem_iso.brokers.sqlite.lock_file import LockFile
from stem_iso.brokers.sqlite.notifications import Listener, Sidecar, SidecarListener, Topic
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.errors import BrokerUnavailable

T = TypeVar("T")

PATIENCE = 4.5  # seconds, whoever holds a lock; with SQLite's own 0.4 the caller hears within 5
log = logging.getLogger("stem_iso.broker")
SHRINK_PAGES = 1000  # 4 MiB a sweep: some 10 ms under the lock
WAL_KEPT = 1 << 18  # bytes of an idle WAL that are not worth a checkpoint


class FileDatabase:
    def __init__(self, path: str, sync: str, clock: StoreClock) -> None:
        self.path, self.url = path, f"sqlite:///{path}"
        self._sync, self._clock = sync, clock
        self._mutex = threading.Lock()  # one transaction at a time; a fork waits for it
        self._silent = False  # whether it was said that nobody can be woken
        self._forget()

    def _forget(self) -> None:
        # Owned by whoever holds the mutex.
        self._connection: Connection | None = None
        self._view: Connection | None = None  # instead of it, as long as nothing was written by us
        self._version = 0  # of the file, when the view was made
        self._lock: LockFile | None = None
        self._sidecars: dict[Topic, Sidecar] = {}
        self._done: Listener | None = None
        self._identity: tuple[int, int] | None = None
        self._pid = os.getpid()

    # -- transactions -----------------------------------------------------------------------------------------------------------

    def write(self, work: Callable[[Transaction], T], *, single: bool = False) -> T:
        deadline = time.monotonic() + PATIENCE
        turn: Transaction | None = None

        def body() -> T:
            nonlocal turn
            turn = Transaction(connection, self._clock)
            return work(turn)

        with self._ours():
            connection, lock = self._open(deadline)
            lock.acquire(deadline)
            try:
                answer = connection.single(body, deadline) if single else connection.transact("BEGIN IMMEDIATE", body, deadline)
            except BrokerUnavailable as error:
                self._failed(error)
                raise
            finally:
                lock.release()
            if turn is not None and turn.topics:
                self._notify(turn.topics)
        return answer

    def read(self, work: Callable[[Transaction], T], *, single: bool = False) -> T:
        deadline = time.monotonic() + PATIENCE
        with self._ours():
            connection = self._open_to_look(deadline)
            while True:  # until nobody else holds SQLite's own lock: what reads may be begun anew
                try:
                    if single:
                        return connection.single(lambda: work(Transaction(connection, self._clock)))
                    return connection.transact("BEGIN", lambda: work(Transaction(connection, self._clock)))
                except BrokerUnavailable as error:
                    if not isinstance(error, Busy) or time.monotonic() >= deadline:
                        self._failed(error)
                        raise

    def version(self) -> int:
        with self._ours():
            connection = self._open_to_look(time.monotonic() + PATIENCE)
            with connection:
                return int(connection.one("PRAGMA data_version"))

    def _ours(self) -> threading.Lock:
        if self._pid != os.getpid():  # a fork that the interpreter does not know of
            self.abandon(at_rest=not self._mutex.locked())  # a statement by itself is no transaction that the connection would show
        return self._mutex

    def _failed(self, error: BrokerUnavailable) -> None:
        """A connection that met an I/O error may stay broken: the next transaction opens a new one."""
        if not isinstance(error, (Busy, Full)):  # after these it is as good as before; a full disk has no room for opening another
            self._identity = None

    def _notify(self, topics: set[Topic]) -> None:
        """What was done is done, so nothing here is a failure of it: whoever waits looks by himself a little later."""
        for topic in topics:
            try:
                if topic not in self._sidecars:
                    self._sidecars[topic] = Sidecar(self.path + topic.value, self._mode())
                self._sidecars[topic].notify()
            except OSError as error:
                if not self._silent:
                    self._silent = True
                    log.warning("%s%s cannot be notified: others see up to 0.25 s later what is stored: %s", self.path, topic.value, error)

    # -- opening ----------------------------------------------------------------------------------------------------------------

    def _open(self, deadline: float) -> tuple[Connection, LockFile]:
        connection, lock = self._connection, self._lock
        if connection is not None and lock is not None and self._identity is not None and _identity(self.path) == self._identity:
            return connection, lock
        return self._anew(lambda: self._opened(deadline))

    def _open_to_look(self, deadline: float) -> Connection:
        found = _identity(self.path)
        if found == self._identity:
            if self._connection is not None and found is not None:
                return self._connection
            view = self._view
            if view is not None and (found is None or self._version_of(view, deadline) == self._version):
                return view
        return self._anew(lambda: self._opened_to_look(found, deadline))

    def _anew(self, open: Callable[[], T]) -> T:
        self._shut()
        try:
            return open()
        except OSError as error:
            self._shut()
            if isinstance(error, BrokerUnavailable):
                raise
            raise BrokerUnavailable(f"{self.path}: {error}") from error

    def _opened_to_look(self, found: tuple[int, int] | None, deadline: float) -> Connection:
        self._refuse_place()
        fork_guard().join(self)
        self._view = found_there = Connection(":memory:" if found is None else self.path)
        if found is None:
            prepare(found_there, self._clock, self._sync, file=False)
        else:
            self._version = version = self._version_of(found_there, deadline)
            if version == schema.VERSION:
                self._connection, self._view = found_there, None
                return self._opened(deadline)[0]
            _patiently(lambda: make_view(found_there, version), deadline)
        self._identity = found
        return found_there

    def _opened(self, deadline: float) -> tuple[Connection, LockFile]:
        self._refuse_place()
        fork_guard().join(self)  # a fork in the middle of the opening would leave its locks in the child's account, held by nobody
        self._lock = lock = LockFile(self.path + "-lock", self._mode())
        lock.acquire(deadline)
        try:
            _make(self.path)
            self._connection = connection = self._connection or Connection(self.path)
            _patiently(lambda: prepare(connection, self._clock, self._sync, file=True), deadline)
        finally:
            lock.release()
        self._identity = _identity(self.path)
        return connection, lock

    def _refuse_place(self) -> None:
        """Raises BrokerUnavailable where no database can be."""
        folder = Path(self.path).parent
        if not folder.is_dir():
            raise BrokerUnavailable(f"{self.path}: there is no folder {folder}; make it first")
        if os.path.isdir(self.path):
            raise BrokerUnavailable(f"{self.path} is a folder; name a file in it, such as sqlite:///{self.path}/stem_iso.db")
        if os.path.exists(self.path) and not os.path.isfile(self.path):
            raise BrokerUnavailable(f"{self.path} is no plain file; give the queue a file of its own")
        if kind := network_of(folder):
            raise BrokerUnavailable(
                f"{self.path} is on a network file system ({kind}), where SQLite's locks cannot be trusted; use a local disk"
            )

    def migrate(self) -> tuple[int, int] | None:
        deadline = time.monotonic() + PATIENCE
        with self._ours():
            if _identity(self.path) is None:
                self._refuse_place()
                return None
            connection = self._open_to_look(deadline)
            before = self._version_of(connection, deadline)
            self._open(deadline)
            return before, schema.VERSION

    def _version_of(self, connection: Connection, deadline: float) -> int:
        return _patiently(lambda: version_of(connection, self._clock), deadline)

    def _mode(self) -> int | None:
        """Sidecars are as open as the database is; where there is none yet, both are what the umask says."""
        try:
            return os.stat(self.path).st_mode & 0o777
        except FileNotFoundError:
            return None

    # -- listeners --------------------------------------------------------------------------------------------------------------

    def listener(self, topic: Topic) -> Listener:
        with self._ours():
            deadline = time.monotonic() + PATIENCE
            if _identity(self.path) is None:
                self._open(deadline)
            elif self._open_to_look(deadline) is self._view and self._version < schema.VERSION:
                if self._version == 0:  # empty: another process is making it at this moment
                    self._open(deadline)
                elif topic is Topic.EVENTS:
                    what = "is of an earlier version, where events cannot be listened to"
                    raise BrokerUnavailable(f"{self.path} {what}: run `stem-iso migrate`")
            try:
                return SidecarListener(self.path + topic.value, self._mode())
            except OSError as error:
                raise BrokerUnavailable(f"{self.path}{topic.value}: {error}") from error

    def done_listener(self) -> Listener:
        if self._done is None or self._pid != os.getpid():
            self._done = self.listener(Topic.DONE)
        return self._done

    # -- the end ----------------------------------------------------------------------------------------------------------------

    def shrink(self) -> None:
        deadline = time.monotonic() + PATIENCE
        with self._ours():
            connection, lock = self._open(deadline)
            lock.acquire(deadline)
            try:
                with connection:
                    if connection.one("PRAGMA freelist_count"):
                        connection.script(f"PRAGMA incremental_vacuum({SHRINK_PAGES})")
                    elif _size(self.path + "-wal") > WAL_KEPT:
                        connection.all("PRAGMA wal_checkpoint(TRUNCATE)")
            except Busy:
                pass  # another time
            finally:
                lock.release()

    def twin(self) -> FileDatabase:
        return FileDatabase(self.path, self._sync, self._clock)

    def close(self) -> None:
        with self._ours():
            self._shut()
            if self._done is not None:
                self._done.close()
                self._done = None

    def _shut(self) -> None:
        """Close all but the listener. Under the lock where it can be had: the last connection to close writes the WAL back."""
        connection, lock, sidecars = self._connection, self._lock, self._sidecars
        view, self._view, self._version = self._view, None, 0
        self._connection, self._lock, self._sidecars, self._identity = None, None, {}, None
        try:
            if connection is not None and lock is not None:
                lock.acquire(time.monotonic() + 0.5)
        except BrokerUnavailable:
            pass  # a stopped writer must not keep anybody from leaving; SQLite's own locks still guard the file
        finally:
            for opened in (connection, view):
                if opened is not None:
                    opened.close()
            if lock is not None:
                lock.release()
                lock.close()
            for sidecar in sidecars.values():
                sidecar.close()

    # -- forks (see `fork_safety`) ----------------------------------------------------------------------------------------------

    def rest(self, deadline: float) -> bool:
        return self._mutex.acquire(timeout=max(0.0, deadline - time.monotonic()))

    def resume(self) -> None:
        self._mutex.release()

    def abandon(self, at_rest: bool) -> None:
        connection, lock, sidecars, listener = self._connection or self._view, self._lock, self._sidecars, self._done
        self._mutex = threading.Lock()
        self._forget()
        if lock is not None:
            lock.close()
        for sidecar in sidecars.values():
            sidecar.close()
        if listener is not None:
            listener.close()
        if connection is None:
            return
        if at_rest:
            connection.close()
        else:
            self._kept = connection  # closing it would roll the parent's transaction back in the memory both share


def _patiently(work: Callable[[], T], deadline: float) -> T:
    """As often as it takes until nobody else holds SQLite's own lock. For work that may be begun anew."""
    while True:
        try:
            return work()
        except Busy:
            if time.monotonic() >= deadline:
                raise


def _make(path: str) -> None:
    """An empty file, as open as the umask says: SQLite itself would let no group write. One that is there must not even be opened here,
    for closing it would take this process's other connections their locks."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))


def _identity(path: str) -> tuple[int, int] | None:
    """Which file has this name now; None where none has."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
