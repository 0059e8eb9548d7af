"""A home whose ledger grows, and the real command that tells a tracker of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runner.queue import ledger
from runner.queue.database import Queue, open_queue
from runner.queue.jobs import add_job
from runner.settings import Settings, read_settings
from tests.unit.runner.conftest import CORPUS, job_spec
from wake2vec.contract.tables import TrackerName, TrackTable


@dataclass
class Home:
    settings: Settings
    queue: Queue
    tracker: TrackerName
    jobs: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)

    def train(self, job: str, steps: Sequence[int], evaluated: Sequence[int] = ()) -> None:
        lines = [{"kind": "step", "step": step, "loss": 1 / step, "lr": 0.1} for step in steps]
        lines += [{"kind": "evaluation", "step": step, "loss": 2 / step} for step in evaluated]
        ledger.import_ledger(self.queue, job, sorted(lines, key=lambda line: line["step"]), 1.0, from_start=False)

    def telling(self, *names: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-P", "-m", "runner", "--home", str(self.settings.home)]
        return subprocess.Popen(
            [*command, "track", *names, "--to", self.tracker], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, env={**os.environ, **self.environment}, start_new_session=True,
        )  # fmt: skip

    def tell(self, *names: str, expect: int = 0) -> str:
        child = self.telling(*names)
        said = child.communicate(timeout=300)[0]
        assert child.returncode == expect, said
        return said


def make_home(
    folder: Path, tracker: TrackerName, environment: dict[str, str], jobs: Sequence[str] = ("a", "b")
) -> Home:
    settings = read_settings(folder, None, {})
    queue = open_queue(settings.database)
    for name in jobs:
        spec = job_spec(name).model_copy(update={"track": TrackTable(to=[tracker])})
        add_job(queue, spec, [CORPUS], name, 1.0)
    return Home(settings=settings, queue=queue, tracker=tracker, jobs=jobs, environment=environment)
