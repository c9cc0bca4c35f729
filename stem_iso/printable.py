"""Text that others wrote, safe to show on a terminal and in a log of lines.

    one_line("a\nb\x1b[2J")  ──>  a\nb\x1b[2J        a field: every control character is written out, as in a literal of Python
    lines("a\nb\x1b[2J")     ──>  a                  a text: its further lines are indented, so that none passes for a line of the log
                                      b\x1b[2J

What a terminal obeys (ESC, BEL, CR, C1) and what turns text around (the bidirectional marks) is never shown raw; nor are half surrogates,
which no terminal can be sent. Programs read JSON, in which all of it is whole.
"""

from __future__ import annotations

import re

FIELD = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
LINE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")  # all but tab, newline
SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def one_line(text: str) -> str:
    return text if text.isprintable() else FIELD.sub(_escaped, text)


def lines(text: str, indent: str = "    ") -> str:
    """The first line stands where it is put, the others behind `indent`."""
    if text.isprintable():
        return text
    return LINE.sub(_escaped, text.replace("\r\n", "\n")).replace("\n", f"\n{indent}")


def _escaped(match: re.Match[str]) -> str:
    letter = match[0]
    code = ord(letter)
    return SHORT.get(letter) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def without_password(url: str) -> str:
    """A URL for people, also one that is none: what stands before an @ in its place may be a user and a password."""
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    place, question, query = rest.partition("?")
    if "@" in rest and not place.startswith("/"):
        # Up to the last one, wherever it stands: a password that was not encoded may hold any of / ? @
        return f"{scheme}{separator}***@{rest.rpartition('@')[2]}"
    return f"{scheme}{separator}{place}{question}{query}"
