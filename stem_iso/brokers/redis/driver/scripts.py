"""The scripts: what they need of `common.lua`, then the script's own text, known to a server by the SHA1 of both.

    common.lua   constants   ──┐                     ┌─ constants that are named
                 functions   ──┼── only_needed ──>   └─ return (function() functions that are named, and the script's own text end)()
    NAME.lua                 ──┘

A server runs the whole chunk for each call, and makes each of its functions anew: with all of `common.lua` that cost more than most
scripts do. So a script is given what it names, and what that names in turn. The function around the rest is for the price of a closure:
what it takes from outside of the function is copied, and what it takes of its own block is searched for among all that is captured there.

Rules for the text of `common.lua`: a statement of the outermost level begins a line, its other lines are indented, but for its `end` or
`}`; constants come before the first function. A name that stands in a string of a script, or as a field, is taken for needed: that costs
a little and harms nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parents[1] / "scripts"
TEXTS = {"publish_locked": ("take_lock", "publish")}  # scripts of several files; of the others each is one
LOCAL = re.compile(r"local (?:function )?(\w+(?:, \w+)*)")


class Script(NamedTuple):
    digest: str
    text: bytes


@cache
def script(stem: str) -> Script:
    """Read once in a process; an edit of a file is seen by processes that start after it."""
    own = "\n".join((FOLDER / f"{each}.lua").read_text() for each in TEXTS.get(stem, (stem,)))
    text = chunk((FOLDER / "common.lua").read_text(), own).encode()
    return Script(sha1(text, usedforsecurity=False).hexdigest(), text)


def chunk(common: str, own: str) -> str:
    found = only_needed(statements(common), own)
    first = next((place for place, each in enumerate(found) if each.startswith("local function")), len(found))
    return "\n".join([*found[:first], "return (function()", *found[first:], own, "end)()"])


def statements(text: str) -> list[str]:
    """Those of the outermost level, without the comments between them."""
    found: list[str] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("--"):
            continue
        if found and (line[0].isspace() or line[0] in "}" or line == "end"):
            found[-1] += f"\n{line}"
        else:
            found.append(line)
    return found


def only_needed(common: Sequence[str], own: str) -> list[str]:
    """Those that define what the script names, or what these name in turn, and those that define nothing; in their order."""
    needed = [False] * len(common)
    words = _words(own)
    for place in range(len(common) - 1, -1, -1):  # what a statement names stands above it
        defined = LOCAL.match(common[place])
        if defined is None or not words.isdisjoint(defined[1].split(", ")):
            needed[place] = True
            words |= _words(common[place])
    return [each for each, wanted in zip(common, needed, strict=True) if wanted]


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", re.sub(r"--.*", "", text)))
