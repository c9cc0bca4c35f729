"""What is shown at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from entrypoints.scan.live import place
from entrypoints.scan.tasks import Scanned
from stem_iso import TaskStatus
from stem_iso.events import TimeoutEvent
from stem_iso.printable import one_line


@dataclass
class Tally:
    """What became of one pattern. `slowest` is the longest batch that ended, in seconds."""

    pattern: str
    batches: int = 0
    matches: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    failed: list[TaskStatus] = field(default_factory=list)

    def add(self, scanned: Scanned) -> None:
        self.batches += 1
        self.matches += scanned.matches
        self.seconds += scanned.seconds
        self.slowest = max(self.slowest, scanned.seconds)


def summary(tallies: Sequence[Tally], killed: Mapping[str, TimeoutEvent], files: int, elapsed: float) -> str:
    lines = [f"\n{files} files, {len(tallies)} patterns, {sum(tally.batches for tally in tallies)} batches scanned in {elapsed:.1f} s\n"]
    width = max(len(one_line(tally.pattern)) for tally in tallies)
    lines.append(f"{'pattern':<{width}}  {'matches':>9}  {'seconds':>8}  {'slowest':>8}  ended early")
    for tally in sorted(tallies, key=lambda tally: -tally.seconds):
        early = f"{len(tally.failed)} of {tally.batches + len(tally.failed)}" if tally.failed else "-"
        lines.append(
            f"{one_line(tally.pattern):<{width}}  {tally.matches:>9,}  {tally.seconds:>8.2f}  {tally.slowest * 1000:>5.0f} ms  {early}"
        )
    for tally in tallies:
        lines += [one_line(line) for status in tally.failed for line in _ending(tally.pattern, status, killed.get(status.id))]
    return "\n".join(lines)


def _ending(pattern: str, status: TaskStatus, event: TimeoutEvent | None) -> list[str]:
    if event is None:
        error = status.error
        return ["", f"{pattern} failed: {error.type}: {error.message}" if error else f"{pattern} {status.state.value}: {status.reason}"]
    exact = ""
    if event.signalled_at is not None and event.dead_at is not None:
        exact = f"signalled {event.signalled_at * 1000:.1f} ms and dead {event.dead_at * 1000:.1f} ms after it"
    return [
        "",
        f"killed: {pattern}",
        f"    limit     {event.limit:g} s; {exact}",
        f"    process   {', '.join(f'{pid} ({title})' for pid, title in event.killed)}",
        f"    stuck in  {place(event.stack)}",
        f"    file      {status.meta.get('file', 'unknown')}",
    ]
