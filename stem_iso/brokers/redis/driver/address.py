"""Address of Redis servers: nodes, user, password, TLS, parsed from a URL. Passwords are in no `repr`, no error, nothing that is shown.

redis://HOST[:6379][/DB]      rediss://HOST[:6379][/DB]?ssl_ca_certs=/etc/ca.pem    the same over TLS      unix:///PATH[?db=DB]
redis+cluster://HOST[:PORT],HOST[:PORT]      rediss+cluster://    a cluster over TLS
before the host: USER:PASSWORD@ or :PASSWORD@, percent-encoded
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote

from stem_iso.errors import InvalidOptions

TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
OPTIONS = ("db", *TLS_OPTIONS)
YES_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
PORT = 6379


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


# -- parsing ---------------------------------------------------------------------------------------------------------------------------


def parse(scheme: str, rest: str, options: Mapping[str, str]) -> Address:
    """`rest`: what stands between :// and the query, still encoded; `options`: those of OPTIONS. Raises InvalidOptions."""
    place, path, user, password = _divided(scheme, rest)
    access = Access(user, password, _db(scheme, path, options), _tls(scheme, options))
    if scheme == "unix":
        if not path.strip("/"):
            raise InvalidOptions("broker unix:// names no socket: write unix:///run/redis/redis.sock?db=0")
        return Address((Node(path=unquote(path)),), access)
    nodes = tuple(_node(scheme, each) for each in place.split(","))
    if len(nodes) > 1 and not scheme.endswith("+cluster"):
        raise InvalidOptions(f"broker {scheme}:// names {len(nodes)} hosts: of a cluster write {scheme}+cluster://HOST,HOST; else name one")
    return Address(nodes, access, cluster=scheme.endswith("+cluster"))


def _divided(scheme: str, rest: str) -> tuple[str, str, str | None, str | None]:
    """Hosts, path, user, password."""
    authority, slash, path = rest.partition("/")
    if "@" in path and scheme != "unix":
        raise InvalidOptions(f"broker {scheme}://: a / or @ in a user or password is written %2F or %40")
    entry, at, place = authority.rpartition("@")
    user, _, password = entry.partition(":")
    if at and not password and user:
        raise InvalidOptions(f"broker {scheme}://: before the @ stands USER:PASSWORD; a password alone is written :PASSWORD@")
    if "@" in entry:
        raise InvalidOptions(f"broker {scheme}://: a / or @ in a user or password is written %2F or %40")
    if scheme == "unix" and place:
        raise InvalidOptions("broker unix:// has a host before its path: write unix:///PATH, with three slashes")
    return place, slash + path, unquote(user) or None, unquote(password) or None


def _node(scheme: str, place: str) -> Node:
    host, colon, port = place.rpartition(":")
    if not colon or place.endswith("]"):  # [::1] alone
        host, port = place, str(PORT)
    # The port is not shown: it may be a password that lacks its @.
    if port.isdecimal() and not 0 < int(port) < 65_536:
        raise InvalidOptions(f"broker {scheme}://: the port of host {host!r} is out of range: it is a number from 1 to 65535")
    if not port.isdecimal():
        raise InvalidOptions(f"broker {scheme}://: the port of host {host!r} is no number; a password is written :PASSWORD@HOST")
    if host.count(":") > 0 and not host.startswith("["):
        raise InvalidOptions(f"broker {scheme}://: an IPv6 address stands in brackets: [::1]:{PORT}")
    return Node(unquote(host.strip("[]")) or "localhost", int(port))


def _db(scheme: str, path: str, options: Mapping[str, str]) -> int:
    of_path = None if scheme == "unix" else path.strip("/") or None
    of_option = options.get("db")
    if of_path is not None and of_option is not None and of_path != of_option:
        raise InvalidOptions(f"broker {scheme}://: the path says database {of_path}, the option db {of_option}")
    db = of_path or of_option or "0"
    if not db.isdecimal():
        fault = "is below 0" if db.removeprefix("-").isdecimal() else "is no number"
        raise InvalidOptions(f"broker {scheme}://: database {db!r} {fault}; write {scheme}://HOST/0")
    if scheme.endswith("+cluster") and int(db):
        raise InvalidOptions(f"broker {scheme}://: a cluster has database 0 only, not {db}")
    return int(db)


def _tls(scheme: str, options: Mapping[str, str]) -> Tls | None:
    given = [name for name in TLS_OPTIONS if name in options]
    if not scheme.startswith("rediss"):
        if given:
            raise InvalidOptions(f"broker {scheme}://: {given[0]} is for TLS, which {scheme.replace('redis', 'rediss', 1)}:// speaks")
        return None
    reqs: Literal["required", "optional", "none"]
    match options.get("ssl_cert_reqs", "required"):
        case ("required" | "optional" | "none") as reqs:
            pass
        case other:
            raise InvalidOptions(f"broker {scheme}://: ssl_cert_reqs is {other!r}; it is required, optional or none")
    check = options.get("ssl_check_hostname", "true").lower()
    if check not in YES_NO:
        raise InvalidOptions(f"broker {scheme}://: ssl_check_hostname is {check!r}; it is true or false")
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise InvalidOptions(f"broker {scheme}://: ssl_keyfile needs ssl_certfile, the certificate of that key")
    return Tls(options.get("ssl_ca_certs"), options.get("ssl_certfile"), options.get("ssl_keyfile"), reqs, YES_NO[check])
