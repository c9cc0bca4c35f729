"""Scripts of the Redis broker as a server is given them: what they name of `common.lua`, and no more."""

from __future__ import annotations

import pytest
import redis

from stem_iso.brokers.redis.driver import scripts

PARTS = ("common", "take_lock")  # of other scripts
STEMS = sorted({path.stem for path in scripts.FOLDER.glob("*.lua")} - set(PARTS) | set(scripts.TEXTS))

COMMON = [
    "local a, b = 1, 2",
    "local function c()\n  return b\nend",
    "local d = {\n  c,\n}",
    "if redis then a = 2 end",
    "local e = 5",
]


def test_a_script_is_given_what_it_names_and_what_that_names_in_turn() -> None:
    assert scripts.statements("-- of e\n\n" + "\n\n-- e\n".join(COMMON)) == COMMON
    assert scripts.only_needed(COMMON, "return c() -- e") == [COMMON[0], COMMON[1], COMMON[3]]
    assert scripts.only_needed(COMMON, "return d") == COMMON[:4]


@pytest.mark.parametrize("stem", STEMS)
def test_every_script_is_one_that_a_server_takes(redis_url: str, stem: str) -> None:
    with redis.Redis.from_url(redis_url) as server:
        digest = server.script_load(scripts.script(stem).text)
        assert (digest.decode() if isinstance(digest, bytes) else digest) == scripts.script(stem).digest
