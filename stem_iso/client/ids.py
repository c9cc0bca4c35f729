"""Task ids: UUIDv7, so that they sort by age."""

from __future__ import annotations

import os
import sys

if sys.version_info >= (3, 14):
    from uuid import uuid7
else:
    from uuid_utils import reseed_rng, uuid7

    # Its dice live in this process's memory: a forked child would throw the same numbers as its parent. Newer releases do it themselves.
    os.register_at_fork(after_in_child=reseed_rng)


def new_id() -> str:
    return str(uuid7())
