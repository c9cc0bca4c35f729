"""The asyncio loop of the calling thread."""

from __future__ import annotations

import asyncio


def in_loop() -> bool:
    """Whether one runs here: then nothing may block, and no other can run."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
