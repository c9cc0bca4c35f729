"""Refusals of a server, and what to do about them.

Some refusals lead on (NOSCRIPT, MOVED, ASK, TRYAGAIN): whoever asked follows them. The others end as BrokerUnavailable, in words that say
what is wrong and what an operator does about it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Of Redis 6.2, inside a script: "Error running script (call to f_...): @user_script:1: -OOM command not allowed ...".
INSIDE = re.compile(r"-(OOM|READONLY|MISCONF|LOADING|MASTERDOWN|NOREPLICAS|CLUSTERDOWN|NOPERM)\b")
CODE = re.compile(r"[A-Z]{3,}$")

WAYS_OUT = {
    "WRONGPASS": "the server does not let us in: check user and password of the broker's URL (redis://user:password@host), and the ACL",
    "NOPERM": "this user may not do that: its ACL must allow keys and channels si:*, and a broker's commands (+@all -@admin +cluster does)",
    "LOADING": "the server is loading its data from disk: try again when it is done",
    "READONLY": "this server is a replica: give the URL of the master",
    "MASTERDOWN": "this server is a replica that has lost its master: give the URL of the master, or wait for it",
    "OOM": "the server has reached maxmemory and takes no new tasks: raise it (CONFIG SET maxmemory), or let workers empty the queues",
    "MISCONF": "the server cannot save its data, so it takes no writes: look at its log and its disk",
    "NOREPLICAS": "too few replicas are connected for min-replicas-to-write",
    "CLUSTERDOWN": "the cluster is down: some of its slots have no master",
    "TRYAGAIN": "this slot of the cluster is being moved to another server, and is closed meanwhile: try again when it is there",
    "MOVED": "this server is a node of a cluster: write redis+cluster://HOST:PORT",
    "ASK": "this server is a node of a cluster: write redis+cluster://HOST:PORT",
    "MAXCLIENTS": "the server has all the clients that it takes: raise maxclients, or close some",
    "BUSY": "a script keeps the server busy: it ends by itself, or by SCRIPT KILL where it is not ours",
}
# A connection to such a server is not kept: the name may lead to another one by now.
PASSING = frozenset({"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error that was answered in place of a result: its code, and its text without the code."""

    code: str
    text: str

    @staticmethod
    def of(message: str) -> Refusal:
        if inside := INSIDE.search(message):
            return Refusal(inside[1], message)
        if "max number of clients" in message:
            return Refusal("MAXCLIENTS", message)
        code, _, text = message.partition(" ")
        return Refusal(code, text) if CODE.match(code) else Refusal("ERR", message)

    @property
    def known(self) -> bool:
        return self.code in WAYS_OUT

    @property
    def target(self) -> tuple[str, int]:
        """Of MOVED and ASK: host ("" means the host that said so) and port."""
        host, _, port = self.text.rpartition(" ")[2].rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def reason(self) -> str:
        return f"{WAYS_OUT[self.code]} ({self.text})" if self.known else f"the server refused: {self.code} {self.text}"

    def describe(self, who: str) -> str:
        return f"{who}: {self.reason}"
