"""Our own promises, checked on every run: I2 (hard limit), I5 (crash), I10 (nothing left behind) of stem_iso's specification. Pure.

Outcomes and survivors are judged on any machine. Times are judged only where the controls say that the machine was quiet: elsewhere the
check says that it did not look, and never that all was well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.handlers import HANDLERS
from bench.reference.machine import verdict
from bench.reference.statistics import percentile

OURS = ("isolate_pool", "stem_iso")  # beginnings of names
DEAD_WITHIN = 0.010  # seconds after the limit, up to TEN descendants
TOLD_WITHIN = 0.010  # seconds after a death from outside
TEN = 10


@dataclass(frozen=True)
class Judged:
    samples: int
    broken: tuple[str, ...]
    unjudged: str  # why times were not looked at

    def __str__(self) -> str:
        times = f"; times not judged: {self.unjudged}" if self.unjudged else ""
        if self.broken:
            return "\n".join([f"BROKEN, in {self.samples} samples{times}:", *(f"    {one}" for one in self.broken)])
        return f"promises held in {self.samples} samples of stem_iso{times}"


def judge(lines: Iterable[dict[str, Any]]) -> Judged:
    lines = list(lines)
    ours = [line for line in lines if line["kind"] in ("enforce", "chaos", "broken") and line["system"].startswith(OURS)]
    noise = verdict([line for line in lines if line["kind"] == "control"])
    broken: list[str] = [f"{line['system']}: {line['error']}" for line in ours if line["kind"] == "broken"]
    enforced = [line for line in ours if line["kind"] == "enforce"]
    for line in enforced:
        broken += _wrong(line)
    if not noise:
        broken += _late(enforced)
    broken += [
        f"I10: {line['left']} left a second after SIGKILL of {line['target']}" for line in ours if line["kind"] == "chaos" and line["left"]
    ]
    return Judged(len(ours), tuple(broken), noise)


def _wrong(line: dict[str, Any]) -> list[str]:
    where = f"{line['system']} ({line['settings']}), {line['handler']}, round {line.get('round', 0) + 1}"
    promise = "I5" if HANDLERS[line["handler"]].right == ("crash",) else "I2"
    found = []
    if not line["right"]:
        found.append(f"{promise}: {where}: told {line['word']!r} {line.get('error', '')}")
    if line.get("dead") is None:
        found.append(f"{promise}: {where}: not dead within {line.get('patience')} s")
    if line.get("left_1"):
        found.append(f"I10: {where}: {line['left_1']} left after a second")
    if line.get("bystander_harmed"):
        found.append(f"I5: {where}: the bystander was told {line['bystander_word']!r}")
    return found


def _late(lines: Sequence[dict[str, Any]]) -> list[str]:
    limited = [
        line["dead"] for line in lines if HANDLERS[line["handler"]].starts <= TEN and not _crash(line) and line.get("dead") is not None
    ]
    told = [line["told"] - line["dead"] for line in lines if _crash(line) and None not in (line.get("told"), line.get("dead"))]
    found = []
    if limited and percentile(limited, 0.5) > DEAD_WITHIN:
        found.append(f"I2: dead {percentile(limited, 0.5) * 1e3:.1f} ms after the limit (median)")
    if told and percentile(told, 0.5) > TOLD_WITHIN:
        found.append(f"I5: told {percentile(told, 0.5) * 1e3:.1f} ms after the death (median)")
    return found


def _crash(line: dict[str, Any]) -> bool:
    return HANDLERS[line["handler"]].right == ("crash",)
