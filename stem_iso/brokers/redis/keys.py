"""Names of keys. What is one slot of a cluster has one hash tag; scripts get the prefix as KEYS[1] and derive the rest: `KEYS[1]..':m'`.

    si:{thumbs}            a queue                   si:{/schedules}  si:{/gossip}  si:{/queues}     one each
    si:{<id>}              a group, a canvas         si:{b/<name>}                                   a bucket of a limit

What stands before a slash is never a queue's: `/` is allowed in a queue's name, hence encoded here too.
"""

from __future__ import annotations

_ENCODED = {"%": "%25", "{": "%7B", "}": "%7D", "/": "%2F"}

SCHEDULES = "si:{/schedules}"
WORKERS = "si:{/gossip}"
REGISTRY = "si:{/queues}"


def _encoded(name: str) -> str:
    if name.isalnum():
        return name
    return "".join(_ENCODED.get(letter, letter) for letter in name)


def queue_key(queue: str) -> str:
    return f"si:{{{_encoded(queue)}}}" if queue else "si:{/}"  # an empty tag would be no tag


def own_key(id: str) -> str:
    """The slot of a group or a canvas. Apart from a queue of the same name."""
    return f"si:{{c/{_encoded(id)}}}"


def bucket_key(name: str) -> str:
    return f"si:{{b/{_encoded(name)}}}"
