"""Change a job that is queued or runs: settings that never change the result, and more steps. Each is a REGIME."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from runner.errors import IllegalTransition, RunnerError
from runner.queue.database import Queue
from runner.queue.jobs import fetch_job, get_job, replace_spec
from runner.queue.ledger import add_regime
from runner.queue.rows import Job
from runner.states import State
from wake2vec.contract.order import PLAN_AND_CADENCE, fingerprint
from wake2vec.contract.spec import Extension, JobSpec

FIXED = ("name", "after", "train.extended")


def changeable() -> list[str]:
    """The keys that `set` takes, whole tables named with a star."""
    tables = ("checkpoint", "runner")
    return sorted(f"{key}.*" if key in tables else key for key in PLAN_AND_CADENCE if key not in FIXED)


def set_value(queue: Queue, name: str, key: str, value: Any, now: float, *, from_step: int = 0) -> Job:
    """Change one key of a job, from its next attempt on; raises RunnerError for a key that would change the result."""
    job = get_job(queue, name)
    if job.is_final:
        raise IllegalTransition(f"{name}: has {job.state}; nothing of it can be changed any more")
    changed = changed_spec(job, key, value)
    with queue.write() as connection:
        current = fetch_job(connection, name)
        replace_spec(connection, current, changed, current.steps)
        add_regime(connection, name, from_step, {"what": "set", "key": key, "value": value}, now)
    return get_job(queue, name)


def changed_spec(job: Job, key: str, value: Any) -> JobSpec:
    table = job.spec.model_dump()
    *folders, last = key.split(".")
    part: Any = table
    for folder in folders:
        part = part.get(folder) if isinstance(part, dict) else None
    if not isinstance(part, dict) or last not in part:
        raise RunnerError(f"{job.name}: there is no key {key}; what may change is {', '.join(changeable())}")
    part[last] = value
    try:
        changed = JobSpec.model_validate(table)
    except ValidationError as error:
        raise RunnerError(f"{job.name}: {key}: {error.errors()[0]['msg']}, got {value!r}") from error
    if key in FIXED or fingerprint(changed, job.inputs) != fingerprint(job.spec, job.inputs):
        raise RunnerError(
            f"{job.name}: {key} decides the result and cannot change while a job lives; enqueue it as another job. "
            f"What may change is {', '.join(changeable())}"
        )
    return changed


def extend(queue: Queue, name: str, steps: int, now: float, *, from_step: int) -> Job:
    """More steps for a job that has not succeeded. Steps before `from_step` keep the learning rates they had.

    Raises RunnerError where the number is not larger, IllegalTransition for a job whose log is closed.
    """
    job = get_job(queue, name)
    if job.state in (State.SUCCEEDED, State.CANCELLED) or job.finishing:
        raise IllegalTransition(
            f"{name}: has {'been trained to its end' if job.finishing else job.state}, and its log is closed with its "
            "results; enqueue a job with more steps under another name"
        )
    if job.steps is None or steps <= job.steps:
        raise RunnerError(f"{name}: has {job.steps or 'an unknown number of'} steps; extend to more than that")
    with queue.write() as connection:
        current = fetch_job(connection, name)
        replace_spec(connection, current, extended_spec(current.spec, from_step, steps), steps)
        add_regime(connection, name, from_step, {"what": "extend", "steps": steps}, now)
    return get_job(queue, name)


def extended_spec(spec: JobSpec, from_step: int, steps: int) -> JobSpec:
    if spec.train is None:
        return spec.model_copy(update={"steps": steps})
    train = spec.train.model_copy(
        update={"extended": [*spec.train.extended, Extension(from_step=from_step, steps=steps)]}
    )
    return spec.model_copy(update={"train": train})


def apply_regime(queue: Queue, name: str, payload: dict[str, Any]) -> None:
    """Do again what a REGIME in a job's log says, for a queue that is made anew."""
    job = get_job(queue, name)
    if payload.get("what") == "set":
        spec, steps = changed_spec(job, str(payload["key"]), payload["value"]), job.steps
    elif payload.get("what") == "extend":
        steps = int(payload["steps"])
        spec = extended_spec(job.spec, int(payload["from_step"]), steps)
    else:
        return
    with queue.write() as connection:
        replace_spec(connection, fetch_job(connection, name), spec, steps)
