"""The machine of a run: versions, load, and controls that say whether it was quiet enough to mean anything.

A control measures what no system can be faster than: a SIGKILL of a bare Python process until its pidfd is readable, an echo over a bare
pipe, a timer. It runs before every system of every round. `verdict` is pure.
"""

from __future__ import annotations

import os
import platform
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.reference.observer import be_prompt
from bench.reference.statistics import percentile

OWN_LOAD = 2.0  # processes above the cores: a hostile handler and its bystander; the load average is that of the last minute
KILL_BOUND, TIMER_BOUND = 0.005, 0.010  # seconds: the median bare kill, and the timer's p99, of a machine that is quiet


def facts() -> dict[str, Any]:
    """What a reader must know to believe or to repeat a run."""
    return {
        "at": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "kernel": platform.release(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "unknown",
        "clock": _read("/sys/devices/system/clocksource/clocksource0/current_clocksource") or "unknown",
        "python": sys.version.split()[0],
        "commit": _commit(),
        "load": os.getloadavg()[0],
        "prompt_observer": _may_be_prompt(),
    }


def control() -> dict[str, Any]:
    kills = [bare_kill() for _ in range(3)]
    echoes = bare_echo(30)
    lateness = []
    for _ in range(20):
        began = time.monotonic()
        time.sleep(0.002)
        lateness.append(time.monotonic() - began - 0.002)
    return {
        "kill": kills,
        "echo": percentile(echoes, 0.5),
        "echo_worst": max(echoes),
        "timer": lateness,
        "load": os.getloadavg()[0],
        "cores": len(os.sched_getaffinity(0)),
    }


def bare_kill() -> float:
    """Seconds from SIGKILL to death of a Python process that spins, at a random phase."""
    process = subprocess.Popen([sys.executable, "-S", "-E", "-c", "while True: pass"], stdin=subprocess.DEVNULL)
    fd = os.pidfd_open(process.pid)
    time.sleep(0.02 + random.random() * 0.02)
    began = time.monotonic()
    signal.pidfd_send_signal(fd, signal.SIGKILL)
    select.select([fd], [], [])
    took = time.monotonic() - began
    os.close(fd)
    process.wait()
    return took


def bare_echo(count: int) -> list[float]:
    code = "import os\nwhile data := os.read(0, 1): os.write(1, data)"
    with subprocess.Popen([sys.executable, "-S", "-E", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None and process.stdout is not None
        took = []
        for _ in range(count + 1):
            began = time.monotonic()
            process.stdin.write(b"x")
            process.stdout.read(1)
            took.append(time.monotonic() - began)
        process.stdin.close()
    return took[1:]  # the first waits for the interpreter


def verdict(controls: Sequence[Mapping[str, Any]]) -> str:
    """Empty if the machine was quiet; else why its times mean little."""
    if not controls:
        return "no control was measured"
    kills = [value for control in controls for value in control["kill"]]
    timers = [value for control in controls for value in control["timer"]]
    reasons = []
    if (found := percentile(kills, 0.5)) > KILL_BOUND:
        reasons.append(f"a bare SIGKILL took {found * 1e3:.1f} ms (median)")
    if (found := percentile(timers, 0.99)) > TIMER_BOUND:
        reasons.append(f"a bare timer was {found * 1e3:.1f} ms late (p99)")
    loads = [control["load"] - control["cores"] for control in controls]
    if (found := percentile(loads, 0.5)) > OWN_LOAD:
        reasons.append(f"{found:.0f} more processes wanted to run than there are cores")
    return " and ".join(reasons)


def pin() -> None:
    """The observer keeps to the last allowed core where there are more than two; the systems have the others."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 2:
        os.sched_setaffinity(0, cores[-1:])


def for_systems() -> set[int]:
    cores = sorted(os.sched_getaffinity(1) if os.geteuid() == 0 else os.sched_getaffinity(0))
    return set(cores[:-1] if len(cores) > 2 else cores)


def _may_be_prompt() -> bool:
    found: list[bool] = []

    def look() -> None:
        be_prompt()
        found.append(os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO)

    from threading import Thread

    thread = Thread(target=look)
    thread.start()
    thread.join()
    return found[0]


def _cpu() -> str:
    lines = _read("/proc/cpuinfo").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    told = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    return told.stdout.strip() or "unknown"


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
