"""Text of users on its way out of a process: cut to a size, and always such that UTF-8 can carry it.

File names that are not UTF-8, half an emoji out of JSON, and error messages that quote either are `str` with lone surrogates, which no
encoder takes. Every text that we did not write ourselves passes here before it is encoded.
"""

from __future__ import annotations

MESSAGE_LIMIT = 64 << 10  # bytes of a message, and of the name of an error's class
TRACEBACK_LIMIT = 256 << 10


def encoded(text: str) -> bytes:
    """UTF-8, with a question mark for each lone surrogate."""
    return text.encode("utf-8", "replace")


def cut(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """At most `limit` bytes of text, and a word on what is missing. Lone surrogates are replaced."""
    if len(text) <= limit and text.isascii():
        return text
    head = encoded(text[:limit])[:limit].decode("utf-8", "ignore")
    missing = len(text) - len(head)
    return f"{head}\n… {missing} more characters were cut off here (at {limit >> 10} KiB)" if missing else head


def cut_inside(text: str, limit: int = TRACEBACK_LIMIT) -> str:
    """As `cut`, but the middle goes: a traceback says at its head where the handler was, and at its end what happened."""
    if len(text) <= limit and len(whole := encoded(text)) <= limit:
        return whole.decode()
    half = limit // 2
    head = encoded(text[:half])[:half].decode("utf-8", "ignore")
    tail = encoded(text[-half:])[-half:].decode("utf-8", "ignore")
    return f"{head}\n… {len(text) - len(head) - len(tail)} characters were cut out here (past {limit >> 10} KiB) …\n{tail}"
