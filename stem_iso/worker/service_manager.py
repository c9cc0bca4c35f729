"""Service manager of a worker by command: says to systemd, or whoever speaks sd_notify(3), how the worker is.

    core: its loop turns ── NOTIFY state ──> launcher ── READY=1, STATUS=…, WATCHDOG=1 ──> $NOTIFY_SOCKET
                                             launcher ── STOPPING=1, with the first signal

Rules
 1. The launcher alone sends. It is the process that systemd started, so `NotifyAccess=main`, the default of `Type=notify`, does, and no
    MAINPID is needed, whichever core runs. A wrapper must `exec` the worker.
 2. The watchdog is beaten when the core's loop says that it turned: a core that hangs, or is stopped, falls silent, and systemd starts the
    unit anew. The launcher beats by itself only while there is no ready core: it waits to start one, or one imports the application.
 3. $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID go no further: no core, isolate or user code finds them.
 4. A worker that a program started for itself (`owned_worker`) is silent: the unit is that program's.
 5. Nobody waits for a service manager. What it has no room for is dropped, and READY, STOPPING and the last status are sent once more.

https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, MutableMapping
from math import inf
from time import monotonic

LONGEST_START = 300.0  # seconds for which the launcher beats for a core that imports the application
BEATS = 3  # in the time after which systemd gives up: one that is late does no harm
STATUS_EVERY = 10.0  # seconds, at most


class ServiceManager:
    """Owned by the launcher's thread. Takes its variables out of `environ`; without them it does nothing."""

    def __init__(self, environ: MutableMapping[str, str], silent: bool = False, clock: Callable[[], float] = monotonic) -> None:
        address, usec, pid = (environ.pop(name, "") for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"))
        known = not silent and address.startswith(("/", "@"))  # "@": an abstract one
        self._address = os.fsencode(address.replace("@", "\0", 1) if address.startswith("@") else address) if known else b""
        self._clock = clock
        self._sent_once: set[str] = set()
        self._unsent: dict[str, str] = {}  # lines for which there was no room, by name
        self._vouch_until = inf
        self.due = inf  # when `vouch` is due, monotonic
        watched = known and usec.isdigit() and int(usec) > 0 and pid in ("", str(os.getpid()))
        self._beat_every = int(usec) / 1e6 / BEATS if watched else inf

    @property
    def every(self) -> float | None:
        """How often, seconds, the core is to say that its loop turns; None: nobody wants to know."""
        return min(self._beat_every, STATUS_EVERY) if self._address else None

    def core_starts(self) -> None:
        self._begin_to_vouch(self._clock() + LONGEST_START)

    def core_turned(self, status: str) -> None:
        """The core's loop has come round; the first time, the worker is ready."""
        self.due = inf
        self._send({"STATUS": status} | self._once("READY"), beat=True)

    def core_died(self, status: str) -> None:
        self._send({"STATUS": status})
        self._begin_to_vouch(inf)

    def stopping(self) -> None:
        self._send(self._once("STOPPING"))

    def vouch(self) -> None:
        """Where it is due, beat for a core that cannot yet."""
        now = self._clock()
        if now >= self.due:
            self.due = now + self._beat_every if now < self._vouch_until else inf
            self._send({}, beat=True)

    def _begin_to_vouch(self, until: float) -> None:
        if self._beat_every != inf:
            self.due, self._vouch_until = self._clock(), until

    def _once(self, name: str) -> dict[str, str]:
        new = name not in self._sent_once
        self._sent_once.add(name)
        return {name: "1"} if new else {}

    def _send(self, lines: dict[str, str], beat: bool = False) -> None:
        self._unsent |= lines
        watchdog = {"WATCHDOG": "1"} if beat and self._beat_every != inf else {}
        if not self._address or not (whole := self._unsent | watchdog):
            return
        message = "\n".join(f"{name}={value}" for name, value in whole.items()).encode()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outlet:
                outlet.setblocking(False)
                outlet.sendto(message, self._address)
        except OSError:  # no room, or nobody there
            return
        self._unsent.clear()
