"""A PostgreSQL server of the test's own: on a Unix socket in a temporary folder, without a port, stopped by its process."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stem_iso.testing import eventually

MISSING = "PostgreSQL's initdb and postgres are not on PATH (Debian's lie in /usr/lib/postgresql/*/bin)"


def binaries() -> Path | None:
    """The folder of `initdb` and `postgres`; None where they are not on PATH."""
    found = shutil.which("initdb")
    place = Path(found).resolve().parent if found else None
    return place if place is not None and (place / "postgres").exists() else None


@contextmanager
def server(bin: Path) -> Iterator[str]:
    """How to connect to it."""
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        _give_away(folder)
        data = f"{folder}/data"
        options = ["-D", data, "-U", "shop", "-A", "trust", "--no-sync", "-E", "UTF8"]
        subprocess.run([bin / "initdb", *options], check=True, capture_output=True, **_owner(), cwd=folder)
        command = [bin / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses=", "-F"]
        with open(f"{folder}/log", "wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, **_owner(), cwd=folder)
        try:
            eventually(lambda: process.poll() is not None or _accepts(folder), 30)
            assert process.poll() is None, Path(folder, "log").read_text()
            yield f"host={folder} user=shop dbname=postgres"
        finally:
            process.send_signal(signal.SIGINT)  # the fast shutdown: it disconnects who is there
            process.wait(30)


def _accepts(folder: str) -> bool:
    import psycopg

    try:
        psycopg.connect(f"host={folder} user=shop dbname=postgres").close()
    except psycopg.OperationalError:
        return False
    return True


def _owner() -> dict[str, int]:
    """The server refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam("postgres")
    except KeyError:
        entry = pwd.getpwnam("nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid}


def _give_away(folder: str) -> None:
    if owner := _owner():
        os.chown(folder, owner["user"], owner["group"])
