"""The report: one HTML page without scripts, beside its pictures; where another system is ahead, it says so before anything else."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import bench.systems as systems
from bench.handlers import HANDLERS
from bench.reference import plots, queue_tables
from bench.reference.machine import verdict
from bench.reference.matrix import Cell, handlers, matrix, milliseconds, ranking, wins
from bench.reference.promises import OURS, judge
from bench.reference.samples import Sample, label
from bench.reference.statistics import percentile

CLEAN = "Clean: dead, its caller told rightly, nobody that it started alive a second later, the innocent task beside it unharmed."
TITLES = {
    "left_behind": (
        "What is left behind",
        CLEAN,
    ),
    "overshoot": ("How late a limit is", "Each dot is one hostile handler under a limit of {limit:g} s, whatever it was told afterwards."),
    "timeline": ("One kill, event by event", "The sample nearest to the median of each; signals as the kernel saw them."),
    "throughput": ("Calls a second", "Small calls against the number of processes."),
    "payload": ("Large arguments", "A call that is given so much and returns it."),
    "depth": ("A long queue", "What one more task costs against how many wait."),
    "memory": ("Memory", "What each further idle worker adds."),
}
CELLS = {"right": "clean", "harms": "harms its neighbour", "left": "leaves {left}", "alive": "still runs", "wrong": "{said}"}
SAID = {"nothing": "never told", "success": "told: success", "error": "told: error", "timeout": "told: time-out", "crash": "told: crash"}
METHOD = """A limit counts from the handler's first act. Death is seen by pidfd, survivors by the ledger in which each process writes
itself; rounds are interleaved, at a random phase, with a bare SIGKILL as control. Systems are set up as their authors advise for time-outs,
or, where it says default, as their first page has it. A wrong outcome is wrong, not fast."""
STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1c2430;--faint:#d5dae1;--soft:#5a6675;
--right:#d3e9fb;--harms:#e4dcf6;--left:#fbe3b5;--alive:#f5b78a;--wrong:#e8a0a8}
@media(prefers-color-scheme:dark){:root{--paper:#14181f;--ink:#e4e8ee;--faint:#39424f;--soft:#9aa6b5;
--right:#1d4466;--harms:#453a6b;--left:#6b4f14;--alive:#7d431c;--wrong:#7a2b38}}
body{background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:84rem;padding:2rem 1rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .4rem}h2{margin:2.6rem 0 .2rem;font-size:1.3rem}p{max-width:46rem;margin:.3rem 0 1rem}
.soft,caption,dt{color:var(--soft)}img{width:100%;max-width:62rem;min-width:40rem;height:auto}.wide{overflow-x:auto}
table{border-collapse:separate;border-spacing:3px;font-size:.85rem;line-height:1.25}
th{font-weight:500;text-align:left;white-space:nowrap;padding:.2rem .5rem .2rem 0}
thead th{vertical-align:bottom;white-space:normal;min-width:5.2rem}
td{padding:.35rem .5rem;min-width:5.2rem;border-radius:3px}td small{display:block;opacity:.75}
tbody th{position:sticky;left:0;background:var(--paper)}
.right{background:var(--right)}.harms{background:var(--harms)}.left{background:var(--left)}.alive{background:var(--alive)}.wrong{background:var(--wrong)}
.note{border-left:4px solid var(--alive);padding:.2rem 0 .2rem .9rem;margin:1rem 0}.note p{margin:.2rem 0}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;font-size:.9rem}dd{margin:0;overflow-wrap:anywhere}li{margin:.1rem 0}
"""


def write(lines: Sequence[Sample], to: Path) -> Path:
    """Replaces what is in the folder; returns the page. The samples lie beside it, from which it can be made again."""
    if to.exists():
        shutil.rmtree(to)
    to.mkdir(parents=True)
    drawn = plots.draw(lines, to)
    (to / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = to / "index.html"
    page.write_text(html(lines, drawn))
    return page


def html(lines: Sequence[Sample], drawn: Iterable[str]) -> str:
    runs = [line for line in lines if line["kind"] == "run"]
    cells = matrix(lines)
    parts = ["<h1>Time-outs, enforced</h1>", f"<p class=soft>{escape(_summary(lines, runs))}</p>", _warnings(lines), _wins(cells)]
    for name in drawn:
        title, text = TITLES[name]
        parts.append(f"<h2>{title}</h2><p class=soft>{text.format(limit=runs[0]['limit'] if runs else 0)}</p>")
        parts.append(_table(cells) if name == "left_behind" else _picture(name, title))
    parts += [_chaos(lines), _calls(lines), queue_tables.html(lines), _method(lines, runs)]
    head = "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width,initial-scale=1'>"
    return f"{head}<title>Time-outs, enforced</title><style>{STYLE}</style>\n" + "\n".join(part for part in parts if part) + "\n</html>\n"


def _summary(lines: Sequence[Sample], runs: Sequence[Sample]) -> str:
    samples = sum(line["kind"] == "enforce" for line in lines)
    if not runs:
        return f"{samples} samples of an unknown run."
    run = runs[-1]
    machine = f"{run['cores']} cores, {run['cpu']}, Linux {run['kernel']}, Python {run['python']}, commit {run['commit']}"
    return f"{samples} samples of {len(runs)} run{'s' if len(runs) > 1 else ''}, last {run['at']}; {machine}."


def _warnings(lines: Sequence[Sample]) -> str:
    found = []
    if busy := verdict([line for line in lines if line["kind"] == "control"]):
        found.append(f"The machine was too busy for its times to mean much: {busy}. Outcomes and survivors stand all the same.")
    if cells := matrix(lines):
        least = min(cell.n for cell in cells.values())
        most = max(cell.n for cell in cells.values())
        counts = f"{least}" if least == most else f"{least} to {most}"
        if least < 30:
            found.append(f"Samples in a cell: {counts}; a full run has 30, fewer only where it is slow.")
    anew = Counter(line["system"] for line in lines if line["kind"] in ("unstarted", "broken"))
    if anew:
        counts = ", ".join(f"{name} {times}×" for name, times in sorted(anew.items()))
        found.append(f"Systems that took no more tasks, or ended, and were started anew: {counts}.")
    if (judged := judge(lines)).broken:
        found.append(f"stem_iso's own promises were broken {len(judged.broken)} times in this run.")
    return f"<div class=note>{''.join(f'<p>{escape(text)}</p>' for text in found)}</div>" if found else ""


def _wins(cells: dict[tuple[str, str], Cell]) -> str:
    if not cells:
        return ""
    found = wins(cells, OURS)
    if not found:
        return "<p>In no cell of this run is another system right and sooner than stem_iso.</p>"
    return f"<p>Where another system is ahead of stem_iso:</p><ul>{''.join(f'<li>{escape(text)}</li>' for text in found)}</ul>"


def _picture(name: str, title: str) -> str:
    dark = f"<source media='(prefers-color-scheme:dark)' srcset={name}-dark.png>"
    return f"<div class=wide><picture>{dark}<img src={name}-light.png alt='{escape(title)}'></picture></div>"


def _table(cells: dict[tuple[str, str], Cell]) -> str:
    columns = handlers(cells)
    head = "".join(f"<th>{escape(HANDLERS[name].title)}</th>" for name in columns)
    rows = []
    for system in ranking(cells):
        row = "".join(_cell(cells.get((system, name))) for name in columns)
        rows.append(f"<tr><th>{escape(system)}</th>{row}</tr>")
    return f"<div class=wide><table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return "<td class=soft>not run</td>"
    text = CELLS[cell.verdict].format(left=cell.left, said=SAID.get(cell.said, cell.said))
    notes = [f"dead {milliseconds(cell.dead.median)}"] if cell.dead and cell.verdict in ("right", "harms", "left") else []
    notes += ["told before dead"] if cell.told_first * 2 > cell.n and cell.verdict in ("right", "left") else []
    notes += ["harms its neighbour"] if cell.harmed and cell.verdict != "harms" else []
    notes += [f"{cell.zombies} zombies" if cell.zombies > 1 else "a zombie"] if cell.zombies else []
    return f"<td class={cell.verdict}>{escape(text)}<small>{escape(', '.join(notes))}</small></td>"


def _chaos(lines: Sequence[Sample]) -> str:
    """Of each system and target, the worst of its samples."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for line in lines:
        if line["kind"] == "chaos":
            groups.setdefault((label(line), line["target"]), []).append(line)
    rows = []
    for (name, target), found in sorted(groups.items()):
        left, begun = max(line["left"] for line in found), max(line["begun"] for line in found)
        said = "" if target == "program" else SAID.get(found[-1]["word"], found[-1]["word"])
        after = f"<td class=left>leaves {left}</td>" if left else "<td class=right>nobody left</td>"
        cells = f"{after}<td>{said}</td><td>{begun}×</td><td>{len(found)}</td>"
        rows.append(f"<tr><th>{escape(name)}</th><td>{target}</td>{cells}</tr>")
    if not rows:
        return ""
    head = "<thead><tr><th></th><th>killed</th><th>a second later</th><th>caller</th><th>begun</th><th>samples</th></tr></thead>"
    text = (
        "SIGKILL from outside, of the child that runs a task with a daemon, of the program, of a queue's worker; the worst of the samples."
    )
    return f"<h2>Killed from outside</h2><p class=soft>{text}</p><div class=wide><table>{head}<tbody>{''.join(rows)}</tbody></table></div>"


def _calls(lines: Sequence[Sample]) -> str:
    """Medians of calls a second, where they were measured."""
    found: dict[tuple[str, str], list[float]] = {}
    for line in lines:
        if line["kind"] in ("pool", "queue") and line.get("seconds"):
            found.setdefault((line["kind"], label(line)), []).append(line["count"] / line["seconds"])
    if not found:
        return ""
    best = sorted(found.items(), key=lambda item: -percentile(item[1], 0.5))
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{kind}</td><td>{percentile(values, 0.5):,.0f}</td></tr>" for (kind, name), values in best
    )
    return f"<h2>Ordinary calls</h2><p class=soft>A second, two at a time, wall clock.</p><table><tbody>{rows}</tbody></table>"


def _method(lines: Sequence[Sample], runs: Sequence[Sample]) -> str:
    seen = sorted({line["system"] for line in lines if "system" in line and line["kind"] != "control"})
    pins = {name: pinned for run in runs for name, pinned in run.get("versions", {}).items()}
    rows = []
    for name in seen:
        versions = " ".join(f"{package} {version}" for package, version in pins.get(name, {}).items()) or "this Python"
        advice = systems.find(name).advice if name in set(systems.names()) else ""
        rows.append(f"<dt>{escape(name)}</dt><dd>{escape(versions)}; <a href='{escape(advice)}'>its author on time-outs</a></dd>")
    return f"<h2>Method</h2><p>{METHOD}</p><dl>{''.join(rows)}</dl>"
