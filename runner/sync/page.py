"""The page of a job in the store, made anew at each evaluation, for whoever looks at it from elsewhere."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass

from runner.children import STORE_VARIABLE, importing_safely, python
from runner.context import Now
from runner.errors import NotStored, StoreUnavailable
from runner.queue import ledger
from runner.store.records import Note
from runner.sync.job_in_store import JobInStore

PAGE = "report.html"  # in the run directory, where `report` writes it
SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class PageNote(Note):
    """Under which id it lies, from one session to the next."""

    WHAT = "page"
    id: str


def publish_page(stored: JobInStore, now: Now) -> None:
    """By choice (`track.page`). It is a convenience: what keeps it from the store keeps nothing else waiting."""
    if not stored.context.sight.view.by_name[stored.job].spec.track.page:
        return
    measured = max((row.step for row in ledger.list_evaluations(stored.queue, stored.job)), default=None)
    if measured is None or measured == stored.page_step:
        return
    stored.page_step = measured
    settings = stored.context.daemon.settings
    command = python("runner", "--home", settings.home, "report", stored.job)
    where = importing_safely(os.environ) | {STORE_VARIABLE: settings.store_url}
    with suppress(StoreUnavailable, NotStored):
        try:
            made = subprocess.run(command, env=where, capture_output=True, text=True, timeout=SECONDS, check=False)
            if made.returncode:
                raise OSError(
                    made.stderr.strip().rpartition("\n")[2].removeprefix("error: ") or f"exit code {made.returncode}"
                )
            page = (stored.run.root / PAGE).read_bytes()
        except (OSError, subprocess.TimeoutExpired) as error:
            stored.tell(now, "page", f"its page in the store stays as it was: {error}")
            return
        _bring(stored, page)


def _bring(stored: JobInStore, body: bytes) -> None:
    """Always under the same id, so that an address once opened shows the newest."""
    name, note = f"{stored.log.name}/report.*.html", stored.noted(PageNote)
    if note is None:
        note = PageNote(id=stored.store.new_ids([name])[0])
        stored.note(note)
    before = stored.store.read_head(note.id)
    stored.store.swap_head(note.id, body, before and before[1], name=name)
