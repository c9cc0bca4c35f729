"""The core's last word reaches the launcher."""

from __future__ import annotations

import socket

from stem_iso.isolate.keeper.protocol import GOODBYE, HELLO, receive, send


def test_a_goodbye_arrives_though_the_core_left_without_reading_what_was_sent():
    launcher, core = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    send(launcher, HELLO, 1)
    send(core, GOODBYE, 2)
    core.close()
    assert receive(launcher) == ([GOODBYE, 2], [])
    assert receive(launcher) is None
    launcher.close()
