"""What the worker runs: `python -m stem_iso.worker -A entrypoints.webapp.tasks`."""

from __future__ import annotations

import time

from stem_iso import Stem, TaskContext

stem = Stem()


@stem.task(name="reports.write", isolate=True, hard_time_limit=60)
def write_report(context: TaskContext, title: str, pages: int = 10, seconds_per_page: float = 0.1) -> dict[str, str | int]:
    """Stands for real work. Killed after a minute, or when it is cancelled, wherever it is."""
    for page in range(1, pages + 1):
        time.sleep(seconds_per_page)
        context.progress(100 * page / pages, data={"page": page})
    return {"title": title, "pages": pages}
