"""Broker URLs: parsed, and opened as a broker. The options of a broker stand in the URL's query or are keywords of `Stem`; a keyword wins.

memory://                        for the threads of one process, which share a `MemoryStore`
sqlite:///relative.db            relative to the working folder
sqlite:////absolute.db?sync=full
redis://user:password@host/0     rediss://, unix://, redis+cluster://, rediss+cluster://: see `brokers.redis.driver.address`

No error shows what could be a password.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from stem_iso.brokers.base import Broker, BrokerAddress, BrokerOptions
from stem_iso.errors import InvalidOptions
from stem_iso.printable import without_password
from stem_iso.validation import LONGEST, did_you_mean, is_number

if TYPE_CHECKING:
    from stem_iso.brokers.redis.driver.address import Address
    from stem_iso.brokers.sqlite.in_memory import MemoryStore

SCHEMES = ("memory", "sqlite")
REDIS = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster")
WAYS = "use sqlite:///PATH, redis://HOST/0 or memory://"
DEFAULTS = BrokerOptions()
DURATIONS = frozenset({"block_time", "claim_interval", "default_visibility_timeout", "dead_letter_ttl"})
SYNCS = ("normal", "full")


def parse_url(url: str, overrides: Mapping[str, object] | None = None) -> tuple[BrokerAddress, BrokerOptions]:
    """The address, and the options of its query under those of `overrides`. Raises InvalidOptions, which names what to write instead."""
    if not isinstance(url, str):
        raise InvalidOptions(f"broker: a {type(url).__name__} is no URL: give a string, such as 'sqlite:///jobs.db'")
    address, _ = _taken_apart(url)
    known = _redis_options() if address.scheme in REDIS else ()
    return address, _options({**address.options, **(overrides or {})}, known)


def open_broker(url: str, options: BrokerOptions | None = None, *, cwd: str | None = None, store: MemoryStore | None = None) -> Broker:
    """A broker for one thread; nothing is opened before its first use. `options`: as `parse_url` answered, or None for those of the URL.

    `store` is what all `memory://` brokers of one application share; without one, this broker has a store of its own.
    """
    _, found = parse_url(url)
    address, servers = _taken_apart(url)
    if servers is not None:
        from stem_iso.brokers.redis.broker import RedisBroker
        from stem_iso.brokers.redis.driver.standalone import connect

        return RedisBroker(connect(servers), options or found)
    refuse_elsewhere(address.scheme)
    # Imported here: whoever only parses a URL needs none of it.
    from stem_iso.brokers.sqlite.broker import SqliteBroker
    from stem_iso.brokers.sqlite.clock import SYSTEM
    from stem_iso.brokers.sqlite.database import FileDatabase
    from stem_iso.brokers.sqlite.in_memory import MemoryDatabase, MemoryStore

    chosen = options or found
    if address.scheme == "memory":
        return SqliteBroker(MemoryDatabase(store or MemoryStore()), chosen)
    path = os.path.abspath(os.path.join(cwd or os.getcwd(), address.path))
    return SqliteBroker(FileDatabase(path, chosen.sync, SYSTEM), chosen)


def refuse_elsewhere(scheme: str) -> None:
    """Raises InvalidOptions where the system lacks what SQLite's brokers lock files with."""
    try:
        import fcntl  # noqa: F401 - Windows has none
    except ImportError:
        raise InvalidOptions(f"broker {scheme}:// needs Linux or macOS: on this system enqueue over redis://") from None


# -- the URL ------------------------------------------------------------------------------------------------------------------------


def _taken_apart(url: str) -> tuple[BrokerAddress, Address | None]:
    """The second is where the servers are, for a redis URL; the path of the first is then for people."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise InvalidOptions(_no_url(url))
    if scheme in REDIS:
        return _redis(scheme, rest)
    if scheme not in SCHEMES:
        meant = did_you_mean(scheme.lower(), (*SCHEMES, *REDIS), f": {WAYS}")
        raise InvalidOptions(f"broker scheme {scheme!r} is unknown{meant}")
    if "@" in rest and not rest.startswith("/"):
        raise InvalidOptions(f"broker {without_password(url)!r}: {scheme}:// is no server, and has neither user nor password: {WAYS}")
    path, _, query = rest.partition("?")
    if "\0" in _unquote(path):
        raise InvalidOptions(f"broker {scheme}://: a path holds no NUL")
    return BrokerAddress(scheme, _path(scheme, _unquote(path)), _query(query, f"broker {scheme}://")), None


def _no_url(given: str) -> str:
    """What is said of a text without ://, and which URL was meant."""
    if not given.strip():
        return f"broker {given!r} is empty: {WAYS}"
    head, colon, rest = given.partition(":")
    scheme = head.lower()
    if scheme in REDIS:
        # What follows may hold a password.
        return f"broker {scheme}: is no URL: write {scheme}://{'/PATH' if scheme == 'unix' else 'HOST/0'}, with two slashes after the colon"
    shown = without_password(given)
    if scheme == "memory" or given == ":memory:":
        return f"broker {shown!r} is no URL: write memory://"
    if scheme == "sqlite":
        path = without_password(rest).strip("/") or "jobs.db"
        return f"broker {shown!r} is no URL: write sqlite:///{path} (relative) or sqlite:////{path} (absolute)"
    if colon and rest.partition("/")[0].isdecimal():  # localhost:6379
        return f"broker {shown!r} is no URL: write redis://{head}:{rest.partition('/')[0]}/0 for a server, or sqlite:///PATH for a file"
    return f"broker {shown!r} is no URL: write sqlite:///{shown} for a file, or memory://"


def _redis(scheme: str, rest: str) -> tuple[BrokerAddress, Address]:
    # Imported here: the other brokers need none of it.
    from stem_iso.brokers.redis.driver.address import parse

    place, _, query = rest.partition("?")
    if "@" in query and "@" not in place:
        raise InvalidOptions(f"broker {scheme}://: a ? in a user or password is written %3F")
    options = _query(query, f"broker {scheme}://")
    servers = parse(scheme, place, {name: options.pop(name) for name in _redis_options() if name in options})
    return BrokerAddress(scheme, servers.shown.partition("://")[2], options), servers


def _redis_options() -> tuple[str, ...]:
    from stem_iso.brokers.redis.driver.address import OPTIONS

    return OPTIONS


def _path(scheme: str, path: str) -> str:
    url = without_password(f"{scheme}://{path}")
    if scheme == "memory":
        if path not in ("", "/"):
            raise InvalidOptions(f"broker {url!r}: memory:// has no path; all of an application share one store")
        return ""
    if not path.startswith("/"):
        raise InvalidOptions(
            f"broker {url!r}: write sqlite:///{path or 'stem_iso.db'} (relative) or sqlite:////{path or 'stem_iso.db'} (absolute)"
        )
    if path[1:] == ":memory:":
        raise InvalidOptions(f"broker {url!r}: write memory://")
    if path.endswith("/"):
        raise InvalidOptions(f"broker {url!r} names no file: write sqlite:///{path[1:]}stem_iso.db")
    return path[1:]


def _query(query: str, whose: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        name, separator, value = pair.partition("=")
        if not separator:
            raise InvalidOptions(f"{whose}: option {name!r} has no value; write {name}=VALUE")
        found[_unquote(name)] = _unquote(value)
    return found


def _unquote(text: str) -> str:
    if "%" not in text:
        return text
    from urllib.parse import unquote

    return unquote(text)


# -- the options ----------------------------------------------------------------------------------------------------------------------


def _options(given: Mapping[str, object], of_url: Sequence[str]) -> BrokerOptions:
    """`of_url`: options that a URL may have beside these, for what is said of a wrong one."""
    names = [field.name for field in fields(BrokerOptions)]
    for name in given:
        if name not in names:
            raise InvalidOptions(f"broker option {name!r} is unknown{did_you_mean(name, [*names, *of_url])}")
    chosen: dict[str, Any] = {name: _value(name, value) for name, value in given.items()}
    return replace(DEFAULTS, **chosen)


def _value(name: str, value: object) -> float | int | str:
    if name == "sync":
        if value not in SYNCS:
            raise InvalidOptions(f"broker option sync is {value!r}; it is normal or full")
        return str(value)
    number = _number(name, value)
    if name in DURATIONS:
        if not 0 < number <= LONGEST:
            raise InvalidOptions(f"broker option {name} is {value!r}; it is a number of seconds above 0, 100 years at most")
        return number
    least = 0 if name == "max_redeliveries" else 1
    if number != number or number < least or number != int(min(number, 1 << 62)):
        raise InvalidOptions(f"broker option {name} is {value!r}; it is a whole number from {least} up")
    return int(number)


def _number(name: str, value: object) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if is_number(value):
        return value
    try:
        return float(value) if isinstance(value, str) else float("nan")
    except ValueError:
        return float("nan")
