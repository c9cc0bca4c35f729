"""Window of counts: what happened in the last hour and day, kept in memory so that no page reads a day from the broker.

    broker.counts ── a minute at a time ──> put(minute, counts) ──┬──> minutes    the last 60 and the one that grows
                                                                  └──> hours      older ones, added up by queue and clock hour

Rules
 1. A minute may be put again: the newer answer stands. One older than an hour is put once, by the first read of the day.
 2. Series of all queues have a place for each minute of the day. By queue there are spans alone: an hour to the minute, a day to the hour.
 3. What an hour held is packed (msgpack), since a day of many queues is looked at seldom: some 100 bytes for each queue and hour.
 4. Pure: the minute that is now is an argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import cast

import msgspec

from stem_iso.brokers.operations import COUNTED, TaskCounts
from stem_iso.dashboard.shapes import CountSeries, Quantile, SpanCounts
from stem_iso.task.histogram import add, quantile

HOUR, DAY = 60, 1440  # minutes

Packed = tuple[dict[str, int], dict[int, int], dict[int, int]]
_decoder = msgspec.msgpack.Decoder(Packed)


@dataclass(slots=True)
class Sums:
    """Added up: counts by word, waits and runs as of `task.histogram`."""

    counts: dict[str, int] = field(default_factory=dict)
    wait: dict[int, int] = field(default_factory=dict)
    run: dict[int, int] = field(default_factory=dict)

    def add(self, other: TaskCounts | Sums) -> None:
        for word, count in other.counts.items():
            self.counts[word] = self.counts.get(word, 0) + count
        add(self.wait, other.wait)
        add(self.run, other.run)

    def pack(self) -> bytes:
        return msgspec.msgpack.encode((self.counts, self.wait, self.run))

    def span(self) -> SpanCounts:
        return SpanCounts(counts={word: self.counts.get(word, 0) for word in COUNTED}, wait=_quantiles(self.wait), run=_quantiles(self.run))


def _unpacked(packed: bytes) -> Sums:
    return Sums(*_decoder.decode(packed))


class CountsWindow:
    """Owned by one thread, or by whoever holds the lock of its reader."""

    def __init__(self) -> None:
        self._minutes: dict[int, dict[str, Sums]] = {}  # by minute, by queue
        self._hours: dict[int, dict[str, bytes]] = {}  # by hour (minute // 60), by queue
        self._series: dict[int, tuple[int, ...]] = {}  # by minute: of all queues, in the order of COUNTED

    def put(self, first: int, last: int, counts: Iterable[TaskCounts], now: int) -> None:
        """`counts` is all that happened in the minutes `first` to `last`, both included; `now` is the minute that grows."""
        for minute in range(first, last + 1):
            self._minutes[minute] = {}
        for each in counts:
            if first <= each.minute <= last:
                self._minutes[each.minute].setdefault(each.queue, Sums()).add(each)
        for minute in range(first, last + 1):
            queues = self._minutes[minute].values()
            self._series[minute] = tuple(sum(queue.counts.get(word, 0) for queue in queues) for word in COUNTED)
        self._fold(now)

    def _fold(self, now: int) -> None:
        for minute in sorted(minute for minute in self._minutes if minute <= now - HOUR):
            hour = self._hours.setdefault(minute // HOUR, {})
            for queue, sums in self._minutes.pop(minute).items():
                if queue in hour:
                    sums.add(_unpacked(hour[queue]))
                hour[queue] = sums.pack()
        for hour_gone in [hour for hour in self._hours if (hour + 1) * HOUR <= now - DAY]:
            del self._hours[hour_gone]
        for minute in [minute for minute in self._series if minute <= now - DAY]:
            del self._series[minute]

    def series(self, minutes: int, now: int) -> CountSeries:
        """Of the last `minutes`, of all queues."""
        places = range(now - minutes + 1, now + 1)
        none = (0,) * len(COUNTED)
        rows = [self._series.get(minute, none) for minute in places]
        columns = {word: [row[place] for row in rows] for place, word in enumerate(COUNTED)}
        return cast("CountSeries", {"at": [minute * 60 for minute in places], **columns})

    def spans(self) -> dict[str, tuple[SpanCounts, SpanCounts]]:
        """Of each queue its hour and its day; "" is all queues."""
        hours: dict[str, Sums] = {"": Sums()}
        for by_queue in self._minutes.values():
            for queue, sums in by_queue.items():
                hours.setdefault(queue, Sums()).add(sums)
                hours[""].add(sums)
        days = {queue: Sums(dict(sums.counts), dict(sums.wait), dict(sums.run)) for queue, sums in hours.items()}
        for queue, sums in self._older():
            days.setdefault(queue, Sums()).add(sums)
            days[""].add(sums)
        return {queue: (hours.get(queue, Sums()).span(), day.span()) for queue, day in days.items()}

    def _older(self) -> Iterator[tuple[str, Sums]]:
        for by_queue in self._hours.values():
            for queue, packed in by_queue.items():
                yield queue, _unpacked(packed)


def _quantiles(bins: dict[int, int]) -> Quantile:
    return Quantile(p50=quantile(bins, 0.5), p95=quantile(bins, 0.95), p99=quantile(bins, 0.99))
