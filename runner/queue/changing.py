"""Change how a job goes on: settings that never change the result, and more steps. Each is a REGIME."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, update

from runner.errors import IllegalTransition, RunnerError
from runner.queue.database import Queue
from runner.queue.jobs import apply_change, fetch_job, get_job, list_segments, replace_spec
from runner.queue.ledger import add_regime, list_regimes
from runner.queue.rows import Job
from runner.queue.tables import jobs, logs
from runner.states import TO_STAND, Change, State, Wish, as_wished
from wake2vec.contract.files import at
from wake2vec.contract.order import PLAN_AND_CADENCE, fingerprint
from wake2vec.contract.spec import JOB_SPEC, JobSpec
from wake2vec.contract.tables import Extension

FIXED = ("name", "after", "train.extended")
LENGTHS = ("train.steps", "train.epochs", "steps")


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
    part = at(table, folders)
    if not isinstance(part, dict) or last not in part:
        homes = [f"{home}.{last}" for home, keys in table.items() if isinstance(keys, dict) and last in keys]
        meant = f"did you mean {' or '.join(homes)}? What" if homes else "what"
        raise RunnerError(f"{job.name}: there is no key {key}; {meant} may change is {', '.join(changeable())}")
    part[last] = value
    try:
        changed = JOB_SPEC.validate_python(table)
    except ValidationError as error:
        raise RunnerError(f"{job.name}: {key}: {error.errors()[0]['msg']}, got {value!r}") from error
    if key in FIXED or fingerprint(changed, job.inputs) != fingerprint(job.spec, job.inputs):
        instead = f"`extend {job.name} STEPS` gives it more" if key in LENGTHS else "enqueue it as another job"
        raise RunnerError(
            f"{job.name}: {key} decides the result and cannot change while a job lives; {instead}. "
            f"What may change is {', '.join(changeable())}"
        )
    return changed


def extend(queue: Queue, name: str, steps: int, now: float, *, from_step: int) -> Job:
    """More steps, also for a job that has succeeded. Steps before `from_step` keep the learning rates they had.

    Raises RunnerError where the number is not larger, IllegalTransition where more steps would change nothing.
    """
    _check_extension(queue, get_job(queue, name), steps)
    with queue.write() as connection:
        current = fetch_job(connection, name)
        replace_spec(connection, current, extended_spec(current.spec, from_step, steps), steps)
        add_regime(connection, name, from_step, {"what": "extend", "steps": steps}, now)
        _open_again(connection, current, now)
    return get_job(queue, name)


def _check_extension(queue: Queue, job: Job, steps: int) -> None:
    if job.state is State.CANCELLED:
        raise IllegalTransition(f"{job.name}: is cancelled; `wake2vec-runner retry {job.name}` first, then extend it")
    if job.finishing:
        raise IllegalTransition(f"{job.name}: is trained and its results are on their way; extend it when that is done")
    planned = list_segments(queue, job.name) if job.state is State.SUCCEEDED else []
    if planned and planned[-1].last_step < (job.steps or 0):
        raise IllegalTransition(
            f"{job.name}: ended by its own rule at step {planned[-1].last_step:,} of {job.steps:,} (patience or "
            "stop_if in [evaluate]), and would again; enqueue it with another rule under another name"
        )
    if job.steps is None or steps <= job.steps:
        raise RunnerError(f"{job.name}: has {job.steps or 'an unknown number of'} steps; extend to more than that")


def _open_again(connection: Connection, job: Job, now: float) -> None:
    """A job that was trained to the end it had goes on; the sync loop opens its log."""
    change = Change.EXTEND if job.state is State.SUCCEEDED else Change.REQUEUE if job.finishing else None
    if change is not None:
        apply_change(connection, job.name, change, now, reason="extended", not_before=0.0, stalls=0, rolled_back=0)
        connection.execute(update(logs).where(logs.c.job == job.name).values(done_at=None))


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
        spec, steps = extended_spec(job.spec, int(payload["from_step"]), int(payload["steps"])), int(payload["steps"])
        if job.steps is not None and steps <= job.steps:
            return
    else:
        return
    with queue.write() as connection:
        replace_spec(connection, fetch_job(connection, name), spec, steps)


def unknown_changes(queue: Queue, name: str, told: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the log tells of a job's settings and steps that this queue does not hold to: another home's word.

    Of a setting the last word counts, and a word of this home that the log has yet to be told comes after it.
    """
    job, rows = get_job(queue, name), list_regimes(queue, name)
    known = [one.change | {"from_step": one.from_step} for one in rows]
    untold = {one.change.get("key") for one in rows if one.durable_at is None}
    found = [dict(one) for one in told if one.get("what") == "extend" and one not in known]
    for key, last in last_words(told).items():
        if key not in untold and changed_spec(job, key, last["value"]) != job.spec:
            found.append(dict(last))
    return found


def last_words(told: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """What was said last of each setting."""
    return {str(one["key"]): one for one in told if one.get("what") == "set"}


def is_told(change: Mapping[str, Any], told: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the log says so already. A setting may have been the same before, and another since."""
    if change.get("what") != "set":
        return change in told
    last = last_words(told).get(str(change["key"]))
    return last is not None and last["value"] == change["value"]


def follow(queue: Queue, name: str, payload: dict[str, Any], now: float) -> None:
    """Do here, once, what another home's REGIME says; a job that had ended goes on where it has more steps now."""
    before = get_job(queue, name).steps
    apply_regime(queue, name, payload)
    change = {key: value for key, value in payload.items() if key != "from_step"}
    with queue.write() as connection:
        add_regime(connection, name, int(payload["from_step"]), change, now, is_told=True)
        if change["what"] == "extend" and before is not None and before < int(change["steps"]):
            _open_again(connection, fetch_job(connection, name), now)


def follow_person(queue: Queue, name: str, before: State, told: State, now: float, *, reason: str) -> bool:
    """Have the job stand as a person at another home has it; False where it does, or where one here said otherwise.

    `before` is how it stood by the last word that was heard from there. A trainer is asked to end as by `set_wish`.
    """
    with queue.write() as connection:
        job = fetch_job(connection, name)
        if as_wished(job.state, job.remedy) is not before or told is before or job.wish is not None:
            return False
        if job.state is State.RUNNING:
            wish = {State.HELD: Wish.HOLD, State.CANCELLED: Wish.CANCEL}[told]
            connection.execute(update(jobs).where(jobs.c.name == name).values(wish=wish))
            return True
        changes = TO_STAND.get((job.state, told), ())
        for change in changes:
            apply_change(connection, name, change, now, reason=reason)
        return bool(changes)
