"""Read what a report shows of a run, each part by itself: what is missing or torn is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wake2vec.contract.errors import InputError
from wake2vec.contract.files import read_json
from wake2vec.contract.ledger import Ledger, read_ledger
from wake2vec.contract.rundir import RunDir
from wake2vec.contract.spec import JOB_SPEC, JobSpec
from wake2vec.show.facts import RunFacts, SessionFact, complete, read_facts
from wake2vec.show.hopes import Hopes, read_hopes
from wake2vec.show.samples import SampleRow, read_samples
from wake2vec.show.series import Measured, measure

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunnerFacts:
    """What the runner's database knows of a job: rows as they stand in its tables."""

    state: str = ""
    reason: str = ""
    attempts: tuple[Row, ...] = ()
    sessions: tuple[Row, ...] = ()
    events: tuple[Row, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunView:
    """One job as the report sees it."""

    name: str
    run: RunDir
    job: JobSpec | None
    facts: RunFacts
    ledger: Ledger
    lines: tuple[Measured, ...]
    samples: tuple[SampleRow, ...] = ()
    hopes: Hopes | None = None
    geometry: Row | None = None
    geometry_png: bytes | None = None
    runner: RunnerFacts = field(default_factory=RunnerFacts)

    @property
    def measured_on(self) -> tuple[object, ...] | None:
        """What chooses the held-out text, with the length of windows where they are few; None for an unknown job."""
        if self.job is None or self.job.data is None:
            return None
        data, limit = self.job.data, self.job.evaluate.max_windows
        return data.held_out, data.seed, data.split, limit, data.seq_len if limit else None

    @property
    def steps(self) -> int | None:
        return self.job.train.steps if self.job and self.job.train else None


def read_run(root: Path, runner: Mapping[str, Any] | None = None) -> RunView:
    """`runner`: job name to its rows. Raises InputError where there is no run directory at all."""
    if not root.is_dir():
        raise InputError(root, "is not a run directory", "name the folder of a job, such as HOME/runs/JOB")
    run = RunDir(root=root)
    job, ledger = _job(run), read_ledger(run.metrics)
    name = job.name if job and job.name else root.resolve().name
    model = job.model.base if job and job.model else "model unknown"
    known, from_runner = read_facts(run) or RunFacts(model=model), _runner((runner or {}).get(name))
    # the runner knows when a machine's life began, and that a new attempt is not always a new session
    known = replace(known, sessions=sessions_of_runner(from_runner) or known.sessions)
    facts = complete(known, ledger, batch=job.train.batch if job and job.train else None)
    geometry = read_json(run.evaluation / "geometry.json")
    return RunView(
        name=name,
        run=run,
        job=job,
        facts=facts,
        ledger=ledger,
        lines=tuple(measure(ledger, facts.sessions)),
        samples=tuple(read_samples(run)),
        hopes=read_hopes(run),
        geometry=geometry if isinstance(geometry, dict) else None,
        geometry_png=_bytes(run.evaluation / "geometry.png"),
        runner=from_runner,
    )


def sessions_of_runner(facts: RunnerFacts) -> tuple[SessionFact, ...]:
    """One for each machine's life that made an attempt, in the order of their first attempts."""
    machines = {row.get("id"): row for row in facts.sessions}
    firsts: dict[Any, int] = {}
    for attempt in facts.attempts:
        step, session = attempt.get("first_step"), attempt.get("session")
        if isinstance(step, int) and session in machines:
            firsts[session] = min(step, firsts.get(session, step))
    return tuple(
        SessionFact(first_step=step, started_at=_time(machines[session]), gpu=str(machines[session].get("gpu") or ""))
        for session, step in firsts.items()
    )


def _time(row: Row) -> float | None:
    found = row.get("started_at")
    return float(found) if isinstance(found, (int, float)) and not isinstance(found, bool) else None


def _job(run: RunDir) -> JobSpec | None:
    """The job as its order has it; the log of an older attempt will do."""
    for path in (run.order, run.training_log):
        table = read_json(path)
        if isinstance(table, dict) and isinstance(table.get("job"), dict):
            try:
                return JOB_SPEC.validate_python(table["job"])
            except ValidationError:
                continue
    return None


def _runner(table: Any) -> RunnerFacts:
    if not isinstance(table, dict):
        return RunnerFacts()
    return RunnerFacts(
        state=str(table.get("state") or ""),
        reason=str(table.get("reason") or ""),
        attempts=_rows(table.get("attempts")),
        sessions=_rows(table.get("sessions")),
        events=_rows(table.get("events")),
    )


def _rows(value: Any) -> tuple[Row, ...]:
    return tuple(row for row in value if isinstance(row, dict)) if isinstance(value, list) else ()


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
