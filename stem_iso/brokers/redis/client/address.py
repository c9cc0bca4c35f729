"""Address of Redis servers: nodes, user, password, TLS, as values. Passwords are in no `repr` and in nothing that is shown.

redis://user:password@host:6379/0      unix:///run/redis.sock?db=0      redis+cluster://host:7000,host:7001,host:7002
rediss://host:6380/0?ssl_ca_certs=/etc/ca.pem                            rediss+cluster://host:7000
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Tls:
    """How the server's certificate is checked, and the client's own; paths of PEM files. None: the system's authorities; no certificate."""

    ca_certs: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    cert_reqs: Literal["required", "optional", "none"] = "required"
    check_hostname: bool = True


@dataclass(frozen=True, slots=True)
class Access:
    """What is the same for all nodes of a cluster."""

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0
    tls: Tls | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """One server: a host and a port, or the path of a unix socket."""

    host: str = "localhost"
    port: int = 6379
    path: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Address:
    """`nodes`: the server; of a cluster those that are asked for the others."""

    nodes: tuple[Node, ...]
    access: Access = Access()
    cluster: bool = False

    @property
    def shown(self) -> str:
        """The URL for people: no password, and no user either."""
        if self.nodes[0].path is not None:
            return f"{self.nodes[0]}?db={self.access.db}"
        scheme = ("rediss" if self.access.tls else "redis") + ("+cluster" if self.cluster else "")
        hosts = ",".join(map(str, self.nodes))
        return f"{scheme}://{hosts}" + ("" if self.cluster else f"/{self.access.db}")
