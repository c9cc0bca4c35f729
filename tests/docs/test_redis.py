"""The guide to Redis: its program runs without a server, and it names every key that lies in a queue's slot."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.docs.snippets import ROOT, codes

GUIDE = "docs/redis.md"


def test_declaring_tasks_for_redis_needs_no_server() -> None:
    (code,) = codes(GUIDE)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_guide_names_every_key_that_a_task_may_have() -> None:
    text = (ROOT / "stem_iso/brokers/redis/scripts/common.lua").read_text()
    rare = re.search(r"local RARE = \{(.*)\}", text)
    assert rare is not None
    used = {*re.findall(r"'([a-z]+)'", rare[1]), *re.findall(r"P \.\. ':([a-z]+)[:']", text)}
    rows = "".join(
        line.partition("| ")[2].partition(" |")[0] for line in (ROOT / GUIDE).read_text().splitlines() if line.startswith("| `si:")
    )
    named = set(re.findall(r"[a-z]+", rows))
    assert len(used) > 20
    assert used <= named, sorted(used - named)
