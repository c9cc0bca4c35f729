"""What `bench.peers` runs under a limit, the same function everywhere: it says who it is, starts what it must, and does not end.

Lines of the ledger: "start PID MONOTONIC", then "child PID" for whatever it started.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from stem_iso.isolate.interfaces import CorePort, Runner
from tests.isolate.handlers import PickleRunner

ALIVE = "import os, sys; os.write(1, b'child %d\\n' % os.getpid()); import time; time.sleep(60)"
DAEMON = f"import os\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\n{ALIVE}"


def run(case: str, ledger: str) -> None:
    fd = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, b"start %d %f\n" % (os.getpid(), time.monotonic()))
    if case in PROGRAMS:
        program, env = PROGRAMS[case]
        subprocess.Popen([sys.executable, "-S", "-c", program], stdout=fd, env=env)
    if case == "crash":
        os._exit(3)
    elif case == "C code":
        sum(range(10**12))
    elif case == "sleep":
        time.sleep(60)
    while True:
        pass


PROGRAMS: dict[str, tuple[str, dict[str, str] | None]] = {
    "child": (ALIVE, None),
    "daemon": (DAEMON, None),
    "daemon, no environment": (DAEMON, {}),
}


class Runs(PickleRunner):
    """The isolate's side."""

    def define(self, definition: bytes) -> object:
        return globals()[definition.decode()]


def boot(payload: bytes, given: CorePort) -> Runner:
    return Runs()
