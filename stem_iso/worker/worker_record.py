"""The record of a worker: what others see of it while it lives (`WorkerInfo`), made anew for each heartbeat."""

from __future__ import annotations

import os
import socket
import time

from stem_iso.brokers.base import WorkerInfo
from stem_iso.worker.attempts import Attempts
from stem_iso.worker.dispatcher import Dispatcher
from stem_iso.worker.liveness import process
from stem_iso.worker.options import WorkerOptions


class WorkerRecord:
    """Used by the consumer thread. `launcher`: the pid of the process that started this one to be its core, None where there is none."""

    def __init__(
        self,
        options: WorkerOptions,
        attempts: Attempts,
        hosts: Dispatcher,
        *,
        broker: str,
        machine: str,
        started_at: float,
        launcher: int | None,
    ) -> None:
        self._options, self._attempts, self._hosts = options, attempts, hosts
        self._broker, self._machine, self._started_at, self._launcher = broker, machine, started_at, launcher

    def describe(self) -> WorkerInfo:
        options, intake = self._options, self._attempts.intake
        return WorkerInfo(
            id=options.id,
            boot=options.boot,
            hostname=socket.gethostname(),
            pid=os.getpid(),
            queues=list(options.queues),
            seats=intake.seats,
            spares=options.spares,
            running=self._attempts.ids(),
            cores=sorted(os.sched_getaffinity(0)),
            pinned=self._hosts.pinned(),
            started_at=self._started_at,
            seen_at=time.time(),
            broker=self._broker,
            machine=self._machine,
            processes=self._processes(),
            isolates=self._hosts.isolates(),
            draining=intake.draining or self._attempts.settlements.stopping,
        )

    def _processes(self) -> list[tuple[int, int]]:
        """Those that make this worker: it lives as long as one of them does."""
        pids = {os.getpid(), self._launcher, self._hosts.keeper()}
        return [found for pid in sorted(pid for pid in pids if pid) if (found := process(pid)) is not None]
