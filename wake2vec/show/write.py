"""Write the artefacts of a job from its ledger, each file whole or as it was before."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wake2vec.contract.files import write_atomic
from wake2vec.contract.ledger import Ledger, read_ledger
from wake2vec.contract.rundir import RunDir
from wake2vec.contract.spec import JobTable
from wake2vec.show.facts import RunFacts, complete
from wake2vec.show.geometry.film import read_film, write_film
from wake2vec.show.png import draw_curve
from wake2vec.show.series import measure
from wake2vec.show.text import devlog, perplexity_report


def write_artefacts(run: RunDir, *, job: JobTable, facts: RunFacts) -> list[Path]:
    """Rebuild curve, tables, log and film from what the run kept; returns what was written. Raises OSError alone.

    Nothing is synced: every file here can be made again from the ledger, and the film from its frames.
    """
    ledger = read_ledger(run.metrics)
    facts = complete(facts, ledger, batch=job.train.batch if job.train else None)
    lines = measure(ledger, facts.sessions)
    bodies: list[tuple[Path, Callable[[], bytes]]] = [
        (run.training_log, lambda: training_log(job, facts, ledger)),
        (run.evaluation / "devlog.md", lambda: devlog(job.name, facts, ledger, lines).encode()),
        (run.evaluation / "perplexity_report.txt", lambda: perplexity_report(job.name, facts, ledger).encode()),
        (run.evaluation / "val_loss_curve.png", lambda: draw_curve(job.name, facts, ledger)),
    ]
    for path, body in bodies:
        write_atomic(path, body(), durable=False)
    film = write_film(run, job.name, read_film(run))
    return [path for path, _ in bodies] + ([film] if film else [])


def training_log(job: JobTable, facts: RunFacts, ledger: Ledger) -> bytes:
    """The whole history as strict JSON, in which a number that is not finite is null."""
    lines = measure(ledger, facts.sessions)
    table = {
        "format": 1,
        "job": job.model_dump(mode="json"),
        "facts": facts.to_json(),
        "best": asdict(ledger.best) if ledger.best else None,
        "evaluations": [
            {**asdict(line.row), "train_loss": line.train, "session": line.session, "is_best": line.is_best}
            for line in lines
        ],
        "events": [asdict(row) for row in ledger.events],
        "steps": [asdict(row) for row in ledger.steps],
    }
    return (json.dumps(strict(table), ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n").encode()


def strict(value: Any) -> Any:
    """The value with None for every number that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    return value
