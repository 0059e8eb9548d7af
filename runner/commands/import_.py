"""import: queue a job that begins with the rows and adapters of an old run instead of a fresh start."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from runner.commands.enqueue import Asked, check_files, show
from runner.commands.results.fetch import hand_in
from runner.commands.results.process import use
from runner.jobfile.checked import JobFile
from runner.jobfile.inputs import keep_input
from runner.queue import jobs
from runner.queue.database import Queue, open_queue
from runner.queue.ledger import add_regime
from runner.settings import Settings
from wake2vec.contract.errors import Fault, SpecError
from wake2vec.contract.files import digest_file
from wake2vec.contract.models.weight_files import START_ABOUT, START_FILE, read_metadata
from wake2vec.contract.options import TakeoverOptions
from wake2vec.contract.order import InputFile, Order


def run(settings: Settings, old: Sequence[Path], into: Path, *, again: bool, as_json: bool) -> None:
    """Raises what `enqueue` raises; exits with the engine's own code for an old file that does not fit."""
    with open_queue(settings.database) as queue:
        (entry,) = check_files([into], jobs.list_jobs(queue), settings, Asked(again=again))
        if entry.job.phase == "command":
            raise SpecError(str(into), [Fault(key="phase", problem="a command job has no rows to begin with")])
        entry.keep_texts(settings.inputs)
        with tempfile.TemporaryDirectory(dir=settings.home, prefix=".import-") as scratch:
            start = convert(settings, entry, old, Path(scratch))
            item = InputFile(role="start", name=START_FILE, sha256=digest_file(start).sha256, size=start.stat().st_size)
            keep_input(start, item.sha256, settings.inputs)
            told: list[str] = json.loads(read_metadata(start)[START_ABOUT])[
                "told"
            ]  # what was taken, and what is lacking
        entry = replace(entry, resolved=replace(entry.resolved, inputs=[*entry.resolved.inputs, item]))
        entry = replace(entry, notes=[*entry.notes, *told])
        _add(queue, entry, old, told, again=again)
        hand_in(settings, queue, [entry.job.name])
    show(settings, [entry], is_queued=True, as_json=as_json)


def convert(settings: Settings, entry: JobFile, old: Sequence[Path], scratch: Path) -> Path:
    """Let a process that knows torch check the old files and write what the job begins with."""
    order = Order(
        job=entry.job,
        fingerprint="",
        attempt=0,
        inputs=entry.resolved.inputs,
        inputs_folder=str(settings.inputs),
        gpu_lock="",
    )
    (scratch / "order.json").write_text(order.model_dump_json(), encoding="utf-8")
    paths = [path.absolute() for path in old]
    use(TakeoverOptions(order=scratch / "order.json", out=scratch / START_FILE, old=paths))
    return scratch / START_FILE


def _add(queue: Queue, entry: JobFile, old: Sequence[Path], told: Sequence[str], *, again: bool) -> None:
    """The job and the REGIME that says where it comes from, which the sync loop carries into the job's log."""
    now = time.time()
    (added,) = jobs.add_jobs(queue, [entry.row], now, again=again)
    change = {"what": "import", "from": [path.name for path in old], "told": list(told)}
    with queue.write() as connection:
        add_regime(connection, added.name, 0, change, now)
