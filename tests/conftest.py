"""For all tests."""

from __future__ import annotations

import signal

# A job that a shell started with `&`, as build servers do, ignores SIGINT, and so would every program that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
