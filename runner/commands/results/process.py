"""Run a part of the training core in a process of its own, because the command line never loads torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from runner.children import importing_safely, python, without_secrets
from runner.errors import RunnerError
from runner.queue import jobs
from runner.queue.database import open_queue
from runner.settings import Settings
from wake2vec.contract.options import Options
from wake2vec.contract.rundir import RunDir


def run_module(module: str, words: Sequence[str | Path]) -> None:
    """`python -m MODULE WORDS`, on this terminal; exits with its code when that is not 0."""
    environment = importing_safely(without_secrets(os.environ))
    code = subprocess.call(python(module, *words), env=environment)
    if code != 0:
        sys.exit(code if code > 0 else 130 if code == -2 else 3)


def use(options: Options) -> None:
    """Run the tool that these options are of; exits with its code when that is not 0."""
    run_module("wake2vec.use", [options.name(), options.model_dump_json()])


def run_folder(settings: Settings, name: str, *, history_will_do: bool = False) -> RunDir:
    """Where a job's run lies. Raises UnknownJob, or RunnerError when what is needed of it is not on this machine.

    Of a job that ended on another machine only the history comes here: its ledger, texts and pictures.
    """
    with open_queue(settings.database) as queue:
        job = jobs.get_job(queue, name)
    run = RunDir(root=settings.runs / name)
    if run.order.is_file() or (history_will_do and run.metrics.is_file()):
        return run
    if job.is_final:
        remedy = f"it ended on another machine; what it left is in the store, {settings.store_shown}"
    else:
        remedy = "`start` fetches it from the store" if job.kept_step else "nothing has run yet"
    raise RunnerError(f"{name}: {run.root} holds no run on this machine; {remedy}")
