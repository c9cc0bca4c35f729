"""The moments of a cron expression in a time zone, by cronsim: as Debian's cron has them.

    "0 3 * * *"         fixed times: once a day in every zone. Skipped by the clock: the first moment after the gap. Twice: the first one
    "*/10 * * * *"      wildcards: in real time, whatever the clock does; an hour that comes twice counts twice
    "@hourly"           and @daily, @midnight, @weekly, @monthly, @yearly, @annually
    "*/5 * * * * *"     six fields: the first one is seconds

Moments are wall-clock seconds since the epoch, strictly increasing, and depend on nothing but expression and zone: from wherever one
starts, one meets the same ones. cronsim is asked for only here, and only where there is a cron expression.

Not promised: wildcard minutes of a fixed hour on the two days a year on which Lord Howe Island moves its clock by half an hour.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from math import floor
from typing import TYPE_CHECKING, Any

from stem_iso.errors import InvalidOptions
from stem_iso.validation import did_you_mean

if TYPE_CHECKING:
    from cronsim import CronSim

NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


def expression(name: str, value: Any) -> str:
    """A cron expression as it was written. Raises InvalidOptions, also where cronsim is not installed."""
    if not isinstance(value, str):
        raise InvalidOptions(f"{name}: {value!r} is no cron expression; write '0 3 * * *'")
    _simulation(name, value, datetime(2000, 1, 1, tzinfo=UTC))
    return value


def zone(name: str, value: Any) -> str:
    """The name of a time zone. Raises InvalidOptions."""
    key = getattr(value, "key", value)
    if not isinstance(key, str) or not key:
        raise InvalidOptions(f"{name}: {value!r} is no time zone; give its name, such as 'Europe/Berlin'")
    _zone(name, key)
    return key


def moments(cron: str, timezone: str, after: float) -> Iterator[float]:
    """Those after `after`, in order. Ends where none comes within 50 years. Raises InvalidOptions."""
    start = datetime.fromtimestamp(floor(after), UTC).astimezone(_zone("timezone", timezone))
    for moment in _simulation("cron", cron, start):
        # Begun in an hour that comes twice, the first of a fixed time may lie behind.
        if (at := moment.timestamp()) > after:
            after = at
            yield at


def _simulation(name: str, value: str, start: datetime) -> CronSim:
    try:
        from cronsim import CronSim, CronSimError
    except ImportError:
        raise InvalidOptions(f"{name}: {value!r} needs cronsim: pip install 'stem_iso[cron]', or give every= instead") from None
    try:
        return CronSim(NICKNAMES.get(value.strip().lower(), value), start)
    except (CronSimError, AssertionError, ValueError, TypeError) as error:  # some nonsense gets past its own checks
        hint = did_you_mean(value, NICKNAMES) if value.startswith("@") else "; write minute, hour, day, month, weekday: '0 3 * * *'"
        raise InvalidOptions(f"{name}: {value!r} is no cron expression ({str(error) or 'malformed'}){hint}") from None


@lru_cache(maxsize=64)
def _zone(name: str, key: str) -> tzinfo:
    if key in ("UTC", "Etc/UTC"):
        return UTC  # known on systems without a database of zones, too
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(key)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = zoneinfo.available_timezones()
        way_out = "give a name such as 'Europe/Berlin'" if known else "this system has no database of time zones: pip install tzdata"
        hint = did_you_mean(key, known, f"; {way_out}")
        raise InvalidOptions(f"{name}: {key!r} is no time zone that is known here{hint}") from None
