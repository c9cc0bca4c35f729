"""A file system that answers nothing: who looks into it is in uninterruptible sleep until it is let go. Needs root and /dev/fuse."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import tempfile
import threading
from pathlib import Path

import pytest

libc = ctypes.CDLL(None, use_errno=True)
FUSE_HEADER = "IIQIIII"
INIT = 26
MNT_DETACH = 2


class Frozen:
    """`path` is a file there. The kernel's questions are read, which makes their askers uninterruptible, and not answered.

    `asked` is a file elsewhere, which is there when somebody has asked.
    """

    def __init__(self) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root can mount the file system that makes a process uninterruptible")
        try:
            self._device = os.open("/dev/fuse", os.O_RDWR)
        except OSError as error:
            pytest.skip(f"no process can be made uninterruptible here: /dev/fuse: {error.strerror}")
        self._folder = tempfile.mkdtemp()
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0".encode()
        if libc.mount(b"stem_iso-test", self._folder.encode(), b"fuse", 0, options) != 0:
            os.close(self._device)
            os.rmdir(self._folder)
            pytest.skip(f"no process can be made uninterruptible here: mount: {os.strerror(ctypes.get_errno())}")
        self._answer_init()
        self.path, self.asked = str(Path(self._folder, "file")), f"{self._folder}.asked"
        self._thawed, self._wake = threading.Event(), os.pipe()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _answer_init(self) -> None:
        _, kind, unique, *_ = struct.unpack_from(FUSE_HEADER, os.read(self._device, 1 << 17))
        assert kind == INIT
        body = struct.pack("IIIIHHII", 7, 31, 0, 0, 0, 0, 4096, 1).ljust(64, b"\0")
        os.write(self._device, struct.pack("IiQ", 16 + len(body), 0, unique) + body)

    def _read(self) -> None:
        while True:
            ready, _, _ = select.select([self._device, self._wake[0]], [], [])
            if self._wake[0] in ready:
                return
            os.read(self._device, 1 << 17)
            Path(self.asked).touch()

    def thaw(self) -> None:
        """Everybody wakes up, and those that were killed die."""
        if not self._thawed.is_set():
            self._thawed.set()
            os.write(self._wake[1], b"x")
            self._reader.join()
            os.close(self._device)
            libc.umount2(self._folder.encode(), MNT_DETACH)
            os.rmdir(self._folder)
            Path(self.asked).unlink(missing_ok=True)
            for fd in self._wake:
                os.close(fd)
